#define MIPP_VECTOR_BYTES 64
#include "slice.h"

MIPP_DEFINE_SLICE(bits_slice_u16_avx512, 16, uint32_t)
MIPP_DEFINE_SLICE(bits_slice_u32_avx512, 32, uint32_t)
MIPP_DEFINE_SLICE(bits_slice_u64_avx512, 64, uint64_t)
