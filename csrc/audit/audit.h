// Linear combinations of rows modulo p = 2^61 - 1, by which an owner audits what a cloud stores. Formulas: README.md.
// Rows, weights and tags may be secret: no branch and no address depends on them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/status.h"

namespace mipp {

constexpr std::uint64_t audit_modulus = (std::uint64_t{1} << 61) - 1;
// Most terms of a sum: each is below 2^93, and 128 bits hold 2^35 of them.
constexpr std::size_t audit_terms = std::size_t{1} << 34;

// sums[j] = sum_i coefficients[i] * rows[i, j] modulo p, for n rows of `width` words. Of a coefficient the low 61 bits
// count. Rows lie `width` words apart.
Status rows_combine_p61(const std::uint32_t* rows, std::size_t n, std::size_t width, const std::uint64_t* coefficients,
                        std::uint64_t* sums, int threads);

// tags[i] = sum_j weights[j] * rows[i, j] modulo p. Of a weight the low 61 bits count.
Status rows_tag_p61(const std::uint32_t* rows, std::size_t n, std::size_t width, const std::uint64_t* weights,
                    std::uint64_t* tags, int threads);

}  // namespace mipp
