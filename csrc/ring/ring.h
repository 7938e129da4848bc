// Wrapping matrix product over Z mod 2^k: out[b, r] = sum_d rows[r, d] * columns[b, d].
#pragma once

#include <cstddef>

#include "../common/status.h"
#include "../cpu/cpu.h"

namespace mipp {

Level ring_tier();

// `bits` is 16, 32 or 64. rows: row_count x dim, columns: column_count x dim, both dense; out: column_count x
// row_count, its rows `out_stride` words apart. dim >= 1. Threads share the rows out.
Status ring_matmul(int bits, const void* rows, std::size_t row_count, std::size_t dim, const void* columns,
                   std::size_t column_count, void* out, std::size_t out_stride, int threads);

}  // namespace mipp
