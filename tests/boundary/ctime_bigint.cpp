// The constant-time cases of bigint. Numbers are tiny, because single steps are slow.
#include "bigint/kernels.h"
#include "ctime.h"

using mipp::BigintContext;
using mipp::BigintKernels;
using mipp::Status;

namespace {

constexpr std::size_t limbs = 1;  // of the modulus
constexpr std::size_t count = 1;  // numbers
constexpr std::size_t bits = 7;   // of exponents
constexpr std::size_t bases = 2;

const NamedTier<const BigintKernels* (*)()> tiers[] = {{"portable", mipp::bigint_kernels_portable},
                                                       {"avx512", mipp::bigint_kernels_avx512}};

// Public parts that are made ahead: a context modulo a square, and tables of two bases.
struct Public {
    std::uint64_t modulus[limbs], numbers[bases * 2 * limbs];
    const BigintKernels* k;
    BigintContext* c;
    std::uint64_t* tables;

    explicit Public(const BigintKernels* kernels) : k(kernels) {
        Random random{7};
        for (auto& x : modulus) x = random.next();
        for (auto& x : numbers) x = random.next();
        for (std::size_t i = 0; i < bases; ++i) numbers[(i + 1) * 2 * limbs - 1] >>= 2;  // below the square
        modulus[0] |= 1;
        modulus[limbs - 1] |= std::uint64_t{1} << 63;
        c = k->make(modulus, limbs, true);
        const std::size_t bytes = (k->table_words(c, 4) * 4 * 8 + 63) / 64 * 64;
        tables = static_cast<std::uint64_t*>(std::aligned_alloc(64, bytes));
        k->tables(c, numbers, 4, tables, 0, bases);
    }
};

std::uint64_t exponent(std::uint64_t x) { return x >> (64 - bits); }

}  // namespace

Cases bigint_cases(const std::string& tier) {
    const auto* make = kernels_of(tiers, tier);
    if (make == nullptr) return {};
    const BigintKernels* k = (*make)();
    const auto* p = new Public(k);
    Cases all;
    // pow: base and exponent are secret
    for (const bool variable : {false, true}) {
        Case c(variable ? "leaky" : "bigint pow");
        auto* base = c.secret<std::uint64_t>(2 * limbs);
        auto* e = c.secret<std::uint64_t>(1);
        auto* out = c.output<std::uint64_t>(2 * limbs);
        c.refill = [=](std::uint64_t seed) {
            base[2 * limbs - 1] >>= 2;
            *e = variable ? 1 + 32 * (seed - 1) : exponent(*e);  // variable: a window of zeros, or not
        };
        c.run = [=] {
            return k->pow(p->c, base, 2 * limbs, e, variable ? 0 : 1, bits, variable, out, 0, count) == Status::ok;
        };
        c.leaks = variable;
        all.push_back(c);
    }
    {
        Case c("bigint fixed_pow");
        auto* e = c.secret<std::uint64_t>(2);
        auto* out = c.output<std::uint64_t>(2 * limbs);
        c.refill = [=](std::uint64_t) { *e = exponent(*e); };
        c.run = [=] { return k->fixed_pow(p->c, p->tables, 4, 2, e, 1, out, 0, count) == Status::ok; };
        all.push_back(c);
    }
    {
        Case c("bigint multi_pow");
        auto* digits = c.secret<std::uint16_t>(count * bases);
        auto* out = c.output<std::uint64_t>(2 * limbs);
        c.refill = [=](std::uint64_t) {
            for (std::size_t i = 0; i < count * bases; ++i) digits[i] >>= 16 - bits;
        };
        c.run = [=] {
            return k->multi_pow(p->c, p->tables, 4, bases, digits, 2, 1, bits, bits, out, 0, count) == Status::ok;
        };
        all.push_back(c);
    }
    {
        Case c("bigint decrypt");  // the exponent stands for a secret prime less one
        auto* e = c.secret<std::uint64_t>(1);
        auto* h = c.secret<std::uint64_t>(limbs);
        auto* out = c.output<std::uint64_t>(2 * limbs);
        c.refill = [=](std::uint64_t) {
            *e = exponent(*e);
            h[limbs - 1] >>= 1;
        };
        c.run = [=] { return k->decrypt(p->c, e, h, p->numbers, 2 * limbs, out, 0, count) == Status::ok; };
        all.push_back(c);
    }
    // The size of a prime is public, so its top limb is not marked.
    {
        Case c("bigint modulus");
        auto* prime = c.open<std::uint64_t>(2);
        c.secrets.push_back({prime, 8});
        c.refill = [=](std::uint64_t) { prime[0] |= 1, prime[1] = 1; };
        c.run = [=] {
            BigintContext* made = k->make(prime, 2, true);
            if (made == nullptr) return false;
            k->free(made);
            return true;
        };
        all.push_back(c);
    }
    if (k->pair_make != nullptr) {  // both powers of a single decryption, tables and all
        Case c("bigint pair");
        auto* primes = c.open<std::uint64_t>(4);
        c.secrets = {{primes, 8}, {primes + 2, 8}};
        auto* e = c.secret<std::uint64_t>(2);
        auto* out = c.output<std::uint64_t>(4);
        c.refill = [=](std::uint64_t) {
            for (int i = 0; i < 2; ++i) primes[2 * i] |= 1, primes[2 * i + 1] = 1, e[i] = exponent(e[i]);
        };
        c.run = [=] {
            const std::uint64_t* exponents[2] = {e, e + 1};
            std::uint64_t* const outs[2] = {out, out + 2};
            mipp::BigintPair* pair = k->pair_make(primes, primes + 2, 2);
            if (pair == nullptr) return false;
            const Status status = k->pair_pow(pair, p->numbers, 4, exponents, 1, outs);
            k->pair_free(pair);
            return status == Status::ok;
        };
        all.push_back(c);
    }
    return all;
}
