// Keystream rows times columns, in vectors of 32 bytes.
#include "../common/lane_sums.h"
#include "aes_ni.h"

namespace {

template <class Word>
struct Arithmetic;

inline __m256i load_vector(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

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
    static inline uint16_t total(__m256i v) { return static_cast<uint16_t>(sum_lanes32(v)); }
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
    static inline uint32_t total(__m256i v) { return sum_lanes32(v); }
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
    static inline uint64_t total(__m256i v) { return sum_lanes64(v); }
    static inline void totals(const __m256i (&sum)[2][4], uint64_t (&to)[4][2]) {
        for (int i = 0; i < 8; ++i) to[i / 2][i % 2] = sum_lanes64(sum[i % 2][i / 2]);
    }
};

}  // namespace

#include "keystream_product.h"

MIPP_DEFINE_KEYSTREAM_MATMUL(keystream_matmul_u16_avx2, 16, keystream_product)
MIPP_DEFINE_KEYSTREAM_MATMUL(keystream_matmul_u32_avx2, 32, keystream_product)
MIPP_DEFINE_KEYSTREAM_MATMUL(keystream_matmul_u64_avx2, 64, keystream_product)
