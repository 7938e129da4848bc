// One ciphertext becomes many: automorphisms, and key switching with one more prime.
//
// In step i, of a ciphertext c and s(c), its image under X -> X^(n / 2^i + 1) switched back to the key, c + s(c) has
// twice the coefficients whose index is even in units of 2^i, and (c - s(c)) X^(-2^i) twice the others, moved down.
// After all steps each ciphertext holds one coefficient as a constant. (Angel, Chen, Laine, Setty, IEEE S&P 2018.)
#include <algorithm>

#include "../common/pool.h"
#include "lattice.h"
#include "lattice_tiers.h"

namespace mipp {
namespace {

std::uint64_t power(std::uint64_t a, std::uint64_t e, std::uint64_t p) {
    std::uint64_t r = 1;
    for (; e != 0; e >>= 1, a = static_cast<std::uint64_t>(static_cast<unsigned __int128>(a) * a % p)) {
        if (e & 1) r = static_cast<std::uint64_t>(static_cast<unsigned __int128>(r) * a % p);
    }
    return r;
}

inline std::uint64_t minus(std::uint64_t a, std::uint64_t b, std::uint64_t p) {
    const std::uint64_t r = a - b;
    return r + (p & -(r >> 63));
}
inline std::uint64_t plus(std::uint64_t a, std::uint64_t b, std::uint64_t p) { return minus(a, p - b, p); }

// out(X) = a(X^g), g odd.
void automorphism(const std::uint64_t* a, std::size_t n, std::size_t g, std::uint64_t p, std::uint64_t* out) {
    for (std::size_t i = 0, to = 0; i < n; ++i, to = (to + g) & (2 * n - 1)) {
        // addresses depend on g alone; X^n is -1
        out[to & (n - 1)] = to < n ? a[i] : minus(0, a[i], p);
    }
}

// Residues modulo p as signed numbers from -p / 2 to p / 2.
void centre(const std::uint64_t* a, std::size_t n, std::uint64_t p, std::int64_t* out) {
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t above = (p >> 1) - a[i];
        out[i] = static_cast<std::int64_t>(a[i] - (p & -(above >> 63)));
    }
}

// Steps of one thread.
class Switcher {
  public:
    Switcher(const LatticeRing& ring, const LatticeRing& key_ring)
        : ring_(ring),
          key_ring_(key_ring),
          kernels_(lattice_kernels(ring)),
          n_(ring.degree()),
          image_(2 * ring.size()),
          digits_(ring.size()),
          values_(MIPP_LATTICE_COLUMNS * n_),
          sums_(4 * n_),
          switched_(2 * key_ring.size()) {}
    explicit operator bool() const { return image_ && digits_ && values_ && sums_ && switched_; }

    // even, odd: the two children of a ciphertext; it may lie where even does, and odd may be null. shift: 2^i.
    void step(const std::uint64_t* ciphertext, const std::uint64_t* keys, std::size_t shift, std::uint64_t* even,
              std::uint64_t* odd) {
        const std::size_t limbs = ring_.limbs(), size = ring_.size();
        std::uint64_t* image = image_.data();
        for (std::size_t i = 0; i < 2 * limbs; ++i) {
            automorphism(ciphertext + i * n_, n_, n_ / shift + 1, ring_.primes()[i % limbs], image + i * n_);
        }
        switch_key(image + size, keys);
        divide(0, image, true);
        divide(1, image + size, false);
        for (std::size_t i = 0; i < 2 * limbs; ++i) {
            const std::uint64_t p = ring_.primes()[i % limbs];
            const std::uint64_t *from = ciphertext + i * n_, *other = image + i * n_;
            std::uint64_t *to = even + i * n_, *difference = values_.data();
            for (std::size_t j = 0; j < n_; ++j) difference[j] = minus(from[j], other[j], p);
            for (std::size_t j = 0; j < n_; ++j) to[j] = plus(from[j], other[j], p);
            if (odd == nullptr) continue;
            // times X^(-shift)
            std::copy(difference + shift, difference + n_, odd + i * n_);
            for (std::size_t j = 0; j < shift; ++j) odd[(i + 1) * n_ - shift + j] = minus(0, difference[j], p);
        }
    }

