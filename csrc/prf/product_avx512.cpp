// Keystream rows times columns. For few columns the keystream never leaves the registers: AES and the product share
// them, so that a key centre's product costs what its AES costs.
#include "../common/lane_sums.h"
#include "aes_vaes.h"

namespace {

template <class Word>
struct Arithmetic;

// Sums over the four quarters of each of four vectors: quarter i of the result is that of v[i].
inline __m512i add_quarters_32(const __m512i (&v)[4]) {
    const __m512i a = _mm512_add_epi32(_mm512_shuffle_i32x4(v[0], v[1], 0x88), _mm512_shuffle_i32x4(v[0], v[1], 0xdd));
    const __m512i b = _mm512_add_epi32(_mm512_shuffle_i32x4(v[2], v[3], 0x88), _mm512_shuffle_i32x4(v[2], v[3], 0xdd));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

inline __m512i add_quarters_64(const __m512i (&v)[4]) {
    const __m512i a = _mm512_add_epi64(_mm512_shuffle_i64x2(v[0], v[1], 0x88), _mm512_shuffle_i64x2(v[0], v[1], 0xdd));
    const __m512i b = _mm512_add_epi64(_mm512_shuffle_i64x2(v[2], v[3], 0x88), _mm512_shuffle_i64x2(v[2], v[3], 0xdd));
    return _mm512_add_epi64(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
}

// Totals of 32-bit sums, as a transposition: a third of the work of sixteen single totals. Row r, column c lands in
// lane 4 c + r.
inline __m512i totals_32(const __m512i (&sum)[4][4]) {
    __m512i v[4];
    for (int c = 0; c < 4; ++c) {
        const __m512i a =
            _mm512_add_epi32(_mm512_unpacklo_epi32(sum[0][c], sum[1][c]), _mm512_unpackhi_epi32(sum[0][c], sum[1][c]));
        const __m512i b =
            _mm512_add_epi32(_mm512_unpacklo_epi32(sum[2][c], sum[3][c]), _mm512_unpackhi_epi32(sum[2][c], sum[3][c]));
        v[c] = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    }
    return add_quarters_32(v);
}

struct Tile {
    using Vector = __m512i;
    static constexpr int tile_rows = 4, tile_columns = 4;
    static inline __m512i zero() { return _mm512_setzero_si512(); }
};

template <>
struct Arithmetic<uint16_t> : Tile {
    static constexpr size_t width = 32;
    static inline __m512i load(const uint16_t* p) { return _mm512_loadu_si512(p); }
    // Sums of two products as signed 32 bits: right modulo 2^16, which is all that is kept.
    static inline __m512i multiply_add(__m512i sum, __m512i x, __m512i y) { return _mm512_dpwssd_epi32(sum, x, y); }
    static inline uint16_t total(__m512i v) { return static_cast<uint16_t>(sum_lanes32(v)); }
    static inline void totals(const __m512i (&sum)[4][4], uint16_t (&to)[4][4]) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(totals_32(sum)));
    }
};

template <>
struct Arithmetic<uint32_t> : Tile {
    static constexpr size_t width = 16;
    static inline __m512i load(const uint32_t* p) { return _mm512_loadu_si512(p); }
    static inline __m512i multiply_add(__m512i sum, __m512i x, __m512i y) {
        return _mm512_add_epi32(sum, _mm512_mullo_epi32(x, y));
    }
    static inline uint32_t total(__m512i v) { return sum_lanes32(v); }
    static inline void totals(const __m512i (&sum)[4][4], uint32_t (&to)[4][4]) {
        _mm512_storeu_si512(to, totals_32(sum));
    }
};

template <>
struct Arithmetic<uint64_t> : Tile {
    static constexpr size_t width = 8;
    static inline __m512i load(const uint64_t* p) { return _mm512_loadu_si512(p); }
    static inline __m512i multiply_add(__m512i sum, __m512i x, __m512i y) {
        return _mm512_add_epi64(sum, _mm512_mullo_epi64(x, y));
    }
    static inline uint64_t total(__m512i v) { return sum_lanes64(v); }
    static inline void totals(const __m512i (&sum)[4][4], uint64_t (&to)[4][4]) {
        for (int c = 0; c < 4; c += 2) {
            __m512i v[4];
            for (int i = 0; i < 4; ++i) {
                const __m512i x = sum[i % 2 * 2][c + i / 2], y = sum[i % 2 * 2 + 1][c + i / 2];
                v[i] = _mm512_add_epi64(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
            }
            _mm512_storeu_si512(to[c], add_quarters_64(v));
        }
    }
};

}  // namespace

#include "keystream_product.h"

namespace {

// The first round of a long run, once for 256 blocks. Their numbers differ in the last byte v only, so that after one
// round the states differ in one column, by MixColumns of S(v + key byte): base(number / 256) + table[v], where the
// table is the same for the whole keystream. Addresses depend on v, which is public.
struct FirstRound {
    static constexpr size_t worth = 2048;  // blocks from which on the table pays

