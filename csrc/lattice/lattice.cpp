// Transforms, products and the product of rows with an encrypted query: the tiers, and how work is cut for threads.
#include "lattice.h"

#include <algorithm>

#include "../common/pool.h"
#include "lattice_tiers.h"

namespace mipp {
namespace {

#define MIPP_TIER(tier, form)                                                                                          \
    {                                                                                                                  \
        Level::tier, {                                                                                                 \
            lattice_forward_##tier, lattice_inverse_##tier, lattice_multiply_##tier, lattice_transpose_##tier,         \
                lattice_column_##tier, lattice_digits_##tier, lattice_add_##tier, lattice_settle_##tier,               \
                lattice_finish_##tier, lattice_products_##tier, lattice_children_##tier, lattice_gaussian_##tier, form \
        }                                                                                                              \
    }

const Tier<LatticeKernels> tiers[] = {MIPP_TIER(portable, lattice_words),
#ifdef MIPP_X86
                                      MIPP_TIER(avx2, lattice_floats), MIPP_TIER(avx512, lattice_limbs)
#endif
};

// Calls kernel(prime, l, at), the residues of prime l of each polynomial beginning at word `at`.
template <class F>
Status each_prime(const LatticeRing& ring, std::size_t count, int threads, F kernel) {
    const LatticeKernels& kernels = lattice_kernels(ring);
    const std::size_t limbs = ring.limbs();
    return parallel_for(count * limbs, 1, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            kernel(kernels, ring.prime(i % limbs, kernels.form), i % limbs * ring.degree(), i * ring.degree());
        }
        return Status::ok;
    });
}

constexpr std::size_t chunk = MIPP_LATTICE_RUN;

// Words of rows as signed columns, `stride` numbers apart, behind the last row zeros.
template <class Word>
void columns_of(const LatticeKernels& kernels, const Word* words, std::size_t rows, std::size_t dim,
                std::size_t columns, int plain_bits, std::int32_t* out, std::size_t stride, std::size_t n) {
    const int shift = 32 - plain_bits;
    std::int32_t tile[chunk][chunk] = {};
    for (std::size_t r = 0; r < n; r += chunk) {
        const std::size_t here = r < rows ? std::min(chunk, rows - r) : 0;
        if (here < chunk) std::memset(tile, 0, sizeof tile);
        for (std::size_t i = 0; i < here; ++i) {
            const Word* row = words + (r + i) * dim;
            for (std::size_t c = 0; c < columns; ++c) {
                const auto word = static_cast<std::uint32_t>(row[c]) << shift;
                tile[i][c] = static_cast<std::int32_t>(word) >> shift;
            }
        }
        kernels.transpose(&tile[0][0], out + r, stride);
    }
    wipe(tile, sizeof tile);
}

// Sums and columns of one block of rows.
class Product {
  public:
    explicit Product(const LatticeRing& ring)
        : ring_(ring),
          kernels_(lattice_kernels(ring)),
          n_(ring.degree()),
          // columns begin in different sets of the cache, and have room for a whole tile
          stride_((n_ + chunk - 1) / chunk * chunk + chunk),
          sums_(4 * ring.size()),
          values_(MIPP_LATTICE_COLUMNS * n_),
          columns_((chunk * stride_ + 1) / 2) {}

    explicit operator bool() const { return sums_ && values_ && columns_; }

    template <class Word>
    void run(const Word* words, std::size_t rows, std::size_t dim, int plain_bits, const std::uint64_t* query,
             std::uint64_t* out) {
        const std::size_t limbs = ring_.limbs(), size = ring_.size();
        auto* columns = reinterpret_cast<std::int32_t*>(columns_.data());
        std::memset(sums_.data(), 0, 8 * 4 * size);
        for (std::size_t d = 0; d < dim; d += chunk) {
            const std::size_t here = std::min(chunk, dim - d);
            columns_of(kernels_, words + d, rows, dim, here, plain_bits, columns, stride_, n_);
            for (std::size_t l = 0; l < limbs; ++l) {
                const LatticePrime& prime = ring_.prime(l, kernels_.form);
                std::uint64_t* sums = sums_.data() + 4 * n_ * l;
                for (std::size_t c = 0; c < here; c += MIPP_LATTICE_COLUMNS) {
                    const std::size_t count = std::min<std::size_t>(MIPP_LATTICE_COLUMNS, here - c);
                    for (std::size_t i = 0; i < count; ++i) {
                        kernels_.column(&prime, columns + (c + i) * stride_, values_.data() + i * n_);
                    }
                    kernels_.add(&prime, values_.data(), count, query + (d + c) * 2 * size + l * n_, size, sums);
                }
                kernels_.settle(&prime, sums);
            }
        }
        for (std::size_t l = 0; l < limbs; ++l) {
            kernels_.finish(&ring_.prime(l, kernels_.form), sums_.data() + 4 * n_ * l, out + l * n_,
                            out + size + l * n_);
        }
    }

