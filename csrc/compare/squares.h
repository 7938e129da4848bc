// Parts of sums of squares, row by row. The loops are plain: the compiler makes vectors of each tier's width of them,
// and every array is read once. No branch or address depends on a word or a hint; sums wrap on purpose.
//
// Included by each tier's file.
#pragma once

#include "squares_kernels.h"

namespace {

// In place of the type of hints where there are none.
struct NoHint {};
template <class Hint>
constexpr bool hinted = true;
template <>
constexpr bool hinted<NoHint> = false;

// r = r1 + r2 modulo 2^k; its square, the carry, its top bit, and its other bits where the top one is set.
template <class Word, class Hint>
inline uint64_t deal_row(const Word* __restrict r1, const Word* __restrict r2, const uint64_t* __restrict weights,
                         size_t width, Hint* __restrict carry, Hint* __restrict msb, Hint* __restrict delta) {
    constexpr int k = 8 * sizeof(Word);
    uint64_t sum = 0;
    for (size_t j = 0; j < width; ++j) {
        const uint64_t wide = uint64_t{r1[j]} + r2[j], r = static_cast<Word>(wide);
        sum += weights[j] * (r * r);
        if constexpr (hinted<Hint>) {
            const uint64_t top = r >> (k - 1), rest = r & ((uint64_t{1} << (k - 1)) - 1);
            carry[j] = static_cast<Hint>((wide >> k) - carry[j]);
            msb[j] = static_cast<Hint>(top - msb[j]);
            delta[j] = static_cast<Hint>((rest & (0 - top)) - delta[j]);
        }
    }
    return sum;
}

// first: all ones for cloud 1, else zero.
template <class Word, class Hint>
inline uint64_t share_row(const Word* __restrict m, const Word* __restrict r, const uint64_t* __restrict weights,
                          size_t width, uint64_t first, const Hint* __restrict carry, const Hint* __restrict msb,
                          const Hint* __restrict delta) {
    constexpr int k = 8 * sizeof(Word);
    uint64_t sum = 0;
    for (size_t j = 0; j < width; ++j) {
        const uint64_t mu = m[j] - (uint64_t{1} << (k - 2));
        uint64_t factor = (mu & first) - 2 * uint64_t{r[j]}, less = 0;
        if constexpr (hinted<Hint>) {
            // all ones where the top bit of m is zero
            const uint64_t low = (uint64_t{m[j]} >> (k - 1)) - 1;
            factor += (carry[j] + (msb[j] & low)) << (k + 1);
            less = (delta[j] & low) << (k + 1);
        }
        sum += weights[j] * (mu * factor - less);
    }
    return sum;
}

// An array from a place on; null stays null.
template <class T, class Any>
inline T* from(Any* array, size_t at) {
    return array == nullptr ? nullptr : static_cast<T*>(array) + at;
}

template <class Word, class Hint>
inline void deal_rows(const MippSquaresDeal& work) {
    for (size_t i = 0, at = 0; i < work.rows; ++i, at += work.width) {
        work.out[i] =
            deal_row<Word, Hint>(from<const Word>(work.r1, at), from<const Word>(work.r2, at), work.weights, work.width,
                                 from<Hint>(work.carry, at), from<Hint>(work.msb, at), from<Hint>(work.delta, at));
    }
}

template <class Word, class Hint>
inline void share_rows(const MippSquaresShare& work) {
    const uint64_t first = 0 - static_cast<uint64_t>(work.first);
    for (size_t i = 0, at = 0; i < work.rows; ++i, at += work.width) {
        work.out[i] = share_row<Word, Hint>(from<const Word>(work.m, at), from<const Word>(work.r, at), work.weights,
                                            work.width, first, from<const Hint>(work.carry, at),
                                            from<const Hint>(work.msb, at), from<const Hint>(work.delta, at));
    }
}

// Words of 64 bits have no hints.
template <class Word>
inline void squares_deal(const MippSquaresDeal& work) {
    if constexpr (sizeof(Word) < 8) {
        if (work.hint_bits == 8) return deal_rows<Word, uint8_t>(work);
        if (work.hint_bits == 16) return deal_rows<Word, uint16_t>(work);
        if (work.hint_bits == 32) return deal_rows<Word, uint32_t>(work);
    }
    deal_rows<Word, NoHint>(work);
}

template <class Word>
inline void squares_share(const MippSquaresShare& work) {
    if constexpr (sizeof(Word) < 8) {
        if (work.hint_bits == 8) return share_rows<Word, uint8_t>(work);
        if (work.hint_bits == 16) return share_rows<Word, uint16_t>(work);
        if (work.hint_bits == 32) return share_rows<Word, uint32_t>(work);
    }
    share_rows<Word, NoHint>(work);
}

}  // namespace

#define MIPP_DEFINE_SQUARES(bits, deal_name, share_name)                  \
    MIPP_SQUARES_DEAL(deal_name) { squares_deal<uint##bits##_t>(*work); } \
    MIPP_SQUARES_SHARE(share_name) { squares_share<uint##bits##_t>(*work); }
