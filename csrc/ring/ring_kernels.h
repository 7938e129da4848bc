// The kernels of every tier; each is tested as itself. Arguments as ring_matmul in ring.h, on one thread.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Each macro is one kernel's declaration. A kernel is defined by the same macro, with its whole name, in its tier's
// file.
#define MIPP_RING_MATMUL(name, bits)                                                                   \
    void name(const uint##bits##_t* rows, size_t row_count, size_t dim, const uint##bits##_t* columns, \
              size_t column_count, uint##bits##_t* out, size_t out_stride)

// For many columns. They are packed once a call, in an order that each tier has of its own: `packed` has
// ring_batch_bytes bytes, 64-byte aligned, and is as secret as the columns. `stream`: write the answers past the
// caches; their rows must then begin equally far from a line of the cache.
#define MIPP_RING_BATCH_BYTES(name, bits) size_t name(size_t dim, size_t column_count)
#define MIPP_RING_BATCH_PACK(name, bits) \
    void name(const uint##bits##_t* columns, size_t column_count, size_t dim, void* packed)
#define MIPP_RING_BATCH(name, bits)                                                                              \
    void name(const uint##bits##_t* rows, size_t row_count, size_t dim, const void* packed, size_t column_count, \
              uint##bits##_t* out, size_t out_stride, int stream)

#define MIPP_RING_BATCH_KERNELS(bits, tier)                         \
    MIPP_RING_BATCH_BYTES(ring_batch_bytes_u##bits##_##tier, bits); \
    MIPP_RING_BATCH_PACK(ring_batch_pack_u##bits##_##tier, bits);   \
    MIPP_RING_BATCH(ring_batch_u##bits##_##tier, bits);
#define MIPP_RING_KERNELS(bits, tier)                     \
    MIPP_RING_MATMUL(ring_matmul_u##bits##_##tier, bits); \
    MIPP_RING_BATCH_KERNELS(bits, tier)

extern "C" {
MIPP_RING_MATMUL(ring_matmul_u16_portable, 16);
MIPP_RING_MATMUL(ring_matmul_u32_portable, 32);
MIPP_RING_MATMUL(ring_matmul_u64_portable, 64);
#ifdef MIPP_X86
MIPP_RING_KERNELS(16, avx2)
MIPP_RING_KERNELS(32, avx2)
MIPP_RING_KERNELS(64, avx2)
MIPP_RING_KERNELS(16, avx512)
MIPP_RING_KERNELS(32, avx512)
MIPP_RING_KERNELS(64, avx512)
MIPP_RING_BATCH_KERNELS(16, amx)
MIPP_RING_BATCH_KERNELS(32, amx)
#endif
}