  private:
    const LatticeRing& ring_;
    const LatticeKernels& kernels_;
    std::size_t n_, stride_;
    LatticeBuffer sums_, values_, columns_;
};

template <class Word>
Status matvec(const LatticeRing& ring, const Word* words, std::size_t rows, std::size_t dim, int plain_bits,
              const std::uint64_t* query, std::uint64_t* out, int threads) {
    const std::size_t n = ring.degree();
    return parallel_for((rows + n - 1) / n, 1, threads, [&](std::size_t begin, std::size_t end) {
        Product product(ring);
        if (!product) return Status::no_memory;
        for (std::size_t b = begin; b < end; ++b) {
            product.run(words + b * n * dim, std::min(n, rows - b * n), dim, plain_bits, query,
                        out + b * 2 * ring.size());
        }
        return Status::ok;
    });
}

}  // namespace

Level lattice_tier() { return active_tier(tiers).level; }

const LatticeKernels& lattice_kernels(const LatticeRing& ring) {
    return ring.degree() < 64 ? tiers[0].kernels : active_tier(tiers).kernels;
}

Status lattice_forward(const LatticeRing& ring, std::uint64_t* a, std::size_t count, int threads) {
    return each_prime(ring, count, threads,
                      [&](const LatticeKernels& kernels, const LatticePrime& prime, std::size_t, std::size_t at) {
                          kernels.forward(&prime, a + at);
                      });
}

Status lattice_inverse(const LatticeRing& ring, std::uint64_t* a, std::size_t count, int threads) {
    return each_prime(ring, count, threads,
                      [&](const LatticeKernels& kernels, const LatticePrime& prime, std::size_t, std::size_t at) {
                          kernels.inverse(&prime, a + at);
                      });
}

Status lattice_multiply(const LatticeRing& ring, const std::uint64_t* a, const std::uint64_t* b, std::size_t count,
                        bool one_b, std::uint64_t* out, bool add, int threads) {
    return each_prime(ring, count, threads,
                      [&](const LatticeKernels& kernels, const LatticePrime& prime, std::size_t limb, std::size_t at) {
                          kernels.multiply(&prime, a + at, b + (one_b ? limb : at), out + at, add);
                      });
}

Status lattice_add(const LatticeRing& ring, std::uint64_t* a, const std::uint64_t* b, std::size_t count, bool one_b,
                   int threads) {
    return each_prime(ring, count, threads,
                      [&](const LatticeKernels&, const LatticePrime& prime, std::size_t limb, std::size_t at) {
                          const std::uint64_t* from = b + (one_b ? limb : at);
                          for (std::size_t i = 0; i < prime.n; ++i) {
                              const std::uint64_t sum = a[at + i] + from[i] - prime.p;
                              a[at + i] = sum + (prime.p & -(sum >> 63));
                          }
                      });
}

Status lattice_negate(const LatticeRing& ring, std::uint64_t* a, std::size_t count, int threads) {
    return each_prime(ring, count, threads,
                      [&](const LatticeKernels&, const LatticePrime& prime, std::size_t, std::size_t at) {
                          for (std::size_t i = 0; i < prime.n; ++i) {
                              const std::uint64_t rest = prime.p - a[at + i], full = rest - prime.p;
                              a[at + i] = rest - (prime.p & ((full >> 63) - 1));
                          }
                      });
}

Status lattice_matvec(const LatticeRing& ring, const void* words, int bits, std::size_t rows, std::size_t dim,
                      int plain_bits, const std::uint64_t* query, std::uint64_t* out, int threads) {
    if (plain_bits < 1 || plain_bits > 32 || plain_bits > bits || dim < 1 || dim > lattice_max_coordinates) {
        return Status::bad_argument;
    }
    switch (bits) {
        case 16:
            return matvec(ring, static_cast<const std::uint16_t*>(words), rows, dim, plain_bits, query, out, threads);
        case 32:
            return matvec(ring, static_cast<const std::uint32_t*>(words), rows, dim, plain_bits, query, out, threads);
        case 64:
            return matvec(ring, static_cast<const std::uint64_t*>(words), rows, dim, plain_bits, query, out, threads);
        default:
            return Status::bad_argument;
    }
}

}  // namespace mipp
