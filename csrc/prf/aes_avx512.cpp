// Key schedules, keystream, and masks made of it.
#include "aes_vaes.h"
#include "keystream_mask.h"

MIPP_DEFINE_AES(schedule_expand_u8_avx512, keystream_fill_u8_avx512)
MIPP_DEFINE_KEYSTREAM_ADD(keystream_add_u16_avx512, 16)
MIPP_DEFINE_KEYSTREAM_ADD(keystream_add_u32_avx512, 32)
MIPP_DEFINE_KEYSTREAM_ADD(keystream_add_u64_avx512, 64)
