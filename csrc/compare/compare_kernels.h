// The kernels of every tier, each on one thread; compare.cpp and shuffle.cpp pick a tier, tests run each as itself.
//
// A schedule is 240 bytes, the round keys of one AES-256 key (prf/prf_kernels.h). Word i of its stream is half i % 2,
// read in little-endian order, of AES of i / 2 as a 128-bit big-endian number.
#pragma once

#include <stddef.h>
#include <stdint.h>

// AND gates over planes in replicated form: the party's two summands of x and of y, its part of the products into out.
// The masks of column 0 begin at first_block of both streams.
typedef struct {
    const uint64_t *x_lo, *x_hi, *y_lo, *y_hi;
    uint64_t* out;
    uint64_t first_block;
} MippGate;

// out[i] = x[index[i]] +- F[i]; without a schedule nothing is added.
typedef struct {
    const uint64_t* x;
    const uint32_t* index;
    const uint8_t* schedule;
    int subtract;
    uint64_t* out;
} MippGather;

// What words_mask does with the stream.
#define MIPP_MASK_SET 0
#define MIPP_MASK_XOR 1
#define MIPP_MASK_ADD 2
#define MIPP_MASK_SUBTRACT 3

// Each macro is one kernel's declaration. A kernel is defined by the same macro, with its whole name, in its tier's
// file.

// Bit first_bit + b of words[i] becomes bit i % 64 of planes[b * stride + i / 64], for the `lines` lines of 8 words of
// each plane that `count` words reach; bits behind them are zero.
#define MIPP_BITS_SLICE(name, bits)                                                                                 \
    void name(const uint##bits##_t* words, size_t count, int first_bit, int width, uint64_t* planes, size_t stride, \
              size_t lines)
// Columns [0, words) of every gate, words a multiple of 8. schedules: two of them.
#define MIPP_GATES_AND(name) void name(const uint8_t* schedules, const MippGate* gates, size_t count, size_t words)
#define MIPP_WORDS_MASK(name) \
    void name(const uint8_t* schedule, uint64_t first_block, uint64_t* inout, size_t words, int operation)
// out[i] for i in [begin, end), begin even. Addresses depend on the index.
#define MIPP_WORDS_GATHER(name) void name(const MippGather* pass, size_t begin, size_t end)
#define MIPP_COMPARE_KERNELS(tier)              \
    MIPP_BITS_SLICE(bits_slice_u16_##tier, 16); \
    MIPP_BITS_SLICE(bits_slice_u32_##tier, 32); \
    MIPP_BITS_SLICE(bits_slice_u64_##tier, 64); \
    MIPP_GATES_AND(gates_and_u64_##tier);       \
    MIPP_WORDS_MASK(words_mask_u64_##tier);     \
    MIPP_WORDS_GATHER(words_gather_u64_##tier);

extern "C" {
MIPP_COMPARE_KERNELS(portable)
#ifdef MIPP_X86
MIPP_COMPARE_KERNELS(avx2)
MIPP_COMPARE_KERNELS(avx512)
#endif
}