    alignas(64) uint8_t table[16 * 256];
    __m512i base;
    uint64_t base_of;

    explicit FirstRound(const RoundKeys& keys, uint64_t number) {
        const __m512i zero = after_round(keys, _mm512_setzero_si512());
        for (uint64_t v = 0; v < 256; v += 4) {
            _mm512_store_si512(table + 16 * v, _mm512_xor_si512(zero, after_round(keys, block_numbers(v))));
        }
        set_base(keys, number >> 8);
    }
    ~FirstRound() { mipp::wipe(this, sizeof *this); }

    static inline __m512i after_round(const RoundKeys& keys, __m512i numbers) {
        return _mm512_aesenc_epi128(_mm512_xor_si512(big_endian(numbers), keys.k[0]), keys.k[1]);
    }
    inline void set_base(const RoundKeys& keys, uint64_t which) {
        base_of = which;
        base = after_round(keys, _mm512_maskz_set1_epi64(0x55, static_cast<long long>(which << 8)));
    }

    // States of 4 Z blocks from `number`, a multiple of four, on; false if not all have the same number / 256.
    template <int Z>
    inline bool states(__m512i (&s)[Z], const RoundKeys& keys, uint64_t number) {
        const uint64_t v = number & 255;
        if (v + 4 * Z > 256) return false;
        if (number >> 8 != base_of) set_base(keys, number >> 8);
#pragma GCC unroll 8
        for (int i = 0; i < Z; ++i) s[i] = _mm512_xor_si512(base, _mm512_load_si512(table + 16 * v + 64 * i));
        return true;
    }
};

// None: every block takes all rounds.
struct NoFirstRound {
    template <int Z>
    inline bool states(__m512i (&)[Z], const RoundKeys&, uint64_t) {
        return false;
    }
};

// Keystream of 4 Z blocks from `number` on.
template <int Z, class First>
inline void keystream_from(__m512i (&s)[Z], const RoundKeys& keys, First& first, uint64_t number) {
    if (first.states(s, keys, number)) {
        encrypt_rounds(s, keys, 2);
    } else {
        keystream(s, keys, block_numbers(number));
    }
}

// 4 Z blocks of a row: encrypt, multiply, add to the sums.
template <class Word, int B, int Z, class First>
inline void fused_blocks(const RoundKeys& keys, First& first, uint64_t& number, const Word*& columns,
                         size_t column_stride, __m512i (&sum)[B]) {
    using A = Arithmetic<Word>;
    __m512i s[Z];
    keystream_from(s, keys, first, number);
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
        for (int i = 0; i < Z; ++i) {
            sum[b] = A::multiply_add(
                sum[b], s[i],
                A::load(columns + static_cast<size_t>(b) * column_stride + static_cast<size_t>(i) * A::width));
        }
    }
    number += 4 * Z;
    columns += static_cast<size_t>(Z) * A::width;
}

template <class Word, int B, class First>
inline void fused_rows(const RoundKeys& keys, First& first, uint64_t first_block, size_t rows, size_t row_blocks,
                       const Word* columns, size_t column_stride, Word* out, size_t out_stride) {
    const size_t vectors = (row_blocks + 3) / 4;
    for (size_t r = 0; r < rows; ++r) {
        uint64_t number = first_block + r * row_blocks;
        __m512i sum[B];
        for (int b = 0; b < B; ++b) sum[b] = _mm512_setzero_si512();
        const Word* from = columns;
        for (size_t v = 0; v + 8 <= vectors; v += 8) {
            fused_blocks<Word, B, 8>(keys, first, number, from, column_stride, sum);
        }
        if (vectors & 4) fused_blocks<Word, B, 4>(keys, first, number, from, column_stride, sum);
        if (vectors & 2) fused_blocks<Word, B, 2>(keys, first, number, from, column_stride, sum);
        if (vectors & 1) fused_blocks<Word, B, 1>(keys, first, number, from, column_stride, sum);
        for (int b = 0; b < B; ++b) out[static_cast<size_t>(b) * out_stride + r] = Arithmetic<Word>::total(sum[b]);
    }
}

// 32-bit words by multiply-adds of 52 bits: three columns or more take two thirds of what low products and sums take. A
// lane holds two words. Only the low 32 bits of its sum count, and no upper word of a factor reaches these, so even
// words are multiplied as they are; odd words are moved down, those of columns before, into `odd`.
struct Odd {
    static constexpr size_t most = 4096;  // words of all columns
    alignas(64) uint32_t words[most];
};

template <int B, int Z, class First>
inline void fused_blocks_52(const RoundKeys& keys, First& first, uint64_t& number, const uint32_t*& columns,
                            size_t column_stride, const uint32_t*& odd, size_t odd_stride, __m512i (&even_sum)[B],
                            __m512i (&odd_sum)[B]) {
    constexpr size_t width = Arithmetic<uint32_t>::width;
    __m512i s[Z], up[Z];
    keystream_from(s, keys, first, number);
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) up[i] = _mm512_srli_epi64(s[i], 32);
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) {
        const uint32_t *from = columns + static_cast<size_t>(b) * column_stride,
                       *from_odd = odd + static_cast<size_t>(b) * odd_stride;
#pragma GCC unroll 8
        for (int i = 0; i < Z; ++i) {
            const size_t at = static_cast<size_t>(i) * width;
            even_sum[b] = _mm512_madd52lo_epu64(even_sum[b], s[i], _mm512_loadu_si512(from + at));
            odd_sum[b] = _mm512_madd52lo_epu64(odd_sum[b], up[i], _mm512_load_si512(from_odd + at));
        }
    }
    number += 4 * Z;
    columns += static_cast<size_t>(Z) * width;
    odd += static_cast<size_t>(Z) * width;
}

