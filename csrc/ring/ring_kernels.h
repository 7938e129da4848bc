// The kernels of every tier; each is tested as itself. Arguments as ring_matmul in ring.h, on one thread.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define MIPP_RING_MATMUL(bits, tier)                                                                           \
    void ring_matmul_u##bits##_##tier(const uint##bits##_t* rows, size_t row_count, size_t dim,                \
                                      const uint##bits##_t* columns, size_t column_count, uint##bits##_t* out, \
                                      size_t out_stride)

// For many columns. They are packed once a call, in an order that each tier has of its own: `packed` has
// ring_batch_bytes bytes, 64-byte aligned, and is as secret as the columns. `stream`: write the answers past the
// caches; their rows must then begin equally far from a line of the cache.
#define MIPP_RING_BATCH_BYTES(bits, tier) size_t ring_batch_bytes_u##bits##_##tier(size_t dim, size_t column_count)
#define MIPP_RING_BATCH_PACK(bits, tier) \
    void ring_batch_pack_u##bits##_##tier(const uint##bits##_t* columns, size_t column_count, size_t dim, void* packed)
#define MIPP_RING_BATCH(bits, tier)                                                                                \
    void ring_batch_u##bits##_##tier(const uint##bits##_t* rows, size_t row_count, size_t dim, const void* packed, \
                                     size_t column_count, uint##bits##_t* out, size_t out_stride, int stream)

// What a tier's file makes them of: a BatchLoop of batch.h.
#define MIPP_DEFINE_RING_BATCH(bits, tier, ...)                                                              \
    MIPP_RING_BATCH_BYTES(bits, tier) { return __VA_ARGS__::bytes(dim, column_count); }                      \
    MIPP_RING_BATCH_PACK(bits, tier) { __VA_ARGS__::pack(columns, column_count, dim, packed); }              \
    MIPP_RING_BATCH(bits, tier) {                                                                            \
        __VA_ARGS__::product(rows, dim, row_count, dim, packed, column_count, out, out_stride, stream != 0); \
    }

#define MIPP_RING_BATCH_KERNELS(bits, tier) \
    MIPP_RING_BATCH_BYTES(bits, tier);      \
    MIPP_RING_BATCH_PACK(bits, tier);       \
    MIPP_RING_BATCH(bits, tier);
#define MIPP_RING_KERNELS(bits, tier) \
    MIPP_RING_MATMUL(bits, tier);     \
    MIPP_RING_BATCH_KERNELS(bits, tier)

extern "C" {
MIPP_RING_MATMUL(16, portable);
MIPP_RING_MATMUL(32, portable);
MIPP_RING_MATMUL(64, portable);
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
