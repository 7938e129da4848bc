// Key schedules, keystream, and masks made of it.
#include "aes_ni.h"
#include "keystream_mask.h"

void schedule_expand_u8_avx2(const uint8_t* keys, size_t count, uint8_t* schedules) { expand(keys, count, schedules); }

void keystream_fill_u8_avx2(const uint8_t* schedule, uint64_t first_block, size_t blocks, uint8_t* out) {
    fill(schedule, first_block, blocks, out);
}

#define MIPP_DEFINE(bits)                                                                                 \
    void keystream_add_u##bits##_avx2(const uint8_t* schedule, uint64_t first_block, uint##bits##_t* out, \
                                      size_t words, int negate) {                                         \
        keystream_add(schedule, first_block, out, words, negate);                                         \
    }
MIPP_DEFINE(16)
MIPP_DEFINE(32)
MIPP_DEFINE(64)
