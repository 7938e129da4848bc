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

#define MIPP_COMPARE_SLICE_KERNEL(bits, tier)                                                                      \
    /* Bit first_bit + b of words[i] becomes bit i % 64 of planes[b * stride + i / 64], for the `lines` lines of 8 \
       words of each plane that `count` words reach; bits behind them are zero. */                                 \
    void bits_slice_u##bits##_##tier(const uint##bits##_t* words, size_t count, int first_bit, int width,          \
                                     uint64_t* planes, size_t stride, size_t lines);

#define MIPP_COMPARE_KERNELS(tier)                                                                                 \
    MIPP_COMPARE_SLICE_KERNEL(16, tier)                                                                            \
    MIPP_COMPARE_SLICE_KERNEL(32, tier)                                                                            \
    MIPP_COMPARE_SLICE_KERNEL(64, tier)                                                                            \
    /* The way back: words of `width` bits. */                                                                     \
    void bits_unslice_u64_##tier(const uint64_t* planes, size_t stride, int width, uint64_t* words, size_t count); \
    /* Columns [0, words) of every gate, words a multiple of 8. schedules: two of them. */                         \
    void gates_and_u64_##tier(const uint8_t* schedules, const MippGate* gates, size_t count, size_t words);        \
    void words_mask_u64_##tier(const uint8_t* schedule, uint64_t first_block, uint64_t* inout, size_t words,       \
                               int operation);                                                                     \
    /* out[i] for i in [begin, end), begin even. Addresses depend on the index. */                                 \
    void words_gather_u64_##tier(const MippGather* pass, size_t begin, size_t end);                                \
    /* Words whose bit is set to `set`, in order; the others to `clear`. Addresses depend on the bits. */          \
    void words_partition_u64_##tier(const uint64_t* words, const uint64_t* bits, size_t count, uint64_t* set,      \
                                    uint64_t* clear);

extern "C" {
MIPP_COMPARE_KERNELS(portable)
#ifdef MIPP_X86
MIPP_COMPARE_KERNELS(avx2)
MIPP_COMPARE_KERNELS(avx512)
#endif
}
