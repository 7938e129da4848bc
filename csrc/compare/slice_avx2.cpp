#define MIPP_VECTOR_BYTES 32
#include "slice.h"

void bits_slice_u16_avx2(const uint16_t* words, size_t count, int first_bit, int width, uint64_t* planes, size_t stride,
                         size_t lines) {
    bits_slice<uint32_t>(words, count, first_bit, width, planes, stride, lines);
}

void bits_slice_u32_avx2(const uint32_t* words, size_t count, int first_bit, int width, uint64_t* planes, size_t stride,
                         size_t lines) {
    bits_slice<uint32_t>(words, count, first_bit, width, planes, stride, lines);
}

void bits_slice_u64_avx2(const uint64_t* words, size_t count, int first_bit, int width, uint64_t* planes, size_t stride,
                         size_t lines) {
    bits_slice<uint64_t>(words, count, first_bit, width, planes, stride, lines);
}

void bits_unslice_u64_avx2(const uint64_t* planes, size_t stride, int width, uint64_t* words, size_t count) {
    bits_unslice(planes, stride, width, words, count);
}
