#include "audit.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>

#include "../common/pool.h"

namespace mipp {
namespace {

using Wide = unsigned __int128;

// Rows that are combined before the sums are loaded and stored once.
constexpr std::size_t together = 8;
// Rows that are tagged side by side, so that no addition waits for the one before.
constexpr std::size_t chains = 4;
// Bytes of rows in a grain: some tens of microseconds.
constexpr std::size_t grain_bytes = std::size_t{1} << 18;

// v modulo p, in [0, p). 2^61 = 1 modulo p, so high bits are added to low ones.
std::uint64_t reduced(Wide v) {
    v = (v & audit_modulus) + (v >> 61);  // below 2^68
    std::uint64_t r = static_cast<std::uint64_t>(v & audit_modulus) + static_cast<std::uint64_t>(v >> 61);
    r -= audit_modulus;  // below 0 where r was below p
    return r + (audit_modulus & (std::uint64_t{0} - (r >> 63)));
}

// Adds `Count` rows, times their coefficients, to the sums.
template <std::size_t Count>
void add_rows(const std::uint32_t* rows, std::size_t width, const std::uint64_t* coefficients, Wide* sums) {
    std::uint64_t by[Count];
    for (std::size_t i = 0; i < Count; ++i) by[i] = coefficients[i] & audit_modulus;
    for (std::size_t j = 0; j < width; ++j) {
        Wide sum = sums[j];
        for (std::size_t i = 0; i < Count; ++i) sum += static_cast<Wide>(by[i]) * rows[i * width + j];
        sums[j] = sum;
    }
}

// Tags of `Count` rows.
template <std::size_t Count>
void tag_rows(const std::uint32_t* rows, std::size_t width, const std::uint64_t* weights, std::uint64_t* tags) {
    Wide sums[Count] = {};
    for (std::size_t j = 0; j < width; ++j) {
        const std::uint64_t by = weights[j] & audit_modulus;
        for (std::size_t i = 0; i < Count; ++i) sums[i] += static_cast<Wide>(by) * rows[i * width + j];
    }
    for (std::size_t i = 0; i < Count; ++i) tags[i] = reduced(sums[i]);
}

std::size_t grain_of(std::size_t width) {
    return std::max(together, grain_bytes / (width * sizeof(std::uint32_t)) / together * together);
}

}  // namespace

Status rows_combine_p61(const std::uint32_t* rows, std::size_t n, std::size_t width, const std::uint64_t* coefficients,
                        std::uint64_t* sums, int threads) {
    if (width == 0 || n > audit_terms) return Status::bad_argument;
    std::memset(sums, 0, width * sizeof *sums);
    std::mutex adding;
    return parallel_for(n, grain_of(width), threads, [&](std::size_t begin, std::size_t end) {
        const std::unique_ptr<Wide[]> some(new (std::nothrow) Wide[width]());
        if (some == nullptr) return Status::no_memory;
        std::size_t i = begin;
        for (; i + together <= end; i += together) {
            add_rows<together>(rows + i * width, width, coefficients + i, some.get());
        }
        for (; i < end; ++i) add_rows<1>(rows + i * width, width, coefficients + i, some.get());
        const std::lock_guard<std::mutex> lock(adding);
        for (std::size_t j = 0; j < width; ++j) sums[j] = reduced(some[j] + sums[j]);
        return Status::ok;
    });
}

Status rows_tag_p61(const std::uint32_t* rows, std::size_t n, std::size_t width, const std::uint64_t* weights,
                    std::uint64_t* tags, int threads) {
    if (width == 0 || width > audit_terms) return Status::bad_argument;
    return parallel_for(n, grain_of(width), threads, [&](std::size_t begin, std::size_t end) {
        std::size_t i = begin;
        for (; i + chains <= end; i += chains) tag_rows<chains>(rows + i * width, width, weights, tags + i);
        for (; i < end; ++i) tag_rows<1>(rows + i * width, width, weights, tags + i);
        return Status::ok;
    });
}

}  // namespace mipp
