#define MIPP_VECTOR_BYTES 32
#include "slice.h"

MIPP_DEFINE_SLICE(bits_slice_u16_avx2, 16, uint32_t)
MIPP_DEFINE_SLICE(bits_slice_u32_avx2, 32, uint32_t)
MIPP_DEFINE_SLICE(bits_slice_u64_avx2, 64, uint64_t)
