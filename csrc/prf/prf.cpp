#include "prf.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../common/pool.h"
#include "../common/wipe.h"
#include "../common/words.h"
#include "../ring/packed.h"
#include "hkdf.h"
#include "prf_kernels.h"

namespace mipp {
namespace {

template <class Word>
using Add = void (*)(const std::uint8_t*, std::uint64_t, Word*, std::size_t, int);
template <class Word>
using Matmul = void (*)(const std::uint8_t*, std::uint64_t, std::size_t, std::size_t, const Word*, std::size_t,
                        std::size_t, Word*, std::size_t);

template <class Word>
struct Words {
    Add<Word> add;
    Matmul<Word> matmul;
};

struct Kernels {
    void (*hkdf_expand)(const std::uint32_t*, const std::uint8_t*, std::size_t, std::size_t, std::uint8_t*);
    void (*schedule_expand)(const std::uint8_t*, std::size_t, std::uint8_t*);
    void (*fill)(const std::uint8_t*, std::uint64_t, std::size_t, std::uint8_t*);
    Words<std::uint16_t> u16;
    Words<std::uint32_t> u32;
    Words<std::uint64_t> u64;
};

#define MIPP_WORDS(bits, tier) {keystream_add_u##bits##_##tier, keystream_matmul_u##bits##_##tier}
#define MIPP_TIER(tier)                                                                                       \
    {                                                                                                         \
        Level::tier, {                                                                                        \
            hkdf_expand_u8_##tier, schedule_expand_u8_##tier, keystream_fill_u8_##tier, MIPP_WORDS(16, tier), \
                MIPP_WORDS(32, tier), MIPP_WORDS(64, tier)                                                    \
        }                                                                                                     \
    }

const Tier<Kernels> tiers[] = {MIPP_TIER(portable),
#ifdef MIPP_X86
                               MIPP_TIER(avx2), MIPP_TIER(avx512)
#endif
};

const Kernels& active() { return active_tier(tiers).kernels; }

const Words<std::uint16_t>& words_of(const Kernels& kernels, std::uint16_t) { return kernels.u16; }
const Words<std::uint32_t>& words_of(const Kernels& kernels, std::uint32_t) { return kernels.u32; }
const Words<std::uint64_t>& words_of(const Kernels& kernels, std::uint64_t) { return kernels.u64; }

struct Free {
    void operator()(void* p) const { std::free(p); }
};
using Memory = std::unique_ptr<std::uint8_t, Free>;

// 64-byte aligned; null without memory.
Memory allocate(std::size_t bytes) {
    return Memory(static_cast<std::uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64 + (bytes == 0) * 64)));
}

// Keys derived together: a multiple of the lanes of every tier's hash and key expansion.
constexpr std::size_t group = 32;

// Derived keys and their schedules, wiped when they go.
struct Group {
    std::uint8_t keys[group * 32];
    alignas(16) std::uint8_t schedules[group * KeySchedules::bytes_each];

    ~Group() { wipe(this, sizeof *this); }

    void derive(const Kernels& kernels, const HkdfKey& key, const std::uint8_t* infos, std::size_t length,
                std::size_t count) {
        kernels.hkdf_expand(key.states, infos, length, count, keys);
        kernels.schedule_expand(keys, count, schedules);
    }
    const std::uint8_t* operator[](std::size_t i) const { return schedules + KeySchedules::bytes_each * i; }
};

// Calls part(schedule, first row, rows, position) for each piece of a run among the rows [begin, end) of all runs.
template <class Part>
void for_runs(const KeystreamRun* runs, std::size_t run_count, std::size_t begin, std::size_t end, Part&& part) {
    const KeystreamRun* run =
        std::upper_bound(runs, runs + run_count, begin, [](std::size_t at, const auto& r) { return at < r.position; }) -
        1;
    for (std::size_t at = begin; at < end; ++run) {
        const std::size_t skip = at - run->position;
        const std::size_t rows = std::min(run->rows - skip, end - at);
        if (rows > 0) part(run->schedule, run->first_row + skip, rows, at);
        at += rows;
    }
}

