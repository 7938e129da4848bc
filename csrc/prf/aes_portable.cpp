// Key schedules, keystream, and masks made of it.
#include "aes_bitsliced.h"
#include "keystream_mask.h"

MIPP_DEFINE_AES(schedule_expand_u8_portable, keystream_fill_u8_portable)
MIPP_DEFINE_KEYSTREAM_ADD(keystream_add_u16_portable, 16)
MIPP_DEFINE_KEYSTREAM_ADD(keystream_add_u32_portable, 32)
MIPP_DEFINE_KEYSTREAM_ADD(keystream_add_u64_portable, 64)
