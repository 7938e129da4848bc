// The kernels of every tier, each on one thread; prf.cpp picks a tier, tests run each as itself.
//
// A key schedule is 240 bytes: the 15 round keys of AES-256 in the order of FIPS 197, the same for every tier. Block b
// of a keystream is AES of b as a 128-bit big-endian number; a word is read from it in little-endian order.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Each macro is one kernel's declaration. A kernel is defined by the same macro, with its whole name, in its tier's
// file.

// keys[i] = HMAC(prk, infos[i] || 1): HKDF-Expand to 32 bytes. states: the two SHA-256 states, 16 words, behind the
// padded key of the inner and the outer hash. infos: count rows of length bytes, keys: count of 32.
#define MIPP_HKDF_EXPAND(name) \
    void name(const uint32_t* states, const uint8_t* infos, size_t length, size_t count, uint8_t* keys)
#define MIPP_SCHEDULE_EXPAND(name) void name(const uint8_t* keys, size_t count, uint8_t* schedules)
#define MIPP_KEYSTREAM_FILL(name) void name(const uint8_t* schedule, uint64_t first_block, size_t blocks, uint8_t* out)
// out[i] += (negate: -=) word i of the keystream from block first_block on.
#define MIPP_KEYSTREAM_ADD(name, bits) \
    void name(const uint8_t* schedule, uint64_t first_block, uint##bits##_t* out, size_t words, int negate)
// out[b, r] = sum_d keystream[r, d] * columns[b, d] for consecutive rows of row_blocks whole blocks each. columns: rows
// column_stride words apart, a multiple of 64 bytes, zero behind the last word, 64-byte aligned.
#define MIPP_KEYSTREAM_MATMUL(name, bits)                                                                    \
    void name(const uint8_t* schedule, uint64_t first_block, size_t rows, size_t row_blocks,                 \
              const uint##bits##_t* columns, size_t column_stride, size_t column_count, uint##bits##_t* out, \
              size_t out_stride)

#define MIPP_PRF_WORD_KERNELS(bits, tier)                     \
    MIPP_KEYSTREAM_ADD(keystream_add_u##bits##_##tier, bits); \
    MIPP_KEYSTREAM_MATMUL(keystream_matmul_u##bits##_##tier, bits);
#define MIPP_PRF_KERNELS(tier)                       \
    MIPP_HKDF_EXPAND(hkdf_expand_u8_##tier);         \
    MIPP_SCHEDULE_EXPAND(schedule_expand_u8_##tier); \
    MIPP_KEYSTREAM_FILL(keystream_fill_u8_##tier);   \
    MIPP_PRF_WORD_KERNELS(16, tier)                  \
    MIPP_PRF_WORD_KERNELS(32, tier)                  \
    MIPP_PRF_WORD_KERNELS(64, tier)

extern "C" {
MIPP_PRF_KERNELS(portable)
#ifdef MIPP_X86
MIPP_PRF_KERNELS(avx2)
MIPP_PRF_KERNELS(avx512)
#endif
}

// Longest info of hkdf_expand: five blocks of SHA-256.
#define MIPP_MAX_INFO 256
#define MIPP_SCHEDULE_BYTES 240
