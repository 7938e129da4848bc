// Kernels over the tier's expand() and fill(), and out += or -= keystream. Included by each tier's file after its AES.
#pragma once

#include "../common/wipe.h"
#include "prf_kernels.h"

namespace {

template <class Word>
inline void keystream_add(const uint8_t* schedule, uint64_t first_block, Word* out, size_t words, int negate) {
    constexpr size_t block_words = 16 / sizeof(Word), buffer_blocks = 256;
    alignas(64) Word buffer[buffer_blocks * block_words];
    size_t used = 0;
    for (size_t done = 0; done < words;) {
        const size_t left = words - done, blocks = (left + block_words - 1) / block_words;
        const size_t some = blocks < buffer_blocks ? blocks : buffer_blocks;
        const size_t count = left < some * block_words ? left : some * block_words;
        fill(schedule, first_block + done / block_words, some, reinterpret_cast<uint8_t*>(buffer));
        if (some > used) used = some;
        Word* to = out + done;
        if (negate) {
            for (size_t i = 0; i < count; ++i) to[i] = static_cast<Word>(to[i] - buffer[i]);
        } else {
            for (size_t i = 0; i < count; ++i) to[i] = static_cast<Word>(to[i] + buffer[i]);
        }
        done += count;
    }
    mipp::wipe(buffer, 16 * used);
}

}  // namespace

#define MIPP_DEFINE_AES(expand_name, fill_name)                           \
    MIPP_SCHEDULE_EXPAND(expand_name) { expand(keys, count, schedules); } \
    MIPP_KEYSTREAM_FILL(fill_name) { fill(schedule, first_block, blocks, out); }
#define MIPP_DEFINE_KEYSTREAM_ADD(name, bits) \
    MIPP_KEYSTREAM_ADD(name, bits) { keystream_add(schedule, first_block, out, words, negate); }
