// XOR of selected records.
#include <immintrin.h>

#define MIPP_VECTOR_BYTES 64
#include "../common/vectors.h"

namespace {

// One instruction: sum ^ (record & mask).
inline Words::Type add_selected(Words::Type sum, Words::Type record, Words::Type mask) {
    return reinterpret_cast<Words::Type>(_mm512_ternarylogic_epi64(
        reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(record), reinterpret_cast<__m512i>(mask), 0x78));
}

// Keeps a mask in a register: else the compiler loads it again for each vector that it is used with.
inline void hold(Words::Type& mask) { __asm__("" : "+v"(mask)); }

}  // namespace

#include "scan_rows.h"

MIPP_RECORDS_XOR(records_xor_u64_avx512) {
    scan_rows(records, rows, words, lead, masks, selections, sums, next, parts);
}
