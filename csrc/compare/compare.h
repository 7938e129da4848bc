// A party's local steps of computation on replicated shares of bits, and of the shuffle of words. Formulas: README.md.
//
// Planes are bit-sliced values: `words` words a plane, a multiple of 8, bit i % 64 of word i / 64 belongs to value i.
// Keys are AES-256 keys of 32 bytes, each for one call in one session. Words, planes and keys are secret: no branch and
// no address depends on them, except where a function ends in _var.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/status.h"
#include "../cpu/cpu.h"
#include "squares_kernels.h"

namespace mipp {

Level compare_tier();

// Plane words of n values: whole cache lines.
constexpr std::size_t plane_words_of(std::size_t n) { return (n / 512 + (n % 512 != 0)) * 8; }

// Bits first_bit .. first_bit + width - 1 of n words of 16, 32 or 64 bits into width planes; zero behind the n-th.
Status bits_slice(int bits, const void* words, std::size_t n, int first_bit, int width, std::uint64_t* planes,
                  int threads);

// A party's two summands of shared bits.
struct Replicated {
    const std::uint64_t *lo, *hi;
};

// Its part of x & y: (x.lo & y.lo) ^ (x.lo & y.hi) ^ (x.hi & y.lo) ^ F(key_a) ^ F(key_b). words: a multiple of 8.
Status gates_and(Replicated x, Replicated y, std::size_t words, const std::uint8_t* key_a, const std::uint8_t* key_b,
                 std::uint64_t* out, int threads);

// AND gates of one layer of the carry tree over n positions of generate and propagate bits, least significant first.
constexpr std::size_t tree_gates(std::size_t n) { return n < 2 ? 0 : n / 2 * 2 - 1; }

// Pair j is positions 2j, 2j+1. out: p[2j+1] & g[2j] of every pair, then p[2j+1] & p[2j] of every pair but the first.
Status tree_and(Replicated g, Replicated p, std::size_t n, std::size_t words, const std::uint8_t* key_a,
                const std::uint8_t* key_b, std::uint64_t* out, int threads);

// One summand of the next layer's (n + 1) / 2 positions from the same summand of this one and of the gates' outputs.
// out_g may be g, out_p may be p.
Status tree_combine(const std::uint64_t* g, const std::uint64_t* p, const std::uint64_t* z, std::size_t n,
                    std::size_t words, std::uint64_t* out_g, std::uint64_t* out_p, int threads);

// Digits of three bits, least significant first, that n bits make; the last one may be shorter.
constexpr std::size_t digits_of(std::size_t n) { return (n + 2) / 3; }

// Products of all bits of every subset of a digit's bits but the empty one: 7 a digit, fewer of a shorter one.
constexpr std::size_t digit_products_of(std::size_t n) { return n / 3 * 7 + ((std::size_t{1} << n % 3) - 1); }

// The products of n planes, digit after digit; that of subset m (bit i of m: bit i of the digit) is place m - 1.
Status digit_products(const std::uint64_t* bits, std::size_t n, std::size_t words, std::uint64_t* out, int threads);

// A party's part of generate and propagate of S + T by digits: of two parties that know T and have shares of S's
// products, one is the first. out: generate of every digit, then propagate of every digit but the lowest.
Status digit_carries(const std::uint64_t* shares, const std::uint64_t* t, std::size_t n, std::size_t words, bool first,
                     std::uint64_t* out, int threads);

// Packed words that n words of `width` bits make.
constexpr std::size_t packed_words_of(std::size_t n, std::size_t width) {
    return n / 64 * width + (n % 64 * width + 63) / 64;
}

// The low `width` bits of n words, one after the other; zero behind the last. And back.
Status words_pack(const std::uint64_t* words, std::size_t n, int width, std::uint64_t* out, int threads);
Status words_unpack(const std::uint64_t* packed, std::size_t n, int width, std::uint64_t* out, int threads);

// The stream F(key), AES-256-CTR from block 0: stored, or combined with what is there.
enum class Mask : int { set = 0, exclusive = 1, add = 2, subtract = 3 };
Status words_mask(const std::uint8_t* key, Mask mask, std::uint64_t* inout, std::size_t words, int threads);

// A uniform permutation of n <= 2^31: Fisher-Yates, positions drawn from F(key) by rejection. One thread.
Status permutation_draw_var(const std::uint8_t* key, std::uint32_t* out, std::size_t n);

// Largest index; 0 if there are none.
Status indices_max(const std::uint32_t* index, std::size_t n, std::uint32_t* largest, int threads);

struct ShufflePass {
    const std::uint64_t* x;
    const std::uint32_t* index;
    const std::uint8_t* key;  // or null
    bool subtract;
    std::uint64_t* out;
};

// out[i] = x[index[i]] +- F(key)[i] for i < n; without a key nothing is added.
Status shuffle_pass_var(const ShufflePass& pass, std::size_t n, int threads);

// Parts of sums of weighted squares of secrets behind words of `bits` = 16, 32 or 64 bits: the dealer's, a cloud's.
Status squares_deal(int bits, const MippSquaresDeal& work, int threads);
Status squares_share(int bits, const MippSquaresShare& work, int threads);

}  // namespace mipp
