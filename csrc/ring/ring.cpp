#include "ring.h"

#include <algorithm>
#include <cstdint>

#include "../common/pool.h"
#include "../common/words.h"
#include "packed.h"
#include "ring_kernels.h"

namespace mipp {
namespace {

template <class Word>
using Kernel = void (*)(const Word*, std::size_t, std::size_t, const Word*, std::size_t, Word*, std::size_t);

// Few columns at once, and from `least` columns on the batch.
template <class Word>
struct Kernels {
    Kernel<Word> few;
    RingBatch<Word> batch;
    std::size_t least;
};

#define MIPP_FEW(bits, tier) ring_matmul_u##bits##_##tier
#define MIPP_BATCH(bits, tier) \
    {ring_batch_bytes_u##bits##_##tier, ring_batch_pack_u##bits##_##tier, ring_batch_u##bits##_##tier}

// `least` is where the batch takes over, measured at 128 words a row from memory. Plain loops gain nothing from it.
// Words of 64 bits have no kernels of their own at level amx.
constexpr std::size_t never = SIZE_MAX;

const Tier<Kernels<std::uint16_t>> tiers_16[] = {
    {Level::portable, {MIPP_FEW(16, portable), {}, never}},
#ifdef MIPP_X86
    {Level::avx2, {MIPP_FEW(16, avx2), MIPP_BATCH(16, avx2), 5}},
    {Level::avx512, {MIPP_FEW(16, avx512), MIPP_BATCH(16, avx512), 6}},
    {Level::amx, {MIPP_FEW(16, avx512), MIPP_BATCH(16, amx), 6}},
#endif
};
const Tier<Kernels<std::uint32_t>> tiers_32[] = {
    {Level::portable, {MIPP_FEW(32, portable), {}, never}},
#ifdef MIPP_X86
    {Level::avx2, {MIPP_FEW(32, avx2), MIPP_BATCH(32, avx2), 12}},
    {Level::avx512, {MIPP_FEW(32, avx512), MIPP_BATCH(32, avx512), 12}},
    {Level::amx, {MIPP_FEW(32, avx512), MIPP_BATCH(32, amx), 8}},
#endif
};
const Tier<Kernels<std::uint64_t>> tiers_64[] = {
    {Level::portable, {MIPP_FEW(64, portable), {}, never}},
#ifdef MIPP_X86
    {Level::avx2, {MIPP_FEW(64, avx2), MIPP_BATCH(64, avx2), 32}},
    {Level::avx512, {MIPP_FEW(64, avx512), MIPP_BATCH(64, avx512), 24}},
#endif
};

const Kernels<std::uint16_t>& kernels(std::uint16_t) { return active_tier(tiers_16).kernels; }
const Kernels<std::uint32_t>& kernels(std::uint32_t) { return active_tier(tiers_32).kernels; }
const Kernels<std::uint64_t>& kernels(std::uint64_t) { return active_tier(tiers_64).kernels; }

template <class Word>
Status run_batch(const RingBatch<Word>& batch, const Word* rows, std::size_t row_count, std::size_t dim,
                 const Word* columns, std::size_t column_count, Word* out, std::size_t out_stride, int threads) {
    const PackedColumns packed(batch, columns, column_count, dim);
    if (packed.data() == nullptr) return Status::no_memory;
    const bool stream = writes_past_caches(out, out_stride, row_count, column_count);
    // Ranges of whole steps of any tier; some four million products each, so that a panel's columns are read often.
    const std::size_t grain = std::max<std::size_t>(1, (std::size_t{1} << 22) / (dim * column_count) / 128) * 128;
    return parallel_for(row_count, grain, threads, [&](std::size_t begin, std::size_t end) {
        batch.product(rows + begin * dim, end - begin, dim, packed.data(), column_count, out + begin, out_stride,
                      stream);
        return Status::ok;
    });
}

template <class Word>
Status run(const void* rows_data, std::size_t row_count, std::size_t dim, const void* columns_data,
           std::size_t column_count, void* out_data, std::size_t out_stride, int threads) {
    const Word* rows = static_cast<const Word*>(rows_data);
    const Word* columns = static_cast<const Word*>(columns_data);
    Word* out = static_cast<Word*>(out_data);
    if (const RingBatch<Word>* batch = ring_batch<Word>(column_count)) {
        return run_batch(*batch, rows, row_count, dim, columns, column_count, out, out_stride, threads);
    }
    // Waking a thread costs some 20 microseconds: worth it from about 1 MiB of rows read. Ranges of 64 rows keep two
    // threads from writing to one cache line.
    const std::size_t grain = std::max<std::size_t>(1, (std::size_t{1} << 20) / (dim * sizeof(Word)) / 64) * 64;
    const Kernel<Word> few = kernels(Word{}).few;
    return parallel_for(row_count, grain, threads, [&](std::size_t begin, std::size_t end) {
        few(rows + begin * dim, end - begin, dim, columns, column_count, out + begin, out_stride);
        return Status::ok;
    });
}

}  // namespace

Level ring_tier() { return active_tier(tiers_32).level; }

template <class Word>
const RingBatch<Word>* ring_batch(std::size_t column_count) {
    const Kernels<Word>& all = kernels(Word{});
    return column_count >= all.least ? &all.batch : nullptr;
}

template const RingBatch<std::uint16_t>* ring_batch(std::size_t);
template const RingBatch<std::uint32_t>* ring_batch(std::size_t);
template const RingBatch<std::uint64_t>* ring_batch(std::size_t);

Status ring_matmul(int bits, const void* rows, std::size_t row_count, std::size_t dim, const void* columns,
                   std::size_t column_count, void* out, std::size_t out_stride, int threads) {
    if (dim == 0) return Status::bad_argument;
    if (row_count == 0 || column_count == 0) return Status::ok;
    return with_word(bits, [&](auto zero) {
        return run<decltype(zero)>(rows, row_count, dim, columns, column_count, out, out_stride, threads);
    });
}

}  // namespace mipp
