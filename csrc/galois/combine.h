// The linear map of sharing over whole vectors. An element of the Galois ring is m words side by side, so lane l of an
// output takes lane l of every input and its neighbours in the same element: the input turned by 0 .. m-1 words within
// each element, times coefficients by lane. Turned inputs are made once for all outputs.
//
// Included by each tier's file with MIPP_VECTOR_BYTES. Matrices are public, words secret: no branch or address depends
// on a word.
#pragma once

#include "../common/vectors.h"
#include "../common/wipe.h"
#include "galois_kernels.h"
#ifdef MIPP_X86
#include <immintrin.h>
#endif

namespace {

// Bytes of one output at a time when results go past the caches: all outputs' together stay in the first cache.
constexpr size_t chunk_bytes = 3072;

// Widened by hand: a product of two 16-bit words promoted to int can overflow.
template <class Word>
inline Word product(Word x, Word y) {
    return static_cast<Word>(static_cast<uint64_t>(x) * y);
}

template <class Word>
struct Map {
    const Word* const* inputs;
    size_t input_count;
    size_t out_count;
    const Word* matrices;  // out_count x input_count x m x m
    int m;
};

// Elements [begin, end) one by one, for what no vector covers.
template <class Word>
inline void combine_elements(const Map<Word>& map, size_t i, Word* out, size_t begin, size_t end) {
    const size_t m = static_cast<size_t>(map.m);
    for (size_t at = begin; at < end; at += m) {
        for (size_t b = 0; b < m; ++b) {
            Word sum = 0;
            for (size_t a = 0; a < map.input_count; ++a) {
                const Word* row = map.matrices + ((i * map.input_count + a) * m + b) * m;
                for (size_t c = 0; c < m; ++c) {
                    sum = static_cast<Word>(sum + product(row[c], map.inputs[a][at + c]));
                }
            }
            out[at - begin + b] = sum;
        }
    }
}

// By lane, for vectors that begin at a multiple of m words; for m = 3 that is every third vector (phase 0).
template <class Word, int M>
struct Coefficients {
    using V = Vec<Word>;
    static constexpr int phases = M == 2 ? 1 : 3;
    typename V::Type c[phases][MIPP_MAX_MAPS][MIPP_MAX_INPUTS][M];
    typename V::Type wraps[phases][M];  // all ones where turning by so many words leaves the element's end

    void set(const Map<Word>& map) {
        for (size_t l = 0; l < phases * V::width; ++l) {
            const size_t phase = l / V::width, lane = l % V::width, b = l % M;
            for (size_t turn = 0; turn < M; ++turn) {
                const size_t from = (b + turn) % M;
                wraps[phase][turn][lane] = static_cast<Word>(b + turn >= M ? ~Word{0} : Word{0});
                for (size_t i = 0; i < map.out_count; ++i) {
                    for (size_t a = 0; a < map.input_count; ++a) {
                        c[phase][i][a][turn][lane] = map.matrices[((i * map.input_count + a) * M + b) * M + from];
                    }
                }
            }
        }
    }
};

template <class Word>
inline void turn_input(typename Vec<Word>::Type (&turned)[2], const Word* x, const Coefficients<Word, 2>&, size_t) {
    typename Vec<Word>::Type swapped;
    for (size_t l = 0; l < Vec<Word>::width; ++l) swapped[l] = static_cast<Word>(l ^ 1);
    turned[0] = Vec<Word>::load(x);
    turned[1] = __builtin_shuffle(turned[0], swapped);
}

// Reads two words to each side.
template <class Word>
inline void turn_input(typename Vec<Word>::Type (&turned)[3], const Word* x, const Coefficients<Word, 3>& k,
                       size_t phase) {
    using V = Vec<Word>;
    turned[0] = V::load(x);
    turned[1] = (V::load(x + 1) & ~k.wraps[phase][1]) | (V::load(x - 2) & k.wraps[phase][1]);
    turned[2] = (V::load(x + 2) & ~k.wraps[phase][2]) | (V::load(x - 1) & k.wraps[phase][2]);
}

// Words [begin, end) of `words`, into outs[i].
template <class Word, int M, int Inputs>
inline void combine_range(const Map<Word>& map, const Coefficients<Word, M>& k, Word* const* outs, size_t begin,
                          size_t end, size_t words) {
    using V = Vec<Word>;
    constexpr size_t phases = Coefficients<Word, M>::phases, step = phases * V::width;
    // The ends of the inputs for m = 3 are done one by one, for the neighbours that are not there.
    const size_t limit = M == 2 ? end : min_of(end, words - 2);
    size_t at = begin;
    if (M == 3 && at == 0) at = 3;
    const size_t first = at;
    for (; at + step <= limit; at += step) {
        for (size_t phase = 0; phase < phases; ++phase) {
            typename V::Type turned[Inputs][M];
            for (int a = 0; a < Inputs; ++a) turn_input(turned[a], map.inputs[a] + at + phase * V::width, k, phase);
            for (size_t i = 0; i < map.out_count; ++i) {
                typename V::Type sum{};
                for (int a = 0; a < Inputs; ++a) {
                    for (int d = 0; d < M; ++d) sum += turned[a][d] * k.c[phase][i][a][d];
                }
                V::store(outs[i] + (at - begin) + phase * V::width, sum);
            }
        }
    }
    for (size_t i = 0; i < map.out_count; ++i) {
        combine_elements(map, i, outs[i], begin, first);
        combine_elements(map, i, outs[i] + (at - begin), at, end);
    }
}

#ifdef MIPP_X86
// Copies past the caches where whole lines allow it.
inline void copy_streaming(uint8_t* to, const uint8_t* from, size_t bytes) {
    const size_t head = min_of(bytes, (64 - reinterpret_cast<uintptr_t>(to) % 64) % 64);
    memcpy(to, from, head);
    size_t at = head;
    for (; at + 64 <= bytes; at += 64) {
        for (size_t i = 0; i < 64; i += 16) {
            const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at + i));
            _mm_stream_si128(reinterpret_cast<__m128i*>(to + at + i), v);
        }
    }
    memcpy(to + at, from + at, bytes - at);
}
#else
inline void copy_streaming(uint8_t* to, const uint8_t* from, size_t bytes) { memcpy(to, from, bytes); }
#endif

