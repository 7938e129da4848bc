// Batches of columns, for entry points: packed columns, and when answers are written past the caches. Also used by the
// product of keystream in prf/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "../common/wipe.h"

namespace mipp {

template <class Word>
struct RingBatch {
    std::size_t (*bytes)(std::size_t dim, std::size_t column_count);
    void (*pack)(const Word* columns, std::size_t column_count, std::size_t dim, void* packed);
    void (*product)(const Word* rows, std::size_t row_count, std::size_t dim, const void* packed,
                    std::size_t column_count, Word* out, std::size_t out_stride, int stream);
};

// Of the tier in force, or null where `column_count` columns are too few for it.
template <class Word>
const RingBatch<Word>* ring_batch(std::size_t column_count);

// Columns in a tier's order, wiped when they go; data() is null without memory.
class PackedColumns {
  public:
    template <class Word>
    PackedColumns(const RingBatch<Word>& batch, const Word* columns, std::size_t count, std::size_t dim)
        : bytes_((batch.bytes(dim, count) + 63) / 64 * 64), data_(std::aligned_alloc(64, bytes_)) {
        if (data_ != nullptr) batch.pack(columns, count, dim, data_);
    }
    PackedColumns(const PackedColumns&) = delete;
    PackedColumns& operator=(const PackedColumns&) = delete;
    ~PackedColumns() {
        if (data_ != nullptr) wipe(data_, bytes_);
        std::free(data_);
    }
    const void* data() const { return data_; }

  private:
    std::size_t bytes_;
    void* data_;
};

// More answers than caches hold are written past them: a line is then not read first, and rows stay in the caches.
// Needs rows of answers that begin equally far from a line.
template <class Word>
bool writes_past_caches(const Word* out, std::size_t out_stride, std::size_t row_count, std::size_t column_count) {
    constexpr std::size_t least = std::size_t{16} << 20;
    return reinterpret_cast<std::uintptr_t>(out) % sizeof(Word) == 0 && out_stride * sizeof(Word) % 64 == 0 &&
           row_count * column_count * sizeof(Word) >= least;
}

}  // namespace mipp
