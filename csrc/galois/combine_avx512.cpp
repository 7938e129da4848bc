#define MIPP_VECTOR_BYTES 64
#include "combine.h"

MIPP_DEFINE_COMBINE(words_combine_u16_avx512, 16)
MIPP_DEFINE_COMBINE(words_combine_u32_avx512, 32)
MIPP_DEFINE_COMBINE(words_combine_u64_avx512, 64)
