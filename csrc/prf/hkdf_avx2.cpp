#include <stdint.h>

#define MIPP_LANES 8

namespace {

typedef uint32_t Lanes __attribute__((vector_size(4 * MIPP_LANES)));

template <int n>
inline Lanes rotate(Lanes x) {
    return x >> n | x << (32 - n);
}
inline Lanes xor3(Lanes x, Lanes y, Lanes z) { return x ^ y ^ z; }
inline Lanes choose(Lanes x, Lanes y, Lanes z) { return z ^ (x & (y ^ z)); }
inline Lanes majority(Lanes x, Lanes y, Lanes z) { return (x & y) | (z & (x | y)); }

}  // namespace

#include "sha256_lanes.h"

void hkdf_expand_u8_avx2(const uint32_t* states, const uint8_t* infos, size_t length, size_t count, uint8_t* keys) {
    hkdf_expand(states, infos, length, count, keys);
}
