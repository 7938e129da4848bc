// Two rows by up to four columns in registers, or one row by one; tails by masks. Rows are prefetched ahead.
#include <immintrin.h>
#include <string.h>

#include "../common/lane_sums.h"
#include "batch_avx512.h"
#include "ring_kernels.h"

namespace {

inline __m512i add_pairs32(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

inline __m512i add_pairs64(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

// The sums of eight vectors' 32-bit lanes, in order: half the shuffles of eight separate sums.
inline __m256i sum_eight32(const __m512i* v) {
    __m512i t[4], u[2];
    for (int i = 0; i < 4; ++i) t[i] = add_pairs32(v[2 * i], v[2 * i + 1]);
    for (int i = 0; i < 2; ++i) {
        u[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(t[2 * i], t[2 * i + 1]),
                                _mm512_unpackhi_epi64(t[2 * i], t[2 * i + 1]));
    }
    __m512i s = _mm512_add_epi32(_mm512_shuffle_i64x2(u[0], u[1], 0x88), _mm512_shuffle_i64x2(u[0], u[1], 0xdd));
    s = _mm512_add_epi32(s, _mm512_shuffle_i64x2(s, s, 0xb1));
    return _mm512_castsi512_si256(_mm512_shuffle_i64x2(s, s, 0x08));
}

// The same for 64-bit lanes.
inline __m512i sum_eight64(const __m512i* v) {
    __m512i u[2];
    for (int i = 0; i < 2; ++i) {
        const __m512i a = add_pairs64(v[4 * i], v[4 * i + 1]), b = add_pairs64(v[4 * i + 2], v[4 * i + 3]);
        u[i] = _mm512_add_epi64(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
    }
    return _mm512_add_epi64(_mm512_shuffle_i64x2(u[0], u[1], 0x88), _mm512_shuffle_i64x2(u[0], u[1], 0xdd));
}

// Each Lanes type: Word, multiply_add on 64 bytes of words, loads, the wrapped sum of an accumulator, and the sums of
// eight accumulators (column by column, two rows each) stored two words per column.
struct Lanes16 {
    using Word = uint16_t;
    // Sums of two products as signed 32 bits: right modulo 2^16, which is all that is kept.
    static inline __m512i multiply_add(__m512i sum, __m512i x, __m512i y) { return _mm512_dpwssd_epi32(sum, x, y); }
    static inline __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
    static inline uint16_t total(__m512i v) { return static_cast<uint16_t>(sum_lanes32(v)); }
    static inline __m512i load(const uint16_t* p) { return _mm512_loadu_si512(p); }
    static inline __m512i load_tail(const uint16_t* p, size_t n) {
        return _mm512_maskz_loadu_epi16(static_cast<__mmask32>(_bzhi_u32(~0u, static_cast<unsigned>(n))), p);
    }
    static inline void store_eight(const __m512i* v, uint16_t* out, size_t out_stride) {
        const __m128i s = _mm256_cvtepi32_epi16(sum_eight32(v));
        _mm_storeu_si32(out, s);
        _mm_storeu_si32(out + out_stride, _mm_srli_si128(s, 4));
        _mm_storeu_si32(out + 2 * out_stride, _mm_srli_si128(s, 8));
        _mm_storeu_si32(out + 3 * out_stride, _mm_srli_si128(s, 12));
    }
};

struct Lanes32 {
    using Word = uint32_t;
    static inline __m512i multiply_add(__m512i sum, __m512i x, __m512i y) {
        return _mm512_add_epi32(sum, _mm512_mullo_epi32(x, y));
    }
    static inline __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
    static inline uint32_t total(__m512i v) { return sum_lanes32(v); }
    static inline __m512i load(const uint32_t* p) { return _mm512_loadu_si512(p); }
    static inline __m512i load_tail(const uint32_t* p, size_t n) {
        return _mm512_maskz_loadu_epi32(static_cast<__mmask16>(_bzhi_u32(~0u, static_cast<unsigned>(n))), p);
    }
    static inline void store_eight(const __m512i* v, uint32_t* out, size_t out_stride) {
        const __m256i s = sum_eight32(v);
        const __m128i low = _mm256_castsi256_si128(s), high = _mm256_extracti128_si256(s, 1);
        _mm_storeu_si64(out, low);
        _mm_storeu_si64(out + out_stride, _mm_srli_si128(low, 8));
        _mm_storeu_si64(out + 2 * out_stride, high);
        _mm_storeu_si64(out + 3 * out_stride, _mm_srli_si128(high, 8));
    }
};

struct Lanes64 {
    using Word = uint64_t;
    static inline __m512i multiply_add(__m512i sum, __m512i x, __m512i y) {
        return _mm512_add_epi64(sum, _mm512_mullo_epi64(x, y));
    }
    static inline __m512i add(__m512i a, __m512i b) { return _mm512_add_epi64(a, b); }
    static inline uint64_t total(__m512i v) { return sum_lanes64(v); }
    static inline __m512i load(const uint64_t* p) { return _mm512_loadu_si512(p); }
    static inline __m512i load_tail(const uint64_t* p, size_t n) {
        return _mm512_maskz_loadu_epi64(static_cast<__mmask8>(_bzhi_u32(~0u, static_cast<unsigned>(n))), p);
    }
    static inline void store_eight(const __m512i* v, uint64_t* out, size_t out_stride) {
        const __m512i s = sum_eight64(v);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_castsi512_si128(s));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + out_stride), _mm512_extracti64x2_epi64(s, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * out_stride), _mm512_extracti64x2_epi64(s, 2));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * out_stride), _mm512_extracti64x2_epi64(s, 3));
    }
};

