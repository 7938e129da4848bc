#define MIPP_VECTOR_BYTES 32
#include "combine.h"

#define MIPP_DEFINE(bits)                                                                          \
    void words_combine_u##bits##_avx2(const uint##bits##_t* const* inputs, size_t input_count,     \
                                      uint##bits##_t* const* outs, size_t out_count, size_t words, \
                                      const uint##bits##_t* matrices, int m, int stream) {         \
        combine(inputs, input_count, outs, out_count, words, matrices, m, stream);                 \
    }
MIPP_DEFINE(16)
MIPP_DEFINE(32)
MIPP_DEFINE(64)
