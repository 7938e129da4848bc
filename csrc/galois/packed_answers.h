// Answers cut to their low bits and packed: layout in README.md. Included by each tier's file with MIPP_VECTOR_BYTES.
#pragma once

#include "../common/vectors.h"
#include "galois_kernels.h"

namespace {

template <class Word>
inline typename Vec<Word>::Type sum_at(const Word* const* answers, size_t count, size_t at) {
    auto sum = Vec<Word>::load(answers[0] + at);
    for (size_t a = 1; a < count; ++a) sum += Vec<Word>::load(answers[a] + at);
    return sum;
}

template <class Word>
inline Word sum_one(const Word* const* answers, size_t count, size_t at) {
    Word sum = 0;
    for (size_t a = 0; a < count; ++a) sum = static_cast<Word>(sum + answers[a][at]);
    return sum;
}

// A word as a vector of one lane.
template <class Word>
struct One {
    typedef Word Type;
    typedef typename Signed<Word>::Type SignedType;
    static constexpr size_t width = 1;

    static inline Type load(const Word* p) { return *p; }
    static inline void store(Word* p, Type v) { *p = v; }
};

template <class Word>
constexpr int bits_of() {
    return static_cast<int>(8 * sizeof(Word));
}

// Lanes of a whole block: its lines are 64 bytes.
template <class Word>
constexpr size_t block_lanes() {
    return MIPP_ANSWERS_BLOCK / (8 * sizeof(Word));
}

// Lines of words become lines of packed words: in each lane the low bits of its words one after the other.
template <class V, class Word>
inline void lanes_pack(const Word* words, size_t lines, size_t lanes, int width, Word* out) {
    const Word low = static_cast<Word>(static_cast<Word>(~Word{0}) >> (bits_of<Word>() - width));
    for (size_t lane = 0; lane < lanes; lane += V::width) {
        typename V::Type gathered = {};
        Word* to = out + lane;
        int filled = 0;
        for (size_t i = 0; i < lines; ++i) {
            typename V::Type word = V::load(words + i * lanes + lane);
            word &= low;
            typename V::Type moved = word;
            moved <<= filled;
            gathered |= moved;
            filled += width;
            if (filled >= bits_of<Word>()) {
                V::store(to, gathered);
                to += lanes;
                filled -= bits_of<Word>();
                gathered = word;
                gathered >>= width - filled;
            }
        }
        if (filled != 0) V::store(to, gathered);
    }
}

template <class Word>
inline void answers_pack(const Word* words, size_t n, int width, Word* out) {
    size_t at = 0;
    for (; at + MIPP_ANSWERS_BLOCK <= n; at += MIPP_ANSWERS_BLOCK) {
        lanes_pack<Vec<Word>>(words + at, static_cast<size_t>(bits_of<Word>()), block_lanes<Word>(), width, out);
        out += block_lanes<Word>() * static_cast<size_t>(width);
    }
    lanes_pack<One<Word>>(words + at, n - at, 1, width, out);
}

// Sums of the packed lines of several answers from word `start` on, as signed words. Above the low `width` bits of a
// lane is what follows them there; it adds to no lower bit and is shifted out.
template <class V, class Word>
inline void lanes_sum(const Word* const* answers, size_t count, int width, size_t start, size_t lines, size_t lanes,
                      Word* out) {
    const int bits = bits_of<Word>();
    int shift = 0;
    for (size_t i = 0; i < lines; ++i) {
        for (size_t lane = 0; lane < lanes; lane += V::width) {
            typename V::Type sum = {};
            for (size_t a = 0; a < count; ++a) {
                const Word* from = answers[a] + start + lane;
                typename V::Type word = V::load(from);
                word >>= shift;
                if (shift + width > bits) {
                    typename V::Type next = V::load(from + lanes);
                    next <<= bits - shift;
                    word |= next;
                }
                sum += word;
            }
            sum <<= bits - width;
            auto score = (typename V::SignedType)sum;
            score >>= bits - width;
            V::store(out + i * lanes + lane, (typename V::Type)score);
        }
        shift += width;
        if (shift >= bits) {
            shift -= bits;
            start += lanes;
        }
    }
}

// The sums of rows [at, at + some) of packed answers, at most a block of them; `at` begins a block.
template <class Word>
inline void packed_sums(const Word* const* answers, size_t count, int width, size_t at, size_t some, Word* out) {
    const size_t start = at / MIPP_ANSWERS_BLOCK * block_lanes<Word>() * static_cast<size_t>(width);
    if (some == MIPP_ANSWERS_BLOCK) {
        lanes_sum<Vec<Word>>(answers, count, width, start, static_cast<size_t>(bits_of<Word>()), block_lanes<Word>(),
                             out);
    } else {
        lanes_sum<One<Word>>(answers, count, width, start, some, 1, out);
    }
}

}  // namespace
