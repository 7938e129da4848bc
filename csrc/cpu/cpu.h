// Levels of the processor, and the level in force. Each kernel family takes its highest tier at or below it.
#pragma once

#include "../common/status.h"

namespace mipp {

enum class Level : int {
    portable = 0,  // C++17, any processor (x86: SSE4.2)
    avx2 = 1,      // AVX2, BMI2, AES-NI, PCLMUL
    avx512 = 2,    // AVX-512 F, BW, DQ, VL, VNNI, IFMA, VBMI, and VAES, VPCLMULQDQ
    amx = 3,       // AMX-INT8, AMX-TILE with the kernel's permission
};

constexpr int level_count = 4;

const char* level_name(Level level);
bool level_from_name(const char* name, Level* level);  // false: no such level
Level cpu_best_level();                                // what this machine and this build offer
Level cpu_level();                                     // in force: MIPP_CPU or the best; read on first use
Status cpu_set_level(Level level);                     // unsupported if above the best

// What is wrong with MIPP_CPU: bindings refuse to load the module unless it is `good`.
enum class Environment { good, unknown_level, unavailable_level };
Environment cpu_environment();

// Processor features that levels are made of, by their usual names.
struct CpuFeature {
    const char* name;
    bool present;
};
const CpuFeature* cpu_features(int* count);

// A family has a dispatch file with `Level <family>_tier()`: the highest tier that it was built with at or below the
// level in force. `available` has one bit, tier_bit(level), per tier of the family; portable is always there.
constexpr unsigned tier_bit(Level level) { return 1u << static_cast<int>(level); }
#ifdef MIPP_X86
constexpr unsigned x86_tiers = tier_bit(Level::portable) | tier_bit(Level::avx2) | tier_bit(Level::avx512);
constexpr unsigned amx_tiers = x86_tiers | tier_bit(Level::amx);
#else
constexpr unsigned x86_tiers = tier_bit(Level::portable), amx_tiers = x86_tiers;
#endif
Level family_tier(unsigned available);

}  // namespace mipp
