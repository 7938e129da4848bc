#include "ring.h"

#include <algorithm>
#include <cstdint>

#include "../common/pool.h"
#include "ring_kernels.h"

namespace mipp {
namespace {

template <class Word>
using Kernel = void (*)(const Word*, std::size_t, std::size_t, const Word*, std::size_t, Word*, std::size_t);

struct Tier {
    Kernel<std::uint16_t> u16;
    Kernel<std::uint32_t> u32;
    Kernel<std::uint64_t> u64;
};

// By level; the family has no kernels of its own for a missing one.
const Tier tiers[] = {
    {ring_matmul_u16_portable, ring_matmul_u32_portable, ring_matmul_u64_portable},
#ifdef MIPP_X86
    {ring_matmul_u16_avx2, ring_matmul_u32_avx2, ring_matmul_u64_avx2},
    {ring_matmul_u16_avx512, ring_matmul_u32_avx512, ring_matmul_u64_avx512},
#endif
};

template <class Word>
Status run(Kernel<Word> kernel, const void* rows, std::size_t row_count, std::size_t dim, const void* columns,
           std::size_t column_count, void* out, std::size_t out_stride, int threads) {
    // Waking a thread costs some 20 microseconds: worth it from about 1 MiB of rows read, or that much work. Ranges of
    // 64 rows keep two threads from writing to one cache line.
    const std::size_t work = dim * sizeof(Word) * std::max<std::size_t>(1, column_count / 4);
    const std::size_t grain = std::max<std::size_t>(1, (std::size_t{1} << 20) / work / 64) * 64;
    return parallel_for(row_count, grain, threads, [&](std::size_t begin, std::size_t end) {
        kernel(static_cast<const Word*>(rows) + begin * dim, end - begin, dim, static_cast<const Word*>(columns),
               column_count, static_cast<Word*>(out) + begin, out_stride);
        return Status::ok;
    });
}

}  // namespace

Level ring_tier() { return family_tier(x86_tiers); }

Status ring_matmul(int bits, const void* rows, std::size_t row_count, std::size_t dim, const void* columns,
                   std::size_t column_count, void* out, std::size_t out_stride, int threads) {
    if (dim == 0) return Status::bad_argument;
    if (row_count == 0 || column_count == 0) return Status::ok;
    const Tier& tier = tiers[static_cast<int>(ring_tier())];
    switch (bits) {
        case 16:
            return run(tier.u16, rows, row_count, dim, columns, column_count, out, out_stride, threads);
        case 32:
            return run(tier.u32, rows, row_count, dim, columns, column_count, out, out_stride, threads);
        case 64:
            return run(tier.u64, rows, row_count, dim, columns, column_count, out, out_stride, threads);
        default:
            return Status::bad_argument;
    }
}

}  // namespace mipp
