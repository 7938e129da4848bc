// Vectors of words for the kernels of one tier: MIPP_VECTOR_BYTES is its width.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace {

template <class Word>
struct Vec {
    typedef Word Type __attribute__((vector_size(MIPP_VECTOR_BYTES)));
    static constexpr size_t width = MIPP_VECTOR_BYTES / sizeof(Word);

    static inline Type load(const Word* p) {
        Type v;
        memcpy(&v, p, sizeof v);
        return v;
    }
    static inline void store(Word* p, Type v) { memcpy(p, &v, sizeof v); }
};

using Words = Vec<uint64_t>;

inline size_t min_of(size_t a, size_t b) { return a < b ? a : b; }

}  // namespace
