// The kernels of the tier in force, by word type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "galois.h"
#include "galois_kernels.h"

namespace mipp {

template <class Word>
struct GaloisKernels {
    void (*combine)(const Word* const*, std::size_t, Word* const*, std::size_t, std::size_t, const Word*, int, int);
    void (*add)(const Word* const*, std::size_t, int, std::size_t, std::int64_t*);
    std::size_t (*filter_var)(const Word* const*, std::size_t, int, std::size_t, std::size_t, std::int64_t,
                              std::int64_t, std::int64_t, int, MippHit*, std::size_t*, std::size_t);
    void (*pack)(const Word*, std::size_t, int, Word*);
    int (*fold)(const Word* const*, std::size_t, int, std::size_t, const Word* const*, std::size_t, std::int64_t,
                std::int64_t, Word*);
};

// Defined in galois.cpp for the three word types.
template <class Word>
const GaloisKernels<Word>& galois_kernels();

}  // namespace mipp
