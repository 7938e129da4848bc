// The constant-time cases of lattice arithmetic: the entry points on the kernels of a tier. Degrees, primes and shapes
// are public; residues, rows, random words and keys are secret. Uniform polynomials are made of public seeds by
// rejection: that case must be caught.
#include <memory>

#include "cpu/cpu.h"
#include "ctime.h"
#include "lattice/lattice.h"

namespace {

using namespace mipp;

constexpr std::size_t degree = 128;
// primes of 46 bits that are 1 modulo 2^14
const std::vector<std::uint64_t> primes = {70368743669761, 70368743587841, 70368743489537};

bool forced(const std::string& tier) {
    Level level;
    return level_from_name(tier.c_str(), &level) && cpu_set_level(level) == Status::ok;
}

// Secret residues of `count` polynomials, of any bits but below the primes.
std::uint64_t* residues(Case& c, std::size_t count, std::size_t limbs) {
    const std::size_t words = count * limbs * degree;
    auto* a = c.changed<std::uint64_t>(words);
    const auto before = c.refill;
    c.refill = [=](std::uint64_t seed) {
        if (before) before(seed);
        // 45 bits are below every prime, and differ in each between the two seeds
        for (std::size_t i = 0; i < words; ++i) a[i] &= (std::uint64_t{1} << 45) - 1;
    };
    return a;
}

void add_cases(Cases& all, const std::string& tier) {
    static const LatticeRing ring(degree, {primes[0], primes[1]}), key_ring(degree, primes);
    constexpr std::size_t limbs = 2, size = limbs * degree;
    const auto add = [&](Case& c, std::function<Status()> run) {
        c.run = [=] { return forced(tier) && run() == Status::ok; };
        all.push_back(c);
    };
    {
        Case c("lattice_forward and inverse");
        auto* a = residues(c, 1, limbs);
        add(c, [=] {
            const Status status = lattice_forward(ring, a, 1, 1);
            return status == Status::ok ? lattice_inverse(ring, a, 1, 1) : status;
        });
    }
    {
        Case c("lattice_multiply, add, negate");
        auto *a = residues(c, 1, limbs), *b = residues(c, 1, limbs), *out = residues(c, 1, limbs);
        add(c, [=] {
            lattice_multiply(ring, a, b, 1, false, out, false, 1);
            lattice_multiply(ring, a, b, 1, false, out, true, 1);
            lattice_add(ring, out, b, 1, false, 1);
            return lattice_negate(ring, out, 1, 1);
        });
    }
    {
        Case c("lattice_residues");
        auto* numbers = c.secret<std::int64_t>(degree);
        auto* out = c.output<std::uint64_t>(size);
        c.refill = [=](std::uint64_t) {
            for (std::size_t i = 0; i < degree; ++i) numbers[i] >>= 2;
        };
        add(c, [=] { return lattice_residues(ring, numbers, 1, out, 1); });
    }
    const std::pair<LatticeKind, const char*> kinds[] = {{LatticeKind::ternary, "lattice_ternary"},
                                                         {LatticeKind::gaussian, "lattice_gaussian"},
                                                         {LatticeKind::flood, "lattice_flood"},
                                                         {LatticeKind::uniform_var, "lattice_uniform_var"}};
    for (const auto& kind : kinds) {
        Case c(kind.second);
        auto* key = c.secret<std::uint8_t>(32);
        auto* out = c.output<std::uint64_t>(size);
        c.leaks = kind.first == LatticeKind::uniform_var;
        // of small primes, so that words are left out
        static const LatticeRing small(degree, {769, 3329});
        const LatticeRing& of = c.leaks ? small : ring;
        add(c, [=, &of] {
            const std::uint8_t info[4] = {};
            KeySchedules schedules;
            const Status status = schedules.derive(key, info, sizeof info, 1, 1);
            return status == Status::ok ? lattice_sample(of, kind.first, 74, schedules, 0, 1, out, 1) : status;
        });
    }
    {
        constexpr std::size_t rows = 133, dim = 21;
        Case c("lattice_matvec");
        auto* words = c.secret<std::uint32_t>(rows * dim);
        auto* query = residues(c, 2 * dim, limbs);
        auto* out = c.output<std::uint64_t>(2 * 2 * size);
        add(c, [=] { return lattice_matvec(ring, words, 32, rows, dim, 20, query, out, 1); });
    }
    {
        Case c("lattice_switch");
        auto* a = residues(c, 1, limbs);
        auto* out = c.output<std::uint64_t>(degree);
        add(c, [=] { return lattice_switch(ring, a, 1, 31, out, 1); });
    }
    {
        Case c("lattice_encode");
        auto* numbers = c.secret<std::int64_t>(5);
        auto* out = c.output<std::uint64_t>(5 * limbs);
        add(c, [=] { return lattice_encode(ring, numbers, 5, 20, out); });
    }
    {
        Case c("lattice_phase");
        auto *c0 = c.secret<std::uint64_t>(degree), *c1 = c.secret<std::uint64_t>(degree);
        auto* secret = residues(c, 1, limbs);
        auto* out = c.output<std::uint64_t>(degree);
        add(c, [=] { return lattice_phase(ring, c0, c1, 1, secret, 31, out, 1); });
    }
    {
        constexpr std::size_t count = 3;
        Case c("lattice_expand");
        auto* ciphertext = residues(c, 2, limbs);
        auto* keys = residues(c, 2 * limbs * 2, limbs + 1);
        auto* out = c.output<std::uint64_t>(count * 2 * size);
        add(c, [=] { return lattice_expand(ring, key_ring, ciphertext, keys, 2, count, out, 1); });
    }
}

}  // namespace

Cases lattice_cases(const std::string& tier) {
    Cases all;
    if (tier == "portable" || tier == "avx2" || tier == "avx512") add_cases(all, tier);
    return all;
}
