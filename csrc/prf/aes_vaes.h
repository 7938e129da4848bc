// AES-256-CTR by VAES, four blocks a register. Only for files of the avx512 tier.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "prf_kernels.h"

namespace {

struct RoundKeys {
    __m512i k[15];
};

inline RoundKeys load_keys(const uint8_t* schedule) {
    RoundKeys keys;
    for (int i = 0; i < 15; ++i) {
        keys.k[i] = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(schedule + 16 * i)));
    }
    return keys;
}

// Numbers of four consecutive blocks, little-endian in the low half of each 128 bits.
inline __m512i block_numbers(uint64_t first) {
    return _mm512_add_epi64(_mm512_maskz_set1_epi64(0x55, static_cast<long long>(first)),
                            _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0));
}

inline __m512i big_endian(__m512i numbers) {
    return _mm512_shuffle_epi8(
        numbers, _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
}

template <int Z>
inline void encrypt_rounds(__m512i (&s)[Z], const RoundKeys& keys, int from) {
#pragma GCC unroll 16
    for (int r = from; r < 14; ++r) {
#pragma GCC unroll 16
        for (int i = 0; i < Z; ++i) s[i] = _mm512_aesenc_epi128(s[i], keys.k[r]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Z; ++i) s[i] = _mm512_aesenclast_epi128(s[i], keys.k[14]);
}

// 4 Z blocks of keystream from the one with the given numbers on; several chains hide the latency of a round.
template <int Z>
inline void keystream(__m512i (&s)[Z], const RoundKeys& keys, __m512i numbers) {
#pragma GCC unroll 16
    for (int i = 0; i < Z; ++i) {
        const __m512i ahead = _mm512_add_epi64(numbers, _mm512_maskz_set1_epi64(0x55, 4 * i));
        s[i] = _mm512_xor_si512(big_endian(ahead), keys.k[0]);
    }
    encrypt_rounds(s, keys, 1);
}

inline void fill(const uint8_t* schedule, uint64_t first_block, size_t blocks, uint8_t* out) {
    const RoundKeys keys = load_keys(schedule);
    size_t b = 0;
    for (; b + 32 <= blocks; b += 32) {
        __m512i s[8];
        keystream(s, keys, block_numbers(first_block + b));
        for (int i = 0; i < 8; ++i) _mm512_storeu_si512(out + 16 * b + 64 * i, s[i]);
    }
    for (; b < blocks; b += 8) {
        __m512i s[2];
        keystream(s, keys, block_numbers(first_block + b));
        for (size_t i = 0; i < 2 && b + 4 * i < blocks; ++i) {
            const size_t left = blocks - b - 4 * i;
            const __mmask8 mask = left >= 4 ? 0xff : static_cast<__mmask8>((1u << 2 * left) - 1);
            _mm512_mask_storeu_epi64(out + 16 * b + 64 * i, mask, s[i]);
        }
    }
}

// Round keys of four AES-256 keys at once: FIPS 197, 5.2. AESENCLAST of a word in all four columns is SubWord of it,
// for then ShiftRows changes nothing; what is xored in as round key is Rcon.
template <bool rotated>
inline __m512i next_round_key(__m512i before, __m512i last, uint32_t rcon) {
    const __m128i order = rotated ? _mm_set1_epi32(0x0c0f0e0d) : _mm_set1_epi32(0x0f0e0d0c);
    const __m512i word = _mm512_shuffle_epi8(last, _mm512_broadcast_i32x4(order));
    const __m512i substituted = _mm512_aesenclast_epi128(word, _mm512_set1_epi32(static_cast<int>(rcon)));
    __m512i x = _mm512_xor_si512(before, _mm512_bslli_epi128(before, 4));
    x = _mm512_xor_si512(x, _mm512_bslli_epi128(x, 8));
    return _mm512_xor_si512(x, substituted);
}

inline void store_round(uint8_t* schedules, int round, __m512i key, size_t count) {
    __m128i* p[4];
    for (size_t i = 0; i < 4; ++i) {
        p[i] = reinterpret_cast<__m128i*>(schedules + i * MIPP_SCHEDULE_BYTES + 16 * round);
    }
    _mm_storeu_si128(p[0], _mm512_castsi512_si128(key));
    if (count > 1) _mm_storeu_si128(p[1], _mm512_extracti32x4_epi32(key, 1));
    if (count > 2) _mm_storeu_si128(p[2], _mm512_extracti32x4_epi32(key, 2));
    if (count > 3) _mm_storeu_si128(p[3], _mm512_extracti32x4_epi32(key, 3));
}

inline void expand_four(const uint8_t* keys, size_t count, uint8_t* schedules) {
    // Two loads of two keys each; quarters 0, 2 and 1, 3 are then the first and second halves of the keys.
    const __mmask8 mask = count >= 2 ? 0xff : 0x0f, mask2 = count >= 4 ? 0xff : count == 3 ? 0x0f : 0;
    const __m512i first = _mm512_maskz_loadu_epi64(mask, keys);
    const __m512i second = _mm512_maskz_loadu_epi64(mask2, keys + (count > 2 ? 64 : 0));
    __m512i low = _mm512_shuffle_i32x4(first, second, 0x88), high = _mm512_shuffle_i32x4(first, second, 0xdd);
    store_round(schedules, 0, low, count);
    store_round(schedules, 1, high, count);
    uint32_t rcon = 1;
    for (int r = 2; r < 14; r += 2, rcon <<= 1) {
        low = next_round_key<true>(low, high, rcon);
        high = next_round_key<false>(high, low, 0);
        store_round(schedules, r, low, count);
        store_round(schedules, r + 1, high, count);
    }
    low = next_round_key<true>(low, high, rcon);
    store_round(schedules, 14, low, count);
}

inline void expand(const uint8_t* keys, size_t count, uint8_t* schedules) {
    size_t i = 0;
    for (; i + 4 <= count; i += 4) expand_four(keys + 32 * i, 4, schedules + MIPP_SCHEDULE_BYTES * i);
    if (i < count) expand_four(keys + 32 * i, count - i, schedules + MIPP_SCHEDULE_BYTES * i);
}

}  // namespace
