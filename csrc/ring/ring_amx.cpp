// Batches of columns by tiles of bytes; few columns, and words of 64 bits, are the avx512 tier's.
#include "batch_amx.h"
#include "ring_kernels.h"

MIPP_DEFINE_RING_BATCH(16, ring_batch_bytes_u16_amx, ring_batch_pack_u16_amx, ring_batch_u16_amx,
                       BatchLoop<TileBatch<uint16_t>>)
MIPP_DEFINE_RING_BATCH(32, ring_batch_bytes_u32_amx, ring_batch_pack_u32_amx, ring_batch_u32_amx,
                       BatchLoop<TileBatch<uint32_t>>)
