// Whether the kernels' time and addresses depend on secrets. Run by ctime.py:
//
//   ctime mark TIER CASE    under valgrind: secrets are marked undefined, so that a branch or an address made of them
//   is
//                           an error
//   ctime trace TIER        each case with several secrets, single-stepped: prints the number of instructions and a
//   hash
//                           of their addresses, and fails if they differ
//
// The case "leaky" is the control: its exponent shows, and both ways must see it.

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "bigint/kernels.h"
#include "compare/squares_kernels.h"
#ifdef MIPP_VALGRIND
#include <valgrind/memcheck.h>
#define MARK(p, n) (void)VALGRIND_MAKE_MEM_UNDEFINED(p, n)
#define UNMARK(p, n) (void)VALGRIND_MAKE_MEM_DEFINED(p, n)
#else
#define MARK(p, n)
#define UNMARK(p, n)
#endif

using mipp::BigintContext;
using mipp::BigintKernels;
using mipp::Status;

namespace {

const char* const cases[] = {"pow",  "fixed_pow",    "multi_pow",     "decrypt", "modulus",
                             "pair", "squares_deal", "squares_share", "leaky"};
// tiny: single steps are slow
constexpr std::size_t limbs = 1;  // of the modulus
constexpr std::size_t count = 1;  // numbers
constexpr std::size_t bits = 7;   // of exponents
constexpr std::size_t bases = 2;
constexpr std::size_t coordinates = 75;  // a vector of the narrowest hints, and a rest

// The kernels of one tier.
struct Tier {
    const BigintKernels* bigint;
    void (*deal[3])(const MippSquaresDeal*);  // words of 16, 32, 64 bits
    void (*share[3])(const MippSquaresShare*);
};

struct Random {
    std::uint64_t state;
    std::uint64_t next() {  // splitmix64
        std::uint64_t z = state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
};

// Everything that a case needs. The secrets are filled in last, from a seed.
struct Inputs {
    std::uint64_t modulus[limbs], exponents[2], h[limbs], numbers[bases * 2 * limbs], out[count * 2 * limbs];
    std::uint64_t prime[2];  // its top limb, and so its size, is public
    std::uint16_t digits[count * bases];
    // words and hints of any size
    std::uint64_t x[coordinates], y[coordinates], carry[coordinates], msb[coordinates], delta[coordinates];
    std::uint64_t weights[coordinates];

    Inputs() {
        Random open{7};
        for (auto& x : modulus) x = open.next();
        for (auto& x : numbers) x = open.next();
        for (std::size_t i = 0; i < bases; ++i) numbers[(i + 1) * 2 * limbs - 1] >>= 2;  // below the square
        for (auto& w : weights) w = open.next();
        fill(1);
    }

    void fill(std::uint64_t seed) {
        Random secret{seed};
        modulus[0] |= 1;
        modulus[limbs - 1] |= std::uint64_t{1} << 63;
        prime[0] = secret.next() | 1;
        prime[1] = 1;
        for (auto& x : h) x = secret.next() >> 1;
        for (auto& x : exponents) x = secret.next() >> (64 - bits);
        for (auto& d : digits) d = static_cast<std::uint16_t>(secret.next() >> (64 - bits));
        for (auto* array : {x, y, carry, msb, delta}) {
            for (std::size_t i = 0; i < coordinates; ++i) array[i] = secret.next();
        }
    }
};

// Public parts that are made ahead: context and tables.
struct Prepared {
    const Tier& tier;
    const BigintKernels* k;
    BigintContext* c;
    std::vector<std::uint64_t> tables;

