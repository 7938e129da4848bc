// Keystream rows times columns through a small buffer: a few rows' keystream at a time, then all columns while it is in
// the first cache. Included by each tier's file after its AES, with `Arithmetic<Word>`: vectors of `width` words,
// load, multiply_add, total, and totals of a whole tile.
#pragma once

#include "../common/wipe.h"
#include "prf_kernels.h"

namespace {

constexpr size_t buffer_bytes = 16384;

// R rows of the buffer by C columns, over `vectors` vectors of words.
template <class Word, int R, int C>
inline void product_tile(const Word* rows, size_t row_words, const Word* columns, size_t column_stride, size_t vectors,
                         Word* out, size_t out_stride, bool add) {
    using A = Arithmetic<Word>;
    typename A::Vector sum[R][C];
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) sum[r][c] = A::zero();
    }
    for (size_t v = 0; v < vectors; ++v) {
        typename A::Vector row[R];
        for (int r = 0; r < R; ++r) row[r] = A::load(rows + static_cast<size_t>(r) * row_words + v * A::width);
        for (int c = 0; c < C; ++c) {
            const auto column = A::load(columns + static_cast<size_t>(c) * column_stride + v * A::width);
            for (int r = 0; r < R; ++r) sum[r][c] = A::multiply_add(sum[r][c], row[r], column);
        }
    }
    Word totals[C][R];
    if constexpr (R == A::tile_rows && C == A::tile_columns) {
        A::totals(sum, totals);
    } else {
        for (int c = 0; c < C; ++c) {
            for (int r = 0; r < R; ++r) totals[c][r] = A::total(sum[r][c]);
        }
    }
    for (int c = 0; c < C; ++c) {
        for (int r = 0; r < R; ++r) {
            Word* to = out + static_cast<size_t>(c) * out_stride + r;
            *to = static_cast<Word>(add ? *to + totals[c][r] : totals[c][r]);
        }
    }
}

template <class Word, int R>
inline void product_rows(const Word* rows, size_t row_words, const Word* columns, size_t column_stride,
                         size_t column_count, size_t vectors, Word* out, size_t out_stride, bool add) {
    constexpr int C = Arithmetic<Word>::tile_columns;
    size_t c = 0;
    for (; c + C <= column_count; c += C) {
        product_tile<Word, R, C>(rows, row_words, columns + c * column_stride, column_stride, vectors,
                                 out + c * out_stride, out_stride, add);
    }
    for (; c < column_count; ++c) {
        product_tile<Word, R, 1>(rows, row_words, columns + c * column_stride, column_stride, vectors,
                                 out + c * out_stride, out_stride, add);
    }
}

template <class Word>
inline void keystream_product(const uint8_t* schedule, uint64_t first_block, size_t rows, size_t row_blocks,
                              const Word* columns, size_t column_stride, size_t column_count, Word* out,
                              size_t out_stride) {
    using A = Arithmetic<Word>;
    constexpr size_t block_words = 16 / sizeof(Word), buffer_blocks = buffer_bytes / 16;
    constexpr int R = A::tile_rows;
    // Up to a vector is read behind the last row, where the columns are zero.
    alignas(64) Word buffer[buffer_bytes / sizeof(Word) + A::width];
    // A row longer than the buffer is done in pieces that are added up.
    const size_t piece_blocks = row_blocks < buffer_blocks ? row_blocks : buffer_blocks;
    const size_t step = piece_blocks == row_blocks ? buffer_blocks / row_blocks : 1;
    size_t used = 0;
    for (size_t r = 0; r < rows; r += step) {
        const size_t some = rows - r < step ? rows - r : step;
        for (size_t done = 0; done < row_blocks; done += piece_blocks) {
            const size_t piece = row_blocks - done < piece_blocks ? row_blocks - done : piece_blocks;
            const size_t row_words = piece * block_words, vectors = (row_words + A::width - 1) / A::width;
            const size_t filled = some * piece;
            fill(schedule, first_block + r * row_blocks + done, filled, reinterpret_cast<uint8_t*>(buffer));
            if (filled > used) used = filled;
            memset(buffer + filled * block_words, 0, sizeof(Word) * A::width);
            const Word* from = columns + done * block_words;
            Word* to = out + r;
            size_t i = 0;
            for (; i + R <= some; i += R) {
                product_rows<Word, R>(buffer + i * row_words, row_words, from, column_stride, column_count, vectors,
                                      to + i, out_stride, done != 0);
            }
            for (; i < some; ++i) {
                product_rows<Word, 1>(buffer + i * row_words, row_words, from, column_stride, column_count, vectors,
                                      to + i, out_stride, done != 0);
            }
        }
    }
    mipp::wipe(buffer, 16 * used);
}

}  // namespace

// `function`: keystream_product, or what a tier's file has in its place.
#define MIPP_DEFINE_KEYSTREAM_MATMUL(name, bits, function)                                                        \
    MIPP_KEYSTREAM_MATMUL(name, bits) {                                                                           \
        function(schedule, first_block, rows, row_blocks, columns, column_stride, column_count, out, out_stride); \
    }
