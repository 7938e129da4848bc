// Sums of answers, whole or packed, and the filter in front of top-k. Included by each tier's file with
// MIPP_VECTOR_BYTES.
#pragma once

#include "folds.h"

namespace {

template <class Word>
inline void answers_add(const Word* const* answers, size_t count, int width, size_t n, int64_t* out) {
    using V = Vec<Word>;
    size_t at = 0;
    if (width < bits_of<Word>()) {
        alignas(64) Word sums[MIPP_ANSWERS_BLOCK];
        for (; at < n; at += MIPP_ANSWERS_BLOCK) {
            const size_t some = min_of(MIPP_ANSWERS_BLOCK, n - at);
            packed_sums(answers, count, width, at, some, sums);
            for (size_t i = 0; i < some; ++i) out[at + i] = static_cast<typename V::SignedWord>(sums[i]);
        }
        return;
    }
    for (; at + V::width <= n; at += V::width) {
        typename V::SignedWord lanes[V::width];
        const auto sum = sum_at(answers, count, at);
        memcpy(lanes, &sum, sizeof sum);
        for (size_t l = 0; l < V::width; ++l) out[at + l] = lanes[l];
    }
    for (; at < n; ++at) out[at] = static_cast<typename V::SignedWord>(sum_one(answers, count, at));
}

// The scores of a block, and the largest of them.
template <class Word>
inline typename Vec<Word>::SignedWord whole_scores(const Word* const* answers, size_t count, size_t at, size_t some,
                                                   typename Vec<Word>::SignedWord* scores) {
    using V = Vec<Word>;
    using SignedWord = typename V::SignedWord;
    SignedWord top;
    size_t i = 0;
    if (some >= V::width) {
        auto most = reinterpret_cast<typename V::SignedType>(sum_at(answers, count, at));
        memcpy(scores, &most, sizeof most);
        for (i = V::width; i + V::width <= some; i += V::width) {
            const auto sum = reinterpret_cast<typename V::SignedType>(sum_at(answers, count, at + i));
            memcpy(scores + i, &sum, sizeof sum);
            most = sum > most ? sum : most;
        }
        top = most[0];
        for (size_t l = 1; l < V::width; ++l) top = most[l] > top ? most[l] : top;
    } else {
        top = static_cast<SignedWord>(sum_one(answers, count, at));
    }
    for (; i < some; ++i) {
        scores[i] = static_cast<SignedWord>(sum_one(answers, count, at + i));
        top = scores[i] > top ? scores[i] : top;
    }
    return top;
}

// The same of packed answers.
template <class Word>
inline typename Vec<Word>::SignedWord packed_scores(const Word* const* answers, size_t count, int width, size_t at,
                                                    size_t some, typename Vec<Word>::SignedWord* scores) {
    Word sums[MIPP_ANSWERS_BLOCK];
    packed_sums(answers, count, width, at, some, sums);
    const Word* const from[] = {sums};
    return whole_scores(from, 1, 0, some, scores);
}

// A block's scores are summed and their maximum compared first: almost no block is looked at twice, and only then is
// the range compared.
template <class Word>
inline size_t answers_filter_var(const Word* const* answers, size_t count, int width, size_t begin, size_t end,
                                 int64_t threshold, int64_t low, int64_t high, int all, MippHit* hits, size_t* found,
                                 size_t limit) {
    using SignedWord = typename Vec<Word>::SignedWord;
    alignas(64) SignedWord scores[MIPP_ANSWERS_BLOCK];
    const uint64_t span = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
    size_t at = begin, hit = *found;
    while (at < end && hit < limit) {
        const size_t some = min_of(MIPP_ANSWERS_BLOCK, end - at);
        const SignedWord top = width < bits_of<Word>() ? packed_scores(answers, count, width, at, some, scores)
                                                       : whole_scores(answers, count, at, some, scores);
        if (all || top > threshold) {
            for (size_t i = 0; i < some; ++i) {
                const int64_t sum = scores[i];
                const int64_t score = static_cast<uint64_t>(sum) - static_cast<uint64_t>(low) > span ? INT64_MIN : sum;
                hits[hit].score = score;
                hits[hit].row = static_cast<int64_t>(at + i);
                hit += all || score > threshold;
            }
        }
        at += some;
    }
    *found = hit;
    return at;
}

}  // namespace

#define MIPP_DEFINE_ANSWERS(bits, add_name, filter_name, pack_name, fold_name)                                       \
    MIPP_ANSWERS_ADD(add_name, bits) { answers_add(answers, count, width, n, out); }                                 \
    MIPP_ANSWERS_FILTER_VAR(filter_name, bits) {                                                                     \
        return answers_filter_var(answers, count, width, begin, end, threshold, low, high, all, hits, found, limit); \
    }                                                                                                                \
    MIPP_ANSWERS_PACK(pack_name, bits) { answers_pack(words, n, width, out); }                                       \
    MIPP_ANSWERS_FOLD(fold_name, bits) {                                                                             \
        return answers_fold(answers, count, width, n, weights, checks, low, high, sums);                             \
    }
