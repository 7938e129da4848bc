// Rows times many columns. A panel of rows is transposed once, so that a vector holds one unit (a word, or two of 16
// bits) of consecutive rows; then every column's units are broadcast against it. Sums need no reduction over lanes,
// and answers come in the order in which they are stored.
//
// Included by each tier's files with a Kernel type per word:
//   Word, Unit, Vector; lanes: rows a vector; vectors, columns: of a tile of sums; piece: bytes of a row that
//   transpose takes; zero(), broadcast(const Unit*), load(const Unit*), multiply_add(sum, row, column);
//   transpose(at, to, step): a piece of each of `lanes` rows, at(i) where row i's is, as units `step` apart;
//   store(sums, out, count, add, stream): a tile's sums of one column, the first `count` of lanes x vectors rows.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../common/wipe.h"
#include "ring_kernels.h"

namespace {

// Of a row, what a panel holds at once; longer rows are done in blocks that are added up.
constexpr size_t batch_row_bytes = 4096;
// How far ahead of the row that is being transposed to prefetch into the second cache.
constexpr size_t batch_ahead = 32768;

inline size_t batch_min(size_t a, size_t b) { return a < b ? a : b; }

// By address, not pointer: it may lie behind the end of the array, where a prefetch does nothing.
inline void batch_prefetch(uintptr_t address) { __builtin_prefetch(reinterpret_cast<const void*>(address), 0, 2); }

// The loop over blocks of words, and over the few rows before answers begin a line of the cache: for Engines with
// Word, block_words, packed_bytes(words, columns) and block(..), as Batch below.
template <class Engine>
struct BatchLoop {
    using Word = typename Engine::Word;

    static size_t bytes(size_t dim, size_t count) {
        return dim / Engine::block_words * Engine::packed_bytes(Engine::block_words, count) +
               Engine::packed_bytes(dim % Engine::block_words, count);
    }

    static void pack(const Word* columns, size_t count, size_t dim, void* packed) {
        char* to = static_cast<char*>(packed);
        for (size_t k = 0; k < dim; k += Engine::block_words) {
            const size_t words = batch_min(Engine::block_words, dim - k);
            Engine::pack_columns(columns + k, dim, count, words, to);
            to += Engine::packed_bytes(words, count);
        }
    }

    // Rows lie row_words apart. `stream`: the answers' rows begin equally far from a line of the cache, and are
    // written past the caches.
    static void product(const Word* rows, size_t row_words, size_t row_count, size_t dim, const void* packed,
                        size_t column_count, Word* out, size_t out_stride, bool stream) {
        const size_t begin = (64 - reinterpret_cast<uintptr_t>(out) % 64) % 64 / sizeof(Word);
        const size_t head = stream ? batch_min(begin, row_count) : 0;
        stream = stream && dim <= Engine::block_words;
        const char* columns = static_cast<const char*>(packed);
        for (size_t k = 0; k < dim; k += Engine::block_words) {
            const size_t words = batch_min(Engine::block_words, dim - k);
            if (head > 0) {
                Engine::block(rows + k, row_words, head, words, columns, column_count, out, out_stride, k > 0, false);
            }
            if (row_count > head) {
                Engine::block(rows + head * row_words + k, row_words, row_count - head, words, columns, column_count,
                              out + head, out_stride, k > 0, stream);
            }
            columns += Engine::packed_bytes(words, column_count);
        }
        if (stream) batch_fence();
    }
};

template <class Kernel>
struct Batch {
    using Word = typename Kernel::Word;
    using Unit = typename Kernel::Unit;
    static constexpr size_t block_words = batch_row_bytes / sizeof(Word), unit_words = sizeof(Unit) / sizeof(Word);
    static constexpr size_t tile_rows = Kernel::lanes * Kernel::vectors;
    static constexpr size_t piece_units = Kernel::piece / sizeof(Unit), piece_words = Kernel::piece / sizeof(Word);
    static constexpr size_t panel_units = batch_row_bytes / sizeof(Unit) * tile_rows;

    static constexpr size_t units(size_t words) { return (words + unit_words - 1) / unit_words; }

    static constexpr size_t packed_bytes(size_t words, size_t count) { return count * units(words) * sizeof(Unit); }

    // How many of the columns left the next tile takes.
    static size_t group(size_t left) {
        size_t columns = Kernel::columns;
        while (columns > left) columns = columns > 4 ? 4 : columns / 2;
        return columns;
    }

    // By groups of columns, then units: the order in which tiles read them.
    static void pack_columns(const Word* columns, size_t column_words, size_t count, size_t words, void* packed) {
        Unit* to = static_cast<Unit*>(packed);
        for (size_t c = 0, some; c < count; c += some) {
            some = group(count - c);
            const Word* from = columns + c * column_words;
            size_t k = 0;
            for (; k + unit_words <= words; k += unit_words) {
                for (size_t i = 0; i < some; ++i, ++to) memcpy(to, from + i * column_words + k, sizeof(Unit));
            }
            for (; k < words; k += unit_words) {  // half a unit
                for (size_t i = 0; i < some; ++i, ++to) *to = from[i * column_words + k];
            }
        }
    }

