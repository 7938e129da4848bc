// The constant-time cases of ring, prf, galois, compare and audit. Kernels whose names end in _var, and those that move
// words to public places (gather), have public places here and secret words.
#include "audit/audit.h"
#include "compare/compare.h"
#include "compare/compare_kernels.h"
#include "compare/squares_kernels.h"
#include "ctime.h"
#include "galois/galois.h"
#include "galois/galois_kernels.h"
#include "prf/hkdf.h"
#include "prf/prf_kernels.h"
#include "ring/ring_kernels.h"

namespace {

template <class Word>
std::string named(const char* kernel) {
    return std::string(kernel) + "_u" + std::to_string(8 * sizeof(Word));
}

// --- ring ----------------------------------------------------------------------------------------------------------

template <class Word>
struct Ring {
    void (*matmul)(const Word*, std::size_t, std::size_t, const Word*, std::size_t, Word*, std::size_t);
    std::size_t (*bytes)(std::size_t, std::size_t);
    void (*pack)(const Word*, std::size_t, std::size_t, void*);
    void (*product)(const Word*, std::size_t, std::size_t, const void*, std::size_t, Word*, std::size_t, int);
};

#define BATCH(bits, tier) \
    ring_batch_bytes_u##bits##_##tier, ring_batch_pack_u##bits##_##tier, ring_batch_u##bits##_##tier
#define RING(bits)                                                                                                   \
    {                                                                                                                \
        {"portable", {ring_matmul_u##bits##_portable}}, {"avx2", {ring_matmul_u##bits##_avx2, BATCH(bits, avx2)}}, { \
            "avx512", { ring_matmul_u##bits##_avx512, BATCH(bits, avx512) }                                          \
        }                                                                                                            \
    }
const NamedTier<Ring<std::uint16_t>> ring_16[] = RING(16);
const NamedTier<Ring<std::uint32_t>> ring_32[] = RING(32);
const NamedTier<Ring<std::uint64_t>> ring_64[] = RING(64);

template <class Word>
void add_ring(Cases& all, const Ring<Word>& kernels) {
    constexpr std::size_t dim = 37;  // whole vectors and a rest
    for (const std::size_t columns : {1, 5}) {
        constexpr std::size_t rows = 3;
        Case c(named<Word>("ring_matmul") + " " + std::to_string(columns) + " columns");
        auto *x = c.secret<Word>(rows * dim), *y = c.secret<Word>(columns * dim);
        auto* out = c.output<Word>(columns * rows);
        c.run = [=] {
            kernels.matmul(x, rows, dim, y, columns, out, rows);
            return true;
        };
        all.push_back(c);
    }
    if (kernels.product == nullptr) return;
    constexpr std::size_t rows = 35, columns = 9;
    Case c(named<Word>("ring_batch"));
    auto *x = c.secret<Word>(rows * dim), *y = c.secret<Word>(columns * dim);
    auto* out = c.output<Word>(columns * rows);
    auto* packed = c.output<std::uint8_t>(kernels.bytes(dim, columns));
    c.run = [=] {
        kernels.pack(y, columns, dim, packed);
        kernels.product(x, rows, dim, packed, columns, out, rows, 0);
        return true;
    };
    all.push_back(c);
}

// --- prf -----------------------------------------------------------------------------------------------------------

template <class Word>
struct Stream {
    void (*add)(const std::uint8_t*, std::uint64_t, Word*, std::size_t, int);
    void (*matmul)(const std::uint8_t*, std::uint64_t, std::size_t, std::size_t, const Word*, std::size_t, std::size_t,
                   Word*, std::size_t);
};

struct Prf {
    decltype(&hkdf_expand_u8_portable) hkdf_expand;
    decltype(&schedule_expand_u8_portable) schedule_expand;
    decltype(&keystream_fill_u8_portable) fill;
    Stream<std::uint16_t> u16;
    Stream<std::uint32_t> u32;
    Stream<std::uint64_t> u64;
};

#define STREAM(bits, tier) {keystream_add_u##bits##_##tier, keystream_matmul_u##bits##_##tier}
#define PRF(tier)                                                                \
    {hkdf_expand_u8_##tier, schedule_expand_u8_##tier, keystream_fill_u8_##tier, \
     STREAM(16, tier),      STREAM(32, tier),          STREAM(64, tier)}
const NamedTier<Prf> prf_tiers[] = CTIME_TIERS(PRF);

// rows x row_blocks blocks of keystream; `what` tells the cases apart.
template <class Word>
void add_product(Cases& all, const Stream<Word>& kernels, std::size_t rows, std::size_t row_blocks, std::size_t columns,
                 const char* what) {
    const std::size_t stride = (row_blocks * 16 + 63) / 64 * 64 / sizeof(Word);
    Case c(named<Word>("keystream_matmul") + what);
    auto* schedule = c.secret<std::uint8_t>(MIPP_SCHEDULE_BYTES);
    auto* y = c.secret<Word>(columns * stride);
    auto* out = c.output<Word>(columns * rows);
    c.run = [=] {
        kernels.matmul(schedule, 4, rows, row_blocks, y, stride, columns, out, rows);
        return true;
    };
    all.push_back(c);
}

template <class Word>
void add_stream(Cases& all, const Stream<Word>& kernels) {
    constexpr std::size_t words = 166 / sizeof(Word);  // whole blocks, and a rest
    for (const int negate : {0, 1}) {
        Case c(named<Word>("keystream_add") + (negate ? " less" : ""));
        auto* schedule = c.secret<std::uint8_t>(MIPP_SCHEDULE_BYTES);
        auto* out = c.changed<Word>(words);
        c.run = [=] {
            kernels.add(schedule, 5, out, words, negate);
            return true;
        };
        all.push_back(c);
    }
    add_product(all, kernels, 3, 4, 1, " 1 column");
    add_product(all, kernels, 5, 2, 5, " 5 columns");
}

// --- galois --------------------------------------------------------------------------------------------------------

template <class Word>
struct Galois {
    void (*combine)(const Word* const*, std::size_t, Word* const*, std::size_t, std::size_t, const Word*, int, int);
    void (*add)(const Word* const*, std::size_t, int, std::size_t, std::int64_t*);
    void (*pack)(const Word*, std::size_t, int, Word*);
    int (*fold)(const Word* const*, std::size_t, int, std::size_t, const Word* const*, std::size_t, std::int64_t,
                std::int64_t, Word*);
};

#define GALOIS_OF(bits, tier)                                                                     \
    {words_combine_u##bits##_##tier, answers_add_u##bits##_##tier, answers_pack_u##bits##_##tier, \
     answers_fold_u##bits##_##tier}
#define GALOIS_16(tier) GALOIS_OF(16, tier)
#define GALOIS_32(tier) GALOIS_OF(32, tier)
#define GALOIS_64(tier) GALOIS_OF(64, tier)
const NamedTier<Galois<std::uint16_t>> galois_16[] = CTIME_TIERS(GALOIS_16);
const NamedTier<Galois<std::uint32_t>> galois_32[] = CTIME_TIERS(GALOIS_32);
const NamedTier<Galois<std::uint64_t>> galois_64[] = CTIME_TIERS(GALOIS_64);

template <class Word>
void add_galois(Cases& all, const Galois<Word>& kernels) {
    constexpr std::size_t inputs = 2, outs = 2, words = 222;
    for (const int m : {2, 3}) {
        const int stream = m == 3;
        Case c(named<Word>("words_combine") + (m == 2 ? " m = 2" : " m = 3, past the caches"));
        auto* matrices = c.open<Word>(outs * inputs * static_cast<std::size_t>(m * m));  // public
        auto *a = c.secret<Word>(words), *b = c.secret<Word>(words);
        auto *x = c.output<Word>(words), *y = c.output<Word>(words);
        c.run = [=] {
            const Word* const from[] = {a, b};
            Word* const to[] = {x, y};
            kernels.combine(from, inputs, to, outs, words, matrices, m, stream);
            return true;
        };
        all.push_back(c);
    }
    constexpr int bits = static_cast<int>(8 * sizeof(Word)), narrow = 11;
    for (const int width : {bits, narrow}) {
        constexpr std::size_t sums = 557;  // a block and a rest; packed, they need less room
        Case c(named<Word>("answers_add") + (width == bits ? "" : " packed"));
        auto *a = c.secret<Word>(sums), *b = c.secret<Word>(sums);
        auto* out = c.output<std::int64_t>(sums);
        c.run = [=] {
            const Word* const from[] = {a, b};
            kernels.add(from, 2, width, sums, out);
            return true;
        };
        all.push_back(c);
    }
    for (const int width : {bits, narrow}) {
        constexpr std::size_t rows = 557;
        Case c(named<Word>("answers_fold") + (width == bits ? "" : " packed"));
        auto *a = c.secret<Word>(rows), *b = c.secret<Word>(rows), *w = c.secret<Word>(rows);
        auto* sum = c.output<Word>(1);
        auto* outside = c.output<int>(1);
        c.run = [=] {
            const Word* const from[] = {a, b};
            const Word* const by[] = {w};
            *sum = 0;
            *outside = kernels.fold(from, 2, width, rows, by, 1, -100, 100, sum);
            return true;
        };
        all.push_back(c);
    }
    constexpr std::size_t shares = 557;
    Case c(named<Word>("answers_pack"));
    auto* a = c.secret<Word>(shares);
    auto* out = c.output<Word>(mipp::packed_answers(bits, narrow, shares));
    c.run = [=] {
        kernels.pack(a, shares, narrow, out);
        return true;
    };
    all.push_back(c);
}

// --- compare -------------------------------------------------------------------------------------------------------

template <class Word>
struct Words {
    void (*slice)(const Word*, std::size_t, int, int, std::uint64_t*, std::size_t, std::size_t);
    void (*deal)(const MippSquaresDeal*);
    void (*share)(const MippSquaresShare*);
};

struct Compare {
    Words<std::uint16_t> u16;
    Words<std::uint32_t> u32;
    Words<std::uint64_t> u64;
    decltype(&gates_and_u64_portable) gates_and;
    decltype(&words_mask_u64_portable) mask;
    decltype(&words_gather_u64_portable) gather;
};

#define WORDS(bits, tier) {bits_slice_u##bits##_##tier, squares_deal_u##bits##_##tier, squares_share_u##bits##_##tier}
#define COMPARE(tier)                                              \
    {WORDS(16, tier),      WORDS(32, tier),       WORDS(64, tier), \
     gates_and_u64_##tier, words_mask_u64_##tier, words_gather_u64_##tier}
const NamedTier<Compare> compare_tiers[] = CTIME_TIERS(COMPARE);

template <class Word>
void add_words(Cases& all, const Words<Word>& kernels) {
    constexpr std::size_t n = 600, lines = 2, first = 3, width = 8 * sizeof(Word) - 5;
    {
        Case c(named<Word>("bits_slice"));
        auto* words = c.secret<Word>(n);
        auto* planes = c.output<std::uint64_t>(width * 8 * lines);
        c.run = [=] {
            kernels.slice(words, n, first, width, planes, 8 * lines, lines);
            return true;
        };
        all.push_back(c);
    }
    constexpr std::size_t coordinates = 75;  // a vector of the narrowest hints, and a rest
    for (const int hint_bits : {0, 8, 16, 32}) {
        if (sizeof(Word) == 8 && hint_bits != 0) continue;
        const std::string what = " hints of " + std::to_string(hint_bits) + " bits";
        Case deal(named<Word>("squares_deal") + what), share(named<Word>("squares_share") + what);
        for (const bool dealer : {true, false}) {
            Case& c = dealer ? deal : share;
            auto* weights = c.open<std::uint64_t>(coordinates);  // public
            auto *x = c.secret<Word>(coordinates), *y = c.secret<Word>(coordinates);
            std::uint32_t* hints[3] = {};
            for (int i = 0; i < 3 && hint_bits != 0; ++i) {
                hints[i] = dealer ? c.changed<std::uint32_t>(coordinates) : c.secret<std::uint32_t>(coordinates);
            }
            std::uint32_t *carry = hints[0], *msb = hints[1], *delta = hints[2];
            auto* out = c.output<std::uint64_t>(1);
            c.run = [=] {
                if (dealer) {
                    const MippSquaresDeal work = {x, y, weights, 1, coordinates, hint_bits, carry, msb, delta, out};
                    kernels.deal(&work);
                }
                for (int cloud = 0; !dealer && cloud < 2; ++cloud) {
                    const MippSquaresShare work = {x,         y,     weights, 1,     coordinates, cloud,
                                                   hint_bits, carry, msb,     delta, out};
                    kernels.share(&work);
                }
                return true;
            };
            all.push_back(c);
        }
    }
}

}  // namespace

Cases ring_cases(const std::string& tier) {
    Cases all;
    if (kernels_of(ring_32, tier) == nullptr) return all;
    add_ring(all, *kernels_of(ring_16, tier));
    add_ring(all, *kernels_of(ring_32, tier));
    add_ring(all, *kernels_of(ring_64, tier));
    return all;
}

Cases prf_cases(const std::string& tier) {
    Cases all;
    const Prf* kernels = kernels_of(prf_tiers, tier);
    if (kernels == nullptr) return all;
    const Prf& k = *kernels;
    constexpr std::size_t keys = 3, length = 70;
    {
        Case c("hkdf_expand_u8");
        auto* states = c.secret<std::uint32_t>(16);
        auto* infos = c.open<std::uint8_t>(keys * length);  // public
        auto* out = c.output<std::uint8_t>(keys * 32);
        c.run = [=] {
            k.hkdf_expand(states, infos, length, keys, out);
            return true;
        };
        all.push_back(c);
    }
    if (tier == "portable") {  // one for all tiers
        Case c("HkdfKey");
        auto* key = c.secret<std::uint8_t>(32);
        auto* out = c.output<std::uint32_t>(16);
        c.run = [=] {
            const mipp::HkdfKey made(key);
            for (int i = 0; i < 16; ++i) out[i] = made.states[i];
            return true;
        };
        all.push_back(c);
    }
    {
        Case c("schedule_expand_u8");
        auto* from = c.secret<std::uint8_t>(keys * 32);
        auto* out = c.output<std::uint8_t>(keys * MIPP_SCHEDULE_BYTES);
        c.run = [=] {
            k.schedule_expand(from, keys, out);
            return true;
        };
        all.push_back(c);
    }
    {
        constexpr std::size_t blocks = 11;
        Case c("keystream_fill_u8");
        auto* schedule = c.secret<std::uint8_t>(MIPP_SCHEDULE_BYTES);
        auto* out = c.output<std::uint8_t>(16 * blocks);
        c.run = [=] {
            k.fill(schedule, 5, blocks, out);
            return true;
        };
        all.push_back(c);
    }
    add_stream(all, k.u16);
    add_stream(all, k.u32);
    add_stream(all, k.u64);
    // the table of first rounds pays in this tier only, from 2048 blocks on
    if (tier == "avx512") add_product(all, k.u32, 512, 4, 1, " long run");
    return all;
}

Cases galois_cases(const std::string& tier) {
    Cases all;
    if (kernels_of(galois_32, tier) == nullptr) return all;
    add_galois(all, *kernels_of(galois_16, tier));
    add_galois(all, *kernels_of(galois_32, tier));
    add_galois(all, *kernels_of(galois_64, tier));
    return all;
}

// Of no tier, and run with each.
void add_digits(Cases& all) {
    constexpr std::size_t n = 8, words = 16, many = 70;
    constexpr int width = 43;
    {
        Case c("digit_products");
        auto* bits = c.secret<std::uint64_t>(n * words);
        auto* out = c.output<std::uint64_t>(mipp::digit_products_of(n) * words);
        c.run = [=] { return mipp::digit_products(bits, n, words, out, 1) == mipp::Status::ok; };
        all.push_back(c);
    }
    {
        Case c("digit_carries");
        auto* shares = c.secret<std::uint64_t>(mipp::digit_products_of(n) * words);
        auto* t = c.secret<std::uint64_t>(n * words);
        auto* out = c.output<std::uint64_t>((2 * mipp::digits_of(n) - 1) * words);
        c.run = [=] { return mipp::digit_carries(shares, t, n, words, true, out, 1) == mipp::Status::ok; };
        all.push_back(c);
    }
    {
        Case c("words_pack");
        auto* whole = c.secret<std::uint64_t>(many);
        auto* out = c.output<std::uint64_t>(mipp::packed_words_of(many, width));
        c.run = [=] { return mipp::words_pack(whole, many, width, out, 1) == mipp::Status::ok; };
        all.push_back(c);
    }
    Case c("words_unpack");
    auto* packed = c.secret<std::uint64_t>(mipp::packed_words_of(many, width));
    auto* out = c.output<std::uint64_t>(many);
    c.run = [=] { return mipp::words_unpack(packed, many, width, out, 1) == mipp::Status::ok; };
    all.push_back(c);
}

Cases compare_cases(const std::string& tier) {
    Cases all;
    const Compare* kernels = kernels_of(compare_tiers, tier);
    if (kernels == nullptr) return all;
    const Compare& k = *kernels;
    add_words(all, k.u16);
    add_words(all, k.u32);
    add_words(all, k.u64);
    add_digits(all);
    {
        constexpr std::size_t words = 24;
        Case c("gates_and_u64");
        auto* schedules = c.secret<std::uint8_t>(2 * MIPP_SCHEDULE_BYTES);
        auto *x_lo = c.secret<std::uint64_t>(words), *x_hi = c.secret<std::uint64_t>(words);
        auto *y_lo = c.secret<std::uint64_t>(words), *y_hi = c.secret<std::uint64_t>(words);
        auto* out = c.output<std::uint64_t>(words);
        c.run = [=] {
            const MippGate gate = {x_lo, x_hi, y_lo, y_hi, out, 5};
            k.gates_and(schedules, &gate, 1, words);
            return true;
        };
        all.push_back(c);
    }
    for (const int operation : {MIPP_MASK_SET, MIPP_MASK_XOR, MIPP_MASK_ADD, MIPP_MASK_SUBTRACT}) {
        constexpr std::size_t words = 19;
        Case c("words_mask_u64 operation " + std::to_string(operation));
        auto* schedule = c.secret<std::uint8_t>(MIPP_SCHEDULE_BYTES);
        auto* inout = c.changed<std::uint64_t>(words);
        c.run = [=] {
            k.mask(schedule, 5, inout, words, operation);
            return true;
        };
        all.push_back(c);
    }
    constexpr std::size_t n = 75;
    for (const int subtract : {0, 1}) {
        Case c(subtract ? "words_gather_u64 less a stream" : "words_gather_u64");
        auto* index = c.open<std::uint32_t>(n);  // known to whoever runs a pass
        for (std::uint32_t i = 0; i < n; ++i) index[i] = 7 * i % n;
        auto* x = c.secret<std::uint64_t>(n);
        auto* schedule = c.secret<std::uint8_t>(MIPP_SCHEDULE_BYTES);
        auto* out = c.output<std::uint64_t>(n);
        c.run = [=] {
            const MippGather pass = {x, index, schedule, subtract, out};
            k.gather(&pass, 0, n);
            return true;
        };
        all.push_back(c);
    }
    return all;
}

// Of no tier, and run with each.
Cases audit_cases(const std::string& tier) {
    Cases all;
    if (kernels_of(compare_tiers, tier) == nullptr) return all;
    constexpr std::size_t rows = 21, width = 13;  // rows that are taken together, and a rest
    for (const bool tags : {false, true}) {
        Case c(tags ? "rows_tag_p61" : "rows_combine_p61");
        auto* words = c.secret<std::uint32_t>(rows * width);
        auto* factors = c.secret<std::uint64_t>(tags ? width : rows);
        auto* out = c.output<std::uint64_t>(tags ? rows : width);
        c.run = [=] {
            const auto kernel = tags ? mipp::rows_tag_p61 : mipp::rows_combine_p61;
            return kernel(words, rows, width, factors, out, 1) == mipp::Status::ok;
        };
        all.push_back(c);
    }
    return all;
}
