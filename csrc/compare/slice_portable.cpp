#define MIPP_VECTOR_BYTES 16
#include "slice.h"

MIPP_DEFINE_SLICE(bits_slice_u16_portable, 16, uint32_t)
MIPP_DEFINE_SLICE(bits_slice_u32_portable, 32, uint32_t)
MIPP_DEFINE_SLICE(bits_slice_u64_portable, 64, uint64_t)
