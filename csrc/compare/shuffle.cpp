// Permutations, passes of the shuffle.
#include <algorithm>
#include <atomic>

#include "../common/pool.h"
#include "compare_tiers.h"

namespace mipp {
namespace {

// 32-bit words of F(key), made some thousand at a time; wiped when it goes.
class Draws {
  public:
    explicit Draws(const std::uint8_t* key) : kernels_(compare_kernels()), keys_(key) {}
    ~Draws() { wipe(words_, sizeof words_); }
    Draws(const Draws&) = delete;
    Draws& operator=(const Draws&) = delete;

    // Uniform in [0, range): the high half of a word times range, unless the low half is among the 2^32 mod range
    // smallest, of which some results would get one more than others (Lemire, "Fast random integer generation in an
    // interval", 2019).
    std::uint32_t below(std::uint32_t range) {
        std::uint64_t product = std::uint64_t{next()} * range;
        if (static_cast<std::uint32_t>(product) < range) {
            const std::uint32_t excess = (0 - range) % range;
            while (static_cast<std::uint32_t>(product) < excess) product = std::uint64_t{next()} * range;
        }
        return static_cast<std::uint32_t>(product >> 32);
    }

  private:
    static constexpr std::size_t count = 2048;

    std::uint32_t next() {
        if (at_ == count) {
            kernels_.fill(keys_.data(), block_, count / 4, reinterpret_cast<std::uint8_t*>(words_));
            block_ += count / 4;
            at_ = 0;
        }
        return words_[at_++];
    }

    const CompareKernels& kernels_;
    const Schedules keys_;
    std::uint64_t block_ = 0;
    std::size_t at_ = count;
    alignas(64) std::uint32_t words_[count];
};

constexpr std::uint8_t no_key[32] = {};

// Words that are worth handing to a thread.
constexpr std::size_t piece = std::size_t{1} << 14;

}  // namespace

Status permutation_draw_var(const std::uint8_t* key, std::uint32_t* out, std::size_t n) {
    if (n > std::size_t{1} << 31) return Status::bad_argument;
    for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::uint32_t>(i);
    Draws draws(key);
    // Partners are drawn ahead of the exchanges, so that their cache lines are on the way.
    constexpr std::size_t batch = 256;
    std::uint32_t partner[batch];
    for (std::size_t last = n; last > 1;) {
        const std::size_t some = std::min(batch, last - 1);
        for (std::size_t i = 0; i < some; ++i) {
            partner[i] = draws.below(static_cast<std::uint32_t>(last - i));
            __builtin_prefetch(out + partner[i], 1);
        }
        for (std::size_t i = 0; i < some; ++i) std::swap(out[last - 1 - i], out[partner[i]]);
        last -= some;
    }
    wipe(partner, sizeof partner);
    return Status::ok;
}

Status indices_max(const std::uint32_t* index, std::size_t n, std::uint32_t* largest, int threads) {
    std::atomic<std::uint32_t> all{0};
    const Status status = parallel_for(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        std::uint32_t most = 0;
        for (std::size_t i = begin; i < end; ++i) most = index[i] > most ? index[i] : most;
        std::uint32_t before = all.load();
        while (before < most && !all.compare_exchange_weak(before, most)) {
        }
        return Status::ok;
    });
    *largest = all.load();
    return status;
}

Status shuffle_pass_var(const ShufflePass& pass, std::size_t n, int threads) {
    const CompareKernels& kernels = compare_kernels();
    const Schedules keys(pass.key != nullptr ? pass.key : no_key);
    const MippGather gather = {pass.x, pass.index, pass.key != nullptr ? keys.data() : nullptr, pass.subtract,
                               pass.out};
    return parallel_for(n, piece, threads, [&](std::size_t begin, std::size_t end) {
        kernels.gather(&gather, begin, end);
        return Status::ok;
    });
}

}  // namespace mipp
