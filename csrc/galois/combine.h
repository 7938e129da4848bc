// The linear map of sharing over whole vectors. An element of the Galois ring is m words side by side, so lane l of an
// output takes lane l of an input and its neighbours in the same element: for m = 2 the input and its pairs swapped,
// for m = 3 the input moved by -2 .. 2 words, with coefficients that are zero where the neighbour is another element's.
//
// Included by each tier's file with MIPP_VECTOR_BYTES. Matrices are public, words secret: no branch or address depends
// on a word.
#pragma once

#include "../common/wipe.h"
#include "galois_kernels.h"
#include "words.h"

namespace {

// Words of one output at a time; small enough for the first cache with all inputs beside it.
constexpr size_t chunk_bytes = 6144;

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

template <class Word>
inline typename Vec<Word>::Type swap_pairs(typename Vec<Word>::Type v) {
    typename Vec<Word>::Type order;
    for (size_t l = 0; l < Vec<Word>::width; ++l) order[l] = static_cast<Word>(l ^ 1);
    return __builtin_shuffle(v, order);
}

// Coefficients by lane, for vectors that begin at a multiple of m words.
template <class Word, int M>
struct Coefficients {
    static constexpr int moves = M == 2 ? 2 : 5, phases = M == 2 ? 1 : 3;
    typename Vec<Word>::Type c[MIPP_MAX_MAPS][MIPP_MAX_MAPS][moves][phases];

    void set(const Map<Word>& map) {
        for (size_t i = 0; i < map.out_count; ++i) {
            for (size_t a = 0; a < map.input_count; ++a) {
                const Word* matrix = map.matrices + (i * map.input_count + a) * M * M;
                for (int d = 0; d < moves; ++d) {
                    for (size_t l = 0; l < phases * Vec<Word>::width; ++l) {
                        const int b = static_cast<int>(l % M), from = M == 2 ? b ^ d : b + d - 2;
                        const Word value = from >= 0 && from < M ? matrix[b * M + from] : static_cast<Word>(0);
                        c[i][a][d][l / Vec<Word>::width][l % Vec<Word>::width] = value;
                    }
                }
            }
        }
    }
};

template <class Word>
inline void combine_vectors(const Map<Word>& map, const Coefficients<Word, 2>& k, size_t i, Word* out, size_t begin,
                            size_t end) {
    using V = Vec<Word>;
    size_t at = begin;
    for (; at + V::width <= end; at += V::width) {
        typename V::Type sum{};
        for (size_t a = 0; a < map.input_count; ++a) {
            const auto x = V::load(map.inputs[a] + at);
            sum += x * k.c[i][a][0][0] + swap_pairs<Word>(x) * k.c[i][a][1][0];
        }
        V::store(out + (at - begin), sum);
    }
    combine_elements(map, i, out + (at - begin), at, end);
}

// `words`: all there are; neighbours are read two words to each side, so the ends are done one by one.
template <class Word>
inline void combine_vectors(const Map<Word>& map, const Coefficients<Word, 3>& k, size_t i, Word* out, size_t begin,
                            size_t end, size_t words) {
    using V = Vec<Word>;
    const size_t limit = min_of(end, words - 2);
    size_t at = begin;
    if (at == 0) {
        combine_elements(map, i, out, 0, 3);
        at = 3;
    }
    for (; at + 3 * V::width <= limit; at += 3 * V::width) {
        for (size_t phase = 0; phase < 3; ++phase) {
            typename V::Type sum{};
            for (size_t a = 0; a < map.input_count; ++a) {
                const Word* x = map.inputs[a] + at + phase * V::width - 2;
                for (size_t d = 0; d < 5; ++d) sum += V::load(x + d) * k.c[i][a][d][phase];
            }
            V::store(out + (at - begin) + phase * V::width, sum);
        }
    }
    combine_elements(map, i, out + (at - begin), at, end);
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

template <class Word, int M>
inline void combine_all(const Map<Word>& map, Word* const* outs, size_t words, bool stream) {
    constexpr size_t step = chunk_bytes / sizeof(Word) / (M * Vec<Word>::width) * (M * Vec<Word>::width);
    Coefficients<Word, M> k;
    k.set(map);
    alignas(64) Word chunk[step];
    for (size_t begin = 0; begin < words; begin += step) {
        const size_t end = min_of(begin + step, words);
        for (size_t i = 0; i < map.out_count; ++i) {
            Word* to = stream ? chunk : outs[i] + begin;
            if constexpr (M == 2) {
                combine_vectors(map, k, i, to, begin, end);
            } else {
                combine_vectors(map, k, i, to, begin, end, words);
            }
            if (stream) {
                copy_streaming(reinterpret_cast<uint8_t*>(outs[i] + begin), reinterpret_cast<const uint8_t*>(chunk),
                               (end - begin) * sizeof(Word));
            }
        }
    }
    if (stream) {
        mipp::wipe(chunk, sizeof chunk);
#ifdef MIPP_X86
        _mm_sfence();
#endif
    }
}

template <class Word>
inline void combine(const Word* const* inputs, size_t input_count, Word* const* outs, size_t out_count, size_t words,
                    const Word* matrices, int m, int stream) {
    const Map<Word> map = {inputs, input_count, out_count, matrices, m};
    if (words == 0) return;
    if (m == 2) {
        combine_all<Word, 2>(map, outs, words, stream != 0);
    } else {
        combine_all<Word, 3>(map, outs, words, stream != 0);
    }
}

}  // namespace