// Keystream is made some rows at a time, whatever runs they belong to, and multiplied like stored rows while it is in
// the second cache. Longer rows than these are rare and take the way of few columns.
constexpr std::size_t batch_bytes = std::size_t{1} << 17, batch_row_limit = std::size_t{1} << 14;

template <class Word>
Status run_batch(const Kernels& kernels, const RingBatch<Word>& batch, const KeySchedules& schedules,
                 const KeystreamRun* runs, std::size_t run_count, std::size_t total, const Word* columns,
                 std::size_t column_count, std::size_t dim, Word* out, std::size_t out_stride, int threads) {
    const PackedColumns packed(batch, columns, column_count, dim);
    if (packed.data() == nullptr) return Status::no_memory;
    const bool stream = writes_past_caches(out, out_stride, total, column_count);
    const std::size_t row_bytes = dim * sizeof(Word), row_blocks = row_bytes / 16;
    const std::size_t step = std::max<std::size_t>(1, batch_bytes / row_bytes / 128) * 128;
    // Up to where answers are lines of the cache, so that all further steps begin at one.
    const std::size_t head = stream ? (64 - reinterpret_cast<std::uintptr_t>(out) % 64) % 64 / sizeof(Word) : 0;
    return parallel_for(total, step, threads, [&](std::size_t begin, std::size_t end) {
        const Memory memory = allocate(step * row_bytes);
        if (!memory) return Status::no_memory;
        std::uint8_t* rows = memory.get();
        for (std::size_t r = begin, some; r < end; r += some) {
            some = std::min(r == begin && head > 0 ? head : step, end - r);
            for_runs(runs, run_count, r, r + some,
                     [&](std::size_t schedule, std::size_t first, std::size_t count, std::size_t at) {
                         kernels.fill(schedules[schedule], static_cast<std::uint64_t>(first) * row_blocks,
                                      count * row_blocks, rows + (at - r) * row_bytes);
                     });
            batch.product(reinterpret_cast<const Word*>(rows), some, dim, packed.data(), column_count, out + r,
                          out_stride, stream);
        }
        wipe(rows, std::min(step, end - begin) * row_bytes);
        return Status::ok;
    });
}

template <class Word>
Status run_matmul(const Kernels& kernels, const KeySchedules& schedules, const KeystreamRun* runs,
                  std::size_t run_count, std::size_t total, const void* columns, std::size_t column_count,
                  std::size_t dim, void* out, std::size_t out_stride, int threads) {
    const RingBatch<Word>* batch = ring_batch<Word>(column_count);
    if (batch != nullptr && dim * sizeof(Word) <= batch_row_limit) {
        return run_batch(kernels, *batch, schedules, runs, run_count, total, static_cast<const Word*>(columns),
                         column_count, dim, static_cast<Word*>(out), out_stride, threads);
    }
    constexpr std::size_t line = 64 / sizeof(Word);
    const std::size_t padded = (dim + line - 1) / line * line, row_blocks = dim * sizeof(Word) / 16;
    const std::size_t padded_bytes = column_count * padded * sizeof(Word);
    const Memory memory = allocate(padded_bytes);
    if (!memory) return Status::no_memory;
    Word* aligned = reinterpret_cast<Word*>(memory.get());
    for (std::size_t b = 0; b < column_count; ++b) {
        std::memcpy(aligned + b * padded, static_cast<const Word*>(columns) + b * dim, dim * sizeof(Word));
        std::memset(aligned + b * padded + dim, 0, (padded - dim) * sizeof(Word));
    }
    const auto matmul = words_of(kernels, Word{}).matmul;
    // Some 64 KiB of keystream a range at least; whole cache lines of answers.
    const std::size_t grain = std::max<std::size_t>(1, (std::size_t{1} << 16) / (16 * row_blocks) / 64) * 64;
    const Status status = parallel_for(total, grain, threads, [&](std::size_t begin, std::size_t end) {
        for_runs(runs, run_count, begin, end,
                 [&](std::size_t schedule, std::size_t first, std::size_t rows, std::size_t at) {
                     matmul(schedules[schedule], static_cast<std::uint64_t>(first) * row_blocks, rows, row_blocks,
                            aligned, padded, column_count, static_cast<Word*>(out) + at, out_stride);
                 });
        return Status::ok;
    });
    wipe(aligned, padded_bytes);
    return status;
}

