// Levels of the processor, and the level in force. Each kernel family takes its highest tier at or below it.
#pragma once

#include <cstddef>

#include "../common/status.h"

namespace mipp {

// The one list of levels, lowest first. What each needs of a processor is in cpu.cpp, its compiler flags in setup.py.
#define MIPP_LEVELS(LEVEL) LEVEL(portable) LEVEL(avx2) LEVEL(avx512) LEVEL(amx)

#define MIPP_LEVEL(name) name,
enum class Level : int { MIPP_LEVELS(MIPP_LEVEL) };
#undef MIPP_LEVEL

#define MIPP_LEVEL(name) +1
constexpr int level_count = 0 MIPP_LEVELS(MIPP_LEVEL);
#undef MIPP_LEVEL

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

// A family's kernels of one level. Its dispatch file has a table of these, lowest first and portable among them, and
// `Level <family>_tier()`. A level for which the table has no entry takes the kernels of the one below.
template <class Kernels>
struct Tier {
    Level level;
    Kernels kernels;
};

template <class Kernels, std::size_t count>
const Tier<Kernels>& tier_at(Level level, const Tier<Kernels> (&tiers)[count]) {
    std::size_t i = count - 1;
    while (i > 0 && tiers[i].level > level) --i;
    return tiers[i];
}

// Of the level in force.
template <class Kernels, std::size_t count>
const Tier<Kernels>& active_tier(const Tier<Kernels> (&tiers)[count]) {
    return tier_at(cpu_level(), tiers);
}

}  // namespace mipp
