// XOR of selected records.
#define MIPP_VECTOR_BYTES 32
#include "../common/vectors.h"

namespace {

inline Words::Type add_selected(Words::Type sum, Words::Type record, Words::Type mask) { return sum ^ (record & mask); }

// Keeps a mask in a register: else the compiler loads it again for each vector that it is used with.
inline void hold(Words::Type& mask) { __asm__("" : "+x"(mask)); }

}  // namespace

#include "scan_rows.h"

MIPP_RECORDS_XOR(records_xor_u64_avx2) { scan_rows(records, rows, words, lead, masks, selections, sums, next, parts); }
