// Rows times many columns in byte limbs, by AMX tiles of 16 x 64 bytes. Only for files of the amx tier.
//
// A word is a sum of bytes x_i 2^(8 i), so a product modulo 2^k is the sum over i + j < k / 8 of x_i y_j 2^(8 (i + j)):
// 3 byte products for k = 16, 10 for k = 32. Those of equal i + j = s add up in one tile; sums wrap modulo 2^32, and
// 2^(8 s) times them is right modulo 2^k.
//
// The columns are the left operand, a row of a tile each, and 16 rows the right one: so a tile's row holds the answers
// of 16 consecutive rows to one query, a line of the cache as it is stored. The right operand has the four bytes that
// are multiplied at once side by side, which the transposition of batch_avx512.h gives after a shuffle of bytes.
#pragma once

#include "batch_avx512.h"

namespace {

// By hand: the compiler's intrinsics do not say that they read and write memory, so that stores before them get lost.
#define MIPP_TILE_LOAD(tile, at) \
    __asm__ __volatile__("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(at), "r"(static_cast<long>(64)) : "memory")
#define MIPP_TILE_STORE(tile, at) \
    __asm__ __volatile__("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(at), "r"(static_cast<long>(64)) : "memory")
#define MIPP_TILE_ZERO(tile) __asm__ __volatile__("tilezero %%tmm" #tile ::)
// tile sum += left x right, bytes without sign
#define MIPP_TILE_MULTIPLY(sum, left, right) \
    __asm__ __volatile__("tdpbuud %%tmm" #right ", %%tmm" #left ", %%tmm" #sum ::)

// All tiles of this thread 16 rows of 64 bytes, for as long as it lives.
struct TileConfig {
    alignas(64) uint8_t bytes[64] = {};

    TileConfig() {
        bytes[0] = 1;
        for (int t = 0; t < 8; ++t) {
            bytes[16 + 2 * t] = 64;
            bytes[48 + t] = 16;
        }
        __asm__ __volatile__("ldtilecfg %0" ::"m"(bytes) : "memory");
    }
    ~TileConfig() { __asm__ __volatile__("tilerelease" ::); }
};

constexpr size_t tile_bytes = 1024;

// Limbs of a piece of 16 bytes of each row together: for u32 four times four bytes, for u16 twice eight.
template <class Word>
inline __m512i limbs_together(__m512i piece);

template <>
inline __m512i limbs_together<uint32_t>(__m512i piece) {
    return _mm512_shuffle_epi8(
        piece, _mm512_broadcast_i32x4(_mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0)));
}

template <>
inline __m512i limbs_together<uint16_t>(__m512i piece) {
    return _mm512_shuffle_epi8(
        piece, _mm512_broadcast_i32x4(_mm_set_epi8(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0)));
}

// What is left to do with stored tiles of sums: weighing, adding up, writing the answers.
template <class Word>
struct TileSums;

// u32: one group of 16 rows; s = 0, 1, 2 and two tiles of s = 3, whose four products would wait for each other.
template <>
struct TileSums<uint32_t> {
    static constexpr size_t groups = 1, tiles = 5;
    // Bytes of a chunk: limbs 0 to 3 of 64 words, a tile each.
    static inline void multiply(const uint8_t* left, const uint8_t* right, size_t chunks, size_t) {
        MIPP_TILE_ZERO(0);
        MIPP_TILE_ZERO(1);
        MIPP_TILE_ZERO(2);
        MIPP_TILE_ZERO(3);
        MIPP_TILE_ZERO(4);
        // Pairs of limbs in an order that needs one load each; equal sums lie as far apart as that allows.
        for (size_t c = 0; c < chunks; ++c, left += 4 * tile_bytes, right += 4 * tile_bytes) {
            MIPP_TILE_LOAD(5, right);
            MIPP_TILE_LOAD(6, left);
            MIPP_TILE_MULTIPLY(0, 6, 5);
            MIPP_TILE_LOAD(7, left + tile_bytes);
            MIPP_TILE_MULTIPLY(1, 7, 5);
            MIPP_TILE_LOAD(6, left + 2 * tile_bytes);
            MIPP_TILE_MULTIPLY(2, 6, 5);
            MIPP_TILE_LOAD(7, left + 3 * tile_bytes);
            MIPP_TILE_MULTIPLY(3, 7, 5);
            MIPP_TILE_LOAD(7, right + tile_bytes);
            MIPP_TILE_MULTIPLY(4, 6, 7);
            MIPP_TILE_LOAD(5, left + tile_bytes);
            MIPP_TILE_MULTIPLY(2, 5, 7);
            MIPP_TILE_LOAD(6, left);
            MIPP_TILE_MULTIPLY(1, 6, 7);
            MIPP_TILE_LOAD(7, right + 2 * tile_bytes);
            MIPP_TILE_MULTIPLY(3, 5, 7);
            MIPP_TILE_MULTIPLY(2, 6, 7);
            MIPP_TILE_LOAD(5, right + 3 * tile_bytes);
            MIPP_TILE_MULTIPLY(4, 6, 5);
        }
    }
    static inline void save(uint8_t* sums) {
        MIPP_TILE_STORE(0, sums);
        MIPP_TILE_STORE(1, sums + tile_bytes);
        MIPP_TILE_STORE(2, sums + 2 * tile_bytes);
        MIPP_TILE_STORE(3, sums + 3 * tile_bytes);
        MIPP_TILE_STORE(4, sums + 4 * tile_bytes);
    }
    static inline void store(const uint8_t* sums, size_t query, uint32_t* out, size_t count, bool add, bool stream) {
        const uint8_t* from = sums + 64 * query;
        const __m512i s0 = _mm512_load_si512(from), s1 = _mm512_load_si512(from + tile_bytes);
        const __m512i s2 = _mm512_load_si512(from + 2 * tile_bytes);
        const __m512i s3 =
            _mm512_add_epi32(_mm512_load_si512(from + 3 * tile_bytes), _mm512_load_si512(from + 4 * tile_bytes));
        const __m512i low = _mm512_add_epi32(s0, _mm512_slli_epi32(s1, 8));
        const __m512i high = _mm512_slli_epi32(_mm512_add_epi32(s2, _mm512_slli_epi32(s3, 8)), 16);
        store_words(out, _mm512_add_epi32(low, high), count, add, stream);
    }
};

// u16: two groups of 16 rows, whose answers make a line; s = 0 and 1 of each. The second group may be missing.
template <>
struct TileSums<uint16_t> {
    static constexpr size_t groups = 2, tiles = 4;
    static inline void multiply(const uint8_t* left, const uint8_t* right, size_t chunks, size_t group_bytes) {
        const uint8_t* second = right + group_bytes;
        MIPP_TILE_ZERO(0);
        MIPP_TILE_ZERO(1);
        MIPP_TILE_ZERO(2);
        MIPP_TILE_ZERO(3);
        for (size_t c = 0; c < chunks; ++c, left += 2 * tile_bytes, right += 2 * tile_bytes, second += 2 * tile_bytes) {
            MIPP_TILE_LOAD(4, left);
            MIPP_TILE_LOAD(6, right);
            MIPP_TILE_MULTIPLY(0, 4, 6);
            MIPP_TILE_LOAD(5, left + tile_bytes);
            MIPP_TILE_MULTIPLY(1, 5, 6);
            MIPP_TILE_LOAD(7, second);
            MIPP_TILE_MULTIPLY(2, 4, 7);
            MIPP_TILE_MULTIPLY(3, 5, 7);
            MIPP_TILE_LOAD(6, right + tile_bytes);
            MIPP_TILE_MULTIPLY(1, 4, 6);
            MIPP_TILE_LOAD(7, second + tile_bytes);
            MIPP_TILE_MULTIPLY(3, 4, 7);
        }
    }
    static inline void save(uint8_t* sums) {
        MIPP_TILE_STORE(0, sums);
        MIPP_TILE_STORE(1, sums + tile_bytes);
        MIPP_TILE_STORE(2, sums + 2 * tile_bytes);
        MIPP_TILE_STORE(3, sums + 3 * tile_bytes);
    }
    static inline __m512i weigh(const uint8_t* from) {
        return _mm512_add_epi32(_mm512_load_si512(from), _mm512_slli_epi32(_mm512_load_si512(from + tile_bytes), 8));
    }
    static inline void store(const uint8_t* sums, size_t query, uint16_t* out, size_t count, bool add, bool stream) {
        const uint8_t* from = sums + 64 * query;
        store_words(out, low_halves(weigh(from), weigh(from + 2 * tile_bytes)), count, add, stream);
    }
};

template <class W>
struct TileBatch {
    using Word = W;
    using Sums = TileSums<Word>;
    static constexpr size_t limbs = sizeof(Word), block_words = batch_row_bytes / sizeof(Word);
    static constexpr size_t chunk_words = 64, chunk_bytes = limbs * tile_bytes, piece_words = 16 / sizeof(Word);
    static constexpr size_t step_rows = 16 * Sums::groups;
    static constexpr size_t panel_bytes = step_rows * batch_row_bytes, panel_cached = 24576;

    static constexpr size_t chunks(size_t words) { return (words + chunk_words - 1) / chunk_words; }
    static constexpr size_t packed_bytes(size_t words, size_t count) {
        return (count + 15) / 16 * chunks(words) * chunk_bytes;
    }

    // By 16 columns, chunks of words, limbs; zero where there is no column or word.
    static void pack_columns(const Word* columns, size_t column_words, size_t count, size_t words, void* packed) {
        memset(packed, 0, packed_bytes(words, count));
        for (size_t c = 0; c < count; ++c) {
            uint8_t* to = static_cast<uint8_t*>(packed) + c / 16 * chunks(words) * chunk_bytes + c % 16 * 64;
            for (size_t k = 0; k < words; k += chunk_words, to += chunk_bytes) {
                const Word* from = columns + c * column_words + k;
                const size_t some = batch_min(chunk_words, words - k);
                for (size_t i = 0; i < limbs; ++i) {
                    uint8_t* bytes = to + i * tile_bytes;
                    for (size_t j = 0; j < some; ++j) bytes[j] = static_cast<uint8_t>(from[j] >> (8 * i));
                }
            }
        }
    }

    // A piece of 16 rows: its `pieces`-th of a chunk. Row q of a tile holds bytes 4 q to 4 q + 3 of a limb.
    template <class At>
    static inline void pack_piece(At at, uint8_t* chunk, size_t piece) {
        __m512i t[4], units[4];
        load_sixteen(at, t);
        for (auto& v : t) v = limbs_together<Word>(v);
        transpose_sixteen(t, units);
        constexpr size_t per_limb = 4 / limbs;
        for (size_t i = 0; i < 4; ++i) {
            _mm512_store_si512(chunk + i / per_limb * tile_bytes + (piece * per_limb + i % per_limb) * 64, units[i]);
        }
    }

    // 16 rows as right operands; behind the last row, copies of it whose sums nobody stores. What the last chunk holds
    // behind the last word is multiplied by zero.
    static void pack_rows(const Word* rows, size_t row_words, size_t count, size_t words, uint8_t* panel) {
        constexpr size_t chunk_pieces = chunk_words / piece_words;
        size_t piece = 0;
        const size_t whole = count >= 16 ? words / piece_words : 0, all = (words + piece_words - 1) / piece_words;
        uintptr_t line = reinterpret_cast<uintptr_t>(rows) + batch_ahead;
        for (; piece < whole; ++piece) {
            for (size_t i = 0; i < 256; i += 64) batch_prefetch(line + i);
            line += 256;
            pack_piece([=](size_t i) { return rows + i * row_words + piece * piece_words; },
                       panel + piece / chunk_pieces * chunk_bytes, piece % chunk_pieces);
        }
        for (; piece < all; ++piece) {
            alignas(64) Word edge[16][piece_words] = {};
            const size_t at = piece * piece_words, some = batch_min(piece_words, words - at);
            for (size_t i = 0; i < 16; ++i) {
                memcpy(edge[i], rows + batch_min(i, count - 1) * row_words + at, some * sizeof(Word));
            }
            pack_piece([&](size_t i) { return edge[i]; }, panel + piece / chunk_pieces * chunk_bytes,
                       piece % chunk_pieces);
        }
    }

    // Answers of one multiplication that are still to be written.
    struct Pending {
        const uint8_t* sums = nullptr;
        Word* out = nullptr;
        size_t queries = 0, rows = 0;

        void write(size_t out_stride, bool add, bool stream) const {
            for (size_t q = 0; q < queries; ++q) Sums::store(sums, q, out + q * out_stride, rows, add, stream);
        }
    };

    static void block(const Word* rows, size_t row_words, size_t row_count, size_t words, const void* packed,
                      size_t column_count, Word* out, size_t out_stride, bool add, bool stream) {
        alignas(64) uint8_t panel[panel_bytes];
        // two, so that answers are written while the next are multiplied
        alignas(64) uint8_t sums[2][Sums::tiles * tile_bytes];
        const TileConfig config;
        const size_t count = chunks(words), group_bytes = count * chunk_bytes, step_bytes = Sums::groups * group_bytes;
        // A panel and 16 columns stay in the first cache; within that, as many steps as write several lines at a time.
        size_t steps = 4;
        while (steps > 1 && steps * step_bytes > panel_cached) steps /= 2;
        const size_t panel_rows = steps * step_rows;
        Pending pending;
        int turn = 0;
        for (size_t r = 0; r < row_count; r += panel_rows) {
            const size_t held = batch_min(panel_rows, row_count - r);
            for (size_t g = 0; g < held; g += 16) {
                pack_rows(rows + (r + g) * row_words, row_words, held - g, words, panel + g / 16 * group_bytes);
            }
            const uint8_t* left = static_cast<const uint8_t*>(packed);
            for (size_t c = 0; c < column_count; c += 16, left += group_bytes) {
                for (size_t g = 0; g < held; g += step_rows, turn ^= 1) {
                    Sums::multiply(left, panel + g / 16 * group_bytes, count, group_bytes);
                    // while the tiles are busy: only saving their sums has to wait
                    pending.write(out_stride, add, stream);
                    Sums::save(sums[turn]);
                    pending = {sums[turn], out + c * out_stride + r + g, batch_min(16, column_count - c),
                               batch_min(step_rows, held - g)};
                }
            }
        }
        pending.write(out_stride, add, stream);
        // rows may be keystream, sums are answers without a mask
        mipp::wipe(panel, (batch_min(row_count, panel_rows) + step_rows - 1) / step_rows * step_bytes);
        mipp::wipe(sums, sizeof sums);
    }
};

}  // namespace
