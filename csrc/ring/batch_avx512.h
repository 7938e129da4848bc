// Kernels of batch.h in vectors of 64 bytes. Only for files of the avx512 tier and above.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace {

inline void batch_fence() { _mm_sfence(); }

inline __m512i join_quarters(const void* a, const void* b, const void* c, const void* d) {
    __m512i t = _mm512_castsi128_si512(_mm_loadu_si128(static_cast<const __m128i*>(a)));
    t = _mm512_inserti32x4(t, _mm_loadu_si128(static_cast<const __m128i*>(b)), 1);
    t = _mm512_inserti32x4(t, _mm_loadu_si128(static_cast<const __m128i*>(c)), 2);
    return _mm512_inserti32x4(t, _mm_loadu_si128(static_cast<const __m128i*>(d)), 3);
}

// 16 bytes of each of 16 rows: quarter c of vector j is those of row 4 c + j.
template <class At>
inline void load_sixteen(At at, __m512i (&t)[4]) {
    for (size_t j = 0; j < 4; ++j) t[j] = join_quarters(at(j), at(j + 4), at(j + 8), at(j + 12));
}

// From there, 32-bit unit d of all 16 rows in vector d.
inline void transpose_sixteen(const __m512i (&t)[4], __m512i (&to)[4]) {
    const __m512i a = _mm512_unpacklo_epi32(t[0], t[1]), b = _mm512_unpackhi_epi32(t[0], t[1]);
    const __m512i c = _mm512_unpacklo_epi32(t[2], t[3]), d = _mm512_unpackhi_epi32(t[2], t[3]);
    to[0] = _mm512_unpacklo_epi64(a, c);
    to[1] = _mm512_unpackhi_epi64(a, c);
    to[2] = _mm512_unpacklo_epi64(b, d);
    to[3] = _mm512_unpackhi_epi64(b, d);
}

inline void store_line(void* p, __m512i v, bool stream) {
    if (stream) {
        _mm512_stream_si512(static_cast<__m512i*>(p), v);
    } else {
        _mm512_storeu_si512(p, v);
    }
}

inline uint32_t first_lanes(size_t n, size_t lanes) {
    return _bzhi_u32(~0u, static_cast<unsigned>(n < lanes ? n : lanes));
}

// The first `count` of a line's words; store_words is told of whole lines too.
inline void store_words(uint16_t* out, __m512i sum, size_t count, bool add, bool stream) {
    if (count >= 32 && !add) return store_line(out, sum, stream);
    const auto mask = static_cast<__mmask32>(first_lanes(count, 32));
    if (add) sum = _mm512_add_epi16(sum, _mm512_maskz_loadu_epi16(mask, out));
    _mm512_mask_storeu_epi16(out, mask, sum);
}

inline void store_words(uint32_t* out, __m512i sum, size_t count, bool add, bool stream) {
    if (count >= 16 && !add) return store_line(out, sum, stream);
    const auto mask = static_cast<__mmask16>(first_lanes(count, 16));
    if (add) sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, out));
    _mm512_mask_storeu_epi32(out, mask, sum);
}

inline void store_words(uint64_t* out, __m512i sum, size_t count, bool add, bool stream) {
    if (count >= 8 && !add) return store_line(out, sum, stream);
    const auto mask = static_cast<__mmask8>(first_lanes(count, 8));
    if (add) sum = _mm512_add_epi64(sum, _mm512_maskz_loadu_epi64(mask, out));
    _mm512_mask_storeu_epi64(out, mask, sum);
}

// The low halves of 32 sums.
inline __m512i low_halves(__m512i a, __m512i b) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1);
}

// Two vectors by eight columns: sixteen sums hide the latency of a product.
struct WideTile {
    using Vector = __m512i;
    static constexpr size_t vectors = 2, piece = 16;
    static constexpr int columns = 8;
    static inline Vector zero() { return _mm512_setzero_si512(); }
    static inline Vector load(const void* p) { return _mm512_load_si512(p); }
};

struct WideTile32 : WideTile {
    using Unit = uint32_t;
    static constexpr size_t lanes = 16;
    static inline Vector broadcast(const uint32_t* p) { return _mm512_set1_epi32(static_cast<int>(*p)); }
    template <class At>
    static inline void transpose(At at, uint32_t* to, size_t step) {
        __m512i t[4], units[4];
        load_sixteen(at, t);
        transpose_sixteen(t, units);
        for (size_t i = 0; i < 4; ++i) _mm512_store_si512(to + i * step, units[i]);
    }
};

// Sums of two products as signed 32 bits: right modulo 2^16, which is all that is kept.
struct BatchKernel16 : WideTile32 {
    using Word = uint16_t;
    static inline Vector multiply_add(Vector sum, Vector x, Vector y) { return _mm512_dpwssd_epi32(sum, x, y); }
    static inline void store(const Vector (&sum)[2], uint16_t* out, size_t count, bool add, bool stream) {
        store_words(out, low_halves(sum[0], sum[1]), count, add, stream);
    }
};

struct BatchKernel32 : WideTile32 {
    using Word = uint32_t;
    static inline Vector multiply_add(Vector sum, Vector x, Vector y) {
        return _mm512_add_epi32(sum, _mm512_mullo_epi32(x, y));
    }
    static inline void store(const Vector (&sum)[2], uint32_t* out, size_t count, bool add, bool stream) {
        store_words(out, sum[0], count, add, stream);
        if (count > 16) store_words(out + 16, sum[1], count - 16, add, stream);
    }
};

struct BatchKernel64 : WideTile {
    using Word = uint64_t;
    using Unit = uint64_t;
    static constexpr size_t lanes = 8;
    static inline Vector broadcast(const uint64_t* p) { return _mm512_set1_epi64(static_cast<long long>(*p)); }
    template <class At>
    static inline void transpose(At at, uint64_t* to, size_t step) {
        const __m512i a = join_quarters(at(0), at(2), at(4), at(6)), b = join_quarters(at(1), at(3), at(5), at(7));
        _mm512_store_si512(to, _mm512_unpacklo_epi64(a, b));
        _mm512_store_si512(to + step, _mm512_unpackhi_epi64(a, b));
    }
    static inline Vector multiply_add(Vector sum, Vector x, Vector y) {
        return _mm512_add_epi64(sum, _mm512_mullo_epi64(x, y));
    }
    static inline void store(const Vector (&sum)[2], uint64_t* out, size_t count, bool add, bool stream) {
        store_words(out, sum[0], count, add, stream);
        if (count > 8) store_words(out + 8, sum[1], count - 8, add, stream);
    }
};

}  // namespace

#include "batch.h"
