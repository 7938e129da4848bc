// The format of keys. README.md has a table of it.
#include "pir_key.h"

#include <cstring>

#include "pir.h"

namespace mipp {
namespace {

constexpr std::uint8_t magic[4] = {'M', 'P', 'I', 'R'};
constexpr std::uint8_t format_version = 1;
constexpr std::size_t rows_at = 8, seed_at = 16, corrections_at = 32, block = 16;

std::size_t control_bytes(int depth) { return (2 * static_cast<std::size_t>(depth) + 7) / 8; }

std::size_t length_of(int depth) {
    return corrections_at + block * static_cast<std::size_t>(depth) + control_bytes(depth) + block;
}

}  // namespace

int pir_depth(std::uint64_t rows) {
    int depth = 0;
    while ((std::uint64_t{pir_leaf_rows} << depth) < rows) ++depth;
    return depth;
}

std::size_t pir_key_bytes(std::uint64_t rows) { return length_of(pir_depth(rows)); }

PirKeyParts pir_key_begin(std::uint64_t rows, int party, std::uint8_t* bytes) {
    const int depth = pir_depth(rows);
    std::memset(bytes, 0, length_of(depth));
    std::memcpy(bytes, magic, sizeof magic);
    bytes[4] = format_version;
    bytes[5] = static_cast<std::uint8_t>(party);
    for (std::size_t i = 0; i < 8; ++i) bytes[rows_at + i] = static_cast<std::uint8_t>(rows >> 8 * i);
    std::uint8_t* corrections = bytes + corrections_at;
    std::uint8_t* controls = corrections + block * static_cast<std::size_t>(depth);
    return {depth, bytes + seed_at, corrections, controls, controls + control_bytes(depth)};
}

const char* pir_key_parse(const std::uint8_t* bytes, std::size_t length, PirKey* key) {
    if (length < length_of(0)) return "it is too short";
    if (std::memcmp(bytes, magic, sizeof magic) != 0) return "it does not begin as one";
    if (bytes[4] != format_version) return "it has another format version";
    if (bytes[5] > 1) return "its party is neither 0 nor 1";
    if (bytes[6] != 0 || bytes[7] != 0) return "reserved bytes are not 0";
    std::uint64_t rows = 0;
    for (std::size_t i = 0; i < 8; ++i) rows |= std::uint64_t{bytes[rows_at + i]} << 8 * i;
    if (rows < 1 || rows > pir_max_rows) return "its number of rows is out of range";
    const int depth = pir_depth(rows);
    if (length != length_of(depth)) return "its length does not fit its number of rows";
    const std::uint8_t* corrections = bytes + corrections_at;
    const std::uint8_t* controls = corrections + block * static_cast<std::size_t>(depth);
    // Lowest bits of blocks and the bits behind the last control bit: 0 in every key, so nothing secret.
    std::uint8_t unused = bytes[seed_at] & 1;
    for (std::size_t i = 0; i < static_cast<std::size_t>(depth); ++i) unused |= corrections[block * i] & 1;
    if (2 * depth % 8 != 0) unused |= static_cast<std::uint8_t>(controls[control_bytes(depth) - 1] >> 2 * depth % 8);
    if (unused != 0) return "unused bits are not 0";
    *key = {rows, bytes[5], depth, bytes + seed_at, corrections, controls, controls + control_bytes(depth)};
    return nullptr;
}

}  // namespace mipp
