#include "galois.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <type_traits>

#include "../common/pool.h"
#include "../common/wipe.h"
#include "../common/words.h"
#include "../prf/prf.h"
#include "galois_tiers.h"

namespace mipp {
namespace {

#define MIPP_TIER(bits, tier)                                                                                  \
    {                                                                                                          \
        Level::tier, {                                                                                         \
            words_combine_u##bits##_##tier, answers_add_u##bits##_##tier, answers_filter_var_u##bits##_##tier, \
                answers_pack_u##bits##_##tier, answers_fold_u##bits##_##tier                                   \
        }                                                                                                      \
    }
#ifdef MIPP_X86
#define MIPP_TIERS(bits) {MIPP_TIER(bits, portable), MIPP_TIER(bits, avx2), MIPP_TIER(bits, avx512)}
#else
#define MIPP_TIERS(bits) {MIPP_TIER(bits, portable)}
#endif

const Tier<GaloisKernels<std::uint16_t>> tiers_16[] = MIPP_TIERS(16);
const Tier<GaloisKernels<std::uint32_t>> tiers_32[] = MIPP_TIERS(32);
const Tier<GaloisKernels<std::uint64_t>> tiers_64[] = MIPP_TIERS(64);

static_assert(max_maps == MIPP_MAX_MAPS && max_inputs == MIPP_MAX_INPUTS && answers_block == MIPP_ANSWERS_BLOCK,
              "one limit in two headers");

// Results beyond this many bytes go past the caches.
constexpr std::size_t streaming_bytes = std::size_t{8} << 20;

// Answers that are worth handing to a thread: whole blocks.
constexpr std::size_t piece = 64 * answers_block;

// f(query, begin, end) for pieces of the n answers of each query.
template <class F>
Status each_piece(std::size_t queries, std::size_t n, int threads, F&& f) {
    const std::size_t pieces = (n + piece - 1) / piece;
    const std::size_t grain = n == 0 ? 1 : std::max<std::size_t>(1, piece / n);
    return parallel_for(queries * pieces, grain, threads, [&](std::size_t first, std::size_t last) {
        for (std::size_t p = first; p < last; ++p) {
            const std::size_t begin = p % pieces * piece;
            f(p / pieces, begin, std::min(n, begin + piece));
        }
        return Status::ok;
    });
}

bool valid(const LinearMap& map) {
    return (map.m == 2 || map.m == 3) && map.inputs >= 1 && map.inputs <= max_inputs && map.outs <= max_maps;
}

// Keystream and padded rows of one block; wiped when it goes.
class Scratch {
  public:
    explicit Scratch(std::size_t bytes)
        : bytes_((bytes + 63) / 64 * 64), data_(static_cast<std::uint8_t*>(std::aligned_alloc(64, bytes_))) {}
    ~Scratch() {
        if (data_ == nullptr) return;
        wipe(data_, bytes_);
        std::free(data_);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    std::uint8_t* data() const { return data_; }

  private:
    std::size_t bytes_;
    std::uint8_t* data_;
};

}  // namespace

template <>
const GaloisKernels<std::uint16_t>& galois_kernels() {
    return active_tier(tiers_16).kernels;
}
template <>
const GaloisKernels<std::uint32_t>& galois_kernels() {
    return active_tier(tiers_32).kernels;
}
template <>
const GaloisKernels<std::uint64_t>& galois_kernels() {
    return active_tier(tiers_64).kernels;
}

Level galois_tier() { return active_tier(tiers_32).level; }

Status words_combine(int bits, const LinearMap& map, const void* const* inputs, void* const* outs, std::size_t words,
                     int threads) {
    if (!valid(map) || words % static_cast<std::size_t>(map.m) != 0) return Status::bad_argument;
    return with_word(bits, [&](auto zero) {
        using Word = decltype(zero);
        const auto& kernels = galois_kernels<Word>();
        const int stream = words * map.outs * sizeof(Word) >= streaming_bytes;
        // 192 KiB at least, whole cache lines for either m.
        const std::size_t grain = (std::size_t{3} << 16) / sizeof(Word);
        return parallel_for(words, grain, threads, [&](std::size_t begin, std::size_t end) {
            const Word* in[max_inputs];
            Word* out[max_maps];
            for (std::size_t a = 0; a < map.inputs; ++a) in[a] = static_cast<const Word*>(inputs[a]) + begin;
            for (std::size_t i = 0; i < map.outs; ++i) out[i] = static_cast<Word*>(outs[i]) + begin;
            kernels.combine(in, map.inputs, out, map.outs, end - begin, static_cast<const Word*>(map.matrices), map.m,
                            stream);
            return Status::ok;
        });
    });
}

Status rows_share(int bits, const LinearMap& map, const void* rows, std::size_t row_count, std::size_t dim,
                  std::size_t width, const std::uint8_t* const* schedules, std::uint64_t first_row, void* const* outs,
                  int threads) {
    if (!valid(map) || width == 0 || width < dim || width % static_cast<std::size_t>(map.m) != 0 ||
        width * static_cast<std::size_t>(bits) % 128 != 0) {
        return Status::bad_argument;
    }
    return with_word(bits, [&](auto zero) {
        using Word = decltype(zero);
        const auto& kernels = galois_kernels<Word>();
        const std::size_t row_bytes = width * sizeof(Word), row_blocks = row_bytes / 16;
        const int stream = row_count * row_bytes * map.outs >= streaming_bytes;
        // A few rows at a time: their keystream stays in the second cache at most.
        const std::size_t step = std::max<std::size_t>(1, (std::size_t{1} << 14) / row_bytes);
        const std::size_t grain = std::max<std::size_t>(1, (std::size_t{1} << 17) / row_bytes / 64) * 64;
        const bool padded = dim != width;
        return parallel_for(row_count, grain, threads, [&](std::size_t begin, std::size_t end) {
            const std::size_t part = step * row_bytes;
            const Scratch scratch(part * map.inputs);
            if (scratch.data() == nullptr) return Status::no_memory;
            const Word* in[max_inputs];
            Word* out[max_maps];
            Word* copy = reinterpret_cast<Word*>(scratch.data());
            if (padded) std::memset(copy, 0, part);
            for (std::size_t r = begin; r < end; r += step) {
                const std::size_t some = std::min(step, end - r);
                const Word* from = static_cast<const Word*>(rows) + r * dim;
                in[0] = padded ? copy : from;
                for (std::size_t i = 0; padded && i < some; ++i) {
                    std::memcpy(copy + i * width, from + i * dim, dim * sizeof(Word));
                }
                for (std::size_t a = 1; a < map.inputs; ++a) {
                    std::uint8_t* stream_of = scratch.data() + a * part;
                    keystream_fill(schedules[a - 1], (first_row + r) * row_blocks, some * row_blocks, stream_of);
                    in[a] = reinterpret_cast<const Word*>(stream_of);
                }
                for (std::size_t i = 0; i < map.outs; ++i) out[i] = static_cast<Word*>(outs[i]) + r * width;
                kernels.combine(in, map.inputs, out, map.outs, some * width, static_cast<const Word*>(map.matrices),
                                map.m, stream);
            }
            return Status::ok;
        });
    });
}

Status answers_add(int bits, const void* const* answers, std::size_t count, int width, std::size_t queries,
                   std::size_t n, std::int64_t* out, int threads) {
    if (count == 0 || count > max_maps || width < 1 || width > bits) return Status::bad_argument;
    return with_word(bits, [&](auto zero) {
        using Word = decltype(zero);
        const auto& kernels = galois_kernels<Word>();
        return each_piece(queries, n, threads, [&](std::size_t b, std::size_t begin, std::size_t end) {
            const Word* in[max_maps];
            const std::size_t at = b * packed_answers(bits, width, n) + packed_answers(bits, width, begin);
            for (std::size_t a = 0; a < count; ++a) in[a] = static_cast<const Word*>(answers[a]) + at;
            kernels.add(in, count, width, end - begin, out + b * n + begin);
        });
    });
}

Status answers_pack(int bits, const void* words, std::size_t queries, std::size_t n, int width, void* out,
                    int threads) {
    if (width < 1 || width >= bits) return Status::bad_argument;
    return with_word(bits, [&](auto zero) {
        using Word = decltype(zero);
        const auto& kernels = galois_kernels<Word>();
        return each_piece(queries, n, threads, [&](std::size_t b, std::size_t begin, std::size_t end) {
            const std::size_t at = b * packed_answers(bits, width, n) + packed_answers(bits, width, begin);
            kernels.pack(static_cast<const Word*>(words) + b * n + begin, end - begin, width,
                         static_cast<Word*>(out) + at);
        });
    });
}

Status answers_fold(int bits, const void* const* answers, std::size_t count, int width, std::size_t queries,
                    std::size_t n, const void* weights, std::size_t checks, std::int64_t low, std::int64_t high,
                    void* sums, std::uint8_t* outside, int threads) {
    const bool fits = width >= 1 && width <= bits && checks <= max_maps && low <= high;
    if (count == 0 || count > max_maps || !fits) return Status::bad_argument;
    return with_word(bits, [&](auto zero) {
        using Word = decltype(zero);
        using SignedWord = std::make_signed_t<Word>;
        const auto& kernels = galois_kernels<Word>();
        // A score is a word: limits beyond are those of the word.
        const std::int64_t least = std::max<std::int64_t>(low, std::numeric_limits<SignedWord>::min());
        const std::int64_t most = std::min<std::int64_t>(high, std::numeric_limits<SignedWord>::max());
        std::mutex adding;
        auto* all = static_cast<Word*>(sums);
        std::fill_n(all, queries * checks, Word{0});
        std::fill_n(outside, queries, std::uint8_t{0});
        return each_piece(queries, n, threads, [&](std::size_t b, std::size_t begin, std::size_t end) {
            const Word* in[max_maps];
            const Word* by[max_maps];
            Word some[max_maps] = {};
            const std::size_t at = b * packed_answers(bits, width, n) + packed_answers(bits, width, begin);
            for (std::size_t a = 0; a < count; ++a) in[a] = static_cast<const Word*>(answers[a]) + at;
            for (std::size_t j = 0; j < checks; ++j) by[j] = static_cast<const Word*>(weights) + j * n + begin;
            const int bad = kernels.fold(in, count, width, end - begin, by, checks, least, most, some) || least > most;
            const std::lock_guard<std::mutex> lock(adding);
            for (std::size_t j = 0; j < checks; ++j) {
                all[b * checks + j] = static_cast<Word>(all[b * checks + j] + some[j]);
            }
            outside[b] = static_cast<std::uint8_t>(outside[b] | bad);
        });
    });
}

}  // namespace mipp