    Prepared(const Tier& kernels, const Inputs& in)
        : tier(kernels), k(kernels.bigint), c(k->make(in.modulus, limbs, true)) {
        tables.assign(k->table_words(c, 4) * 4 + 8, 0);
        auto* aligned = at();
        k->tables(c, in.numbers, 4, aligned, 0, bases);
    }
    std::uint64_t* at() {
        return reinterpret_cast<std::uint64_t*>((reinterpret_cast<std::uintptr_t>(tables.data()) + 63) / 64 * 64);
    }
};

// All sizes of words and hints.
void run_squares(const Tier& tier, bool deal, Inputs& in) {
    for (const int size : {0, 1, 2}) {
        for (const int hint_bits : {0, 8, 16, 32}) {
            if (size == 2 && hint_bits != 0) continue;
            const bool hints = hint_bits != 0;
            void *carry = hints ? in.carry : nullptr, *msb = hints ? in.msb : nullptr;
            void* delta = hints ? in.delta : nullptr;
            if (deal) {
                const MippSquaresDeal work = {in.x,      in.y,  in.weights, 1,     coordinates,
                                              hint_bits, carry, msb,        delta, in.out};
                tier.deal[size](&work);
            }
            for (int first = 0; !deal && first < 2; ++first) {
                const MippSquaresShare work = {in.x,      in.y,  in.weights, 1,     coordinates, first,
                                               hint_bits, carry, msb,        delta, in.out};
                tier.share[size](&work);
            }
        }
    }
}

Status run(const std::string& name, Prepared& p, Inputs& in) {
    const BigintKernels* k = p.k;
    if (name == "pow" || name == "leaky") {
        return k->pow(p.c, in.numbers, 2 * limbs, in.exponents, name == "pow" ? 1 : 0, bits, name == "leaky", in.out, 0,
                      count);
    }
    if (name == "fixed_pow") return k->fixed_pow(p.c, p.at(), 4, 2, in.exponents, 1, in.out, 0, count);
    if (name == "multi_pow") {
        return k->multi_pow(p.c, p.at(), 4, bases, in.digits, 2, 1, bits, bits, in.out, 0, count);
    }
    if (name == "decrypt") {
        // the exponent stands for a secret prime less one
        return k->decrypt(p.c, in.exponents, in.h, in.numbers, 2 * limbs, in.out, 0, count);
    }
    if (name == "squares_deal" || name == "squares_share") {
        run_squares(p.tier, name == "squares_deal", in);
        return Status::ok;
    }
    if (name == "pair") {  // both of a single decryption's powers, tables and all; nothing in tiers without it
        if (k->pair_make == nullptr) return Status::ok;
        const std::uint64_t* exponents[2] = {in.exponents, in.exponents + 1};
        std::uint64_t other[2] = {in.prime[0] ^ 2, in.prime[1]}, out[2][2];
        std::uint64_t* const outs[2] = {out[0], out[1]};
        mipp::BigintPair* pair = k->pair_make(in.prime, other, 2);
        if (pair == nullptr) return Status::no_memory;
        const Status status = k->pair_pow(pair, in.numbers, 4, exponents, 1, outs);
        k->pair_free(pair);
        return status;
    }
    BigintContext* made = k->make(in.prime, 2, true);
    if (made == nullptr) return Status::no_memory;
    k->free(made);
    return Status::ok;
}

int mark(const Tier& tier, const std::string& name) {
    Inputs in;
    Prepared p(tier, in);
    MARK(in.exponents, sizeof in.exponents);
    MARK(in.digits, sizeof in.digits);
    MARK(in.h, sizeof in.h);
    if (name == "pow") MARK(in.numbers, sizeof in.numbers);
    MARK(in.prime, 8);
    for (auto* array : {in.x, in.y, in.carry, in.msb, in.delta}) MARK(array, sizeof in.x);
    const Status status = run(name, p, in);
    UNMARK(in.out, sizeof in.out);
    return status == Status::ok ? 0 : 2;
}

struct Trace {
    std::uint64_t instructions = 0, hash = 14695981039346656037u;
    bool operator!=(const Trace& other) const { return instructions != other.instructions || hash != other.hash; }
};

// Children of one process have the same addresses and the same heap, so traces can be compared.
bool trace_one(Prepared& p, Inputs& in, const std::string& name, std::uint64_t seed, Trace* trace) {
    const pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(3);
        in.fill(seed);
        if (name == "leaky") in.exponents[0] = 1 + 32 * (seed - 1);  // a window of zeros, or not
        raise(SIGSTOP);
        const Status status = run(name, p, in);
        raise(SIGSTOP);
        _exit(status == Status::ok ? 0 : 2);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFSTOPPED(status)) return false;
    for (;;) {
        if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) return false;
        waitpid(child, &status, 0);
        if (!WIFSTOPPED(status)) return false;
        if (WSTOPSIG(status) == SIGSTOP) break;
        user_regs_struct registers;
        if (ptrace(PTRACE_GETREGS, child, nullptr, &registers) != 0) return false;
        ++trace->instructions;
        trace->hash = (trace->hash ^ registers.rip) * 1099511628211u;
    }
    ptrace(PTRACE_CONT, child, nullptr, nullptr);
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int trace_all(const Tier& tier) {
    Inputs in;
    Prepared p(tier, in);
    int wrong = 0;
    for (const std::string name : cases) {
        Trace first;
        bool differs = false;
        for (std::uint64_t seed = 1; seed <= 2; ++seed) {
            Trace trace;
            if (!trace_one(p, in, name, seed, &trace)) {
                std::fprintf(stderr, "cannot single-step (ptrace refused?)\n");
                return 3;
            }
            if (seed == 1) first = trace;
            differs |= trace != first;
        }
        const bool good = differs == (name == "leaky");
        std::printf("%-13s %8llu instructions, %s%s\n", name.c_str(),
                    static_cast<unsigned long long>(first.instructions),
                    differs ? "another way for another secret" : "the same for another secret", good ? "" : "  WRONG");
        wrong |= !good;
    }
    return wrong;
}

}  // namespace

#define MIPP_TIER(tier)                                                                                               \
    {                                                                                                                 \
        mipp::bigint_kernels_##tier(), {squares_deal_u16_##tier, squares_deal_u32_##tier, squares_deal_u64_##tier}, { \
            squares_share_u16_##tier, squares_share_u32_##tier, squares_share_u64_##tier                              \
        }                                                                                                             \
    }

int main(int argc, char** argv) {
    if (argc < 3) return 64;
    const std::string mode = argv[1], name = argv[2];
    Tier tier = MIPP_TIER(portable);
#ifdef MIPP_AVX512
    const Tier avx512 = MIPP_TIER(avx512);
    if (name == "avx512") tier = avx512;
#endif
    if (name != "portable" && tier.bigint == mipp::bigint_kernels_portable()) return 64;
    if (mode == "mark" && argc == 4) return mark(tier, argv[3]);
    return mode == "trace" ? trace_all(tier) : 64;
}
