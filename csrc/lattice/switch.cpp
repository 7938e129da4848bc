// From residues modulo primes to numbers modulo a power of two, and the user's side of it. One implementation for all
// tiers: the few polynomials of an answer do not need more.
#include "../common/pool.h"
#include "lattice.h"
#include "lattice_tiers.h"

namespace mipp {
namespace {

using Wide = unsigned __int128;

std::uint64_t times(std::uint64_t a, std::uint64_t b, std::uint64_t p) {
    return static_cast<std::uint64_t>(static_cast<Wide>(a) * b % p);
}

// What turns a residue of one prime into its part of a / q, as a fraction of 2^64.
struct Part {
    std::uint64_t p, value, aux;  // (q / p)^-1 modulo p
    std::uint64_t scale;          // floor(2^(63 + bits of p) / p), below 2^64
    int shift;                    // bits of p - 1
};

std::vector<Part> parts_of(const LatticeRing& ring) {
    std::vector<Part> parts;
    for (std::size_t l = 0; l < ring.limbs(); ++l) {
        const std::uint64_t p = ring.primes()[l];
        std::uint64_t others = 1;
        for (std::size_t k = 0; k < ring.limbs(); ++k) {
            if (k != l) others = times(others, ring.primes()[k] % p, p);
        }
        std::uint64_t inverse = 1;
        for (std::uint64_t e = p - 2, x = others; e != 0; e >>= 1, x = times(x, x, p)) {
            if (e & 1) inverse = times(inverse, x, p);
        }
        int bits = 1;
        while (p >> bits != 0) ++bits;
        const auto scale = static_cast<std::uint64_t>((static_cast<Wide>(1) << (63 + bits)) / p);
        parts.push_back(
            {p, inverse, static_cast<std::uint64_t>((static_cast<Wide>(inverse) << 64) / p), scale, bits - 1});
    }
    return parts;
}

}  // namespace

Status lattice_switch(const LatticeRing& ring, const std::uint64_t* a, std::size_t count, int bits, std::uint64_t* out,
                      int threads) {
    if (bits < 1 || bits > 52) return Status::bad_argument;
    const std::vector<Part> parts = parts_of(ring);
    const std::size_t n = ring.degree();
    return parallel_for(count, 1, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t m = begin; m < end; ++m) {
            std::uint64_t* to = out + m * n;
            for (std::size_t i = 0; i < n; ++i) to[i] = std::uint64_t{1} << (63 - bits);
            for (std::size_t l = 0; l < parts.size(); ++l) {
                const Part part = parts[l];
                const std::uint64_t* from = a + m * ring.size() + l * n;
                for (std::size_t i = 0; i < n; ++i) {
                    const std::uint64_t x = from[i];
                    const auto quotient = static_cast<std::uint64_t>(static_cast<Wide>(x) * part.aux >> 64);
                    std::uint64_t y = x * part.value - quotient * part.p - part.p;
                    y += part.p & -(y >> 63);
                    // y 2^64 / p, at most 3 too small; fractions add up modulo 1, which is 2^64
                    to[i] += static_cast<std::uint64_t>(static_cast<Wide>(y) * part.scale >> part.shift);
                }
            }
            for (std::size_t i = 0; i < n; ++i) to[i] >>= 64 - bits;
        }
        return Status::ok;
    });
}

Status lattice_encode(const LatticeRing& ring, const std::int64_t* values, std::size_t count, int plain_bits,
                      std::uint64_t* out) {
    if (plain_bits < 1 || plain_bits > 32) return Status::bad_argument;
    const std::uint64_t mask = (std::uint64_t{1} << plain_bits) - 1, half = (mask >> 1) + 1;
    std::uint64_t q = 1;
    for (const std::uint64_t p : ring.primes()) q = q * p & mask;
    for (std::size_t l = 0; l < ring.limbs(); ++l) {
        const std::uint64_t p = ring.primes()[l];
        // 2^-plain_bits: halve as often, (p + 1) / 2 being the inverse of 2
        std::uint64_t inverse = 1;
        for (int b = 0; b < plain_bits; ++b) inverse = (inverse + (p & -(inverse & 1))) >> 1;
        const auto aux = static_cast<std::uint64_t>((static_cast<Wide>(inverse) << 64) / p);
        const std::uint64_t half_modulo_p = half % p;
        for (std::size_t m = 0; m < count; ++m) {
            // q value modulo 2^plain_bits, centred, is what rounding leaves; q is 0 modulo p
            const std::uint64_t moved = (q * static_cast<std::uint64_t>(values[m]) + half) & mask;
            const auto reduced = [p](std::uint64_t x) { return x + (p & -(x >> 63)); };
            const auto times = [p](std::uint64_t x, std::uint64_t w, std::uint64_t w_aux) {
                return x * w - static_cast<std::uint64_t>(static_cast<Wide>(x) * w_aux >> 64) * p;
            };
            // half - moved, which is minus the centred number
            const std::uint64_t one_aux = static_cast<std::uint64_t>((static_cast<Wide>(1) << 64) / p);
            const std::uint64_t x = reduced(half_modulo_p - reduced(times(moved, 1, one_aux) - p));
            out[m * ring.limbs() + l] = reduced(times(x, inverse, aux) - p);
        }
    }
    return Status::ok;
}

Status lattice_phase(const LatticeRing& ring, const std::uint64_t* c0, const std::uint64_t* c1, std::size_t count,
                     const std::uint64_t* secret, int bits, std::uint64_t* out, int threads) {
    const LatticeKernels& kernels = lattice_kernels(ring);
    const LatticePrime& prime = ring.prime(0, kernels.form);
    const std::size_t n = ring.degree();
    // c1 in two halves: a half times a ternary polynomial is below p / 2
    const int low_bits = (bits + 1) / 2;
    if (bits < 2 || bits > 52 || prime.p >> 1 <= (static_cast<std::uint64_t>(n) << low_bits))
        return Status::bad_argument;
    const std::uint64_t low_mask = (std::uint64_t{1} << low_bits) - 1, mask = (std::uint64_t{1} << bits) - 1;
    return parallel_for(count, 1, threads, [&](std::size_t begin, std::size_t end) {
        LatticeBuffer half(n);
        if (!half) return Status::no_memory;
        for (std::size_t m = begin; m < end; ++m) {
            std::uint64_t* to = out + m * n;
            for (std::size_t i = 0; i < n; ++i) to[i] = c0[m * n + i];
            for (int part = 0; part < 2; ++part) {
                const int shift = part * low_bits;
                std::uint64_t* h = half.data();
                for (std::size_t i = 0; i < n; ++i) h[i] = (c1[m * n + i] & mask) >> shift & low_mask;
                kernels.forward(&prime, h);
                kernels.multiply(&prime, h, secret, h, 0);
                kernels.inverse(&prime, h);
                for (std::size_t i = 0; i < n; ++i) {
                    // residues above p / 2 stand for negative numbers
                    const std::uint64_t above = (prime.p >> 1) - h[i];
                    to[i] += (h[i] - (prime.p & -(above >> 63))) << shift;
                }
            }
            for (std::size_t i = 0; i < n; ++i) to[i] &= mask;
        }
        return Status::ok;
    });
}

}  // namespace mipp
