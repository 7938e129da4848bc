#define MIPP_VECTOR_BYTES 32
#include "answers.h"

#define MIPP_DEFINE(bits)                                                                                         \
    void answers_add_u##bits##_avx2(const uint##bits##_t* const* answers, size_t count, size_t n, int64_t* out) { \
        answers_add(answers, count, n, out);                                                                      \
    }                                                                                                             \
    size_t answers_filter_var_u##bits##_avx2(const uint##bits##_t* const* answers, size_t count, size_t begin,    \
                                             size_t end, int64_t threshold, int64_t low, int64_t high, int all,   \
                                             MippHit* hits, size_t* found, size_t limit) {                        \
        return answers_filter_var(answers, count, begin, end, threshold, low, high, all, hits, found, limit);     \
    }
MIPP_DEFINE(16)
MIPP_DEFINE(32)
MIPP_DEFINE(64)
