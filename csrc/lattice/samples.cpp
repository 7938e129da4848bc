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

// The same of `n` numbers; those below 64 in absolute value take an addition where the prime is larger.
void residues_of(const std::int64_t* numbers, std::size_t n, bool small, const LatticePrime& prime,
                 std::uint64_t* out) {
    if (small && prime.p > 64) {
        for (std::size_t i = 0; i < n; ++i) {
            out[i] = static_cast<std::uint64_t>(numbers[i]) + (prime.p & static_cast<std::uint64_t>(numbers[i] >> 63));
        }
    } else {
        for (std::size_t i = 0; i < n; ++i) out[i] = residue(numbers[i], prime);
    }
}

// Uniform numbers of `bits` bits less 2^(bits - 1), from two words each: in pieces of 48 bits, which are multiplied by
// their weights modulo each prime. pieces: 3 n words, factor: n.
void flood(const LatticeRing& ring, const LatticeKernels& kernels, int bits, Stream& stream, std::uint64_t* pieces,
           std::uint64_t* factor, std::uint64_t* out) {
    constexpr int piece_bits = 48;
    const std::size_t n = ring.degree();
    std::uint64_t masks[3];
    for (int k = 0; k < 3; ++k) {
        const int left = std::max(0, std::min(piece_bits, bits - k * piece_bits));
        masks[k] = (std::uint64_t{1} << left) - 1;
    }
    for (std::size_t i = 0; i < n; i += chunk / 2) {
        const std::uint64_t* words = stream.next();
        const std::size_t here = std::min(chunk / 2, n - i);
        for (std::size_t j = 0; j < here; ++j) {
            const std::uint64_t low = words[2 * j], high = words[2 * j + 1];
            pieces[i + j] = low & masks[0];
            pieces[n + i + j] = (low >> 48 | high << 16) & masks[1];
            pieces[2 * n + i + j] = high >> 32 & masks[2];
        }
    }
    for (std::size_t l = 0; l < ring.limbs(); ++l, out += n) {
        const LatticePrime& prime = ring.prime(l, kernels.form);
        std::uint64_t half = 1 % prime.p, weight = 1;
        for (int b = 1; b < bits; ++b) half = half * 2 % prime.p;
        std::fill(out, out + n, (prime.p - half) % prime.p);
        for (int k = 0; k * piece_bits < bits; ++k) {
            std::fill(factor, factor + n, weight);
            kernels.multiply(&prime, pieces + static_cast<std::size_t>(k) * n, factor, out, 1);
            for (int b = 0; b < piece_bits; ++b) weight = weight * 2 % prime.p;
        }
    }
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
                residues_of(values + m * n, n, false, prime, to);
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
        LatticeBuffer pieces(kind == LatticeKind::flood ? 4 * n : 0);
        if (!pieces) return Status::no_memory;
        for (std::size_t m = begin; m < end; ++m) {
            Stream stream(schedules[first + m]);
            std::uint64_t* to = out + m * ring.size();
            if (kind == LatticeKind::uniform_var) {
                uniform_var(ring, stream, to);
                continue;
            }
            if (kind == LatticeKind::flood) {
                flood(ring, kernels, bits, stream, pieces.data(), pieces.data() + 3 * n, to);
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
                    residues_of(numbers, here, true, ring.prime(l, lattice_words), to + l * n + i);
                }
            }
        }
        wipe(numbers, sizeof numbers);
        return Status::ok;
    });
}

}  // namespace mipp
