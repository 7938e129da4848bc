// Kernels of batch.h in vectors of 32 bytes.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace {

inline void batch_fence() { _mm_sfence(); }

inline __m256i join_halves(const void* a, const void* b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(a))),
                                   _mm_loadu_si128(static_cast<const __m128i*>(b)), 1);
}

// Two vectors by four columns: with more, the compiler runs out of registers.
struct NarrowTile {
    using Vector = __m256i;
    static constexpr size_t vectors = 2, piece = 16;
    static constexpr int columns = 4;
    static inline Vector zero() { return _mm256_setzero_si256(); }
    static inline Vector load(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }
};

// Two vectors, a line of the cache; its first `count` words if there are fewer, or if they are added.
template <class Word>
inline void store_pair(const __m256i (&sum)[2], Word* out, size_t count, bool add, bool stream) {
    constexpr size_t lanes = 64 / sizeof(Word);
    if (count < lanes || add) {
        alignas(32) Word words[lanes];
        _mm256_store_si256(reinterpret_cast<__m256i*>(words), sum[0]);
        _mm256_store_si256(reinterpret_cast<__m256i*>(words) + 1, sum[1]);
        for (size_t i = 0; i < count && i < lanes; ++i) {
            out[i] = static_cast<Word>(add ? out[i] + words[i] : words[i]);
        }
        return;
    }
    __m256i* to = reinterpret_cast<__m256i*>(out);
    for (int v = 0; v < 2; ++v) {
        if (stream) {
            _mm256_stream_si256(to + v, sum[v]);
        } else {
            _mm256_storeu_si256(to + v, sum[v]);
        }
    }
}

struct NarrowTile32 : NarrowTile {
    using Unit = uint32_t;
    static constexpr size_t lanes = 8;
    static inline Vector broadcast(const uint32_t* p) { return _mm256_set1_epi32(static_cast<int>(*p)); }
    template <class At>
    static inline void transpose(At at, uint32_t* to, size_t step) {
        __m256i t[4];
        for (size_t j = 0; j < 4; ++j) t[j] = join_halves(at(j), at(j + 4));
        const __m256i a = _mm256_unpacklo_epi32(t[0], t[1]), b = _mm256_unpackhi_epi32(t[0], t[1]);
        const __m256i c = _mm256_unpacklo_epi32(t[2], t[3]), d = _mm256_unpackhi_epi32(t[2], t[3]);
        __m256i* unit[4];
        for (size_t i = 0; i < 4; ++i) unit[i] = reinterpret_cast<__m256i*>(to + i * step);
        _mm256_store_si256(unit[0], _mm256_unpacklo_epi64(a, c));
        _mm256_store_si256(unit[1], _mm256_unpackhi_epi64(a, c));
        _mm256_store_si256(unit[2], _mm256_unpacklo_epi64(b, d));
        _mm256_store_si256(unit[3], _mm256_unpackhi_epi64(b, d));
    }
};

// Sums of two products as signed 32 bits: right modulo 2^16, which is all that is kept. A tile's sixteen answers are
// half a line of the cache, so they are never written past the caches.
struct BatchKernel16 : NarrowTile32 {
    using Word = uint16_t;
    static inline Vector multiply_add(Vector sum, Vector x, Vector y) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
    }
    static inline void store(const Vector (&sum)[2], uint16_t* out, size_t count, bool add, bool) {
        const __m256i low = _mm256_set1_epi32(0xffff);
        __m256i s = _mm256_packus_epi32(_mm256_and_si256(sum[0], low), _mm256_and_si256(sum[1], low));
        s = _mm256_permute4x64_epi64(s, 0xd8);
        if (count >= 16) {
            __m256i* to = reinterpret_cast<__m256i*>(out);
            if (add) s = _mm256_add_epi16(s, _mm256_loadu_si256(to));
            _mm256_storeu_si256(to, s);
            return;
        }
        alignas(32) uint16_t words[16];
        _mm256_store_si256(reinterpret_cast<__m256i*>(words), s);
        for (size_t i = 0; i < count; ++i) out[i] = static_cast<uint16_t>(add ? out[i] + words[i] : words[i]);
    }
};

struct BatchKernel32 : NarrowTile32 {
    using Word = uint32_t;
    static inline Vector multiply_add(Vector sum, Vector x, Vector y) {
        return _mm256_add_epi32(sum, _mm256_mullo_epi32(x, y));
    }
    static inline void store(const Vector (&sum)[2], uint32_t* out, size_t count, bool add, bool stream) {
        store_pair(sum, out, count, add, stream);
    }
};

struct BatchKernel64 : NarrowTile {
    using Word = uint64_t;
    using Unit = uint64_t;
    static constexpr size_t lanes = 4;
    static inline Vector broadcast(const uint64_t* p) { return _mm256_set1_epi64x(static_cast<long long>(*p)); }
    template <class At>
    static inline void transpose(At at, uint64_t* to, size_t step) {
        const __m256i a = join_halves(at(0), at(2)), b = join_halves(at(1), at(3));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm256_unpacklo_epi64(a, b));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + step), _mm256_unpackhi_epi64(a, b));
    }
    // low*low + 2^32 (low*high + high*low)
    static inline Vector multiply_add(Vector sum, Vector x, Vector y) {
        const __m256i cross = _mm256_mullo_epi32(x, _mm256_shuffle_epi32(y, 0xb1));
        const __m256i high = _mm256_slli_epi64(_mm256_add_epi32(cross, _mm256_srli_epi64(cross, 32)), 32);
        return _mm256_add_epi64(sum, _mm256_add_epi64(_mm256_mul_epu32(x, y), high));
    }
    static inline void store(const Vector (&sum)[2], uint64_t* out, size_t count, bool add, bool stream) {
        store_pair(sum, out, count, add, stream);
    }
};

}  // namespace

#include "batch.h"
