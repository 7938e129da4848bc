// Sums of squares over shares: the tiers, and how rows are cut for threads.
#include <algorithm>

#include "../common/pool.h"
#include "compare.h"

namespace mipp {
namespace {

struct SquaresKernels {
    decltype(&squares_deal_u16_portable) deal[3];  // words of 16, 32, 64 bits
    decltype(&squares_share_u16_portable) share[3];
};

#define MIPP_TIER(tier)                                                                      \
    {                                                                                        \
        Level::tier, {                                                                       \
            {squares_deal_u16_##tier, squares_deal_u32_##tier, squares_deal_u64_##tier}, {   \
                squares_share_u16_##tier, squares_share_u32_##tier, squares_share_u64_##tier \
            }                                                                                \
        }                                                                                    \
    }

const Tier<SquaresKernels> tiers[] = {MIPP_TIER(portable),
#ifdef MIPP_X86
                                      MIPP_TIER(avx2), MIPP_TIER(avx512)
#endif
};

const SquaresKernels& kernels() { return active_tier(tiers).kernels; }

// Coordinates that are worth handing to a thread.
constexpr std::size_t piece = std::size_t{1} << 14;

// Bits of hints that the words have; 0 stands for none.
bool allowed(int bits, int hint_bits) {
    if (bits != 16 && bits != 32 && bits != 64) return false;
    return hint_bits == 0 || (bits < 64 && (hint_bits == 8 || hint_bits == 16 || hint_bits == 32));
}

// Where an array of words of `bits` bits goes on after `words` of them; null stays null.
const void* later(const void* array, std::size_t words, int bits) {
    return array == nullptr ? nullptr
                            : static_cast<const std::uint8_t*>(array) + words * static_cast<unsigned>(bits) / 8;
}

void* later(void* array, std::size_t words, int bits) {
    return const_cast<void*>(later(static_cast<const void*>(array), words, bits));
}

// The same work on rows [begin, end).
template <class Work>
Work part_of(const Work& work, std::size_t begin, std::size_t end) {
    Work part = work;
    const std::size_t at = begin * work.width;
    part.rows = end - begin;
    part.out = work.out + begin;
    part.carry = later(work.carry, at, work.hint_bits);
    part.msb = later(work.msb, at, work.hint_bits);
    part.delta = later(work.delta, at, work.hint_bits);
    return part;
}

std::size_t rows_of_piece(std::size_t width) {
    return std::max<std::size_t>(1, piece / std::max<std::size_t>(1, width));
}

}  // namespace

Status squares_deal(int bits, const MippSquaresDeal& work, int threads) {
    if (!allowed(bits, work.hint_bits)) return Status::bad_argument;
    const auto kernel = kernels().deal[bits / 32];
    return parallel_for(work.rows, rows_of_piece(work.width), threads, [&](std::size_t begin, std::size_t end) {
        MippSquaresDeal part = part_of(work, begin, end);
        part.r1 = later(work.r1, begin * work.width, bits);
        part.r2 = later(work.r2, begin * work.width, bits);
        kernel(&part);
        return Status::ok;
    });
}

Status squares_share(int bits, const MippSquaresShare& work, int threads) {
    if (!allowed(bits, work.hint_bits)) return Status::bad_argument;
    const auto kernel = kernels().share[bits / 32];
    return parallel_for(work.rows, rows_of_piece(work.width), threads, [&](std::size_t begin, std::size_t end) {
        MippSquaresShare part = part_of(work, begin, end);
        part.m = later(work.m, begin * work.width, bits);
        part.r = later(work.r, begin * work.width, bits);
        kernel(&part);
        return Status::ok;
    });
}

}  // namespace mipp