  private:
    // switched = sum over primes d of the residues of a modulo d times key d, both parts, modulo all primes
    void switch_key(const std::uint64_t* a, const std::uint64_t* keys) {
        const std::size_t limbs = ring_.limbs(), key_size = key_ring_.size();
        auto* digits = reinterpret_cast<std::int64_t*>(digits_.data());
        for (std::size_t d = 0; d < limbs; ++d) centre(a + d * n_, n_, ring_.primes()[d], digits + d * n_);
        for (std::size_t l = 0; l <= limbs; ++l) {
            const LatticePrime& prime = key_ring_.prime(l, kernels_.form);
            std::memset(sums_.data(), 0, 8 * 4 * n_);
            for (std::size_t d = 0; d < limbs; d += MIPP_LATTICE_COLUMNS) {
                const std::size_t count = std::min<std::size_t>(MIPP_LATTICE_COLUMNS, limbs - d);
                for (std::size_t i = 0; i < count; ++i) {
                    kernels_.digits(&prime, digits + (d + i) * n_, values_.data() + i * n_);
                }
                kernels_.add(&prime, values_.data(), count, keys + 2 * d * key_size + l * n_, key_size, sums_.data());
            }
            std::uint64_t* to = switched_.data() + l * n_;
            kernels_.finish(&prime, sums_.data(), to, to + key_size);
            kernels_.inverse(&prime, to);
            kernels_.inverse(&prime, to + key_size);
        }
    }

    // The switched part divided by the last prime, rounded; added to `out` or written there.
    void divide(std::size_t part, std::uint64_t* out, bool add) {
        const std::size_t limbs = ring_.limbs();
        std::uint64_t* switched = switched_.data() + part * key_ring_.size();
        const std::uint64_t special = key_ring_.primes()[limbs];
        auto* rest = reinterpret_cast<std::int64_t*>(digits_.data());
        centre(switched + limbs * n_, n_, special, rest);
        for (std::size_t l = 0; l < limbs; ++l) {
            const std::uint64_t p = ring_.primes()[l], inverse = power(special % p, p - 2, p);
            std::uint64_t *to = out + l * n_, *quotient = switched + l * n_, *factor = values_.data();
            std::fill(factor, factor + n_, inverse);
            for (std::size_t i = 0; i < n_; ++i) {
                const std::uint64_t x = quotient[i] - static_cast<std::uint64_t>(rest[i]);
                quotient[i] = x + (p & -(x >> 63));
            }
            // up to p more than residues are: products take that
            kernels_.multiply(&key_ring_.prime(l, kernels_.form), quotient, factor, quotient, 0);
            if (add) {
                for (std::size_t i = 0; i < n_; ++i) to[i] = plus(to[i], quotient[i], p);
            } else {
                std::copy(quotient, quotient + n_, to);
            }
        }
    }

    const LatticeRing &ring_, &key_ring_;
    const LatticeKernels& kernels_;
    std::size_t n_;
    LatticeBuffer image_, digits_, values_, sums_, switched_;
};

}  // namespace

Status lattice_expand(const LatticeRing& ring, const LatticeRing& key_ring, const std::uint64_t* ciphertext,
                      const std::uint64_t* keys, int levels, std::size_t count, std::uint64_t* out, int threads) {
    const std::size_t size = 2 * ring.size(), key_step = ring.limbs() * 2 * key_ring.size();
    if (levels < 0 || count < 1 || count > std::size_t{1} << levels || std::size_t{1} << levels > ring.degree()) {
        return Status::bad_argument;
    }
    std::copy(ciphertext, ciphertext + size, out);
    for (int i = 0; i < levels; ++i) {
        const std::size_t shift = std::size_t{1} << i;
        const Status status = parallel_for(std::min(shift, count), 1, threads, [&](std::size_t begin, std::size_t end) {
            Switcher switcher(ring, key_ring);
            if (!switcher) return Status::no_memory;
            for (std::size_t k = begin; k < end; ++k) {
                // a child none of whose coefficients is wanted is not made
                std::uint64_t* odd = k + shift < count ? out + (k + shift) * size : nullptr;
                switcher.step(out + k * size, keys + static_cast<std::size_t>(i) * key_step, shift, out + k * size,
                              odd);
            }
            return Status::ok;
        });
        if (status != Status::ok) return status;
    }
    return lattice_forward(ring, out, 2 * count, threads);
}

}  // namespace mipp
