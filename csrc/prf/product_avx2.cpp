// Keystream rows times columns, in vectors of 32 bytes.
#include "aes_ni.h"

namespace {

template <class Word>
struct Arithmetic;

inline __m256i load_vector(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

inline uint32_t total_32(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(s));
}

inline uint64_t total_64(__m256i v) {
    const __m128i s = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return static_cast<uint64_t>(_mm_cvtsi128_si64(s)) + static_cast<uint64_t>(_mm_extract_epi64(s, 1));
}

// Totals of 32-bit sums of 2 x 4, as a transposition. Row r, column c lands in lane 2 c + r.
inline __m256i totals_32(const __m256i (&sum)[2][4]) {
    __m256i v[2];
    for (int i = 0; i < 2; ++i) {
        const __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(sum[0][2 * i], sum[1][2 * i]),
                                           _mm256_unpackhi_epi32(sum[0][2 * i], sum[1][2 * i]));
        const __m256i b = _mm256_add_epi32(_mm256_unpacklo_epi32(sum[0][2 * i + 1], sum[1][2 * i + 1]),
                                           _mm256_unpackhi_epi32(sum[0][2 * i + 1], sum[1][2 * i + 1]));
        v[i] = _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    }
    return _mm256_add_epi32(_mm256_permute2x128_si256(v[0], v[1], 0x20), _mm256_permute2x128_si256(v[0], v[1], 0x31));
}

struct Tile {
    using Vector = __m256i;
    static constexpr int tile_rows = 2, tile_columns = 4;
    static inline __m256i zero() { return _mm256_setzero_si256(); }
};

template <>
struct Arithmetic<uint16_t> : Tile {
    static constexpr size_t width = 16;
    static inline __m256i load(const uint16_t* p) { return load_vector(p); }
    // Sums of two products as signed 32 bits: right modulo 2^16, which is all that is kept.
    static inline __m256i multiply_add(__m256i sum, __m256i x, __m256i y) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
    }
    static inline uint16_t total(__m256i v) { return static_cast<uint16_t>(total_32(v)); }
    static inline void totals(const __m256i (&sum)[2][4], uint16_t (&to)[4][2]) {
        uint32_t wide[8];
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(wide), totals_32(sum));
        for (int i = 0; i < 8; ++i) to[i / 2][i % 2] = static_cast<uint16_t>(wide[i]);
    }
};

template <>
struct Arithmetic<uint32_t> : Tile {
    static constexpr size_t width = 8;
    static inline __m256i load(const uint32_t* p) { return load_vector(p); }
    static inline __m256i multiply_add(__m256i sum, __m256i x, __m256i y) {
        return _mm256_add_epi32(sum, _mm256_mullo_epi32(x, y));
    }
    static inline uint32_t total(__m256i v) { return total_32(v); }
    static inline void totals(const __m256i (&sum)[2][4], uint32_t (&to)[4][2]) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), totals_32(sum));
    }
};

template <>
struct Arithmetic<uint64_t> : Tile {
    static constexpr size_t width = 4;
    static inline __m256i load(const uint64_t* p) { return load_vector(p); }
    static inline __m256i multiply_add(__m256i sum, __m256i x, __m256i y) {
        const __m256i cross = _mm256_mullo_epi32(x, _mm256_shuffle_epi32(y, 0xb1));
        const __m256i high = _mm256_slli_epi64(_mm256_add_epi32(cross, _mm256_srli_epi64(cross, 32)), 32);
        return _mm256_add_epi64(sum, _mm256_add_epi64(_mm256_mul_epu32(x, y), high));
    }
    static inline uint64_t total(__m256i v) { return total_64(v); }
    static inline void totals(const __m256i (&sum)[2][4], uint64_t (&to)[4][2]) {
        for (int i = 0; i < 8; ++i) to[i / 2][i % 2] = total_64(sum[i % 2][i / 2]);
    }
};

}  // namespace

#include "keystream_product.h"

#define MIPP_DEFINE(bits)                                                                                        \
    void keystream_matmul_u##bits##_avx2(const uint8_t* schedule, uint64_t first_block, size_t rows,             \
                                         size_t row_blocks, const uint##bits##_t* columns, size_t column_stride, \
                                         size_t column_count, uint##bits##_t* out, size_t out_stride) {          \
        keystream_product(schedule, first_block, rows, row_blocks, columns, column_stride, column_count, out,    \
                          out_stride);                                                                           \
    }
MIPP_DEFINE(16)
MIPP_DEFINE(32)
MIPP_DEFINE(64)
