#include "cpu.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifdef MIPP_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

// Defined by an emulator of AMX that tests load first on machines without it (tests/boundary/amx_emulator.cpp).
extern "C" __attribute__((weak, visibility("default"))) void mipp_amx_emulator();

namespace mipp {
namespace {

#define MIPP_LEVEL(name) #name,
const char* const level_names[level_count] = {MIPP_LEVELS(MIPP_LEVEL)};
#undef MIPP_LEVEL

#ifdef MIPP_X86

struct Leaf {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Leaf cpuid(unsigned leaf, unsigned subleaf) {
    Leaf r;
    __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
    return r;
}

// State components that the operating system saves; 0 without OSXSAVE.
std::uint64_t saved_state(const Leaf& leaf1) {
    if (!(leaf1.c >> 27 & 1)) return 0;
    std::uint32_t low, high;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<std::uint64_t>(high) << 32 | low;
}

// Linux gives tile registers only to processes that ask once.
bool request_amx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    constexpr long arch_req_xcomp_perm = 0x1023, xfeature_xtiledata = 18;
    static const bool granted = syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
    return granted;
#else
    return false;
#endif
}

// Registers whose content the operating system must save (xgetbv), as bits.
constexpr std::uint64_t none = 0, ymm = 0x06, zmm = 0xe6, tiles = 0x60000;

// A feature: the level that needs it, and where cpuid tells of it: leaf 1 or 7, register, bit.
struct Need {
    const char* name;
    Level level;
    unsigned leaf;
    unsigned Leaf::* where;
    int bit;
    std::uint64_t saved;
};

// Those of the portable level are told, not tested: the build needs them already.
const Need needs[] = {
    {"ssse3", Level::portable, 1, &Leaf::c, 9, none},    {"sse4.1", Level::portable, 1, &Leaf::c, 19, none},
    {"avx2", Level::avx2, 7, &Leaf::b, 5, ymm},          {"bmi2", Level::avx2, 7, &Leaf::b, 8, none},
    {"aes", Level::avx2, 1, &Leaf::c, 25, none},         {"pclmul", Level::avx2, 1, &Leaf::c, 1, none},
    {"fma", Level::avx2, 1, &Leaf::c, 12, ymm},          {"avx512f", Level::avx512, 7, &Leaf::b, 16, zmm},
    {"avx512bw", Level::avx512, 7, &Leaf::b, 30, zmm},   {"avx512dq", Level::avx512, 7, &Leaf::b, 17, zmm},
    {"avx512vl", Level::avx512, 7, &Leaf::b, 31, zmm},   {"avx512vnni", Level::avx512, 7, &Leaf::c, 11, zmm},
    {"avx512ifma", Level::avx512, 7, &Leaf::b, 21, zmm}, {"avx512vbmi", Level::avx512, 7, &Leaf::c, 1, zmm},
    {"vaes", Level::avx512, 7, &Leaf::c, 9, ymm},        {"vpclmulqdq", Level::avx512, 7, &Leaf::c, 10, ymm},
    {"amx_tile", Level::amx, 7, &Leaf::d, 24, tiles},    {"amx_int8", Level::amx, 7, &Leaf::d, 25, tiles},
};
constexpr int feature_count = sizeof needs / sizeof *needs;

#endif

struct Machine {
#ifdef MIPP_X86
    CpuFeature features[feature_count];
#endif
    Level best = Level::portable;

    Machine() {
#ifdef MIPP_X86
        const Leaf leaves[2] = {cpuid(1, 0), cpuid(7, 0)};
        const std::uint64_t saved = saved_state(leaves[0]);
        const bool emulated = mipp_amx_emulator != nullptr;
        bool complete[level_count];
        for (bool& c : complete) c = true;
        for (int i = 0; i < feature_count; ++i) {
            const Need& need = needs[i];
            bool present = (leaves[need.leaf == 7].*need.where >> need.bit & 1) && (saved & need.saved) == need.saved;
            if (need.saved == tiles) present = (present && request_amx()) || emulated;
            features[i] = {need.name, present};
            if (need.level != Level::portable) complete[static_cast<int>(need.level)] &= present;
        }
        for (int i = 1; i < level_count && complete[i]; ++i) best = static_cast<Level>(i);
#endif
    }
};

const Machine& machine() {
    static const Machine m;
    return m;
}

struct State {
    Environment environment = Environment::good;
    std::atomic<int> level;

    State() : level(static_cast<int>(machine().best)) {
        const char* name = std::getenv("MIPP_CPU");
        if (name == nullptr || *name == '\0') return;
        Level wanted;
        if (!level_from_name(name, &wanted)) {
            environment = Environment::unknown_level;
        } else if (wanted > machine().best) {
            environment = Environment::unavailable_level;
        } else {
            level = static_cast<int>(wanted);
        }
    }
};

State& state() {
    static State s;
    return s;
}

}  // namespace

const char* level_name(Level level) { return level_names[static_cast<int>(level)]; }

bool level_from_name(const char* name, Level* level) {
    for (int i = 0; i < level_count; ++i) {
        if (std::strcmp(name, level_names[i]) == 0) {
            *level = static_cast<Level>(i);
            return true;
        }
    }
    return false;
}

Level cpu_best_level() { return machine().best; }

Level cpu_level() { return static_cast<Level>(state().level.load(std::memory_order_relaxed)); }

Status cpu_set_level(Level level) {
    if (level > machine().best) return Status::unsupported;
    state().level.store(static_cast<int>(level), std::memory_order_relaxed);
    return Status::ok;
}

Environment cpu_environment() { return state().environment; }

const CpuFeature* cpu_features(int* count) {
#ifdef MIPP_X86
    *count = feature_count;
    return machine().features;
#else
    *count = 0;
    return nullptr;
#endif
}

}  // namespace mipp
