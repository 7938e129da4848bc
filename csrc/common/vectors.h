// Vectors of words for the kernels of one tier: MIPP_VECTOR_BYTES is its width. The compiler turns the arithmetic into
// the tier's instructions; where there are none (64-bit products below avx512), into several.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace {

template <class Word>
struct Signed;
template <>
struct Signed<uint16_t> {
    using Type = int16_t;
};
template <>
struct Signed<uint32_t> {
    using Type = int32_t;
};
template <>
struct Signed<uint64_t> {
    using Type = int64_t;
};

template <class Word>
struct Vec {
    typedef Word Type __attribute__((vector_size(MIPP_VECTOR_BYTES)));
    typedef typename Signed<Word>::Type SignedWord;
    typedef SignedWord SignedType __attribute__((vector_size(MIPP_VECTOR_BYTES)));
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