// Segments are handed out in groups, so that keys are derived many at once; a segment longer than `piece_words` is
// instead cut in pieces that threads share.
constexpr std::size_t piece_words = std::size_t{1} << 16;

// out[i] += (negate: -=) word first_word + i of the keystream; the kernels begin at whole blocks.
template <class Word>
void add_from(const Kernels& kernels, const std::uint8_t* schedule, std::size_t first_word, Word* out,
              std::size_t words, bool negate) {
    constexpr std::size_t block_words = 16 / sizeof(Word);
    std::uint64_t block = first_word / block_words;
    const std::size_t skip = first_word % block_words;
    if (skip != 0) {
        alignas(16) Word lead[block_words];
        kernels.fill(schedule, block, 1, reinterpret_cast<std::uint8_t*>(lead));
        const std::size_t some = std::min(block_words - skip, words);
        for (std::size_t i = 0; i < some; ++i) {
            out[i] = static_cast<Word>(negate ? out[i] - lead[skip + i] : out[i] + lead[skip + i]);
        }
        wipe(lead, sizeof lead);
        out += some;
        words -= some;
        ++block;
    }
    if (words != 0) words_of(kernels, Word{}).add(schedule, block, out, words, negate);
}

template <class Word>
Status run_zero_share(const Kernels& kernels, Word* out, std::size_t queries, std::size_t out_stride,
                      const HkdfKey& key, const std::uint8_t* infos, std::size_t info_length,
                      const std::size_t* lengths, std::size_t segments, std::size_t first_word, bool negate,
                      int threads) {
    const Memory offset_memory = allocate(sizeof(std::size_t) * segments);
    if (!offset_memory) return Status::no_memory;
    std::size_t* offsets = reinterpret_cast<std::size_t*>(offset_memory.get());
    std::size_t total = 0;
    for (std::size_t s = 0; s < segments; ++s) {
        offsets[s] = total;
        total += lengths[s];
    }
    const std::size_t mean = total / segments + 1;
    // Deriving a key costs about as much as a hundred words.
    const std::size_t grain = std::max<std::size_t>(1, (std::size_t{1} << 15) / (mean + 100) / group) * group;
    Status status = parallel_for(queries * segments, grain, threads, [&](std::size_t begin, std::size_t end) {
        Group keys;
        for (std::size_t first = begin; first < end; first += group) {
            const std::size_t count = std::min(group, end - first);
            keys.derive(kernels, key, infos + first * info_length, info_length, count);
            for (std::size_t i = 0; i < count; ++i) {
                const std::size_t b = (first + i) / segments, s = (first + i) % segments;
                if (lengths[s] > piece_words) continue;
                add_from(kernels, keys[i], s == 0 ? first_word : 0, out + b * out_stride + offsets[s], lengths[s],
                         negate);
            }
        }
        return Status::ok;
    });
    for (std::size_t s = 0; s < segments && status == Status::ok; ++s) {
        if (lengths[s] <= piece_words) continue;
        const std::size_t pieces = (lengths[s] + piece_words - 1) / piece_words;
        status = parallel_for(queries * pieces, 1, threads, [&](std::size_t begin, std::size_t end) {
            Group keys;
            std::size_t derived = queries;
            for (std::size_t p = begin; p < end; ++p) {
                const std::size_t b = p / pieces, at = p % pieces * piece_words;
                if (b != derived) keys.derive(kernels, key, infos + (b * segments + s) * info_length, info_length, 1);
                derived = b;
                add_from(kernels, keys[0], (s == 0 ? first_word : 0) + at, out + b * out_stride + offsets[s] + at,
                         std::min(piece_words, lengths[s] - at), negate);
            }
            return Status::ok;
        });
    }
    return status;
}

}  // namespace

