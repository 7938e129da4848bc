// XOR of selected records.
#define MIPP_VECTOR_BYTES 16
#include "../common/vectors.h"

namespace {

inline Words::Type add_selected(Words::Type sum, Words::Type record, Words::Type mask) { return sum ^ (record & mask); }

inline void hold(Words::Type&) {}

// Vectors of the sums of each selection that are kept in registers.
constexpr int scan_columns(int selections) { return selections < 3 ? 8 / selections : 12 / selections; }

}  // namespace

#include "scan_rows.h"

MIPP_RECORDS_XOR(records_xor_u64_portable) { scan_rows(records, rows, words, masks, selections, sums, next, parts); }
