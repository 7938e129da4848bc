#include <immintrin.h>
#include <stdint.h>

#define MIPP_LANES 16

namespace {

typedef uint32_t Lanes __attribute__((vector_size(4 * MIPP_LANES)));

inline __m512i bits(Lanes x) { return reinterpret_cast<__m512i>(x); }

template <int n>
inline Lanes rotate(Lanes x) {
    return reinterpret_cast<Lanes>(_mm512_ror_epi32(bits(x), n));
}

// A function of three bits in one instruction; `table` is its truth table.
template <int table>
inline Lanes ternary(Lanes x, Lanes y, Lanes z) {
    return reinterpret_cast<Lanes>(_mm512_ternarylogic_epi32(bits(x), bits(y), bits(z), table));
}
inline Lanes xor3(Lanes x, Lanes y, Lanes z) { return ternary<0x96>(x, y, z); }
inline Lanes choose(Lanes x, Lanes y, Lanes z) { return ternary<0xca>(x, y, z); }
inline Lanes majority(Lanes x, Lanes y, Lanes z) { return ternary<0xe8>(x, y, z); }

}  // namespace

#include "sha256_lanes.h"

void hkdf_expand_u8_avx512(const uint32_t* states, const uint8_t* infos, size_t length, size_t count, uint8_t* keys) {
    hkdf_expand(states, infos, length, count, keys);
}
