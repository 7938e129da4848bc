// Primes, their roots, and the factors of transforms in the form of each tier. Everything here is public.
#include <cstring>

#include "lattice.h"
#include "lattice_tiers.h"

namespace mipp {
namespace {

using Wide = unsigned __int128;

std::uint64_t times(std::uint64_t a, std::uint64_t b, std::uint64_t p) {
    return static_cast<std::uint64_t>(static_cast<Wide>(a) * b % p);
}

std::uint64_t power(std::uint64_t a, std::uint64_t e, std::uint64_t p) {
    std::uint64_t r = 1;
    for (; e != 0; e >>= 1, a = times(a, a, p)) {
        if (e & 1) r = times(r, a, p);
    }
    return r;
}

// Miller-Rabin with bases that decide all numbers of 64 bits.
bool is_prime(std::uint64_t p) {
    constexpr std::uint64_t bases[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};
    if (p < 2) return false;
    for (const auto b : bases) {
        if (p % b == 0) return p == b;
    }
    int twos = 0;
    std::uint64_t odd = p - 1;
    for (; odd % 2 == 0; odd /= 2) ++twos;
    for (const auto b : bases) {
        std::uint64_t x = power(b, odd, p);
        bool passes = x == 1;
        for (int i = 0; i < twos && !passes; ++i, x = times(x, x, p)) passes = x == p - 1;
        if (!passes) return false;
    }
    return true;
}

// The power of the least base that has order 2n.
std::uint64_t root(std::uint64_t p, std::size_t n) {
    for (std::uint64_t base = 2;; ++base) {
        const std::uint64_t r = power(base, (p - 1) / (2 * n), p);
        if (power(r, n, p) == p - 1) return r;
    }
}

std::size_t reversed(std::size_t i, int bits) {
    std::size_t r = 0;
    for (int b = 0; b < bits; ++b) r |= (i >> b & 1) << (bits - 1 - b);
    return r;
}

std::uint64_t bits_of(double x) {
    std::uint64_t b;
    std::memcpy(&b, &x, sizeof b);
    return b;
}

struct Factors {
    std::vector<std::uint64_t> value, aux;

    void push(std::uint64_t v, std::uint64_t p, LatticeForm form) {
        const LatticeFactor f = lattice_factor(v, p, form);
        value.push_back(f.value);
        aux.push_back(f.aux);
    }
};

// Powers of a root by bit-reversed exponent.
std::vector<std::uint64_t> powers(std::uint64_t r, std::uint64_t p, std::size_t n, int log_n) {
    std::vector<std::uint64_t> all(n);
    std::uint64_t x = 1;
    for (std::size_t i = 0; i < n; ++i, x = times(x, r, p)) all[reversed(i, log_n)] = x;
    return all;
}

// Those of the last three levels, for each block of 64 in the order of use: lane r of vector u in level k is the factor
// of group u in row r of the block.
std::vector<std::uint64_t> last_levels(const std::vector<std::uint64_t>& all) {
    const std::size_t n = all.size();
    std::vector<std::uint64_t> last;
    for (std::size_t block = 0; block < n / 64; ++block) {
        for (int k = 0; k < 3; ++k) {
            for (std::size_t u = 0; u < std::size_t{1} << k; ++u) {
                for (std::size_t r = 0; r < 8; ++r) last.push_back(all[(n / 8 << k) + ((8 * block + r) << k) + u]);
            }
        }
    }
    return last;
}

}  // namespace

LatticeFactor lattice_factor(std::uint64_t value, std::uint64_t p, LatticeForm form) {
    switch (form) {
        case lattice_limbs:
            return {value, static_cast<std::uint64_t>((static_cast<Wide>(value) << 52) / p)};
        case lattice_floats: {
            const double centred = value > p / 2 ? -static_cast<double>(p - value) : static_cast<double>(value);
            return {bits_of(centred), bits_of(centred / static_cast<double>(p))};
        }
        default:
            return {value, static_cast<std::uint64_t>((static_cast<Wide>(value) << 64) / p)};
    }
}

const char* LatticeRing::fault(std::size_t degree, const std::vector<std::uint64_t>& primes) {
    if (degree < 4 || degree > lattice_max_degree || (degree & (degree - 1)) != 0) {
        return "the degree must be a power of two from 4 to 16384";
    }
    if (primes.empty() || primes.size() > lattice_max_primes) return "there must be 1 to 8 primes";
    const int bits = degree == lattice_max_degree ? lattice_prime_bits - 1 : lattice_prime_bits;
    for (std::size_t i = 0; i < primes.size(); ++i) {
        const std::uint64_t p = primes[i];
        if (p >> bits != 0) return "primes must be below 2^48, at degree 16384 below 2^47";
        if (p % (2 * degree) != 1 || !is_prime(p)) return "moduli must be primes that are 1 modulo twice the degree";
        for (std::size_t j = 0; j < i; ++j) {
            if (primes[j] == p) return "the primes must differ";
        }
    }
    return nullptr;
}

LatticeRing::LatticeRing(std::size_t degree, const std::vector<std::uint64_t>& primes)
    : degree_(degree), primes_(primes) {
    int log_n = 0;
    while (std::size_t{1} << log_n < degree) ++log_n;
    for (const std::uint64_t p : primes) {
        const std::uint64_t r = root(p, degree);
        const auto forward = powers(r, p, degree, log_n), inverse = powers(power(r, p - 2, p), p, degree, log_n);
        const auto forward_last = last_levels(forward), inverse_last = last_levels(inverse);
        for (int i = 0; i < lattice_forms; ++i) {
            const auto form = static_cast<LatticeForm>(i);
            const auto keep = [&](const std::vector<std::uint64_t>& all, const std::uint64_t** value,
                                  const std::uint64_t** aux) {
                Factors made;
                for (const auto v : all) made.push(v, p, form);
                // the memory stays where it is when a vector of it moves
                tables_.push_back(std::move(made.value));
                *value = tables_.back().data();
                tables_.push_back(std::move(made.aux));
                *aux = tables_.back().data();
            };
            LatticePrime facts{};
            facts.p = p;
            facts.n = degree;
            facts.log_n = log_n;
            keep(forward, &facts.forward, &facts.forward_aux);
            keep(forward_last, &facts.forward_last, &facts.forward_last_aux);
            keep(inverse, &facts.inverse, &facts.inverse_aux);
            keep(inverse_last, &facts.inverse_last, &facts.inverse_last_aux);
            const std::uint64_t radix =
                form == lattice_limbs ? power(2, 52, p) : static_cast<std::uint64_t>((static_cast<Wide>(1) << 64) % p);
            facts.radix = lattice_factor(radix, p, form);
            facts.radix_squared = lattice_factor(times(radix, radix, p), p, form);
            facts.one = lattice_factor(1, p, form);
            facts.inverse_n = lattice_factor(power(degree, p - 2, p), p, form);
            facts_[form].push_back(facts);
        }
    }
}

}  // namespace mipp
