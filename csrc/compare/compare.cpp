// Planes and gates: the tiers, and how work is cut for threads.
#include "compare.h"

#include <algorithm>

#include "../common/pool.h"
#include "compare_tiers.h"

namespace mipp {
namespace {

#define MIPP_TIER(tier)                                                                                             \
    {                                                                                                               \
        Level::tier, {                                                                                              \
            bits_slice_u16_##tier, bits_slice_u32_##tier, bits_slice_u64_##tier, gates_and_u64_##tier,              \
                words_mask_u64_##tier, words_gather_u64_##tier, schedule_expand_u8_##tier, keystream_fill_u8_##tier \
        }                                                                                                           \
    }

const Tier<CompareKernels> tiers[] = {MIPP_TIER(portable),
#ifdef MIPP_X86
                                      MIPP_TIER(avx2), MIPP_TIER(avx512)
#endif
};

// Words that are worth handing to a thread.
constexpr std::size_t piece = std::size_t{1} << 14;

// Columns of `planes` planes that make a piece: whole lines.
std::size_t columns_of(std::size_t planes) { return std::max<std::size_t>(1, piece / planes / 8) * 8; }

}  // namespace

Level compare_tier() { return active_tier(tiers).level; }

const CompareKernels& compare_kernels() { return active_tier(tiers).kernels; }

Status bits_slice(int bits, const void* words, std::size_t n, int first_bit, int width, std::uint64_t* planes,
                  int threads) {
    if (first_bit < 0 || width < 1 || first_bit + width > bits) return Status::bad_argument;
    const CompareKernels& kernels = compare_kernels();
    const std::size_t stride = plane_words_of(n);
    return parallel_for(stride / 8, piece / 512, threads, [&](std::size_t begin, std::size_t end) {
        const std::size_t first = 512 * begin, count = std::min(n - first, 512 * (end - begin));
        std::uint64_t* to = planes + 8 * begin;
        const auto run = [&](auto* kernel, const auto* from) {
            kernel(from + first, count, first_bit, width, to, stride, end - begin);
            return Status::ok;
        };
        switch (bits) {
            case 16:
                return run(kernels.slice_u16, static_cast<const std::uint16_t*>(words));
            case 32:
                return run(kernels.slice_u32, static_cast<const std::uint32_t*>(words));
            case 64:
                return run(kernels.slice_u64, static_cast<const std::uint64_t*>(words));
            default:
                return Status::bad_argument;
        }
    });
}

Status gates_and(Replicated x, Replicated y, std::size_t words, const std::uint8_t* key_a, const std::uint8_t* key_b,
                 std::uint64_t* out, int threads) {
    if (words % 8 != 0) return Status::bad_argument;
    const CompareKernels& kernels = compare_kernels();
    const Schedules keys(key_a, key_b);
    return parallel_for(words, piece, threads, [&](std::size_t begin, std::size_t end) {
        const MippGate gate = {x.lo + begin, x.hi + begin, y.lo + begin, y.hi + begin, out + begin, begin / 2};
        kernels.gates_and(keys.data(), &gate, 1, end - begin);
        return Status::ok;
    });
}

Status tree_and(Replicated g, Replicated p, std::size_t n, std::size_t words, const std::uint8_t* key_a,
                const std::uint8_t* key_b, std::uint64_t* out, int threads) {
    if (words % 8 != 0) return Status::bad_argument;
    const std::size_t pairs = n / 2;
    if (pairs == 0) return Status::ok;
    const CompareKernels& kernels = compare_kernels();
    const Schedules keys(key_a, key_b);
    return parallel_for(words, columns_of(tree_gates(n)), threads, [&](std::size_t begin, std::size_t end) {
        constexpr std::size_t batch = 32;
        MippGate gates[2 * batch];
        for (std::size_t first = 0; first < pairs; first += batch) {
            std::size_t count = 0;
            for (std::size_t j = first; j < std::min(pairs, first + batch); ++j) {
                const std::size_t low = 2 * j * words + begin, high = low + words;
                const std::size_t pg = j * words + begin, pp = (pairs + j - 1) * words + begin;
                // side by side, for they share the propagate bits of the upper position
                gates[count++] = {p.lo + high, p.hi + high, g.lo + low, g.hi + low, out + pg, pg / 2};
                if (j != 0) gates[count++] = {p.lo + high, p.hi + high, p.lo + low, p.hi + low, out + pp, pp / 2};
            }
            kernels.gates_and(keys.data(), gates, count, end - begin);
        }
        return Status::ok;
    });
}

Status tree_combine(const std::uint64_t* g, const std::uint64_t* p, const std::uint64_t* z, std::size_t n,
                    std::size_t words, std::uint64_t* out_g, std::uint64_t* out_p, int threads) {
    if (n == 0) return Status::bad_argument;
    const std::size_t pairs = n / 2;
    // Position j of the result is written after position 2j + 1 of the input is read, so results may replace inputs.
    return parallel_for(words, columns_of(2 * n), threads, [&](std::size_t begin, std::size_t end) {
        const std::size_t bytes = (end - begin) * sizeof(std::uint64_t);
        for (std::size_t j = 0; j < pairs; ++j) {
            const std::uint64_t *generate = g + (2 * j + 1) * words, *carried = z + j * words;
            std::uint64_t* to = out_g + j * words;
            for (std::size_t w = begin; w < end; ++w) to[w] = generate[w] ^ carried[w];
            if (j == 0) {
                std::memset(out_p + begin, 0, bytes);
            } else {
                std::memcpy(out_p + j * words + begin, z + (pairs + j - 1) * words + begin, bytes);
            }
        }
        if (n % 2 != 0) {
            std::memmove(out_g + pairs * words + begin, g + (n - 1) * words + begin, bytes);
            std::memmove(out_p + pairs * words + begin, p + (n - 1) * words + begin, bytes);
        }
        return Status::ok;
    });
}

Status words_mask(const std::uint8_t* key, Mask mask, std::uint64_t* inout, std::size_t words, int threads) {
    const CompareKernels& kernels = compare_kernels();
    const Schedules keys(key);
    return parallel_for(words, 2 * piece, threads, [&](std::size_t begin, std::size_t end) {
        kernels.mask(keys.data(), begin / 2, inout + begin, end - begin, static_cast<int>(mask));
        return Status::ok;
    });
}

}  // namespace mipp
