// Nodes and leaves by AES-NI, one block a register.
#include <immintrin.h>
#include <string.h>

#include "../common/wipe.h"
#include "fixed_keys.h"
#include "pir_kernels.h"

namespace {

inline __m128i load(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline void store(void* p, __m128i x) { _mm_storeu_si128(static_cast<__m128i*>(p), x); }

// All ones where the lowest bit of a node is set.
inline __m128i control_mask(__m128i node) { return _mm_srai_epi32(_mm_slli_epi32(_mm_shuffle_epi32(node, 0), 31), 31); }

inline __m128i seed_of(__m128i node) { return _mm_andnot_si128(_mm_set_epi64x(0, 1), node); }

// Several chains hide the latency of a round. The last round key takes in what is added to the result.
template <int Z>
inline void rounds(__m128i (&s)[Z], const FixedKey& key, const __m128i (&added)[Z]) {
#pragma GCC unroll 16
    for (int r = 1; r < fixed_rounds; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < Z; ++i) s[i] = _mm_aesenc_si128(s[i], load(key.round[r]));
    }
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) {
        s[i] = _mm_aesenclast_si128(s[i], _mm_xor_si128(added[i], load(key.round[fixed_rounds])));
    }
}

// AES(seed) ^ seed, and `correction` where the control bit is set, for Z nodes.
template <int Z>
inline void hash(const uint8_t* in, const FixedKey& key, __m128i correction, __m128i (&out)[Z]) {
    __m128i added[Z];
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) {
        const __m128i node = load(in + 16 * i), seed = seed_of(node);
        added[i] = _mm_xor_si128(seed, _mm_and_si128(control_mask(node), correction));
        out[i] = _mm_xor_si128(seed, load(key.round[0]));
    }
    rounds(out, key, added);
}

// Both children of Z nodes.
template <int Z>
inline void expand(const uint8_t* in, __m128i for_left, __m128i for_right, uint8_t* out) {
    __m128i left[Z], right[Z];
    hash(in, left_key, for_left, left);
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) store(out + 32 * i, left[i]);
    hash(in, right_key, for_right, right);
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) store(out + 32 * i + 16, right[i]);
}

}  // namespace

MIPP_NODES_EXPAND(nodes_expand_u8_avx2) {
    const __m128i for_left = load(corrections), for_right = load(corrections + 16);
    for (size_t i = 0; i < nodes; i += 8) expand<8>(in + 16 * i, for_left, for_right, out + 32 * i);
}

MIPP_LEAVES_CONVERT(leaves_convert_u8_avx2) {
    const __m128i by = load(correction);
    size_t i = 0;
    for (; i + 8 <= leaves; i += 8) {
        __m128i rows[8];
        hash(in + 16 * i, leaf_key, by, rows);
        for (int j = 0; j < 8; ++j) store(out + 16 * (i + static_cast<size_t>(j)), rows[j]);
    }
    for (; i < leaves; ++i) {
        __m128i rows[1];
        hash(in + 16 * i, leaf_key, by, rows);
        store(out + 16 * i, rows[0]);
    }
}
