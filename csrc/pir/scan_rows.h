// XOR of the rows that masks select, by vectors of MIPP_VECTOR_BYTES and the tier's `add_selected` and `hold`. Only
// for files of one tier.
#pragma once

#include <string.h>

#include "../common/vectors.h"
#include "pir_kernels.h"

namespace {

// Asks for memory in the order of its addresses, as many bytes as are read meanwhile, or one part in `parts` of that.
struct Ahead {
    const uint8_t* next;
    size_t parts, turn = 0;

    template <size_t Bytes>
    inline void advance() {
        if (++turn < parts) return;
        turn = 0;
#pragma GCC unroll 16
        for (size_t at = 0; at < Bytes; at += 64) __builtin_prefetch(next + at, 0, 2);
        next += Bytes;
    }
};

// Where the sum of word w of selection q lies.
inline size_t place(size_t q, size_t w, size_t count) { return w / 8 * 8 * count + 8 * q + w % 8; }

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
    for (size_t i = 0; i < rows; ++i) {
        asked.template advance<MIPP_VECTOR_BYTES * Columns>();
        Vector record[Columns];
#pragma GCC unroll 16
        for (int c = 0; c < Columns; ++c)
            memcpy(&record[c], from + 8 * i * words + MIPP_VECTOR_BYTES * c, sizeof(Vector));
#pragma GCC unroll 16
        for (int q = 0; q < Count; ++q) {
            Vector mask = Vector{} + masks[static_cast<size_t>(q) * MIPP_SCAN_ROWS + i];
            hold(mask);
#pragma GCC unroll 16
            for (int c = 0; c < Columns; ++c) sum[q][c] = add_selected(sum[q][c], record[c], mask);
        }
    }
    ahead = asked;
#pragma GCC unroll 16
    for (int q = 0; q < Count; ++q) {
#pragma GCC unroll 16
        for (int c = 0; c < Columns; ++c) Words::store(at(q, c), sum[q][c]);
    }
}

// `Count` selections, over all columns.
template <int Count, int Columns>
inline void add_rows(const uint8_t* records, size_t rows, size_t words, const uint64_t* masks, uint64_t* sums,
                     Ahead ahead) {
    constexpr size_t block = Columns * Words::width;
    const size_t whole = words / 8 * 8;
    size_t w = 0;
    for (; w + block <= whole; w += block) add_block<Count, Columns>(records, rows, words, w, masks, sums, ahead);
    for (; w < whole; w += Words::width) add_block<Count, 1>(records, rows, words, w, masks, sums, ahead);
    // words behind the last whole line
    const size_t left = words - whole;
    for (size_t q = 0; q < Count; ++q) {
        for (; w < words; ++w) {
            uint64_t& sum = sums[whole * Count + left * q + w - whole];
            for (size_t i = 0; i < rows; ++i) {
                uint64_t record;
                memcpy(&record, records + 8 * (i * words + w), sizeof record);
                sum ^= record & masks[q * MIPP_SCAN_ROWS + i];
            }
        }
        w = whole;
    }
}

inline void scan_rows(const uint8_t* records, size_t rows, size_t words, const uint64_t* masks, size_t selections,
                      uint64_t* sums, const uint8_t* next, size_t parts) {
    const Ahead ahead{next, parts};
    switch (selections) {
        case 1:
            add_rows<1, scan_columns(1)>(records, rows, words, masks, sums, ahead);
            break;
        case 2:
            add_rows<2, scan_columns(2)>(records, rows, words, masks, sums, ahead);
            break;
        case 3:
            add_rows<3, scan_columns(3)>(records, rows, words, masks, sums, ahead);
            break;
        case 4:
            add_rows<4, scan_columns(4)>(records, rows, words, masks, sums, ahead);
            break;
        case 5:
            add_rows<5, scan_columns(5)>(records, rows, words, masks, sums, ahead);
            break;
        case 6:
            add_rows<6, scan_columns(6)>(records, rows, words, masks, sums, ahead);
            break;
        case 7:
            add_rows<7, scan_columns(7)>(records, rows, words, masks, sums, ahead);
            break;
        case 8:
            add_rows<8, scan_columns(8)>(records, rows, words, masks, sums, ahead);
            break;
        case 9:
            add_rows<9, scan_columns(9)>(records, rows, words, masks, sums, ahead);
            break;
        case 10:
            add_rows<10, scan_columns(10)>(records, rows, words, masks, sums, ahead);
            break;
        case 11:
            add_rows<11, scan_columns(11)>(records, rows, words, masks, sums, ahead);
            break;
        default:
            add_rows<12, scan_columns(12)>(records, rows, words, masks, sums, ahead);
    }
}

}  // namespace
