// Nodes and leaves by VAES, four blocks a register.
#include <immintrin.h>

#include "fixed_keys.h"
#include "pir_kernels.h"

namespace {

struct RoundKeys {
    __m512i k[fixed_rounds + 1];

    explicit RoundKeys(const FixedKey& key) {
        for (int r = 0; r <= fixed_rounds; ++r) {
            k[r] = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(key.round[r])));
        }
    }
};

inline __m512i four(const uint8_t* block) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block)));
}

// Lanes of a block whose lowest bit is set.
inline __mmask8 control_mask(__m512i nodes) {
    return _mm512_test_epi64_mask(_mm512_shuffle_epi32(nodes, _MM_PERM_AAAA), _mm512_set1_epi64(1));
}

inline __m512i seeds_of(__m512i nodes) {
    return _mm512_andnot_si512(_mm512_broadcast_i32x4(_mm_set_epi64x(0, 1)), nodes);
}

// AES(seed) ^ seed, and `correction` where the control bit is set, for 4 Z nodes; several chains hide the latency of a
// round.
template <int Z>
inline void hash(const __m512i (&nodes)[Z], const RoundKeys& keys, __m512i correction, __m512i (&out)[Z]) {
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) out[i] = _mm512_xor_si512(seeds_of(nodes[i]), keys.k[0]);
#pragma GCC unroll 16
    for (int r = 1; r < fixed_rounds; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < Z; ++i) out[i] = _mm512_aesenc_epi128(out[i], keys.k[r]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) {
        const __m512i seeds = seeds_of(nodes[i]);
        const __m512i added = _mm512_mask_xor_epi64(seeds, control_mask(nodes[i]), seeds, correction);
        out[i] = _mm512_aesenclast_epi128(out[i], _mm512_xor_si512(added, keys.k[fixed_rounds]));
    }
}

// Both children of 4 Z nodes.
template <int Z>
inline void expand(const uint8_t* in, const RoundKeys& to_left, const RoundKeys& to_right, __m512i for_left,
                   __m512i for_right, uint8_t* out) {
    const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    const __m512i second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    __m512i nodes[Z], left[Z], right[Z];
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) nodes[i] = _mm512_loadu_si512(in + 64 * i);
    hash(nodes, to_left, for_left, left);
    hash(nodes, to_right, for_right, right);
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) {
        _mm512_storeu_si512(out + 128 * i, _mm512_permutex2var_epi64(left[i], first, right[i]));
        _mm512_storeu_si512(out + 128 * i + 64, _mm512_permutex2var_epi64(left[i], second, right[i]));
    }
}

}  // namespace

MIPP_NODES_EXPAND(nodes_expand_u8_avx512) {
    const RoundKeys to_left(left_key), to_right(right_key);
    const __m512i for_left = four(corrections), for_right = four(corrections + 16);
    size_t i = 0;
    for (; i + 32 <= nodes; i += 32) expand<8>(in + 16 * i, to_left, to_right, for_left, for_right, out + 32 * i);
    for (; i < nodes; i += 8) expand<2>(in + 16 * i, to_left, to_right, for_left, for_right, out + 32 * i);
}

MIPP_LEAVES_CONVERT(leaves_convert_u8_avx512) {
    const RoundKeys to_leaf(leaf_key);
    const __m512i by = four(correction);
    size_t i = 0;
    for (; i + 32 <= leaves; i += 32) {
        __m512i nodes[8], rows[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) nodes[j] = _mm512_loadu_si512(in + 16 * i + 64 * j);
        hash(nodes, to_leaf, by, rows);
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) _mm512_storeu_si512(out + 16 * i + 64 * j, rows[j]);
    }
    for (; i < leaves; i += 4) {
        const size_t left = leaves - i;
        const __mmask8 mask = left >= 4 ? 0xff : static_cast<__mmask8>((1u << 2 * left) - 1);
        const __m512i nodes[1] = {_mm512_loadu_si512(in + 16 * i)};
        __m512i rows[1];
        hash(nodes, to_leaf, by, rows);
        _mm512_mask_storeu_epi64(out + 16 * i, mask, rows[0]);
    }
}
