// AES-256-CTR by AES-NI, one block a register. Only for files of the avx2 tier.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "prf_kernels.h"

namespace {

inline __m128i round_key(const uint8_t* schedule, int round) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(schedule + 16 * round));
}

// Z blocks of keystream; several chains hide the latency of a round. Block numbers have 64 bits.
template <int Z>
inline void keystream(__m128i (&s)[Z], const uint8_t* schedule, uint64_t first_block) {
    const __m128i first_key = round_key(schedule, 0);
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) {
        const uint64_t number = __builtin_bswap64(first_block + static_cast<uint64_t>(i));
        s[i] = _mm_xor_si128(_mm_set_epi64x(static_cast<long long>(number), 0), first_key);
    }
#pragma GCC unroll 1
    for (int r = 1; r < 14; ++r) {
        const __m128i key = round_key(schedule, r);
#pragma GCC unroll 8
        for (int i = 0; i < Z; ++i) s[i] = _mm_aesenc_si128(s[i], key);
    }
    const __m128i last_key = round_key(schedule, 14);
#pragma GCC unroll 8
    for (int i = 0; i < Z; ++i) s[i] = _mm_aesenclast_si128(s[i], last_key);
}

inline void fill(const uint8_t* schedule, uint64_t first_block, size_t blocks, uint8_t* out) {
    size_t b = 0;
    for (; b + 8 <= blocks; b += 8) {
        __m128i s[8];
        keystream(s, schedule, first_block + b);
        for (int i = 0; i < 8; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * (b + i)), s[i]);
    }
    if (b < blocks) {
        __m128i s[8];
        keystream(s, schedule, first_block + b);
        for (size_t i = 0; b + i < blocks; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * (b + i)), s[i]);
    }
}

// FIPS 197, 5.2. AESENCLAST of a word in all four columns is SubWord of it, for then ShiftRows changes nothing; what
// is xored in as round key is Rcon. (AESKEYGENASSIST does the same, more slowly.)
template <bool rotated>
inline __m128i next_round_key(__m128i before, __m128i last, uint32_t rcon) {
    const __m128i order = rotated ? _mm_set1_epi32(0x0c0f0e0d) : _mm_set1_epi32(0x0f0e0d0c);
    const __m128i word = _mm_shuffle_epi8(last, order);
    const __m128i substituted = _mm_aesenclast_si128(word, _mm_set1_epi32(static_cast<int>(rcon)));
    __m128i x = _mm_xor_si128(before, _mm_slli_si128(before, 4));
    x = _mm_xor_si128(x, _mm_slli_si128(x, 8));
    return _mm_xor_si128(x, substituted);
}

inline void expand(const uint8_t* keys, size_t count, uint8_t* schedules) {
    for (size_t n = 0; n < count; ++n) {
        __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(keys + 32 * n));
        __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(keys + 32 * n + 16));
        __m128i* out = reinterpret_cast<__m128i*>(schedules + MIPP_SCHEDULE_BYTES * n);
        _mm_storeu_si128(out, low);
        _mm_storeu_si128(out + 1, high);
        uint32_t rcon = 1;
        for (int r = 2; r < 14; r += 2, rcon <<= 1) {
            low = next_round_key<true>(low, high, rcon);
            high = next_round_key<false>(high, low, 0);
            _mm_storeu_si128(out + r, low);
            _mm_storeu_si128(out + r + 1, high);
        }
        _mm_storeu_si128(out + 14, next_round_key<true>(low, high, rcon));
    }
}

}  // namespace
