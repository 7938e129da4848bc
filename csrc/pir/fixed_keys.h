// The round keys of the three fixed public keys of AES-128, made when this is compiled. A key is the first 16 bytes of
// SHA-256 of "mipp.pir 1 left", "mipp.pir 1 right" and "mipp.pir 1 leaf", so that nobody has chosen it;
// tests/kernels/test_pir.py proves that.
#pragma once

#include <stdint.h>

namespace {

constexpr int fixed_rounds = 10;

struct FixedKey {
    alignas(16) uint8_t round[fixed_rounds + 1][16];
};

// FIPS 197, 4.2: a product in GF(2^8).
constexpr uint8_t field_product(uint8_t a, uint8_t b) {
    unsigned x = a, product = 0;
    for (int i = 0; i < 8; ++i) {
        if (b >> i & 1) product ^= x;
        x = x << 1 ^ (x >> 7) * 0x11b;
    }
    return static_cast<uint8_t>(product);
}

// FIPS 197, 5.1.1: the inverse, x^254, and an affine map.
constexpr uint8_t substituted(uint8_t x) {
    uint8_t inverse = 1;
    for (int i = 0; i < 254; ++i) inverse = field_product(inverse, x);
    unsigned y = 0x63;
    for (int i = 0; i < 5; ++i) y ^= inverse << i | inverse >> (8 - i);
    return static_cast<uint8_t>(y);
}

// FIPS 197, 5.2.
constexpr FixedKey fixed_key(const uint8_t (&key)[16]) {
    FixedKey made{};
    for (int i = 0; i < 16; ++i) made.round[0][i] = key[i];
    uint8_t rcon = 1;
    for (int r = 1; r <= fixed_rounds; ++r) {
        const uint8_t* before = made.round[r - 1];
        uint8_t* now = made.round[r];
        for (int i = 0; i < 4; ++i) now[i] = static_cast<uint8_t>(before[i] ^ substituted(before[12 + (i + 1) % 4]));
        now[0] = static_cast<uint8_t>(now[0] ^ rcon);
        for (int i = 4; i < 16; ++i) now[i] = static_cast<uint8_t>(before[i] ^ now[i - 4]);
        rcon = field_product(rcon, 2);
    }
    return made;
}

constexpr FixedKey left_key =
    fixed_key({0x00, 0x41, 0x09, 0x77, 0x4f, 0xfe, 0x9d, 0xea, 0xf6, 0x90, 0x1e, 0x1b, 0xd4, 0x19, 0xd2, 0xe2});
constexpr FixedKey right_key =
    fixed_key({0xb7, 0xd2, 0x54, 0x1a, 0x1f, 0xaf, 0x6f, 0x7a, 0xcc, 0xe0, 0xb7, 0x7d, 0x93, 0x71, 0x19, 0x97});
constexpr FixedKey leaf_key =
    fixed_key({0xf5, 0xcd, 0x36, 0xec, 0x8f, 0x59, 0x18, 0x51, 0xfd, 0xa3, 0x53, 0x1f, 0x11, 0x6a, 0x72, 0x52});

}  // namespace