// By address, not pointer: it may lie behind the end of the array, where a prefetch does nothing.
inline void prefetch(const void* p, size_t ahead) {
    _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(p) + ahead), _MM_HINT_T1);
}

template <class Lanes, int R, int C>
inline void tile(const typename Lanes::Word* x, size_t dim, const typename Lanes::Word* y, typename Lanes::Word* out,
                 size_t out_stride, bool stream) {
    constexpr size_t width = 64 / sizeof(typename Lanes::Word);
    __m512i sum[C][R];
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) sum[c][r] = _mm512_setzero_si512();
    }
    size_t d = 0;
    for (; d + width <= dim; d += width) {
        __m512i row[R];
        for (int r = 0; r < R; ++r) {
            row[r] = Lanes::load(x + r * dim + d);
            if (stream) prefetch(x + r * dim + d, 8192);
        }
        for (int c = 0; c < C; ++c) {
            const __m512i column = Lanes::load(y + c * dim + d);
            for (int r = 0; r < R; ++r) sum[c][r] = Lanes::multiply_add(sum[c][r], row[r], column);
        }
    }
    if (d < dim) {
        __m512i row[R];
        for (int r = 0; r < R; ++r) {
            row[r] = Lanes::load_tail(x + r * dim + d, dim - d);
            if (stream) prefetch(x + r * dim + d, 8192);
        }
        for (int c = 0; c < C; ++c) {
            const __m512i column = Lanes::load_tail(y + c * dim + d, dim - d);
            for (int r = 0; r < R; ++r) sum[c][r] = Lanes::multiply_add(sum[c][r], row[r], column);
        }
    }
    if (R == 2 && C == 4) {
        Lanes::store_eight(&sum[0][0], out, out_stride);
        return;
    }
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) out[c * out_stride + r] = Lanes::total(sum[c][r]);
    }
}

template <class Lanes, int R>
inline void row_tile(const typename Lanes::Word* x, size_t dim, const typename Lanes::Word* columns,
                     size_t column_count, typename Lanes::Word* out, size_t out_stride) {
    size_t b = 0;
    for (; b + 4 <= column_count; b += 4) {
        tile<Lanes, R, 4>(x, dim, columns + b * dim, out + b * out_stride, out_stride, b == 0);
    }
    for (; b < column_count; ++b) {
        tile<Lanes, R, 1>(x, dim, columns + b * dim, out + b * out_stride, out_stride, b == 0);
    }
}

// One column: rows are read as the one stream that they are, at the speed of memory.
template <class Lanes>
inline void single(const typename Lanes::Word* x, size_t row_count, size_t dim, const typename Lanes::Word* y,
                   typename Lanes::Word* out) {
    constexpr size_t width = 64 / sizeof(typename Lanes::Word), chains = 4;
    for (size_t r = 0; r < row_count; ++r, x += dim) {
        __m512i sum[chains];
        for (auto& s : sum) s = _mm512_setzero_si512();
        size_t d = 0;
        for (; d + chains * width <= dim; d += chains * width) {
#pragma GCC unroll 4
            for (size_t i = 0; i < chains; ++i) {
                prefetch(x + d + i * width, 4096);
                sum[i] = Lanes::multiply_add(sum[i], Lanes::load(x + d + i * width), Lanes::load(y + d + i * width));
            }
        }
        for (; d + width <= dim; d += width) {
            prefetch(x + d, 4096);
            sum[0] = Lanes::multiply_add(sum[0], Lanes::load(x + d), Lanes::load(y + d));
        }
        if (d < dim) {
            sum[1] = Lanes::multiply_add(sum[1], Lanes::load_tail(x + d, dim - d), Lanes::load_tail(y + d, dim - d));
        }
        out[r] = Lanes::total(Lanes::add(Lanes::add(sum[0], sum[1]), Lanes::add(sum[2], sum[3])));
    }
}

// Three or four columns of 32-bit words by multiply-adds of 52 bits, which take two thirds of what low products and
// sums take: so that rows still come at nearly the speed of memory. A lane holds two words. Only the low 32 bits of its
// sum count, and no upper word of a factor reaches these, so even words are multiplied as they are; odd words are moved
// down, those of columns once, into `odd`.
constexpr size_t few_words = 4096;

