// What takes the stream of a key: gates, masks, passes of the shuffle.
#include "ctr_bitsliced.h"
#include "gates.h"
#include "gather.h"

void gates_and_u64_portable(const uint8_t* schedules, const MippGate* gates, size_t count, size_t words) {
    gates_and(schedules, gates, count, words);
}

void words_mask_u64_portable(const uint8_t* schedule, uint64_t first_block, uint64_t* inout, size_t words,
                             int operation) {
    words_mask(schedule, first_block, inout, words, operation);
}

void words_gather_u64_portable(const MippGather* pass, size_t begin, size_t end) { words_gather(*pass, begin, end); }
