// Transposition of 32-bit numbers by AVX2, for the tiers above it.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "lattice_kernels.h"

namespace {

// 8 x 8 numbers.
inline void transpose_eight(const int32_t* from, size_t from_stride, int32_t* to, size_t to_stride) {
    __m256i x[8], y[8];
    for (int i = 0; i < 8; ++i) {
        x[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + static_cast<size_t>(i) * from_stride));
    }
    for (int i = 0; i < 8; i += 2) {
        y[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        x[i] = _mm256_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm256_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm256_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm256_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        const __m256i low = _mm256_permute2x128_si256(x[i], x[i + 4], 0x20);
        const __m256i high = _mm256_permute2x128_si256(x[i], x[i + 4], 0x31);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + static_cast<size_t>(i) * to_stride), low);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + static_cast<size_t>(i + 4) * to_stride), high);
    }
}

inline void transpose_tile(const int32_t* rows, int32_t* out, size_t stride) {
    for (size_t r = 0; r < MIPP_LATTICE_RUN; r += 8) {
        for (size_t c = 0; c < MIPP_LATTICE_RUN; c += 8) {
            transpose_eight(rows + r * MIPP_LATTICE_RUN + c, MIPP_LATTICE_RUN, out + c * stride + r, stride);
        }
    }
}

}  // namespace