template <int C>
inline void few(const uint32_t* x, size_t row_count, size_t dim, const uint32_t* columns, uint32_t* out,
                size_t out_stride) {
    constexpr size_t width = 16;
    const size_t whole = dim / width * width, padded = (dim + width - 1) / width * width;
    alignas(64) uint32_t even[few_words], odd[few_words];
    for (size_t c = 0; c < C; ++c) {
        for (size_t d = 0; d < padded; d += width) {
            const __m512i y = Lanes32::load_tail(columns + c * dim + d, d < whole ? width : dim - whole);
            _mm512_store_si512(even + c * padded + d, y);
            _mm512_store_si512(odd + c * padded + d, _mm512_srli_epi64(y, 32));
        }
    }
    const auto row = [&](const uint32_t* from, __m512i* to, size_t step) {
        __m512i low[C], high[C];
        for (int c = 0; c < C; ++c) low[c] = high[c] = _mm512_setzero_si512();
        const auto add = [&](__m512i v, size_t d) {
            const __m512i up = _mm512_srli_epi64(v, 32);
#pragma GCC unroll 4
            for (size_t c = 0; c < C; ++c) {
                low[c] = _mm512_madd52lo_epu64(low[c], v, _mm512_load_si512(even + c * padded + d));
                high[c] = _mm512_madd52lo_epu64(high[c], up, _mm512_load_si512(odd + c * padded + d));
            }
        };
        for (size_t d = 0; d < whole; d += width) {
            prefetch(from + d, 4096);
            add(Lanes32::load(from + d), d);
        }
        if (whole < dim) add(Lanes32::load_tail(from + whole, dim - whole), whole);
        for (size_t c = 0; c < C; ++c) {
            to[c * step] = _mm512_maskz_mov_epi32(0x5555, _mm512_add_epi64(low[c], high[c]));
        }
    };
    __m512i sum[8];  // column by column, two rows each
    for (auto& one : sum) one = _mm512_setzero_si512();
    size_t r = 0;
    for (; r + 2 <= row_count; r += 2, x += 2 * dim) {
        row(x, sum, 2);
        row(x + dim, sum + 1, 2);
        alignas(32) uint32_t totals[4][2];
        _mm256_store_si256(reinterpret_cast<__m256i*>(totals), sum_eight32(sum));
        for (size_t c = 0; c < C; ++c) memcpy(out + c * out_stride + r, totals[c], sizeof totals[c]);
    }
    if (r < row_count) {
        row(x, sum, 2);
        for (size_t c = 0; c < C; ++c) out[c * out_stride + r] = Lanes32::total(sum[2 * c]);
    }
}

template <class Lanes>
inline void matmul(const typename Lanes::Word* rows, size_t row_count, size_t dim, const typename Lanes::Word* columns,
                   size_t column_count, typename Lanes::Word* out, size_t out_stride) {
    if (column_count == 1) return single<Lanes>(rows, row_count, dim, columns, out);
    if constexpr (sizeof(typename Lanes::Word) == 4) {
        if ((dim + 15) / 16 * 16 * 4 <= few_words) {
            if (column_count == 3) return few<3>(rows, row_count, dim, columns, out, out_stride);
            if (column_count == 4) return few<4>(rows, row_count, dim, columns, out, out_stride);
        }
    }
    size_t r = 0;
    for (; r + 2 <= row_count; r += 2) {
        row_tile<Lanes, 2>(rows + r * dim, dim, columns, column_count, out + r, out_stride);
    }
    if (r < row_count) row_tile<Lanes, 1>(rows + r * dim, dim, columns, column_count, out + r, out_stride);
}

}  // namespace

MIPP_RING_MATMUL(ring_matmul_u16_avx512, 16) {
    matmul<Lanes16>(rows, row_count, dim, columns, column_count, out, out_stride);
}
MIPP_RING_MATMUL(ring_matmul_u32_avx512, 32) {
    matmul<Lanes32>(rows, row_count, dim, columns, column_count, out, out_stride);
}
MIPP_RING_MATMUL(ring_matmul_u64_avx512, 64) {
    matmul<Lanes64>(rows, row_count, dim, columns, column_count, out, out_stride);
}

MIPP_DEFINE_RING_BATCH(16, ring_batch_bytes_u16_avx512, ring_batch_pack_u16_avx512, ring_batch_u16_avx512,
                       BatchLoop<Batch<BatchKernel16>>)
MIPP_DEFINE_RING_BATCH(32, ring_batch_bytes_u32_avx512, ring_batch_pack_u32_avx512, ring_batch_u32_avx512,
                       BatchLoop<Batch<BatchKernel32>>)
MIPP_DEFINE_RING_BATCH(64, ring_batch_bytes_u64_avx512, ring_batch_pack_u64_avx512, ring_batch_u64_avx512,
                       BatchLoop<Batch<BatchKernel64>>)
