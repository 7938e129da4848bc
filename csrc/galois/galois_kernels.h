// The kernels of every tier, each on one thread; galois.cpp picks a tier, tests run each as itself.
#pragma once

#include <stddef.h>
#include <stdint.h>

// A candidate of top-k.
typedef struct {
    int64_t score, row;
} MippHit;

// Answers that are looked at together, and packed together. answers_filter may append so many after its limit.
#define MIPP_ANSWERS_BLOCK 512
// Most outputs and inputs of a linear map: a deployment has at most 7 servers, and threshold at most 3.
#define MIPP_MAX_MAPS 8
#define MIPP_MAX_INPUTS 4

// Each macro is one kernel's declaration. A kernel is defined by the same macro, with its whole name, in its tier's
// file.

// outs[i][m j + b] = sum_a sum_c matrices[i, a, b, c] * inputs[a][m j + c] mod 2^bits, m 2 or 3, words a multiple of m.
// `stream`: write past the caches (large results that nobody reads soon).
#define MIPP_WORDS_COMBINE(name, bits)                                                                                \
    void name(const uint##bits##_t* const* inputs, size_t input_count, uint##bits##_t* const* outs, size_t out_count, \
              size_t words, const uint##bits##_t* matrices, int m, int stream)
// out[i] = sum of answers[.][i] mod 2^width, read as signed. Answers of less than `bits` bits are packed.
#define MIPP_ANSWERS_ADD(name, bits) \
    void name(const uint##bits##_t* const* answers, size_t count, int width, size_t n, int64_t* out)
// Appends the scores of rows from `begin`, which begins a block, on that exceed `threshold` (`all`: every score) until
// `end` or until there are `limit` hits; room for limit + MIPP_ANSWERS_BLOCK of them. Returns the first row not looked
// at. A score outside [low, high] counts as INT64_MIN.
#define MIPP_ANSWERS_FILTER_VAR(name, bits)                                                              \
    size_t name(const uint##bits##_t* const* answers, size_t count, int width, size_t begin, size_t end, \
                int64_t threshold, int64_t low, int64_t high, int all, MippHit* hits, size_t* found, size_t limit)
// Packs the low `width` < bits bits of n words.
#define MIPP_ANSWERS_PACK(name, bits) void name(const uint##bits##_t* words, size_t n, int width, uint##bits##_t* out)

// sums[j] += sum over rows of weights[j][i] * score i mod 2^bits, for n rows from the beginning of a block on and at
// most MIPP_MAX_MAPS weights. Returns whether a score is outside [low, high].
#define MIPP_ANSWERS_FOLD(name, bits)                                                 \
    int name(const uint##bits##_t* const* answers, size_t count, int width, size_t n, \
             const uint##bits##_t* const* weights, size_t checks, int64_t low, int64_t high, uint##bits##_t* sums)

#define MIPP_GALOIS_WORD_KERNELS(bits, tier)                            \
    MIPP_WORDS_COMBINE(words_combine_u##bits##_##tier, bits);           \
    MIPP_ANSWERS_ADD(answers_add_u##bits##_##tier, bits);               \
    MIPP_ANSWERS_FILTER_VAR(answers_filter_var_u##bits##_##tier, bits); \
    MIPP_ANSWERS_PACK(answers_pack_u##bits##_##tier, bits);             \
    MIPP_ANSWERS_FOLD(answers_fold_u##bits##_##tier, bits);
#define MIPP_GALOIS_KERNELS(tier)      \
    MIPP_GALOIS_WORD_KERNELS(16, tier) \
    MIPP_GALOIS_WORD_KERNELS(32, tier) \
    MIPP_GALOIS_WORD_KERNELS(64, tier)

extern "C" {
MIPP_GALOIS_KERNELS(portable)
#ifdef MIPP_X86
MIPP_GALOIS_KERNELS(avx2)
MIPP_GALOIS_KERNELS(avx512)
#endif
}
