// Writing keys; reading them is in pir.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mipp {

// Levels of the tree over `rows` rows: the fewest with 128 * 2^depth >= rows.
int pir_depth(std::uint64_t rows);

// Where a new key's parts go, all still 0.
struct PirKeyParts {
    int depth;
    std::uint8_t *seed, *corrections, *controls, *leaf_correction;
};
PirKeyParts pir_key_begin(std::uint64_t rows, int party, std::uint8_t* bytes);

}  // namespace mipp
