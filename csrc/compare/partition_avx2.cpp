#include "partition.h"

void words_partition_u64_avx2(const uint64_t* words, const uint64_t* bits, size_t count, uint64_t* set,
                              uint64_t* clear) {
    words_partition(words, bits, count, set, clear);
}
