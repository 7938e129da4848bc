// The constant-time cases of private retrieval: each kernel of the tier, and the entry points that use them. The number
// of rows and a key's header are public; the wanted row, the rest of a key, selections and records are secret.
#include <cstring>

#include "cpu/cpu.h"
#include "ctime.h"
#include "pir/pir.h"
#include "pir/pir_kernels.h"

namespace {

struct Pir {
    decltype(&nodes_expand_u8_portable) expand;
    decltype(&leaves_convert_u8_portable) convert;
    decltype(&records_xor_u64_portable) add_records;
};

#define PIR(tier) {nodes_expand_u8_##tier, leaves_convert_u8_##tier, records_xor_u64_##tier}
const NamedTier<Pir> pir_tiers[] = CTIME_TIERS(PIR);

// Entry points take the kernels of the level in force.
bool forced(const std::string& tier) {
    mipp::Level level;
    return mipp::level_from_name(tier.c_str(), &level) && mipp::cpu_set_level(level) == mipp::Status::ok;
}

void add_kernels(Cases& all, const Pir& k) {
    {
        constexpr std::size_t nodes = 45;
        Case c("nodes_expand_u8");
        auto* in = c.secret<std::uint8_t>(16 * 64);
        auto* corrections = c.secret<std::uint8_t>(32);
        auto* out = c.output<std::uint8_t>(16 * 128);
        c.run = [=] {
            k.expand(in, nodes, corrections, out);
            return true;
        };
        all.push_back(c);
    }
    {
        constexpr std::size_t leaves = 43;
        Case c("leaves_convert_u8");
        auto* in = c.secret<std::uint8_t>(16 * 64);
        auto* correction = c.secret<std::uint8_t>(16);
        auto* out = c.output<std::uint8_t>(16 * leaves);
        c.run = [=] {
            k.convert(in, leaves, correction, out);
            return true;
        };
        all.push_back(c);
    }
    for (std::size_t count = 1; count <= MIPP_SCAN_SELECTIONS; ++count) {
        constexpr std::size_t rows = 5, words = 80;  // a lead, blocks of columns, lines and a rest
        Case c("records_xor_u64 " + std::to_string(count) + " selections");
        auto* records = c.secret<std::uint8_t>(8 * rows * words);
        auto* masks = c.secret<std::uint64_t>(MIPP_SCAN_ROWS * MIPP_SCAN_SELECTIONS);
        auto* sums = c.changed<std::uint64_t>(words * count);
        c.run = [=] {
            k.add_records(records, rows, words, 3, masks, count, sums, records, 1);
            return true;
        };
        all.push_back(c);
    }
}

void add_entries(Cases& all, const std::string& tier) {
    constexpr std::uint64_t domain = 128 * 70 + 5;
    const std::size_t key_bytes = mipp::pir_key_bytes(domain), words = mipp::pir_words(domain);
    {
        Case c("pir_generate");
        auto* row = c.secret<std::uint64_t>(1);
        auto* random = c.secret<std::uint8_t>(mipp::pir_random_bytes);
        auto *a = c.output<std::uint8_t>(key_bytes), *b = c.output<std::uint8_t>(key_bytes);
        // rows of the domain that differ in every bit that both can differ in
        c.refill = [=](std::uint64_t seed) { *row = seed == 2 ? ~std::uint64_t{0x2a5} & 0x1fff : 0x2a5; };
        c.run = [=] { return forced(tier) && mipp::pir_generate(*row, domain, random, a, b) == mipp::Status::ok; };
        all.push_back(c);
    }
    {
        Case c("pir_expand");
        auto* header = c.open<std::uint8_t>(key_bytes);
        auto* unused = c.open<std::uint8_t>(key_bytes);
        const std::uint8_t random[mipp::pir_random_bytes] = {};
        if (!forced(tier) || mipp::pir_generate(1, domain, random, header, unused) != mipp::Status::ok) return;
        mipp::PirKey parsed;
        mipp::pir_key_parse(header, key_bytes, &parsed);
        const std::size_t secret_bytes = key_bytes - 16;
        auto* body = c.secret<std::uint8_t>(secret_bytes);
        auto* out = c.output<std::uint64_t>(words);
        c.run = [=] {
            mipp::PirKey key = parsed;
            const std::ptrdiff_t moved = body - (header + 16);
            for (const std::uint8_t** part : {&key.seed, &key.corrections, &key.controls, &key.leaf_correction}) {
                *part += moved;
            }
            return forced(tier) && mipp::pir_expand(key, out, 1) == mipp::Status::ok;
        };
        all.push_back(c);
    }
    for (const std::size_t count : {std::size_t{2}, std::size_t{14}}) {
        constexpr std::size_t rows = 37, record_bytes = 72, first = 27;
        Case c("pir_scan " + std::to_string(count) + " selections");
        auto* records = c.secret<std::uint8_t>(rows * record_bytes);
        auto* selections = c.secret<std::uint64_t>(count);
        auto* out = c.changed<std::uint8_t>(count * record_bytes);
        c.run = [=] {
            return forced(tier) &&
                   mipp::pir_scan(records, rows, record_bytes, selections, 1, count, first, out, 1) == mipp::Status::ok;
        };
        all.push_back(c);
    }
    constexpr std::size_t taken = 70;
    Case c("pir_gather");
    auto* selections = c.secret<std::uint64_t>(6);
    auto* ordinals = c.open<std::int64_t>(taken);  // public
    for (std::size_t i = 0; i < taken; ++i) ordinals[i] = static_cast<std::int64_t>(2 * i + i % 2);
    auto* out = c.output<std::uint64_t>(4);
    c.run = [=] { return mipp::pir_gather(selections, 3, 2, ordinals, taken, out, 1) == mipp::Status::ok; };
    all.push_back(c);
}

}  // namespace

Cases pir_cases(const std::string& tier) {
    Cases all;
    const Pir* kernels = kernels_of(pir_tiers, tier);
    if (kernels == nullptr) return all;
    add_kernels(all, *kernels);
    add_entries(all, tier);
    return all;
}
