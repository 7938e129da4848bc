// Records are shared among threads, each with sums of its own; masks are made here, sums by the tier's kernel.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "../common/pool.h"
#include "../common/wipe.h"
#include "pir.h"
#include "pir_tiers.h"

namespace mipp {
namespace {

// Bytes of records in a grain, and most in a group: a group and the one that is asked for stay in the second cache.
constexpr std::size_t grain_bytes = std::size_t{1} << 20, group_bytes = std::size_t{1} << 18;

struct Free {
    void operator()(void* p) const { std::free(p); }
};

// Words that are wiped when they go.
class SecretWords {
  public:
    explicit SecretWords(std::size_t count)
        : bytes_((8 * count + 63) / 64 * 64), data_(static_cast<std::uint64_t*>(std::aligned_alloc(64, bytes_))) {
        if (data_) std::memset(data_.get(), 0, bytes_);
    }
    ~SecretWords() {
        if (data_) wipe(data_.get(), bytes_);
    }
    std::uint64_t* data() const { return data_.get(); }

  private:
    std::size_t bytes_;
    std::unique_ptr<std::uint64_t, Free> data_;
};

// `count` bits (at most 16) of a selection, from bit `first` on. Reads the words of these bits only.
std::uint64_t some_bits(const std::uint64_t* selection, std::uint64_t first, std::size_t count) {
    const std::uint64_t word = first / 64, last = (first + count - 1) / 64, shift = first % 64;
    std::uint64_t bits = selection[word] >> shift;
    if (last != word) bits |= selection[last] << (64 - shift);
    return bits & ((std::uint64_t{1} << count) - 1);
}

void make_masks(const std::uint64_t* selections, std::size_t words, std::size_t count, std::uint64_t first_row,
                std::size_t rows, std::uint64_t* masks) {
    for (std::size_t q = 0; q < count; ++q) {
        const std::uint64_t bits = some_bits(selections + q * words, first_row, rows);
        for (std::size_t r = 0; r < MIPP_SCAN_ROWS; ++r) masks[r * MIPP_SCAN_SELECTIONS + q] = 0 - (bits >> r & 1);
    }
}

// out[q] ^= the sums of selection q, which kernels interleave by lines.
void add_sums(const std::uint64_t* sums, std::size_t width, std::size_t lead, std::size_t count, std::uint8_t* out) {
    const auto add = [](const std::uint64_t* from, std::size_t words, std::uint8_t* to) {
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(from);
        for (std::size_t i = 0; i < 8 * words; ++i) to[i] ^= bytes[i];
    };
    const std::size_t lines = (width - lead) / 8, left = width - 8 * lines;
    for (std::size_t q = 0; q < count; ++q) {
        std::uint8_t* to = out + 8 * width * q;
        for (std::size_t l = 0; l < lines; ++l) add(sums + 8 * (l * count + q), 8, to + 8 * lead + 64 * l);
        for (std::size_t i = 0; i < left; ++i) {
            const std::size_t w = i < lead ? i : i + 8 * lines;
            add(sums + 8 * lines * count + i * count + q, 1, to + 8 * w);
        }
    }
}

// Words before the first whole line of memory of a record, where all records have the same.
std::size_t lead_of(const std::uint8_t* records, std::size_t record_bytes) {
    const std::size_t behind = reinterpret_cast<std::uintptr_t>(records) % 64;
    return record_bytes % 64 == 0 && behind % 8 == 0 ? (64 - behind) % 64 / 8 : 0;
}

// Passes over a group of records, which stays in the second cache: each has about as many selections as the others.
struct Passes {
    std::size_t count, number;
    explicit Passes(std::size_t selections)
        : count(selections), number((selections + MIPP_SCAN_SELECTIONS - 1) / MIPP_SCAN_SELECTIONS) {}
    std::size_t first(std::size_t pass) const { return count * pass / number; }
};

}  // namespace

Status pir_scan(const std::uint8_t* records, std::size_t rows, std::size_t record_bytes,
                const std::uint64_t* selections, std::size_t words, std::size_t count, std::uint64_t first_row,
                std::uint8_t* out, int threads) {
    if (record_bytes == 0 || record_bytes % 8 != 0 || count > pir_max_selections) return Status::bad_argument;
    if (first_row > 64 * words || rows > 64 * words - first_row) return Status::bad_argument;
    if (rows == 0 || count == 0) return Status::ok;
    const auto add_records = pir_kernels().add_records;
    const std::size_t width = record_bytes / 8;
    const std::size_t group = std::clamp<std::size_t>(group_bytes / record_bytes, 1, MIPP_SCAN_ROWS);
    const std::size_t grain = std::max<std::size_t>(1, grain_bytes / record_bytes / group) * group;
    const std::size_t lead = lead_of(records, record_bytes);
    const Passes passes(count);
    std::mutex adding;
    return parallel_for(rows, grain, threads, [&](std::size_t begin, std::size_t end) {
        const SecretWords sums(count * width), masks(MIPP_SCAN_SELECTIONS * MIPP_SCAN_ROWS);
        if (sums.data() == nullptr || masks.data() == nullptr) return Status::no_memory;
        for (std::size_t i = begin; i < end; i += group) {
            const std::size_t here = std::min(group, end - i);
            const std::uint8_t* at = records + i * record_bytes;
            // the last group asks for itself
            const std::uint8_t* next = end - i - here >= here ? at + here * record_bytes : at;
            for (std::size_t p = 0; p < passes.number; ++p) {
                const std::size_t first = passes.first(p), some = passes.first(p + 1) - first;
                make_masks(selections + first * words, words, some, first_row + i, here, masks.data());
                add_records(at, here, width, lead, masks.data(), some, sums.data() + first * width,
                            next + p * here * record_bytes / passes.number, passes.number);
            }
        }
        const std::lock_guard<std::mutex> lock(adding);
        for (std::size_t p = 0; p < passes.number; ++p) {
            const std::size_t first = passes.first(p), some = passes.first(p + 1) - first;
            add_sums(sums.data() + first * width, width, lead, some, out + first * record_bytes);
        }
        return Status::ok;
    });
}

Status pir_gather(const std::uint64_t* selections, std::size_t words, std::size_t count, const std::int64_t* ordinals,
                  std::size_t rows, std::uint64_t* out, int threads) {
    const std::size_t out_words = (rows + 63) / 64;
    return parallel_for(out_words, 256, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t q = 0; q < count; ++q) {
            const std::uint64_t* from = selections + q * words;
            for (std::size_t w = begin; w < end; ++w) {
                const std::size_t some = std::min<std::size_t>(64, rows - 64 * w);
                std::uint64_t made = 0;
                for (std::size_t i = 0; i < some; ++i) {
                    const auto at = static_cast<std::uint64_t>(ordinals[64 * w + i]);
                    made |= (from[at / 64] >> at % 64 & 1) << i;
                }
                out[q * out_words + w] = made;
            }
        }
        return Status::ok;
    });
}

}  // namespace mipp
