// The kernels of every tier; each is tested as itself. Arguments as ring_matmul in ring.h, on one thread.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define MIPP_RING_MATMUL(bits, tier)                                                                           \
    void ring_matmul_u##bits##_##tier(const uint##bits##_t* rows, size_t row_count, size_t dim,                \
                                      const uint##bits##_t* columns, size_t column_count, uint##bits##_t* out, \
                                      size_t out_stride)

extern "C" {
MIPP_RING_MATMUL(16, portable);
MIPP_RING_MATMUL(32, portable);
MIPP_RING_MATMUL(64, portable);
#ifdef MIPP_X86
MIPP_RING_MATMUL(16, avx2);
MIPP_RING_MATMUL(32, avx2);
MIPP_RING_MATMUL(64, avx2);
MIPP_RING_MATMUL(16, avx512);
MIPP_RING_MATMUL(32, avx512);
MIPP_RING_MATMUL(64, avx512);
#endif
}
