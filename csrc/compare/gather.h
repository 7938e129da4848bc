// Passes of the shuffle over the tier's Stream. Addresses depend on the index, which whoever runs a pass knows.
#pragma once

#include "../common/wipe.h"
#include "compare_kernels.h"

namespace {

constexpr size_t pass_words = Stream::vectors * Words::width;
// Words asked for ahead of their use, to have enough of them on the way.
constexpr size_t ahead = 64;

// Adds the stream's words [at, at + pass_words) to as many from `to` on.
inline void add_masks(const MippGather& pass, const Stream& stream, size_t at, uint64_t* to) {
    Words::Type m[Stream::vectors];
    stream.next(m, at / 2);
#pragma GCC unroll 8
    for (size_t i = 0; i < Stream::vectors; ++i, to += Words::width) {
        const auto x = Words::load(to);
        Words::store(to, pass.subtract != 0 ? x - m[i] : x + m[i]);
    }
}

inline void gather_range(const MippGather& pass, const Stream* stream, size_t begin, size_t end) {
    size_t fetched = begin;
    for (size_t at = begin; at < end; at += pass_words) {
        const size_t stop = min_of(end, at + pass_words), until = min_of(end, stop + ahead);
        // unrolled, so that their speed does not hang on where the linker puts them
#pragma GCC unroll 8
        for (; fetched < until; ++fetched) __builtin_prefetch(pass.x + pass.index[fetched]);
#pragma GCC unroll 8
        for (size_t i = at; i < stop; ++i) pass.out[i] = pass.x[pass.index[i]];
        if (stream == nullptr) continue;
        if (stop - at == pass_words) {
            add_masks(pass, *stream, at, pass.out + at);
        } else {
            // masks come in whole blocks
            uint64_t rest[pass_words] = {};
            memcpy(rest, pass.out + at, (stop - at) * sizeof *rest);
            add_masks(pass, *stream, at, rest);
            memcpy(pass.out + at, rest, (stop - at) * sizeof *rest);
            mipp::wipe(rest, sizeof rest);
        }
    }
}

inline void words_gather(const MippGather& pass, size_t begin, size_t end) {
    if (pass.schedule == nullptr) return gather_range(pass, nullptr, begin, end);
    const Stream stream(pass.schedule);
    gather_range(pass, &stream, begin, end);
}

}  // namespace

#define MIPP_DEFINE_GATHER(name) \
    MIPP_WORDS_GATHER(name) { words_gather(*pass, begin, end); }
