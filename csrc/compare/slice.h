// Transposes of words to planes. A tile is as many words as a vector has bits, seen as a square of bits in each
// lane: lane l of row r is word rows * l + r. Transposing every lane's square makes row b the next vector of plane b.
//
// Included by each tier's file with MIPP_VECTOR_BYTES. No branch or address depends on a word.
#pragma once

#include "../common/vectors.h"
#include "../common/wipe.h"
#include "compare_kernels.h"

namespace {

// Words of a plane that are written together: several vectors, so that a plane is met for more than one cache line.
constexpr size_t plane_words = 32;

// Exchanges bits j.. of lower rows with bits 0.. of rows j further, for j = top, top / 2, .. last (in steps of rows).
template <class Word, size_t Count, size_t Step>
inline void swap_bits(typename Vec<Word>::Type (&r)[Count]) {
#pragma GCC unroll 3
    for (size_t half = Count / 2; half != 0; half /= 2) {
        const size_t j = half * Step;
        const Word mask = static_cast<Word>(~Word{0} / ((Word{1} << j) + 1));
#pragma GCC unroll 8
        for (size_t k = 0; k < Count; ++k) {
            if (k & half) continue;
            const auto t = ((r[k] >> j) ^ r[k + half]) & mask;
            r[k] ^= t << j;
            r[k + half] ^= t;
        }
    }
}

// The bit squares of all lanes at once: far rows first, then the eight rows of each eighth.
template <class Word, size_t Rows>
inline void transpose_bits(typename Vec<Word>::Type (&a)[Rows]) {
    using V = typename Vec<Word>::Type;
    constexpr size_t far = Rows / 8;
    for (size_t k = 0; k < 8; ++k) {
        V r[far];
#pragma GCC unroll 8
        for (size_t i = 0; i < far; ++i) r[i] = a[k + 8 * i];
        swap_bits<Word, far, 8>(r);
#pragma GCC unroll 8
        for (size_t i = 0; i < far; ++i) a[k + 8 * i] = r[i];
    }
    for (size_t k = 0; k < Rows; k += 8) {
        V r[8];
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; ++i) r[i] = a[k + i];
        swap_bits<Word, 8, 1>(r);
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; ++i) a[k + i] = r[i];
    }
}

// Lane l of vector i and lane i of vector l change places.
template <class Word>
inline void transpose_lanes(typename Vec<Word>::Type (&t)[Vec<Word>::width]) {
    constexpr size_t lanes = Vec<Word>::width;
#pragma GCC unroll 4
    for (size_t half = lanes / 2; half != 0; half /= 2) {
        typename Vec<Word>::Type low, high;
#pragma GCC unroll 16
        for (size_t l = 0; l < lanes; ++l) {
            low[l] = static_cast<Word>(l & half ? lanes + (l ^ half) : l);
            high[l] = static_cast<Word>(l & half ? lanes + l : l ^ half);
        }
#pragma GCC unroll 16
        for (size_t i = 0; i < lanes; ++i) {
            if (i & half) continue;
            const auto x = t[i], y = t[i + half];
            t[i] = __builtin_shuffle(x, y, low);
            t[i + half] = __builtin_shuffle(x, y, high);
        }
    }
}

template <class Word, class Source>
inline typename Vec<Word>::Type load_wide(const Source* p) {
    if constexpr (sizeof(Word) == sizeof(Source)) {
        return Vec<Word>::load(p);
    } else {
        typename Vec<Word>::Type v;
        for (size_t l = 0; l < Vec<Word>::width; ++l) v[l] = p[l];
        return v;
    }
}

// One tile of words to rows of planes.
template <class Word, class Source, size_t Rows>
inline void slice_tile(const Source* words, typename Vec<Word>::Type (&a)[Rows]) {
    constexpr size_t lanes = Vec<Word>::width;
    for (size_t c = 0; c < Rows; c += lanes) {
        typename Vec<Word>::Type t[lanes];
#pragma GCC unroll 16
        for (size_t l = 0; l < lanes; ++l) t[l] = load_wide<Word>(words + l * Rows + c);
        transpose_lanes<Word>(t);
#pragma GCC unroll 16
        for (size_t l = 0; l < lanes; ++l) a[c + l] = t[l];
    }
    transpose_bits<Word, Rows>(a);
}

template <class Word, class Source>
inline void bits_slice(const Source* words, size_t count, int first_bit, int width, uint64_t* planes, size_t stride,
                       size_t lines) {
    constexpr size_t rows = 8 * sizeof(Word), tile = 8 * MIPP_VECTOR_BYTES, tile_words = tile / 64;
    alignas(64) uint64_t buffer[rows][plane_words];
    typename Vec<Word>::Type a[rows];
    Source rest[tile];
    const size_t total = 8 * lines;
    const auto first = static_cast<size_t>(first_bit), used = static_cast<size_t>(width);
    for (size_t at = 0; at < total; at += plane_words) {
        const size_t some = min_of(plane_words, total - at);
        for (size_t w = 0; w < some; w += tile_words) {
            const size_t begin = min_of(count, 64 * (at + w)), here = min_of(tile, count - begin);
            const Source* from = words + begin;
            if (here < tile) {
                memset(rest, 0, sizeof rest);
                memcpy(rest, from, here * sizeof *rest);
                from = rest;
            }
            slice_tile<Word, Source, rows>(from, a);
            for (size_t b = 0; b < used; ++b) memcpy(buffer[b] + w, &a[first + b], sizeof a[0]);
        }
        for (size_t b = 0; b < used; ++b) memcpy(planes + b * stride + at, buffer[b], some * sizeof(uint64_t));
    }
    mipp::wipe(buffer, used * sizeof *buffer);
    mipp::wipe(a, sizeof a);
    mipp::wipe(rest, sizeof rest);
}

}  // namespace

// Words of 16 bits are widened to `type`, uint32_t.
#define MIPP_DEFINE_SLICE(name, bits, type) \
    MIPP_BITS_SLICE(name, bits) { bits_slice<type>(words, count, first_bit, width, planes, stride, lines); }
