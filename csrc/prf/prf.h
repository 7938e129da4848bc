// Keys, keystream, and what is made of keystream without storing it. Formulas: README.md.
//
// Keys, keystream and columns are secret: no branch and no address depends on them. Words are of 16, 32 or 64 bits
// (`bits`); all sums wrap.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/status.h"
#include "../cpu/cpu.h"

namespace mipp {

constexpr std::size_t max_info = 256;
// Blocks of one keystream that may be used: the counter never leaves 32 bits.
constexpr std::uint64_t max_blocks = std::uint64_t{1} << 32;

Level prf_tier();

// Round keys of many AES-256 keys: memory of its own, wiped when destroyed.
class KeySchedules {
  public:
    static constexpr std::size_t bytes_each = 240;

    KeySchedules() = default;
    KeySchedules(const KeySchedules&) = delete;
    KeySchedules& operator=(const KeySchedules&) = delete;
    ~KeySchedules();

    // Schedules of HKDF-SHA256(key, no salt, infos[s]) for `count` infos of `length` bytes, once.
    Status derive(const std::uint8_t* key, const std::uint8_t* infos, std::size_t length, std::size_t count,
                  int threads);
    std::size_t size() const { return count_; }
    const std::uint8_t* operator[](std::size_t i) const { return data_ + bytes_each * i; }

  private:
    std::uint8_t* data_ = nullptr;
    std::size_t count_ = 0;
};

// 32 bytes for each info: HKDF-SHA256 without salt.
Status hkdf_expand_batch(const std::uint8_t* key, const std::uint8_t* infos, std::size_t length, std::size_t count,
                         std::uint8_t* out, int threads);

// Whole blocks of the keystream of one schedule, on the caller's thread.
void keystream_fill(const std::uint8_t* schedule, std::uint64_t first_block, std::size_t blocks, std::uint8_t* out);

// `words` words of the keystream of one schedule from block first_block on.
Status keystream_words(const std::uint8_t* schedule, std::uint64_t first_block, int bits, void* out, std::size_t words);

// Consecutive rows of one keystream; `position` is where their answers begin.
struct KeystreamRun {
    std::size_t schedule, first_row, rows, position;
};

// out[b, position + r] = sum_d keystream row (first_row + r)[d] * columns[b, d]. Rows have `dim` words, whole blocks.
// columns: column_count x dim, dense; rows of `out` lie out_stride words apart. `total`: the rows of all runs.
Status keystream_matmul(const KeySchedules& schedules, const KeystreamRun* runs, std::size_t run_count,
                        std::size_t total, int bits, const void* columns, std::size_t column_count, std::size_t dim,
                        void* out, std::size_t out_stride, int threads);

// out[b, offset(s) .. + lengths[s]] += (negate: -=) the keystream under HKDF(key, infos[b * segments + s]), from its
// first word on; in segment 0 from word first_word on, so that a part of an answer gets the mask of that part.
Status zero_share_add(int bits, void* out, std::size_t queries, std::size_t out_stride, const std::uint8_t* key,
                      const std::uint8_t* infos, std::size_t info_length, const std::size_t* lengths,
                      std::size_t segments, std::size_t first_word, bool negate, int threads);

}  // namespace mipp
