#define MIPP_VECTOR_BYTES 16
#include "combine.h"

MIPP_DEFINE_COMBINE(words_combine_u16_portable, 16)
MIPP_DEFINE_COMBINE(words_combine_u32_portable, 32)
MIPP_DEFINE_COMBINE(words_combine_u64_portable, 64)
