// AND gates and masks over the tier's Stream: masks live in registers only.
#pragma once

#include "../common/wipe.h"
#include "compare_kernels.h"

namespace {

// Columns done gate after gate, so that planes which neighbouring gates share are still in a near cache.
constexpr size_t column_block = 1024;
constexpr size_t stream_words = Stream::vectors * Words::width;

// The party's part of x & y without masks: both products with x_lo in one.
inline Words::Type and_part(const MippGate& gate, size_t at) {
    const auto x_lo = Words::load(gate.x_lo + at), x_hi = Words::load(gate.x_hi + at);
    const auto y_lo = Words::load(gate.y_lo + at), y_hi = Words::load(gate.y_hi + at);
    return (x_lo & (y_lo ^ y_hi)) ^ (x_hi & y_lo);
}

inline void and_columns(const Stream& a, const Stream& b, const MippGate& gate, size_t at, size_t end) {
    for (; at < end; at += stream_words) {
        Words::Type m[Stream::vectors], n[Stream::vectors];
        a.next(m, gate.first_block + at / 2);
        b.next(n, gate.first_block + at / 2);
        if (at + stream_words <= end) {
#pragma GCC unroll 8
            for (size_t i = 0; i < Stream::vectors; ++i) {
                const size_t to = at + i * Words::width;
                Words::store(gate.out + to, and_part(gate, to) ^ m[i] ^ n[i]);
            }
        } else {
            for (size_t i = 0; at + i * Words::width < end; ++i) {
                const size_t to = at + i * Words::width;
                Words::store(gate.out + to, and_part(gate, to) ^ m[i] ^ n[i]);
            }
        }
    }
}

inline void gates_and(const uint8_t* schedules, const MippGate* gates, size_t count, size_t words) {
    const Stream a(schedules), b(schedules + 240);
    for (size_t at = 0; at < words; at += column_block) {
        const size_t end = min_of(words, at + column_block);
        for (size_t g = 0; g < count; ++g) and_columns(a, b, gates[g], at, end);
    }
}

template <int operation>
inline Words::Type masked(Words::Type x, Words::Type mask) {
    return operation == MIPP_MASK_SET   ? mask
           : operation == MIPP_MASK_XOR ? x ^ mask
           : operation == MIPP_MASK_ADD ? x + mask
                                        : x - mask;
}

template <int operation>
inline void mask_range(const uint8_t* schedule, uint64_t first_block, uint64_t* inout, size_t words) {
    const Stream stream(schedule);
    Words::Type m[Stream::vectors];
    size_t at = 0;
    for (; at + stream_words <= words; at += stream_words) {
        stream.next(m, first_block + at / 2);
        uint64_t* to = inout + at;
#pragma GCC unroll 8
        for (size_t i = 0; i < Stream::vectors; ++i, to += Words::width) {
            Words::store(to, masked<operation>(Words::load(to), m[i]));
        }
    }
    if (at < words) {
        uint64_t rest[stream_words] = {};
        memcpy(rest, inout + at, (words - at) * sizeof *rest);
        stream.next(m, first_block + at / 2);
        for (size_t i = 0; i < Stream::vectors; ++i) {
            uint64_t* to = rest + i * Words::width;
            Words::store(to, masked<operation>(Words::load(to), m[i]));
        }
        memcpy(inout + at, rest, (words - at) * sizeof *rest);
        mipp::wipe(rest, sizeof rest);
        mipp::wipe(m, sizeof m);
    }
}

inline void words_mask(const uint8_t* schedule, uint64_t first_block, uint64_t* inout, size_t words, int operation) {
    switch (operation) {
        case MIPP_MASK_SET:
            return mask_range<MIPP_MASK_SET>(schedule, first_block, inout, words);
        case MIPP_MASK_XOR:
            return mask_range<MIPP_MASK_XOR>(schedule, first_block, inout, words);
        case MIPP_MASK_ADD:
            return mask_range<MIPP_MASK_ADD>(schedule, first_block, inout, words);
        default:
            return mask_range<MIPP_MASK_SUBTRACT>(schedule, first_block, inout, words);
    }
}

}  // namespace

#define MIPP_DEFINE_GATES(and_name, mask_name)                              \
    MIPP_GATES_AND(and_name) { gates_and(schedules, gates, count, words); } \
    MIPP_WORDS_MASK(mask_name) { words_mask(schedule, first_block, inout, words, operation); }
