// HKDF-Expand by SHA-256 on many lanes at once: one lane a derived key. Included by each tier's file with MIPP_LANES,
// the 32-bit lanes of its vectors.
//
// SHA-256: FIPS 180-4; HMAC: RFC 2104; HKDF: RFC 5869. No branch and no address depends on a key.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "../common/wipe.h"
#include "prf_kernels.h"
#include "sha256_constants.h"

namespace {

typedef uint32_t Lanes __attribute__((vector_size(4 * MIPP_LANES)));

#ifdef __AVX512F__
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
#else
template <int n>
inline Lanes rotate(Lanes x) {
    return x >> n | x << (32 - n);
}
inline Lanes xor3(Lanes x, Lanes y, Lanes z) { return x ^ y ^ z; }
inline Lanes choose(Lanes x, Lanes y, Lanes z) { return z ^ (x & (y ^ z)); }
inline Lanes majority(Lanes x, Lanes y, Lanes z) { return (x & y) | (z & (x | y)); }
#endif

typedef uint32_t Quad __attribute__((vector_size(16)));
typedef uint8_t QuadBytes __attribute__((vector_size(16)));

#define MIPP_SHA_ROUND(a, b, c, d, e, f, g, h, j)                                                                \
    {                                                                                                            \
        const Lanes t1 = h + xor3(rotate<6>(e), rotate<11>(e), rotate<25>(e)) + choose(e, f, g) + (w[j] + k[j]); \
        d += t1;                                                                                                 \
        h = t1 + xor3(rotate<2>(a), rotate<13>(a), rotate<22>(a)) + majority(a, b, c);                           \
    }
#define MIPP_SHA_EIGHT(j)                           \
    MIPP_SHA_ROUND(a, b, c, d, e, f, g, h, (j) + 0) \
    MIPP_SHA_ROUND(h, a, b, c, d, e, f, g, (j) + 1) \
    MIPP_SHA_ROUND(g, h, a, b, c, d, e, f, (j) + 2) \
    MIPP_SHA_ROUND(f, g, h, a, b, c, d, e, (j) + 3) \
    MIPP_SHA_ROUND(e, f, g, h, a, b, c, d, (j) + 4) \
    MIPP_SHA_ROUND(d, e, f, g, h, a, b, c, (j) + 5) \
    MIPP_SHA_ROUND(c, d, e, f, g, h, a, b, (j) + 6) \
    MIPP_SHA_ROUND(b, c, d, e, f, g, h, a, (j) + 7)
#define MIPP_SHA_WORD(j)                                                                                \
    w[j] += w[((j) + 9) & 15] +                                                                         \
            xor3(rotate<7>(w[((j) + 1) & 15]), rotate<18>(w[((j) + 1) & 15]), w[((j) + 1) & 15] >> 3) + \
            xor3(rotate<17>(w[((j) + 14) & 15]), rotate<19>(w[((j) + 14) & 15]), w[((j) + 14) & 15] >> 10);

inline void compress(Lanes* state, const Lanes* block) {
    Lanes w[16];
    for (int i = 0; i < 16; ++i) w[i] = block[i];
    Lanes a = state[0], b = state[1], c = state[2], d = state[3];
    Lanes e = state[4], f = state[5], g = state[6], h = state[7];
    for (const uint32_t* k = sha256_round_constants;;) {
        MIPP_SHA_EIGHT(0)
        MIPP_SHA_EIGHT(8)
        k += 16;
        if (k == sha256_round_constants + 64) break;
        MIPP_SHA_WORD(0)
        MIPP_SHA_WORD(1)
        MIPP_SHA_WORD(2)
        MIPP_SHA_WORD(3)
        MIPP_SHA_WORD(4)
        MIPP_SHA_WORD(5)
        MIPP_SHA_WORD(6)
        MIPP_SHA_WORD(7)
        MIPP_SHA_WORD(8)
        MIPP_SHA_WORD(9)
        MIPP_SHA_WORD(10)
        MIPP_SHA_WORD(11)
        MIPP_SHA_WORD(12)
        MIPP_SHA_WORD(13)
        MIPP_SHA_WORD(14)
        MIPP_SHA_WORD(15)
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

inline Quad swap_bytes(Quad v) {
    const QuadBytes order = {3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12};
    return reinterpret_cast<Quad>(__builtin_shuffle(reinterpret_cast<QuadBytes>(v), order));
}

inline void transpose(Quad* r) {
    const Quad low = {0, 4, 1, 5}, high = {2, 6, 3, 7};
    const Quad a = __builtin_shuffle(r[0], r[2], low), b = __builtin_shuffle(r[0], r[2], high);
    const Quad c = __builtin_shuffle(r[1], r[3], low), d = __builtin_shuffle(r[1], r[3], high);
    r[0] = __builtin_shuffle(a, c, low), r[1] = __builtin_shuffle(a, c, high);
    r[2] = __builtin_shuffle(b, d, low), r[3] = __builtin_shuffle(b, d, high);
}

struct HkdfScratch {
    Lanes block[16], state[8];
    uint8_t messages[MIPP_LANES][MIPP_MAX_INFO + 64];
};

// Block `index` of every lane's message, as words: lane by lane in memory to word by word in vectors.
inline void load_block(HkdfScratch& s, size_t index) {
    uint32_t* words = reinterpret_cast<uint32_t*>(s.block);
    for (int lane = 0; lane < MIPP_LANES; lane += 4) {
        for (int word = 0; word < 16; word += 4) {
            Quad r[4];
            for (int i = 0; i < 4; ++i) memcpy(&r[i], s.messages[lane + i] + 64 * index + 4 * word, 16);
            transpose(r);
            for (int i = 0; i < 4; ++i) {
                const Quad v = swap_bytes(r[i]);
                memcpy(words + (word + i) * MIPP_LANES + lane, &v, 16);
            }
        }
    }
}

inline void store_digests(const HkdfScratch& s, size_t count, uint8_t* keys) {
    const uint32_t* words = reinterpret_cast<const uint32_t*>(s.state);
    for (size_t lane = 0; lane < count; lane += 4) {
        for (size_t word = 0; word < 8; word += 4) {
            Quad r[4];
            for (size_t i = 0; i < 4; ++i) memcpy(&r[i], words + (word + i) * MIPP_LANES + lane, 16);
            transpose(r);
            for (size_t i = 0; i < 4 && lane + i < count; ++i) {
                const Quad v = swap_bytes(r[i]);
                memcpy(keys + 32 * (lane + i) + 4 * word, &v, 16);
            }
        }
    }
}

inline void hkdf_expand(const uint32_t* states, const uint8_t* infos, size_t length, size_t count, uint8_t* keys) {
    const size_t message = length + 1, blocks = (message + 9 + 63) / 64;
    HkdfScratch s;
    memset(s.messages, 0, sizeof s.messages);
    for (auto& m : s.messages) {
        const uint32_t bits = static_cast<uint32_t>(8 * (64 + message));  // the padded key is hashed already
        m[length] = 1;
        m[length + 1] = 0x80;
        m[64 * blocks - 2] = static_cast<uint8_t>(bits >> 8);
        m[64 * blocks - 1] = static_cast<uint8_t>(bits);
    }
    for (size_t done = 0; done < count; done += MIPP_LANES) {
        const size_t lanes = count - done < MIPP_LANES ? count - done : MIPP_LANES;
        for (size_t i = 0; i < lanes; ++i) memcpy(s.messages[i], infos + (done + i) * length, length);
        for (int i = 0; i < 8; ++i) s.state[i] = Lanes{} + states[i];
        for (size_t b = 0; b < blocks; ++b) {
            load_block(s, b);
            compress(s.state, s.block);
        }
        for (int i = 0; i < 8; ++i) {
            s.block[i] = s.state[i];
            s.block[8 + i] = Lanes{};
            s.state[i] = Lanes{} + states[8 + i];
        }
        s.block[8] += 0x80000000u;
        s.block[15] += 8 * (64 + 32);
        compress(s.state, s.block);
        store_digests(s, lanes, keys + 32 * done);
    }
    mipp::wipe(&s, sizeof s);
}

}  // namespace

#define MIPP_DEFINE_HKDF_EXPAND(name) \
    MIPP_HKDF_EXPAND(name) { hkdf_expand(states, infos, length, count, keys); }