template <class Word, int M, int Inputs>
inline void combine_all(const Map<Word>& map, Word* const* outs, size_t words, bool stream) {
    constexpr size_t step = chunk_bytes / sizeof(Word) / (M * Vec<Word>::width) * (M * Vec<Word>::width);
    Coefficients<Word, M> k;
    k.set(map);
    if (!stream) {
        combine_range<Word, M, Inputs>(map, k, outs, 0, words, words);
        return;
    }
    alignas(64) Word chunk[MIPP_MAX_MAPS][step];
    Word* chunks[MIPP_MAX_MAPS];
    for (size_t i = 0; i < MIPP_MAX_MAPS; ++i) chunks[i] = chunk[i];
    for (size_t begin = 0; begin < words; begin += step) {
        const size_t end = min_of(begin + step, words);
        combine_range<Word, M, Inputs>(map, k, chunks, begin, end, words);
        for (size_t i = 0; i < map.out_count; ++i) {
            copy_streaming(reinterpret_cast<uint8_t*>(outs[i] + begin), reinterpret_cast<const uint8_t*>(chunk[i]),
                           (end - begin) * sizeof(Word));
        }
    }
    mipp::wipe(chunk, map.out_count * sizeof chunk[0]);
#ifdef MIPP_X86
    _mm_sfence();
#endif
}

template <class Word, int M>
inline void combine_inputs(const Map<Word>& map, Word* const* outs, size_t words, bool stream) {
    switch (map.input_count) {
        case 1:
            return combine_all<Word, M, 1>(map, outs, words, stream);
        case 2:
            return combine_all<Word, M, 2>(map, outs, words, stream);
        case 3:
            return combine_all<Word, M, 3>(map, outs, words, stream);
        default:
            return combine_all<Word, M, 4>(map, outs, words, stream);
    }
}

template <class Word>
inline void combine(const Word* const* inputs, size_t input_count, Word* const* outs, size_t out_count, size_t words,
                    const Word* matrices, int m, int stream) {
    const Map<Word> map = {inputs, input_count, out_count, matrices, m};
    if (words == 0) return;
    if (m == 2) {
        combine_inputs<Word, 2>(map, outs, words, stream != 0);
    } else {
        combine_inputs<Word, 3>(map, outs, words, stream != 0);
    }
}

}  // namespace

#define MIPP_DEFINE_COMBINE(name, bits) \
    MIPP_WORDS_COMBINE(name, bits) { combine(inputs, input_count, outs, out_count, words, matrices, m, stream); }
