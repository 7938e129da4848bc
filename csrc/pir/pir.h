// Two-server private information retrieval: keys of distributed point functions, their expansion to selections of rows,
// and XOR of the rows selected. Formulas and the format of keys: README.md. Rows wanted, keys and selections are
// secret: no branch and no address depends on them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/status.h"
#include "../cpu/cpu.h"

namespace mipp {

constexpr std::uint64_t pir_max_rows = std::uint64_t{1} << 32;
constexpr std::size_t pir_leaf_rows = 128;
constexpr int pir_max_depth = 25;
constexpr std::size_t pir_random_bytes = 32;
constexpr std::size_t pir_max_selections = 1024;

Level pir_tier();

inline std::size_t pir_leaves(std::uint64_t rows) {
    return static_cast<std::size_t>((rows + pir_leaf_rows - 1) / pir_leaf_rows);
}
// Words of 64 bits of a selection: whole leaves.
inline std::size_t pir_words(std::uint64_t rows) { return 2 * pir_leaves(rows); }

// A key's parts, inside the bytes that were parsed.
struct PirKey {
    std::uint64_t rows;
    int party, depth;
    const std::uint8_t *seed, *corrections, *controls, *leaf_correction;
};

// Bytes of a key over `rows` rows, 1 to pir_max_rows.
std::size_t pir_key_bytes(std::uint64_t rows);

// Null, or what is wrong with the bytes. Reads nothing behind `length`.
const char* pir_key_parse(const std::uint8_t* bytes, std::size_t length, PirKey* key);

// Both keys of `row` below `rows`, from 32 random bytes. `row` is secret.
Status pir_generate(std::uint64_t row, std::uint64_t rows, const std::uint8_t* random, std::uint8_t* key_a,
                    std::uint8_t* key_b);

// The selection that a key stands for: row r is bit r % 64 of word r / 64; bits behind the last row are 0.
Status pir_expand(const PirKey& key, std::uint64_t* out, int threads);

// out[q] ^= XOR of records[i] where bit first_row + i of selection q is set. Records have `record_bytes` bytes, a
// multiple of 8, in any alignment; selections and rows of `out` lie `words` words and record_bytes bytes apart.
Status pir_scan(const std::uint8_t* records, std::size_t rows, std::size_t record_bytes,
                const std::uint64_t* selections, std::size_t words, std::size_t count, std::uint64_t first_row,
                std::uint8_t* out, int threads);

// Bit i of out[q] = bit ordinals[i] of selections[q]. Ordinals are public and below 64 times `words`.
Status pir_gather(const std::uint64_t* selections, std::size_t words, std::size_t count, const std::int64_t* ordinals,
                  std::size_t rows, std::uint64_t* out, int threads);

}  // namespace mipp