Level prf_tier() { return active_tier(tiers).level; }

KeySchedules::~KeySchedules() {
    if (data_ == nullptr) return;
    wipe(data_, bytes_each * count_);
    std::free(data_);
}

Status KeySchedules::derive(const std::uint8_t* key, const std::uint8_t* infos, std::size_t length, std::size_t count,
                            int threads) {
    if (data_ != nullptr || length > max_info) return Status::bad_argument;
    Memory memory = allocate(bytes_each * count);
    if (!memory) return Status::no_memory;
    data_ = memory.release();
    count_ = count;
    const HkdfKey prk(key);
    const Kernels& kernels = active();
    return parallel_for(count, 8 * group, threads, [&](std::size_t begin, std::size_t end) {
        std::uint8_t keys[group * 32];
        for (std::size_t i = begin; i < end; i += group) {
            const std::size_t some = std::min(group, end - i);
            kernels.hkdf_expand(prk.states, infos + i * length, length, some, keys);
            kernels.schedule_expand(keys, some, data_ + bytes_each * i);
        }
        wipe(keys, sizeof keys);
        return Status::ok;
    });
}

Status hkdf_expand_batch(const std::uint8_t* key, const std::uint8_t* infos, std::size_t length, std::size_t count,
                         std::uint8_t* out, int threads) {
    if (length > max_info) return Status::bad_argument;
    const HkdfKey prk(key);
    const Kernels& kernels = active();
    return parallel_for(count, 8 * group, threads, [&](std::size_t begin, std::size_t end) {
        kernels.hkdf_expand(prk.states, infos + begin * length, length, end - begin, out + 32 * begin);
        return Status::ok;
    });
}

void keystream_fill(const std::uint8_t* schedule, std::uint64_t first_block, std::size_t blocks, std::uint8_t* out) {
    active().fill(schedule, first_block, blocks, out);
}

Status keystream_words(const std::uint8_t* schedule, std::uint64_t first_block, int bits, void* out,
                       std::size_t words) {
    std::uint8_t* bytes = static_cast<std::uint8_t*>(out);
    const std::size_t count = words * static_cast<std::size_t>(bits) / 8, blocks = count / 16;
    keystream_fill(schedule, first_block, blocks, bytes);
    if (count % 16 != 0) {
        std::uint8_t last[16];
        keystream_fill(schedule, first_block + blocks, 1, last);
        std::memcpy(bytes + 16 * blocks, last, count % 16);
        wipe(last, sizeof last);
    }
    return Status::ok;
}

Status keystream_matmul(const KeySchedules& schedules, const KeystreamRun* runs, std::size_t run_count,
                        std::size_t total, int bits, const void* columns, std::size_t column_count, std::size_t dim,
                        void* out, std::size_t out_stride, int threads) {
    if (dim == 0 || dim * static_cast<std::size_t>(bits) % 128 != 0) return Status::bad_argument;
    if (total == 0 || column_count == 0) return Status::ok;
    const Kernels& kernels = active();
    return with_word(bits, [&](auto zero) {
        return run_matmul<decltype(zero)>(kernels, schedules, runs, run_count, total, columns, column_count, dim, out,
                                          out_stride, threads);
    });
}

Status zero_share_add(int bits, void* out, std::size_t queries, std::size_t out_stride, const std::uint8_t* key,
                      const std::uint8_t* infos, std::size_t info_length, const std::size_t* lengths,
                      std::size_t segments, std::size_t first_word, bool negate, int threads) {
    if (info_length > max_info) return Status::bad_argument;
    if (queries == 0 || segments == 0) return Status::ok;
    const HkdfKey prk(key);
    const Kernels& kernels = active();
    return with_word(bits, [&](auto zero) {
        return run_zero_share(kernels, static_cast<decltype(zero)*>(out), queries, out_stride, prk, infos, info_length,
                              lengths, segments, first_word, negate, threads);
    });
}

}  // namespace mipp
