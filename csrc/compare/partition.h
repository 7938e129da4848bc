// Stable split by bits that are open: addresses depend on them.
#pragma once

#include "compare_kernels.h"

namespace {

// In order the words whose bit is set in m.
inline uint64_t* append(uint64_t* to, const uint64_t* words, uint64_t m) {
    for (; m != 0; m &= m - 1) *to++ = words[__builtin_ctzll(m)];
    return to;
}

inline void words_partition(const uint64_t* words, const uint64_t* bits, size_t count, uint64_t* set, uint64_t* clear) {
    for (size_t w = 0; 64 * w < count; ++w) {
        const size_t left = count - 64 * w;
        const uint64_t all = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1, m = bits[w] & all;
        set = append(set, words + 64 * w, m);
        clear = append(clear, words + 64 * w, ~m & all);
    }
}

}  // namespace

#define MIPP_DEFINE_PARTITION(name) \
    MIPP_WORDS_PARTITION(name) { words_partition(words, bits, count, set, clear); }
