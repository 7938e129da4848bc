// Digits of three bits, of which one party knows S and two know T; words packed to the bits that count.
#include <algorithm>
#include <cstring>

#include "../common/pool.h"
#include "compare.h"

namespace mipp {
namespace {

// Words that are worth handing to a thread.
constexpr std::size_t piece = std::size_t{1} << 14;

// Generate and propagate of a digit of `Bits` bits, linear in the shares s of its products. first: ones at the party
// that adds the product of nothing, zero at the other.
template <std::size_t Bits>
void carries(const std::uint64_t* s, const std::uint64_t* t, std::size_t words, std::uint64_t first,
             std::uint64_t* generate, std::uint64_t* propagate, std::size_t begin, std::size_t end) {
    for (std::size_t w = begin; w < end; ++w) {
        const auto share = [&](std::size_t product) { return s[(product - 1) * words + w]; };
        const std::uint64_t t0 = t[w];
        std::uint64_t g = t0 & share(1), p = share(1) ^ (t0 & first);
        if constexpr (Bits > 1) {
            const std::uint64_t t1 = t[words + w];
            g = (t1 & (share(2) ^ g)) ^ (t0 & share(3));
            p = (t1 & p) ^ share(3) ^ (t0 & share(2));
            if constexpr (Bits > 2) {
                const std::uint64_t t2 = t[2 * words + w];
                g = (t2 & (share(4) ^ g)) ^ (t1 & (share(6) ^ (t0 & share(5)))) ^ (t0 & share(7));
                p = (t2 & p) ^ share(7) ^ (t0 & share(6)) ^ (t1 & (share(5) ^ (t0 & share(4))));
            }
        }
        generate[w] = g;
        if (propagate != nullptr) propagate[w] = p;
    }
}

}  // namespace

Status digit_products(const std::uint64_t* bits, std::size_t n, std::size_t words, std::uint64_t* out, int threads) {
    return parallel_for(words, std::max<std::size_t>(8, piece / (3 * n + 1) / 8 * 8), threads,
                        [&](std::size_t begin, std::size_t end) {
                            const std::size_t bytes = (end - begin) * sizeof *out;
                            std::uint64_t* to = out + begin;
                            for (std::size_t bit = 0; bit < n; ++bit) {
                                // the digit's products so far, then each of them with this bit
                                const std::uint64_t* from = bits + bit * words + begin;
                                const std::size_t before = (std::size_t{1} << bit % 3) - 1;
                                const std::uint64_t* products = to - before * words;
                                std::memcpy(to, from, bytes);
                                to += words;
                                for (std::size_t j = 0; j < before; ++j, to += words, products += words) {
                                    for (std::size_t w = 0; w < end - begin; ++w) to[w] = products[w] & from[w];
                                }
                            }
                            return Status::ok;
                        });
}

Status digit_carries(const std::uint64_t* shares, const std::uint64_t* t, std::size_t n, std::size_t words, bool first,
                     std::uint64_t* out, int threads) {
    const std::size_t digits = digits_of(n);
    const std::uint64_t constant = first ? ~std::uint64_t{0} : 0;
    return parallel_for(words, std::max<std::size_t>(8, piece / (4 * n + 1) / 8 * 8), threads,
                        [&](std::size_t begin, std::size_t end) {
                            for (std::size_t d = 0; d < digits; ++d) {
                                const std::uint64_t *s = shares + 7 * d * words, *known = t + 3 * d * words;
                                std::uint64_t* generate = out + d * words;
                                std::uint64_t* propagate = d == 0 ? nullptr : out + (digits + d - 1) * words;
                                const std::size_t width = std::min<std::size_t>(3, n - 3 * d);
                                (width == 1   ? carries<1>
                                 : width == 2 ? carries<2>
                                              : carries<3>)(s, known, words, constant, generate, propagate, begin, end);
                            }
                            return Status::ok;
                        });
}

// Pieces begin at multiples of 64 words: those end with a whole word of the packed ones.
Status words_pack(const std::uint64_t* words, std::size_t n, int width, std::uint64_t* out, int threads) {
    if (width < 1 || width > 64) return Status::bad_argument;
    const std::uint64_t low = ~std::uint64_t{0} >> (64 - width);
    return parallel_for(n, piece, threads, [&](std::size_t begin, std::size_t end) {
        std::uint64_t* to = out + begin / 64 * static_cast<std::size_t>(width);
        std::uint64_t gathered = 0;
        int filled = 0;
        for (std::size_t i = begin; i < end; ++i) {
            const std::uint64_t word = words[i] & low;
            gathered |= word << filled;
            filled += width;
            if (filled >= 64) {
                *to++ = gathered;
                filled -= 64;
                gathered = filled == 0 ? 0 : word >> (width - filled);
            }
        }
        if (filled != 0) *to = gathered;
        return Status::ok;
    });
}

Status words_unpack(const std::uint64_t* packed, std::size_t n, int width, std::uint64_t* out, int threads) {
    if (width < 1 || width > 64) return Status::bad_argument;
    const std::uint64_t low = ~std::uint64_t{0} >> (64 - width);
    return parallel_for(n, piece, threads, [&](std::size_t begin, std::size_t end) {
        const std::uint64_t* from = packed + begin / 64 * static_cast<std::size_t>(width);
        std::uint64_t rest = 0;
        int left = 0;
        for (std::size_t i = begin; i < end; ++i) {
            std::uint64_t word = rest;
            if (left < width) {
                const std::uint64_t next = *from++;
                word |= next << left;
                rest = width - left == 64 ? 0 : next >> (width - left);
                left += 64 - width;
            } else {
                rest = rest >> width;
                left -= width;
            }
            out[i] = word & low;
        }
        return Status::ok;
    });
}

}  // namespace mipp
