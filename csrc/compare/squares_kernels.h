// The kernels of sums of squares, of every tier, each on one thread; squares.cpp picks a tier.
//
// Arrays of words and of hints are (rows, width), in C order; words have the bits of the kernel's name.
#pragma once

#include <stddef.h>
#include <stdint.h>

// The dealer's part. Hints become value - mask in place.
typedef struct {
    const void *r1, *r2;
    const uint64_t* weights;  // width of them, public
    size_t rows, width;
    int hint_bits;  // 8, 16 or 32; 0: no hints
    void *carry, *msb, *delta;
    uint64_t* out;  // a sum per row
} MippSquaresDeal;

// A cloud's part, from its own mask word and its shares of the hints.
typedef struct {
    const void *m, *r;
    const uint64_t* weights;
    size_t rows, width;
    int first;      // 1 for cloud 1, which adds the squares of m; 0 for cloud 2
    int hint_bits;  // 8, 16 or 32; 0: no hints
    const void *carry, *msb, *delta;
    uint64_t* out;
} MippSquaresShare;

// Each macro is one kernel's declaration. A kernel is defined by the same macro, with its whole name, in its tier's
// file.
#define MIPP_SQUARES_DEAL(name) void name(const MippSquaresDeal* work)
#define MIPP_SQUARES_SHARE(name) void name(const MippSquaresShare* work)

#define MIPP_SQUARES_KERNEL(bits, tier)               \
    MIPP_SQUARES_DEAL(squares_deal_u##bits##_##tier); \
    MIPP_SQUARES_SHARE(squares_share_u##bits##_##tier);

#define MIPP_SQUARES_KERNELS(tier) \
    MIPP_SQUARES_KERNEL(16, tier)  \
    MIPP_SQUARES_KERNEL(32, tier)  \
    MIPP_SQUARES_KERNEL(64, tier)

extern "C" {
MIPP_SQUARES_KERNELS(portable)
#ifdef MIPP_X86
MIPP_SQUARES_KERNELS(avx2)
MIPP_SQUARES_KERNELS(avx512)
#endif
}
