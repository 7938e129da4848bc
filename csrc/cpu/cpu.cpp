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

const char* const level_names[level_count] = {"portable", "avx2", "avx512", "amx"};

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
    return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
#else
    return false;
#endif
}

#endif

enum Feature {
    f_ssse3,
    f_sse41,
    f_avx2,
    f_bmi2,
    f_aes,
    f_pclmul,
    f_avx512f,
    f_avx512bw,
    f_avx512dq,
    f_avx512vl,
    f_avx512vnni,
    f_avx512ifma,
    f_avx512vbmi,
    f_vaes,
    f_vpclmulqdq,
    f_amx_tile,
    f_amx_int8,
    feature_count
};

struct Machine {
    CpuFeature features[feature_count] = {
        {"ssse3", false},      {"sse4.1", false},     {"avx2", false},       {"bmi2", false},     {"aes", false},
        {"pclmul", false},     {"avx512f", false},    {"avx512bw", false},   {"avx512dq", false}, {"avx512vl", false},
        {"avx512vnni", false}, {"avx512ifma", false}, {"avx512vbmi", false}, {"vaes", false},     {"vpclmulqdq", false},
        {"amx_tile", false},   {"amx_int8", false},
    };
    Level best = Level::portable;

    bool all(int first, int last) const {
        for (int i = first; i <= last; ++i) {
            if (!features[i].present) return false;
        }
        return true;
    }

    Machine() {
#ifdef MIPP_X86
        const Leaf l1 = cpuid(1, 0), l7 = cpuid(7, 0);
        const std::uint64_t saved = saved_state(l1);
        const bool ymm = (saved & 0x06) == 0x06, zmm = (saved & 0xe6) == 0xe6, tile = (saved & 0x60000) == 0x60000;
        const auto set = [this](int f, bool present) { features[f].present = present; };
        set(f_ssse3, l1.c >> 9 & 1);
        set(f_sse41, l1.c >> 19 & 1);
        set(f_pclmul, l1.c >> 1 & 1);
        set(f_aes, l1.c >> 25 & 1);
        set(f_bmi2, l7.b >> 8 & 1);
        set(f_avx2, ymm && (l7.b >> 5 & 1));
        set(f_vaes, ymm && (l7.c >> 9 & 1));
        set(f_vpclmulqdq, ymm && (l7.c >> 10 & 1));
        set(f_avx512f, zmm && (l7.b >> 16 & 1));
        set(f_avx512dq, zmm && (l7.b >> 17 & 1));
        set(f_avx512ifma, zmm && (l7.b >> 21 & 1));
        set(f_avx512bw, zmm && (l7.b >> 30 & 1));
        set(f_avx512vl, zmm && (l7.b >> 31 & 1));
        set(f_avx512vbmi, zmm && (l7.c >> 1 & 1));
        set(f_avx512vnni, zmm && (l7.c >> 11 & 1));
        const bool emulated = mipp_amx_emulator != nullptr;
        const bool tiles = tile && (l7.d >> 24 & 1) && (l7.d >> 25 & 1) && request_amx();
        set(f_amx_tile, tiles || emulated);
        set(f_amx_int8, tiles || emulated);
        if (all(f_avx2, f_pclmul)) best = Level::avx2;
        if (best == Level::avx2 && all(f_avx512f, f_vpclmulqdq)) best = Level::avx512;
        if (best == Level::avx512 && all(f_amx_tile, f_amx_int8)) best = Level::amx;
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
    *count = feature_count;
    return machine().features;
}

Level family_tier(unsigned available) {
    int i = static_cast<int>(cpu_level());
    while (i > 0 && !(available >> i & 1)) --i;
    return static_cast<Level>(i);
}

}  // namespace mipp
