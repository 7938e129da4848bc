#include "hkdf.h"

#include <cstring>

#include "sha256_constants.h"

namespace mipp {
namespace {

// FIPS 180-4, 5.3.3.
const std::uint32_t sha256_initial_state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

std::uint32_t rotate(std::uint32_t x, int n) { return x >> n | x << (32 - n); }

// One block of 16 words.
void compress(std::uint32_t* state, const std::uint32_t* block) {
    std::uint32_t w[64], s[8];
    std::memcpy(w, block, 64);
    for (int i = 16; i < 64; ++i) {
        const std::uint32_t x = w[i - 15], y = w[i - 2];
        w[i] =
            w[i - 16] + w[i - 7] + (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) + (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
    }
    std::memcpy(s, state, 32);
    for (int i = 0; i < 64; ++i) {
        const std::uint32_t a = s[0], e = s[4];
        const std::uint32_t t = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (s[6] ^ (e & (s[5] ^ s[6]))) +
                                sha256_round_constants[i] + w[i];
        const std::uint32_t u = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) | (s[2] & (a | s[1])));
        std::memmove(s + 1, s, 28);
        s[4] += t;
        s[0] = t + u;
    }
    for (int i = 0; i < 8; ++i) state[i] += s[i];
    wipe(w, sizeof w);
    wipe(s, sizeof s);
}

// The states behind the two padded keys of HMAC, for a key of 8 words.
void hmac_states(std::uint32_t* states, const std::uint32_t* key) {
    for (int outer = 0; outer < 2; ++outer) {
        std::uint32_t block[16];
        for (int i = 0; i < 16; ++i) block[i] = (i < 8 ? key[i] : 0) ^ (outer ? 0x5c5c5c5cu : 0x36363636u);
        std::memcpy(states + 8 * outer, sha256_initial_state, 32);
        compress(states + 8 * outer, block);
        wipe(block, sizeof block);
    }
}

}  // namespace

HkdfKey::HkdfKey(const std::uint8_t* key) {
    const std::uint32_t salt[8] = {};
    std::uint32_t block[16] = {}, prk[8];
    for (int i = 0; i < 32; ++i) block[i / 4] |= static_cast<std::uint32_t>(key[i]) << (24 - 8 * (i % 4));
    block[8] = 0x80000000u;  // end of the message, and its length in bits: padded key and 32 bytes
    block[15] = 8 * (64 + 32);
    hmac_states(states, salt);
    compress(states, block);
    std::memcpy(block, states, 32);
    std::memcpy(prk, states + 8, 32);
    compress(prk, block);
    hmac_states(states, prk);
    wipe(block, sizeof block);
    wipe(prk, sizeof prk);
}

}  // namespace mipp
