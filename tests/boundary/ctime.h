// A case of the constant-time checks: one kernel of one tier, its memory, and which of that memory is secret.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

struct Random {
    std::uint64_t state;
    std::uint64_t next() {  // splitmix64
        std::uint64_t z = state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
};

struct Region {
    void* data;
    std::size_t bytes;
};

struct Case {
    std::string name;
    std::function<bool()> run;                  // false: it failed
    std::function<void(std::uint64_t)> refill;  // secrets that are not any bytes, from a seed
    std::vector<Region> secrets, outputs;
    bool leaks = false;  // a control: must be caught

    explicit Case(std::string n) : name(std::move(n)) {}

    // Memory of a case, aligned for vectors, with the same random content in every run. It is never freed.
    template <class T>
    T* open(std::size_t count) {
        const std::size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
        auto* words = static_cast<std::uint64_t*>(std::aligned_alloc(64, bytes));
        Random random{count};
        for (std::size_t i = 0; i < bytes / 8; ++i) words[i] = random.next();
        return reinterpret_cast<T*>(words);
    }
    template <class T>
    T* secret(std::size_t count) {
        T* p = open<T>(count);
        secrets.push_back({p, count * sizeof(T)});
        return p;
    }
    template <class T>
    T* output(std::size_t count) {
        T* p = open<T>(count);
        outputs.push_back({p, count * sizeof(T)});
        return p;
    }
    // A buffer that a kernel changes in place.
    template <class T>
    T* changed(std::size_t count) {
        T* p = secret<T>(count);
        outputs.push_back({p, count * sizeof(T)});
        return p;
    }

    // Secrets from seed 1 or 2. The two differ in every bit, so that a branch on one bit is seen.
    void fill(std::uint64_t seed) {
        Random random{1};
        const std::uint64_t flipped = seed == 2 ? 0xff : 0;
        for (const Region& r : secrets) {
            for (std::size_t i = 0; i < r.bytes; ++i) {
                static_cast<std::uint8_t*>(r.data)[i] = static_cast<std::uint8_t>(random.next() ^ flipped);
            }
        }
        if (refill) refill(seed);
    }
};

using Cases = std::vector<Case>;

// The cases of a tier, by family; none for a tier that the family or the build lacks.
Cases bigint_cases(const std::string& tier);
Cases ring_cases(const std::string& tier);
Cases prf_cases(const std::string& tier);
Cases galois_cases(const std::string& tier);
Cases compare_cases(const std::string& tier);
Cases audit_cases(const std::string& tier);
Cases pir_cases(const std::string& tier);
Cases lattice_cases(const std::string& tier);

// Entries of a family's table of tiers; KERNELS(tier) initialises the kernels of one.
#define CTIME_TIERS(KERNELS)                                                                    \
    {                                                                                           \
        {"portable", KERNELS(portable)}, {"avx2", KERNELS(avx2)}, { "avx512", KERNELS(avx512) } \
    }

template <class Kernels>
struct NamedTier {
    const char* name;
    Kernels kernels;
};

template <class Kernels, std::size_t count>
const Kernels* kernels_of(const NamedTier<Kernels> (&tiers)[count], const std::string& name) {
    for (const auto& tier : tiers) {
        if (tier.name == name) return &tier.kernels;
    }
    return nullptr;
}
