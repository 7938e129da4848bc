// XOR of the rows that masks select, by vectors of MIPP_VECTOR_BYTES and the tier's `add_selected` and `hold`. Only
// for files of one tier.
#pragma once

#include <string.h>

#include "../common/vectors.h"
#include "pir_kernels.h"

namespace {

// How far ahead of a load in order its memory is asked for; 1.5 to 3 KiB were best.
constexpr size_t ahead_bytes = 3072;
// Most selections whose sums are in memory: a pass has so few only where it is the only one.
constexpr int in_order = 4;
// Vectors of sums that are kept in registers where there are more selections.
constexpr int register_sums = 12;

// Reads memory in the order of its addresses into the caches, as many bytes as are computed with meanwhile, or one part
// in `parts` of that. Loads, which the processor's own prefetching follows; instructions that prefetch do not make it.
struct Ahead {
    const uint8_t* next;
    size_t parts, turn = 0;

    template <size_t Bytes>
    inline void advance() {
        if (++turn < parts) return;
        turn = 0;
#pragma GCC unroll 16
        for (size_t at = 0; at < Bytes; at += 64) {
            __builtin_prefetch(next + at + ahead_bytes, 0, 2);
            (void)*static_cast<const volatile uint8_t*>(next + at);
        }
        next += Bytes;
    }
};

// Where the sum of word w of the whole lines of selection q lies.
inline size_t place(size_t q, size_t w, size_t count) { return w / 8 * 8 * count + 8 * q + w % 8; }

// Few selections: their sums stay in the first cache, and records are read from beginning to end, as memory likes best.
template <int Count>
inline void add_rows_in_order(const uint8_t* records, size_t rows, size_t words, size_t whole, const uint64_t* masks,
                              uint64_t* sums) {
    for (size_t i = 0; i < rows; ++i, records += 8 * words) {
        Words::Type by[Count];
#pragma GCC unroll 4
        for (size_t q = 0; q < Count; ++q) {
            by[q] = Words::Type{} + masks[i * MIPP_SCAN_SELECTIONS + q];
            hold(by[q]);
        }
        for (size_t w = 0; w < whole; w += 8) {
            __builtin_prefetch(records + 8 * w + ahead_bytes, 0, 2);
#pragma GCC unroll 4
            for (size_t part = 0; part < 8; part += Words::width) {
                Words::Type record;
                memcpy(&record, records + 8 * (w + part), sizeof record);
#pragma GCC unroll 4
                for (size_t q = 0; q < Count; ++q) {
                    uint64_t* sum = sums + place(q, w, Count) + part;
                    Words::store(sum, add_selected(Words::load(sum), record, by[q]));
                }
            }
        }
    }
}

// One block of columns, `Columns` vectors wide from word w on, of `Count` selections.
template <int Count, int Columns>
inline void add_block(const uint8_t* records, size_t rows, size_t words, size_t w, const uint64_t* masks,
                      uint64_t* sums, Ahead& ahead) {
    using Vector = Words::Type;
    Vector sum[Count][Columns];
    Ahead asked = ahead;  // in registers
    const auto at = [&](int q, int c) {
        return sums + place(static_cast<size_t>(q), w + Words::width * static_cast<size_t>(c), Count);
    };
#pragma GCC unroll 16
    for (int q = 0; q < Count; ++q) {
#pragma GCC unroll 16
        for (int c = 0; c < Columns; ++c) sum[q][c] = Words::load(at(q, c));
    }
    const uint8_t* from = records + 8 * w;
    const auto add_row = [&](size_t i) __attribute__((always_inline)) {
        asked.template advance<MIPP_VECTOR_BYTES * Columns>();
        Vector record[Columns];
#pragma GCC unroll 16
        for (int c = 0; c < Columns; ++c)
            memcpy(&record[c], from + 8 * i * words + MIPP_VECTOR_BYTES * c, sizeof(Vector));
#pragma GCC unroll 16
        for (int q = 0; q < Count; ++q) {
            Vector mask = Vector{} + masks[i * MIPP_SCAN_SELECTIONS + static_cast<size_t>(q)];
            hold(mask);
#pragma GCC unroll 16
            for (int c = 0; c < Columns; ++c) sum[q][c] = add_selected(sum[q][c], record[c], mask);
        }
    };
    if (rows == MIPP_SCAN_ROWS) {
        // no branch that could be predicted wrongly once a block
#pragma GCC unroll 16
        for (size_t i = 0; i < MIPP_SCAN_ROWS; ++i) add_row(i);
    } else {
        for (size_t i = 0; i < rows; ++i) add_row(i);
    }
    ahead = asked;
#pragma GCC unroll 16
    for (int q = 0; q < Count; ++q) {
#pragma GCC unroll 16
        for (int c = 0; c < Columns; ++c) Words::store(at(q, c), sum[q][c]);
    }
}

// `Count` selections, words [begin, end) of each record, one by one. Sums of a word are neighbours.
template <int Count>
inline void add_words(const uint8_t* records, size_t rows, size_t words, size_t begin, size_t end,
                      const uint64_t* masks, uint64_t* sums) {
    for (size_t w = begin; w < end; ++w, sums += Count) {
        uint64_t sum[Count];
        memcpy(sum, sums, sizeof sum);
        for (size_t i = 0; i < rows; ++i) {
            uint64_t record;
            memcpy(&record, records + 8 * (i * words + w), sizeof record);
            for (size_t q = 0; q < Count; ++q) sum[q] ^= record & masks[i * MIPP_SCAN_SELECTIONS + q];
        }
        memcpy(sums, sum, sizeof sum);
    }
}

// `Count` selections, over all columns.
template <int Count>
inline void add_rows(const uint8_t* records, size_t rows, size_t words, size_t lead, const uint64_t* masks,
                     uint64_t* sums, Ahead ahead) {
    const size_t whole = (words - lead) / 8 * 8;
    const uint8_t* lines = records + 8 * lead;
    if constexpr (Count <= in_order) {
        add_rows_in_order<Count>(lines, rows, words, whole, masks, sums);
    } else {
        constexpr int columns = register_sums / Count;
        constexpr size_t block = columns * Words::width;
        size_t w = 0;
        for (; w + block <= whole; w += block) add_block<Count, columns>(lines, rows, words, w, masks, sums, ahead);
        for (; w < whole; w += Words::width) add_block<Count, 1>(lines, rows, words, w, masks, sums, ahead);
    }
    uint64_t* edges = sums + whole * Count;
    add_words<Count>(records, rows, words, 0, lead, masks, edges);
    add_words<Count>(records, rows, words, lead + whole, words, masks, edges + lead * Count);
}

inline void scan_rows(const uint8_t* records, size_t rows, size_t words, size_t lead, const uint64_t* masks,
                      size_t selections, uint64_t* sums, const uint8_t* next, size_t parts) {
    const Ahead ahead{next, parts};
    switch (selections) {
        case 1:
            add_rows<1>(records, rows, words, lead, masks, sums, ahead);
            break;
        case 2:
            add_rows<2>(records, rows, words, lead, masks, sums, ahead);
            break;
        case 3:
            add_rows<3>(records, rows, words, lead, masks, sums, ahead);
            break;
        case 4:
            add_rows<4>(records, rows, words, lead, masks, sums, ahead);
            break;
        case 5:
            add_rows<5>(records, rows, words, lead, masks, sums, ahead);
            break;
        case 6:
            add_rows<6>(records, rows, words, lead, masks, sums, ahead);
            break;
        case 7:
            add_rows<7>(records, rows, words, lead, masks, sums, ahead);
            break;
        case 8:
            add_rows<8>(records, rows, words, lead, masks, sums, ahead);
            break;
        case 9:
            add_rows<9>(records, rows, words, lead, masks, sums, ahead);
            break;
        case 10:
            add_rows<10>(records, rows, words, lead, masks, sums, ahead);
            break;
        case 11:
            add_rows<11>(records, rows, words, lead, masks, sums, ahead);
            break;
        default:
            add_rows<12>(records, rows, words, lead, masks, sums, ahead);
    }
}

}  // namespace
