// Two rows by up to four columns in registers, or one row by one. Rows are prefetched ahead.
#include <immintrin.h>

#include "../common/lane_sums.h"
#include "batch_avx2.h"
#include "ring_kernels.h"

namespace {

// Each Lanes type: Word, multiply_add on 32 bytes of words, the wrapped sum of an accumulator, a scalar product.
struct Lanes16 {
    using Word = uint16_t;
    // Sums of two products as signed 32 bits: right modulo 2^16, which is all that is kept.
    static inline __m256i multiply_add(__m256i sum, __m256i x, __m256i y) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
    }
    static inline __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
    static inline uint16_t total(__m256i v) { return static_cast<uint16_t>(sum_lanes32(v)); }
    static inline uint16_t scalar(uint16_t x, uint16_t y) {
        return static_cast<uint16_t>(static_cast<uint32_t>(x) * y);
    }
};

struct Lanes32 {
    using Word = uint32_t;
    static inline __m256i multiply_add(__m256i sum, __m256i x, __m256i y) {
        return _mm256_add_epi32(sum, _mm256_mullo_epi32(x, y));
    }
    static inline __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
    static inline uint32_t total(__m256i v) { return sum_lanes32(v); }
    static inline uint32_t scalar(uint32_t x, uint32_t y) { return x * y; }
};

struct Lanes64 {
    using Word = uint64_t;
    // low*low + 2^32 (low*high + high*low)
    static inline __m256i multiply_add(__m256i sum, __m256i x, __m256i y) {
        const __m256i cross = _mm256_mullo_epi32(x, _mm256_shuffle_epi32(y, 0xb1));
        const __m256i high = _mm256_slli_epi64(_mm256_add_epi32(cross, _mm256_srli_epi64(cross, 32)), 32);
        return _mm256_add_epi64(sum, _mm256_add_epi64(_mm256_mul_epu32(x, y), high));
    }
    static inline __m256i add(__m256i a, __m256i b) { return _mm256_add_epi64(a, b); }
    static inline uint64_t total(__m256i v) { return sum_lanes64(v); }
    static inline uint64_t scalar(uint64_t x, uint64_t y) { return x * y; }
};

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// By address, not pointer: it may lie behind the end of the array, where a prefetch does nothing.
inline void prefetch(const void* p, size_t ahead) {
    _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(p) + ahead), _MM_HINT_T1);
}

template <class Lanes, int R, int C>
inline void tile(const typename Lanes::Word* x, size_t dim, const typename Lanes::Word* y, typename Lanes::Word* out,
                 size_t out_stride, bool stream) {
    using Word = typename Lanes::Word;
    constexpr size_t width = 32 / sizeof(Word);
    __m256i sum[R][C];
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) sum[r][c] = _mm256_setzero_si256();
    }
    size_t d = 0;
    for (; d + width <= dim; d += width) {
        __m256i row[R];
        for (int r = 0; r < R; ++r) {
            row[r] = load(x + r * dim + d);
            if (stream) prefetch(x + r * dim + d, 8192);
        }
        for (int c = 0; c < C; ++c) {
            const __m256i column = load(y + c * dim + d);
            for (int r = 0; r < R; ++r) sum[r][c] = Lanes::multiply_add(sum[r][c], row[r], column);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) {
            Word s = Lanes::total(sum[r][c]);
            for (size_t i = d; i < dim; ++i) {
                s = static_cast<Word>(s + Lanes::scalar(x[r * dim + i], y[c * dim + i]));
            }
            out[c * out_stride + r] = s;
        }
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
    using Word = typename Lanes::Word;
    constexpr size_t width = 32 / sizeof(Word), chains = 4;
    for (size_t r = 0; r < row_count; ++r, x += dim) {
        __m256i sum[chains];
        for (auto& s : sum) s = _mm256_setzero_si256();
        size_t d = 0;
        for (; d + chains * width <= dim; d += chains * width) {
            prefetch(x + d, 2048);
            prefetch(x + d, 2112);
#pragma GCC unroll 4
            for (size_t i = 0; i < chains; ++i) {
                sum[i] = Lanes::multiply_add(sum[i], load(x + d + i * width), load(y + d + i * width));
            }
        }
        for (; d + width <= dim; d += width) sum[0] = Lanes::multiply_add(sum[0], load(x + d), load(y + d));
        Word s = Lanes::total(Lanes::add(Lanes::add(sum[0], sum[1]), Lanes::add(sum[2], sum[3])));
        for (; d < dim; ++d) s = static_cast<Word>(s + Lanes::scalar(x[d], y[d]));
        out[r] = s;
    }
}

template <class Lanes>
inline void matmul(const typename Lanes::Word* rows, size_t row_count, size_t dim, const typename Lanes::Word* columns,
                   size_t column_count, typename Lanes::Word* out, size_t out_stride) {
    if (column_count == 1) return single<Lanes>(rows, row_count, dim, columns, out);
    size_t r = 0;
    for (; r + 2 <= row_count; r += 2) {
        row_tile<Lanes, 2>(rows + r * dim, dim, columns, column_count, out + r, out_stride);
    }
    if (r < row_count) row_tile<Lanes, 1>(rows + r * dim, dim, columns, column_count, out + r, out_stride);
}

}  // namespace

MIPP_RING_MATMUL(ring_matmul_u16_avx2, 16) {
    matmul<Lanes16>(rows, row_count, dim, columns, column_count, out, out_stride);
}
MIPP_RING_MATMUL(ring_matmul_u32_avx2, 32) {
    matmul<Lanes32>(rows, row_count, dim, columns, column_count, out, out_stride);
}
MIPP_RING_MATMUL(ring_matmul_u64_avx2, 64) {
    matmul<Lanes64>(rows, row_count, dim, columns, column_count, out, out_stride);
}

MIPP_DEFINE_RING_BATCH(16, ring_batch_bytes_u16_avx2, ring_batch_pack_u16_avx2, ring_batch_u16_avx2,
                       BatchLoop<Batch<BatchKernel16>>)
MIPP_DEFINE_RING_BATCH(32, ring_batch_bytes_u32_avx2, ring_batch_pack_u32_avx2, ring_batch_u32_avx2,
                       BatchLoop<Batch<BatchKernel32>>)
MIPP_DEFINE_RING_BATCH(64, ring_batch_bytes_u64_avx2, ring_batch_pack_u64_avx2, ring_batch_u64_avx2,
                       BatchLoop<Batch<BatchKernel64>>)
