// The kernels of every tier, each on one thread; pir.cpp and scan.cpp pick a tier, tests run each as itself.
//
// A node of the tree is a block of 16 bytes: its seed, whose lowest bit is 0, and in that lowest bit its control bit.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Each macro is one kernel's declaration. A kernel is defined by the same macro, with its whole name, in its tier's
// file.

// out[2i], out[2i + 1] = the children of in[i]. corrections: 32 bytes, the correction of left children with the control
// bit's correction in its lowest bit, then that of right ones. Reads MIPP_NODE_STEP nodes at a time, and writes twice
// as many: both arrays have room for whole steps. They do not overlap.
#define MIPP_NODES_EXPAND(name) void name(const uint8_t* in, size_t nodes, const uint8_t* corrections, uint8_t* out)
// out[i] = the 128 rows below the leaf in[i]. Reads whole steps, writes `leaves` blocks.
#define MIPP_LEAVES_CONVERT(name) void name(const uint8_t* in, size_t leaves, const uint8_t* correction, uint8_t* out)
// sums[q, j] ^= records[i, j] where masks[i, q] is all ones, for up to MIPP_SCAN_ROWS rows of `words` words of 64 bits
// that need no alignment, and 1 to MIPP_SCAN_SELECTIONS selections. masks: MIPP_SCAN_SELECTIONS words a row, each 0 or
// all ones. The first `lead` words of a record, fewer than 8, stand alone; lines of 8 words follow, and a rest. Sums
// are interleaved, so that those of one column are neighbours: line l of selection q is line l * selections + q; behind
// them stand, selection by selection, the sums of the lead and of the rest. Meanwhile it asks for memory from `next`
// on, one part in `parts` of as much as it reads.
#define MIPP_RECORDS_XOR(name)                                                                       \
    void name(const uint8_t* records, size_t rows, size_t words, size_t lead, const uint64_t* masks, \
              size_t selections, uint64_t* sums, const uint8_t* next, size_t parts)

#define MIPP_NODE_STEP 32
#define MIPP_SCAN_ROWS 12
#define MIPP_SCAN_SELECTIONS 12

#define MIPP_PIR_KERNELS(tier)                     \
    MIPP_NODES_EXPAND(nodes_expand_u8_##tier);     \
    MIPP_LEAVES_CONVERT(leaves_convert_u8_##tier); \
    MIPP_RECORDS_XOR(records_xor_u64_##tier);

extern "C" {
MIPP_PIR_KERNELS(portable)
#ifdef MIPP_X86
MIPP_PIR_KERNELS(avx2)
MIPP_PIR_KERNELS(avx512)
#endif
}