    // Units of tile_rows rows side by side; behind the last row, copies of it whose sums nobody stores.
    static void pack_rows(const Word* rows, size_t row_words, size_t count, size_t words, Unit* panel) {
        for (size_t v = 0; v < Kernel::vectors; ++v) {
            const size_t first = v * Kernel::lanes;
            size_t k = 0;
            Unit* to = panel + first;
            if (first + Kernel::lanes <= count) {
                const Word* base = rows + first * row_words;
                uintptr_t line = reinterpret_cast<uintptr_t>(base) + batch_ahead;
                for (; k + piece_words <= words; k += piece_words, to += piece_units * tile_rows) {
                    for (size_t i = 0; i < Kernel::lanes * Kernel::piece; i += 64) batch_prefetch(line + i);
                    line += Kernel::lanes * Kernel::piece;
                    Kernel::transpose([=](size_t i) { return base + i * row_words + k; }, to, tile_rows);
                }
            }
            for (; k < words; k += piece_words, to += piece_units * tile_rows) {
                alignas(64) Word edge[Kernel::lanes][piece_words] = {};
                const size_t some = batch_min(piece_words, words - k);
                for (size_t i = 0; i < Kernel::lanes; ++i) {
                    memcpy(edge[i], rows + batch_min(first + i, count - 1) * row_words + k, some * sizeof(Word));
                }
                Kernel::transpose([&](size_t i) { return edge[i]; }, to, tile_rows);
            }
        }
    }

    template <int C>
    static inline void tile(const Unit* panel, const Unit* columns, size_t count, Word* out, size_t out_stride,
                            size_t rows, bool add, bool stream) {
        typename Kernel::Vector sum[C][Kernel::vectors];
        for (int c = 0; c < C; ++c) {
            for (size_t v = 0; v < Kernel::vectors; ++v) sum[c][v] = Kernel::zero();
        }
        for (size_t u = 0; u < count; ++u, panel += tile_rows, columns += C) {
            typename Kernel::Vector row[Kernel::vectors];
            for (size_t v = 0; v < Kernel::vectors; ++v) row[v] = Kernel::load(panel + v * Kernel::lanes);
#pragma GCC unroll 16
            for (int c = 0; c < C; ++c) {
                const auto column = Kernel::broadcast(columns + c);
#pragma GCC unroll 4
                for (size_t v = 0; v < Kernel::vectors; ++v) {
                    sum[c][v] = Kernel::multiply_add(sum[c][v], row[v], column);
                }
            }
        }
        for (int c = 0; c < C; ++c) {
            Kernel::store(sum[c], out + static_cast<size_t>(c) * out_stride, rows, add, stream);
        }
    }

    // `words` words, at most block_words, of each row times those of all columns.
    static void block(const Word* rows, size_t row_words, size_t row_count, size_t words, const void* packed,
                      size_t column_count, Word* out, size_t out_stride, bool add, bool stream) {
        alignas(64) Unit panel[panel_units];
        const size_t count = units(words), used = (count + piece_units - 1) / piece_units * piece_units * tile_rows;
        // A second tile lets two lines of answers be written at a time: pays where they outweigh the rows.
        const size_t tiles = column_count > 64 && 2 * used <= panel_units ? 2 : 1, step = tiles * tile_rows;
        for (size_t r = 0; r < row_count; r += step) {
            const size_t held = batch_min(step, row_count - r);
            for (size_t t = 0; t < held; t += tile_rows) {
                pack_rows(rows + (r + t) * row_words, row_words, held - t, words, panel + t / tile_rows * used);
            }
            const Unit* columns = static_cast<const Unit*>(packed);
            for (size_t c = 0, some; c < column_count; c += some, columns += some * count) {
                some = group(column_count - c);
                for (size_t t = 0; t < held; t += tile_rows) {
                    const Unit* from = panel + t / tile_rows * used;
                    Word* to = out + c * out_stride + r + t;
                    const size_t left = batch_min(tile_rows, held - t);
                    if (some == Kernel::columns) {
                        tile<Kernel::columns>(from, columns, count, to, out_stride, left, add, stream);
                    } else if (some == 4) {
                        tile<4>(from, columns, count, to, out_stride, left, add, stream);
                    } else if (some == 2) {
                        tile<2>(from, columns, count, to, out_stride, left, add, stream);
                    } else {
                        tile<1>(from, columns, count, to, out_stride, left, add, stream);
                    }
                }
            }
        }
        // rows may be keystream
        mipp::wipe(panel, batch_min(tiles, (row_count + tile_rows - 1) / tile_rows) * used * sizeof(Unit));
    }
};

}  // namespace

// The kernels of a batch, made of a BatchLoop (the last argument).
#define MIPP_DEFINE_RING_BATCH(bits, bytes_name, pack_name, name, ...)                                       \
    MIPP_RING_BATCH_BYTES(bytes_name, bits) { return __VA_ARGS__::bytes(dim, column_count); }                \
    MIPP_RING_BATCH_PACK(pack_name, bits) { __VA_ARGS__::pack(columns, column_count, dim, packed); }         \
    MIPP_RING_BATCH(name, bits) {                                                                            \
        __VA_ARGS__::product(rows, dim, row_count, dim, packed, column_count, out, out_stride, stream != 0); \
    }
