// Random polynomials, from keystream.
#include <algorithm>

#include "../common/pool.h"
#include "lattice.h"
#include "lattice_tiers.h"

namespace mipp {
namespace {

using Wide = unsigned __int128;

// Entry k - 1: 2^63 P(abs(X) >= k) = 2^63 erfc((k - 1/2) / (sigma sqrt 2)), rounded, for sigma = 3.2, up to the last
// that is not 0. So each probability is right to 2^-63.
constexpr std::uint64_t gaussian_table[] = {8078160961212425786,
                                            5896025291747714834,
                                            4008989120172442027,
                                            2527800124044552989,
                                            1472510438498913415,
                                            790073157743829255,
                                            389499686563256434,
                                            176083054962035277,
                                            72878486338388688,
                                            27579151440399667,
                                            9532179459766656,
                                            3006382110180886,
                                            864594560053455,
                                            226581798959191,
                                            54081886254720,
                                            11751611704331,
                                            2323777600212,
                                            418022101571,
                                            68389095857,
                                            10172998071,
                                            1375595295,
                                            169055244,
                                            18879446,
                                            1915610,
                                            176573,
                                            14784,
                                            1124,
                                            78,
                                            5};

constexpr std::size_t chunk = 512;  // words of keystream at a time

// The words of one keystream, in order.
class Stream {
  public:
    explicit Stream(const std::uint8_t* schedule) : schedule_(schedule) {}
    ~Stream() { wipe(words_, sizeof words_); }

    // The next `chunk` words.
    const std::uint64_t* next() {
        keystream_fill(schedule_, block_, chunk / 2, reinterpret_cast<std::uint8_t*>(words_));
        block_ += chunk / 2;
        return words_;
    }

  private:
    const std::uint8_t* schedule_;
    std::uint64_t block_ = 0;
    alignas(64) std::uint64_t words_[chunk];
};

// Words cut to the bits of a prime; those that are not below it are left out.
void uniform_var(const LatticeRing& ring, Stream& stream, std::uint64_t* out) {
    const std::size_t n = ring.degree();
    const std::uint64_t* words = nullptr;
    std::size_t used = chunk;
    for (const std::uint64_t p : ring.primes()) {
        int bits = 1;
        while (p >> bits != 0) ++bits;
        const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
        std::size_t made = 0;
        while (made < n) {
            if (used == chunk) {
                words = stream.next();
                used = 0;
            }
            const std::size_t here = std::min(chunk - used, n - made);
            std::size_t kept = made;
            for (std::size_t i = 0; i < here; ++i) {
                const std::uint64_t word = words[used + i] & mask;
                out[kept] = word;
                kept += word < p;
            }
            used += here;
            made = kept;
        }
        out += n;
    }
}

// floor(3 word / 2^64) - 1.
void ternary(const std::uint64_t* words, std::size_t n, std::int64_t* out) {
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t low = (words[i] & 0xffffffff) * 3, high = (words[i] >> 32) * 3;
        out[i] = static_cast<std::int64_t>((high + (low >> 32)) >> 32) - 1;
    }
}

// Of a signed number of less than 2^62.
std::uint64_t residue(std::int64_t value, const LatticePrime& prime) {
    const auto sign = static_cast<std::uint64_t>(value >> 63), size = (static_cast<std::uint64_t>(value) ^ sign) - sign;
    const auto quotient = static_cast<std::uint64_t>(static_cast<Wide>(size) * prime.one.aux >> 64);
    std::uint64_t r = size - quotient * prime.p - prime.p;
    r += prime.p & -(r >> 63);
    // p - r for a negative value, which is p where r is 0
    const std::uint64_t negated = prime.p - r;
    std::uint64_t out = (r & ~sign) | (negated & sign);
    out -= prime.p;
    return out + (prime.p & -(out >> 63));
}

// low + 2^64 high - 2^(bits - 1), of a number below 2^bits.
std::uint64_t wide_residue(std::uint64_t low, std::uint64_t high, std::uint64_t half, const LatticePrime& prime) {
    const std::uint64_t p = prime.p;
    const auto times = [p](std::uint64_t x, const LatticeFactor& w) {
        return x * w.value - static_cast<std::uint64_t>(static_cast<Wide>(x) * w.aux >> 64) * p;
    };
    // each below 2 p; half is below p
    std::uint64_t r = times(low, prime.one) + times(high, prime.radix) + p - half;
    r = times(r, prime.one) - p;
    return r + (p & -(r >> 63));
}

}  // namespace

Status lattice_residues(const LatticeRing& ring, const std::int64_t* values, std::size_t count, std::uint64_t* out,
                        int threads) {
    const std::size_t n = ring.degree(), limbs = ring.limbs();
    return parallel_for(count, 1, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t m = begin; m < end; ++m) {
            for (std::size_t l = 0; l < limbs; ++l) {
                const LatticePrime& prime = ring.prime(l, lattice_words);
                std::uint64_t* to = out + m * ring.size() + l * n;
                for (std::size_t i = 0; i < n; ++i) to[i] = residue(values[m * n + i], prime);
            }
        }
        return Status::ok;
    });
}

Status lattice_sample(const LatticeRing& ring, LatticeKind kind, int bits, const KeySchedules& schedules,
                      std::size_t first, std::size_t count, std::uint64_t* out, int threads) {
    if (kind == LatticeKind::flood && (bits < 1 || bits > lattice_max_flood)) return Status::bad_argument;
    const LatticeKernels& kernels = lattice_kernels(ring);
    const std::size_t n = ring.degree(), limbs = ring.limbs();
    return parallel_for(count, 1, threads, [&](std::size_t begin, std::size_t end) {
        std::int64_t numbers[chunk];
        for (std::size_t m = begin; m < end; ++m) {
            Stream stream(schedules[first + m]);
            std::uint64_t* to = out + m * ring.size();
            if (kind == LatticeKind::uniform_var) {
                uniform_var(ring, stream, to);
                continue;
            }
            if (kind == LatticeKind::flood) {
                const int high_bits = bits > 64 ? bits - 64 : 0;
                const std::uint64_t low_mask = bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
                const std::uint64_t high_mask = (std::uint64_t{1} << high_bits) - 1;
                for (std::size_t i = 0; i < n; i += chunk / 2) {
                    const std::uint64_t* words = stream.next();
                    const std::size_t here = std::min(chunk / 2, n - i);
                    for (std::size_t l = 0; l < limbs; ++l) {
                        const LatticePrime& prime = ring.prime(l, lattice_words);
                        std::uint64_t half = 1 % prime.p;
                        for (int b = 1; b < bits; ++b) half = half * 2 % prime.p;
                        for (std::size_t j = 0; j < here; ++j) {
                            to[l * n + i + j] =
                                wide_residue(words[2 * j] & low_mask, words[2 * j + 1] & high_mask, half, prime);
                        }
                    }
                }
                continue;
            }
            for (std::size_t i = 0; i < n; i += chunk) {
                const std::uint64_t* words = stream.next();
                const std::size_t here = std::min(chunk, n - i);
                if (kind == LatticeKind::ternary) {
                    ternary(words, here, numbers);
                } else {
                    kernels.gaussian(words, here, gaussian_table, sizeof gaussian_table / sizeof *gaussian_table,
                                     numbers);
                }
                for (std::size_t l = 0; l < limbs; ++l) {
                    const LatticePrime& prime = ring.prime(l, lattice_words);
                    for (std::size_t j = 0; j < here; ++j) to[l * n + i + j] = residue(numbers[j], prime);
                }
            }
        }
        wipe(numbers, sizeof numbers);
        return Status::ok;
    });
}

}  // namespace mipp
