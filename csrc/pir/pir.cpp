// Keys are made and expanded here; the tree's nodes by the tier's kernels.
#include "pir.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../common/pool.h"
#include "../common/wipe.h"
#include "pir_key.h"
#include "pir_tiers.h"

namespace mipp {
namespace {

#define MIPP_TIER(tier)                                                                           \
    {                                                                                             \
        Level::tier, { nodes_expand_u8_##tier, leaves_convert_u8_##tier, records_xor_u64_##tier } \
    }
const Tier<PirKernels> tiers[] = {MIPP_TIER(portable),
#ifdef MIPP_X86
                                  MIPP_TIER(avx2), MIPP_TIER(avx512)
#endif
};

constexpr std::size_t block = 16;

std::size_t whole_steps(std::size_t nodes) { return (nodes + MIPP_NODE_STEP - 1) / MIPP_NODE_STEP * MIPP_NODE_STEP; }

// Nodes that are wiped when they go.
class Nodes {
  public:
    explicit Nodes(std::size_t count)
        : bytes_(block * whole_steps(count)), data_(static_cast<std::uint8_t*>(std::aligned_alloc(64, bytes_))) {
        // kernels read whole steps, also where nothing was written
        if (data_ != nullptr) std::memset(data_, 0, bytes_);
    }
    ~Nodes() {
        if (data_ == nullptr) return;
        wipe(data_, bytes_);
        std::free(data_);
    }
    Nodes(const Nodes&) = delete;
    Nodes& operator=(const Nodes&) = delete;
    void swap(Nodes& other) {
        std::swap(bytes_, other.bytes_);
        std::swap(data_, other.data_);
    }
    std::uint8_t* data() const { return data_; }

  private:
    std::size_t bytes_;
    std::uint8_t* data_;
};

// The corrections of all levels as kernels take them: for left children, then for right ones.
struct Corrections {
    std::uint8_t level[pir_max_depth][2 * block];

    explicit Corrections(const PirKey& key) {
        for (int i = 0; i < key.depth; ++i) {
            for (int right = 0; right < 2; ++right) {
                std::uint8_t* to = level[i] + block * static_cast<std::size_t>(right);
                std::memcpy(to, key.corrections + block * static_cast<std::size_t>(i), block);
                const int bit = 2 * i + right;
                to[0] |= key.controls[bit / 8] >> bit % 8 & 1;
            }
        }
    }
    ~Corrections() { wipe(this, sizeof *this); }
};

// Levels that a thread goes down at once, from so many nodes: both arrays of nodes stay in the first cache.
constexpr int low_levels = 6;
constexpr std::size_t tops = 16;

// The tree over some leaves; nodes without leaves below them are left out.
struct Tree {
    std::size_t leaves;
    int depth;
    std::size_t width(int level) const {
        const int below = depth - level;
        return (leaves + (std::size_t{1} << below) - 1) >> below;
    }
};

}  // namespace

Level pir_tier() { return active_tier(tiers).level; }

const PirKernels& pir_kernels() { return active_tier(tiers).kernels; }

Status pir_expand(const PirKey& key, std::uint64_t* out, int threads) {
    const PirKernels& kernels = pir_kernels();
    const Corrections corrections(key);
    const Tree tree{pir_leaves(key.rows), key.depth};
    const int low = std::min(key.depth, low_levels), high = key.depth - low;
    // a chunk reads a whole step from its first node on
    const std::size_t most = tree.width(high) + 2 * MIPP_NODE_STEP;
    Nodes upper(most), next(most);
    if (upper.data() == nullptr || next.data() == nullptr) return Status::no_memory;
    std::memcpy(upper.data(), key.seed, block);
    upper.data()[0] |= static_cast<std::uint8_t>(key.party);
    for (int level = 0; level < high; ++level) {
        kernels.expand(upper.data(), tree.width(level), corrections.level[level], next.data());
        upper.swap(next);
    }
    const Status status = parallel_for(tree.width(high), tops, threads, [&](std::size_t begin, std::size_t end) {
        Nodes a(tops << low_levels), b(tops << low_levels);
        if (a.data() == nullptr || b.data() == nullptr) return Status::no_memory;
        for (std::size_t first = begin; first < end; first += tops) {
            const std::size_t roots = std::min(tops, end - first);
            const auto nodes = [&](int down) {
                return std::min(roots << down, tree.width(high + down) - (first << down));
            };
            const std::uint8_t* from = upper.data() + block * first;
            for (int down = 0; down < low; ++down) {
                std::uint8_t* to = down % 2 == 0 ? a.data() : b.data();
                kernels.expand(from, nodes(down), corrections.level[high + down], to);
                from = to;
            }
            kernels.convert(from, nodes(low), key.leaf_correction,
                            reinterpret_cast<std::uint8_t*>(out + 2 * (first << low)));
        }
        return Status::ok;
    });
    // little-endian words, as all supported processors have
    const std::size_t rest = static_cast<std::size_t>(key.rows % pir_leaf_rows);
    std::uint64_t* last = out + pir_words(key.rows) - 2;
    if (rest != 0 && status == Status::ok) {
        last[0] &= rest < 64 ? (std::uint64_t{1} << rest) - 1 : ~std::uint64_t{0};
        last[1] &= rest > 64 ? (std::uint64_t{1} << (rest - 64)) - 1 : 0;
    }
    return status;
}

Status pir_generate(std::uint64_t row, std::uint64_t rows, const std::uint8_t* random, std::uint8_t* key_a,
                    std::uint8_t* key_b) {
    if (rows < 1 || rows > pir_max_rows) return Status::bad_argument;
    const PirKernels& kernels = pir_kernels();
    const PirKeyParts keys[2] = {pir_key_begin(rows, 0, key_a), pir_key_begin(rows, 1, key_b)};
    constexpr std::uint8_t no_correction[2 * block] = {};
    // Everything secret that is made on the way: two nodes, one of each key, and their four children.
    struct Work {
        alignas(64) std::uint8_t nodes[MIPP_NODE_STEP * block], children[2 * MIPP_NODE_STEP * block];
        ~Work() { wipe(this, sizeof *this); }
    } work = {};
    for (int party = 0; party < 2; ++party) {
        std::uint8_t* node = work.nodes + block * static_cast<std::size_t>(party);
        std::memcpy(node, random + block * static_cast<std::size_t>(party), block);
        node[0] &= 0xfe;
        std::memcpy(keys[party].seed, node, block);
        node[0] |= static_cast<std::uint8_t>(party);
    }
    const int depth = keys[0].depth;
    const std::uint64_t leaf = row / pir_leaf_rows;
    for (int level = 0; level < depth; ++level) {
        kernels.expand(work.nodes, 2, no_correction, work.children);
        const std::uint8_t* left[2] = {work.children, work.children + 2 * block};
        const std::uint8_t* right[2] = {left[0] + block, left[1] + block};
        const auto go_right = static_cast<std::uint8_t>(leaf >> (depth - 1 - level) & 1);
        const auto to_right = static_cast<std::uint8_t>(0 - go_right), to_left = static_cast<std::uint8_t>(~to_right);
        std::uint8_t correction[block];
        // Children off the way become equal, their control bits too; on the way control bits stay different.
        for (std::size_t i = 0; i < block; ++i) {
            const auto both_left = static_cast<std::uint8_t>(left[0][i] ^ left[1][i]);
            const auto both_right = static_cast<std::uint8_t>(right[0][i] ^ right[1][i]);
            correction[i] = static_cast<std::uint8_t>((both_left & to_right) | (both_right & to_left));
        }
        correction[0] &= 0xfe;
        const auto control_left = static_cast<std::uint8_t>(((left[0][0] ^ left[1][0]) & 1) ^ go_right ^ 1);
        const auto control_right = static_cast<std::uint8_t>(((right[0][0] ^ right[1][0]) & 1) ^ go_right);
        for (int party = 0; party < 2; ++party) {
            std::memcpy(keys[party].corrections + block * static_cast<std::size_t>(level), correction, block);
            keys[party].controls[2 * level / 8] |= static_cast<std::uint8_t>(control_left << 2 * level % 8);
            keys[party].controls[2 * level / 8] |= static_cast<std::uint8_t>(control_right << (2 * level % 8 + 1));
            std::uint8_t* node = work.nodes + block * static_cast<std::size_t>(party);
            const auto corrected = static_cast<std::uint8_t>(0 - (node[0] & 1));
            const auto control = static_cast<std::uint8_t>((control_left & to_left) | (control_right & to_right));
            for (std::size_t i = 0; i < block; ++i) {
                node[i] = static_cast<std::uint8_t>((left[party][i] & to_left) | (right[party][i] & to_right));
                node[i] ^= static_cast<std::uint8_t>((correction[i] | (i == 0 ? control : 0)) & corrected);
            }
        }
    }
    kernels.convert(work.nodes, 2, no_correction, work.children);
    const std::uint64_t bit = row % pir_leaf_rows;
    const auto point = static_cast<std::uint8_t>(1u << bit % 8);
    for (std::size_t i = 0; i < block; ++i) {
        // 0 - x has its highest bit set unless x is 0: no branch
        const std::uint64_t apart = i ^ bit / 8;
        const auto here = static_cast<std::uint8_t>(((0 - apart) >> 63) - 1);
        const auto byte = static_cast<std::uint8_t>(work.children[i] ^ work.children[block + i] ^ (point & here));
        for (const PirKeyParts& key : keys) key.leaf_correction[i] = byte;
    }
    return Status::ok;
}

}  // namespace mipp