template <int B, class First>
inline void fused_rows_52(const RoundKeys& keys, First& first, uint64_t first_block, size_t rows, size_t row_blocks,
                          const uint32_t* columns, size_t column_stride, uint32_t* out, size_t out_stride) {
    const size_t vectors = (row_blocks + 3) / 4, odd_stride = vectors * Arithmetic<uint32_t>::width;
    Odd odd;
    for (size_t b = 0; b < B; ++b) {
        for (size_t at = 0; at < odd_stride; at += Arithmetic<uint32_t>::width) {
            _mm512_store_si512(odd.words + b * odd_stride + at,
                               _mm512_srli_epi64(_mm512_loadu_si512(columns + b * column_stride + at), 32));
        }
    }
    const auto row = [&](size_t r, __m512i(&sum)[4]) {
        uint64_t number = first_block + r * row_blocks;
        __m512i even_sum[B], odd_sum[B];
        for (int b = 0; b < B; ++b) even_sum[b] = odd_sum[b] = _mm512_setzero_si512();
        const uint32_t *from = columns, *from_odd = odd.words;
        for (size_t v = 0; v + 4 <= vectors; v += 4) {
            fused_blocks_52<B, 4>(keys, first, number, from, column_stride, from_odd, odd_stride, even_sum, odd_sum);
        }
        if (vectors & 2) {
            fused_blocks_52<B, 2>(keys, first, number, from, column_stride, from_odd, odd_stride, even_sum, odd_sum);
        }
        if (vectors & 1) {
            fused_blocks_52<B, 1>(keys, first, number, from, column_stride, from_odd, odd_stride, even_sum, odd_sum);
        }
        for (int b = 0; b < B; ++b) {
            sum[b] = _mm512_maskz_mov_epi32(0x5555, _mm512_add_epi64(even_sum[b], odd_sum[b]));
        }
    };
    __m512i sum[4][4];
    for (auto& of_row : sum) {
        for (auto& one : of_row) one = _mm512_setzero_si512();
    }
    size_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        for (size_t i = 0; i < 4; ++i) row(r + i, sum[i]);
        alignas(64) uint32_t totals[4][4];
        Arithmetic<uint32_t>::totals(sum, totals);
        for (size_t b = 0; b < B; ++b) memcpy(out + b * out_stride + r, totals[b], sizeof totals[b]);
    }
    for (; r < rows; ++r) {
        row(r, sum[0]);
        for (size_t b = 0; b < B; ++b) out[b * out_stride + r] = Arithmetic<uint32_t>::total(sum[0][b]);
    }
}

