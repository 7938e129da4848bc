#define MIPP_VECTOR_BYTES 32
#include "combine.h"

MIPP_DEFINE_COMBINE(words_combine_u16_avx2, 16)
MIPP_DEFINE_COMBINE(words_combine_u32_avx2, 32)
MIPP_DEFINE_COMBINE(words_combine_u64_avx2, 64)
