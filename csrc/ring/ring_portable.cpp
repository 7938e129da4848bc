// Plain loops that compilers vectorise. u16 products are widened by hand: as int they could overflow.
#include "ring_kernels.h"

namespace {

template <class Word>
inline Word multiply_add(Word sum, Word x, Word y) {
    return static_cast<Word>(sum + x * y);
}

template <>
inline uint16_t multiply_add<uint16_t>(uint16_t sum, uint16_t x, uint16_t y) {
    return static_cast<uint16_t>(sum + static_cast<uint32_t>(x) * y);
}

// Four columns at a time, so that a row is read once per four.
template <class Word>
inline void matmul(const Word* rows, size_t row_count, size_t dim, const Word* columns, size_t column_count, Word* out,
                   size_t out_stride) {
    for (size_t r = 0; r < row_count; ++r) {
        const Word* x = rows + r * dim;
        size_t b = 0;
        for (; b + 4 <= column_count; b += 4) {
            const Word* y = columns + b * dim;
            Word s0 = 0, s1 = 0, s2 = 0, s3 = 0;
            for (size_t d = 0; d < dim; ++d) {
                s0 = multiply_add(s0, x[d], y[d]);
                s1 = multiply_add(s1, x[d], y[dim + d]);
                s2 = multiply_add(s2, x[d], y[2 * dim + d]);
                s3 = multiply_add(s3, x[d], y[3 * dim + d]);
            }
            out[b * out_stride + r] = s0;
            out[(b + 1) * out_stride + r] = s1;
            out[(b + 2) * out_stride + r] = s2;
            out[(b + 3) * out_stride + r] = s3;
        }
        for (; b < column_count; ++b) {
            const Word* y = columns + b * dim;
            Word s = 0;
            for (size_t d = 0; d < dim; ++d) s = multiply_add(s, x[d], y[d]);
            out[b * out_stride + r] = s;
        }
    }
}

}  // namespace

MIPP_RING_MATMUL(ring_matmul_u16_portable, 16) { matmul(rows, row_count, dim, columns, column_count, out, out_stride); }
MIPP_RING_MATMUL(ring_matmul_u32_portable, 32) { matmul(rows, row_count, dim, columns, column_count, out, out_stride); }
MIPP_RING_MATMUL(ring_matmul_u64_portable, 64) { matmul(rows, row_count, dim, columns, column_count, out, out_stride); }
