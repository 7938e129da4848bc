// Overwrites memory that held secrets; the compiler may not remove it.
#pragma once

#include <cstddef>
#include <cstring>

namespace mipp {

static inline void wipe(void* p, std::size_t n) {
    std::memset(p, 0, n);
    __asm__ __volatile__("" : : "r"(p) : "memory");
}

}  // namespace mipp
