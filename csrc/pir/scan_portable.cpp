// XOR of selected records.
#define MIPP_VECTOR_BYTES 16
#include "../common/vectors.h"

namespace {

inline Words::Type add_selected(Words::Type sum, Words::Type record, Words::Type mask) { return sum ^ (record & mask); }

inline void hold(Words::Type&) {}

}  // namespace

#include "scan_rows.h"

MIPP_RECORDS_XOR(records_xor_u64_portable) {
    scan_rows(records, rows, words, lead, masks, selections, sums, next, parts);
}