// Rows by the arithmetic that is fastest for these columns.
template <class Word, int B, class First>
inline void fused_rows_by(const RoundKeys& keys, First& first, uint64_t first_block, size_t rows, size_t row_blocks,
                          const Word* columns, size_t column_stride, Word* out, size_t out_stride) {
    if constexpr (sizeof(Word) == 4 && B > 2) {
        if ((row_blocks + 3) / 4 * Arithmetic<Word>::width * B <= Odd::most) {
            fused_rows_52<B>(keys, first, first_block, rows, row_blocks, columns, column_stride, out, out_stride);
            return;
        }
    }
    fused_rows<Word, B>(keys, first, first_block, rows, row_blocks, columns, column_stride, out, out_stride);
}

template <class Word, int B>
inline void fused_product(const uint8_t* schedule, uint64_t first_block, size_t rows, size_t row_blocks,
                          const Word* columns, size_t column_stride, Word* out, size_t out_stride) {
    const RoundKeys keys = load_keys(schedule);
    if (rows * row_blocks >= FirstRound::worth && row_blocks % 4 == 0 && first_block % 4 == 0) {
        FirstRound first(keys, first_block);
        fused_rows_by<Word, B>(keys, first, first_block, rows, row_blocks, columns, column_stride, out, out_stride);
    } else {
        NoFirstRound first;
        fused_rows_by<Word, B>(keys, first, first_block, rows, row_blocks, columns, column_stride, out, out_stride);
    }
}

template <class Word>
inline void product(const uint8_t* schedule, uint64_t first_block, size_t rows, size_t row_blocks, const Word* columns,
                    size_t column_stride, size_t column_count, Word* out, size_t out_stride) {
    // The last register of a row may hold up to three blocks too many: wasteful for short rows only.
    const bool fused = row_blocks % 4 == 0 || row_blocks > 12;
    if (fused && column_count == 1) {
        fused_product<Word, 1>(schedule, first_block, rows, row_blocks, columns, column_stride, out, out_stride);
    } else if (fused && column_count == 2) {
        fused_product<Word, 2>(schedule, first_block, rows, row_blocks, columns, column_stride, out, out_stride);
    } else if (fused && column_count == 3) {
        fused_product<Word, 3>(schedule, first_block, rows, row_blocks, columns, column_stride, out, out_stride);
    } else if (fused && column_count == 4) {
        fused_product<Word, 4>(schedule, first_block, rows, row_blocks, columns, column_stride, out, out_stride);
    } else {
        keystream_product(schedule, first_block, rows, row_blocks, columns, column_stride, column_count, out,
                          out_stride);
    }
}

}  // namespace

MIPP_DEFINE_KEYSTREAM_MATMUL(keystream_matmul_u16_avx512, 16, product)
MIPP_DEFINE_KEYSTREAM_MATMUL(keystream_matmul_u32_avx512, 32, product)
MIPP_DEFINE_KEYSTREAM_MATMUL(keystream_matmul_u64_avx512, 64, product)
