// Weighted sums of scores over rows, and whether all are in range. Included by each tier's file with MIPP_VECTOR_BYTES.
#pragma once

#include "packed_answers.h"

namespace {

// What follows the last whole vector is summed by words, with one lane.
template <class V, class Word>
inline void fold_lanes(const Word* scores, size_t begin, size_t end, const Word* const* weights, size_t checks,
                       Word* sums, typename Signed<Word>::Type low, typename Signed<Word>::Type high,
                       typename V::Type* outside) {
    for (size_t j = 0; j < checks; ++j) {
        typename V::Type sum = {};
        for (size_t i = begin; i < end; i += V::width) {
            typename V::Type product = V::load(scores + i);
            product *= V::load(weights[j] + i);
            sum += product;
        }
        Word lanes[V::width];
        V::store(lanes, sum);
        for (size_t l = 0; l < V::width; ++l) sums[j] = static_cast<Word>(sums[j] + lanes[l]);
    }
    // a score in [low, high] has the distance to low of at most the span, as an unsigned word
    const Word least = static_cast<Word>(low);
    const Word span = static_cast<Word>(static_cast<Word>(high) - least);
    for (size_t i = begin; i < end; i += V::width) {
        typename V::Type distance = V::load(scores + i);
        distance -= least;
        *outside |= (typename V::Type)(distance > span);
    }
}

// A vector of one lane, whose comparison gives a word of ones as the others' do.
template <class Word>
struct Single {
    typedef Word Type __attribute__((vector_size(sizeof(Word))));
    static constexpr size_t width = 1;
    static inline Type load(const Word* p) {
        Type v;
        memcpy(&v, p, sizeof v);
        return v;
    }
    static inline void store(Word* p, Type v) { memcpy(p, &v, sizeof v); }
};

template <class Word>
inline int answers_fold(const Word* const* answers, size_t count, int width, size_t n, const Word* const* weights,
                        size_t checks, int64_t low, int64_t high, Word* sums) {
    using V = Vec<Word>;
    using SignedWord = typename V::SignedWord;
    alignas(64) Word scores[MIPP_ANSWERS_BLOCK];
    typename V::Type outside = {};
    typename Single<Word>::Type last = {};
    const Word* at[MIPP_MAX_MAPS];
    for (size_t begin = 0; begin < n; begin += MIPP_ANSWERS_BLOCK) {
        const size_t some = min_of(MIPP_ANSWERS_BLOCK, n - begin), whole = some / V::width * V::width;
        if (width < bits_of<Word>()) {
            packed_sums(answers, count, width, begin, some, scores);
        } else {
            for (size_t i = 0; i < whole; i += V::width) V::store(scores + i, sum_at(answers, count, begin + i));
            for (size_t i = whole; i < some; ++i) scores[i] = sum_one(answers, count, begin + i);
        }
        for (size_t j = 0; j < checks; ++j) at[j] = weights[j] + begin;
        const auto least = static_cast<SignedWord>(low), most = static_cast<SignedWord>(high);
        fold_lanes<V>(scores, 0, whole, at, checks, sums, least, most, &outside);
        fold_lanes<Single<Word>>(scores, whole, some, at, checks, sums, least, most, &last);
    }
    Word lanes[V::width];
    V::store(lanes, outside);
    Word any = 0;
    Single<Word>::store(&any, last);
    for (size_t l = 0; l < V::width; ++l) any = static_cast<Word>(any | lanes[l]);
    return any != 0;
}

}  // namespace
