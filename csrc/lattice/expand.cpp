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
          switched_(2 * key_ring.size()) {
        const std::uint64_t special = key_ring.primes()[ring.limbs()];
        for (std::size_t l = 0; l < ring.limbs(); ++l) {
            const std::uint64_t p = ring.primes()[l];
            inverses_[l] = lattice_factor(power(special % p, p - 2, p), p, kernels_.form);
        }
    }
    explicit operator bool() const { return image_ && digits_ && values_ && switched_; }

    // even, odd: the two children of a ciphertext; it may lie where even does, and odd may be null. shift: 2^i.
    void step(const std::uint64_t* ciphertext, const std::uint64_t* keys, std::size_t shift, std::uint64_t* even,
              std::uint64_t* odd) {
        const std::size_t limbs = ring_.limbs(), size = ring_.size();
        std::uint64_t* image = image_.data();
        for (std::size_t i = 0; i < 2 * limbs; ++i) {
            automorphism(ciphertext + i * n_, n_, n_ / shift + 1, ring_.primes()[i % limbs], image + i * n_);
        }
        switch_key(image + size, keys);
        auto* rest = reinterpret_cast<std::int64_t*>(digits_.data());
        for (std::size_t i = 0; i < 2 * limbs; ++i) {
            const std::size_t part = i / limbs, l = i % limbs;
            const std::uint64_t *switched = switched_.data() + part * key_ring_.size(), p = ring_.primes()[l];
            // dividing by the last prime, rounded: what is left of it is taken away first
            if (l == 0) centre(switched + limbs * n_, n_, key_ring_.primes()[limbs], rest);
            std::uint64_t* difference = values_.data();
            kernels_.children(&ring_.prime(l, kernels_.form), switched + l * n_, rest, &inverses_[l],
                              part == 0 ? image + i * n_ : nullptr, ciphertext + i * n_, even + i * n_, difference);
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
            for (std::size_t d = 0; d < limbs; ++d) {
                kernels_.digits(&prime, digits + d * n_, values_.data() + d * n_);
            }
            std::uint64_t* to = switched_.data() + l * n_;
            kernels_.products(&prime, values_.data(), limbs, keys + l * n_, key_size, to, to + key_size);
            kernels_.inverse(&prime, to);
            kernels_.inverse(&prime, to + key_size);
        }
    }

    const LatticeRing &ring_, &key_ring_;
    const LatticeKernels& kernels_;
    std::size_t n_;
    LatticeBuffer image_, digits_, values_, switched_;
    LatticeFactor inverses_[lattice_max_primes];
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
