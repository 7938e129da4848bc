// Key schedules, keystream, and masks made of it.
#include "aes_ni.h"
#include "keystream_mask.h"

MIPP_DEFINE_AES(schedule_expand_u8_avx2, keystream_fill_u8_avx2)
MIPP_DEFINE_KEYSTREAM_ADD(keystream_add_u16_avx2, 16)
MIPP_DEFINE_KEYSTREAM_ADD(keystream_add_u32_avx2, 32)
MIPP_DEFINE_KEYSTREAM_ADD(keystream_add_u64_avx2, 64)
