// The rounds of AES in plain C++ without tables: eight blocks at once, bit-sliced, so that no address and no branch
// depends on a key or a block. Only for files of the portable tier.
//
// Eight vectors of 16 bytes hold eight blocks: bit j of byte p of plane i is bit i of byte p of block j. SubBytes is
// the circuit of Boyar and Peralta ("A depth-16 circuit for the AES S-box", 2011: 128 gates) on whole planes,
// ShiftRows and MixColumns are shuffles of bytes.
#pragma once

#include <stdint.h>
#include <string.h>

namespace {

typedef uint8_t Plane __attribute__((vector_size(16)));
typedef uint64_t Pair __attribute__((vector_size(16)));

struct Planes {
    Plane p[8];
};

inline void swap_bits(Plane& a, Plane& b, uint64_t mask, int shift) {
    const Pair x = reinterpret_cast<Pair>(a), y = reinterpret_cast<Pair>(b);
    const Pair t = ((x >> shift) ^ y) & (Pair{} + mask);
    b = reinterpret_cast<Plane>(y ^ t);
    a = reinterpret_cast<Plane>(x ^ (t << shift));
}

// Blocks to planes and back.
inline void transpose(Planes& s) {
    Plane* p = s.p;
    for (int i = 0; i < 8; i += 2) swap_bits(p[i], p[i + 1], 0x5555555555555555u, 1);
    for (int i = 0; i < 6; i += i == 1 ? 3 : 1) swap_bits(p[i], p[i + 2], 0x3333333333333333u, 2);
    for (int i = 0; i < 4; ++i) swap_bits(p[i], p[i + 4], 0x0f0f0f0f0f0f0f0fu, 4);
}

inline void substitute(Planes& s) {
    const Plane x0 = s.p[7], x1 = s.p[6], x2 = s.p[5], x3 = s.p[4], x4 = s.p[3], x5 = s.p[2], x6 = s.p[1], x7 = s.p[0];
    // into a tower field
    const Plane y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5, t0 = x1 ^ x2, y1 = t0 ^ x7, y4 = y1 ^ x3;
    const Plane y12 = y13 ^ y14, y2 = y1 ^ x0, y5 = y1 ^ x6, y3 = y5 ^ y8, t1 = x4 ^ y12, y15 = t1 ^ x5, y20 = t1 ^ x1;
    const Plane y6 = y15 ^ x7, y10 = y15 ^ t0, y11 = y20 ^ y9, y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8;
    const Plane y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;
    // inversion
    const Plane t2 = y12 & y15, t3 = y3 & y6, t4 = t3 ^ t2, t5 = y4 & x7, t6 = t5 ^ t2, t7 = y13 & y16, t8 = y5 & y1;
    const Plane t9 = t8 ^ t7, t10 = y2 & y7, t11 = t10 ^ t7, t12 = y9 & y11, t13 = y14 & y17, t14 = t13 ^ t12;
    const Plane t15 = y8 & y10, t16 = t15 ^ t12, t17 = t4 ^ t14, t18 = t6 ^ t16, t19 = t9 ^ t14, t20 = t11 ^ t16;
    const Plane t21 = t17 ^ y20, t22 = t18 ^ y19, t23 = t19 ^ y21, t24 = t20 ^ y18;
    const Plane t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26, t28 = t25 & t27, t29 = t28 ^ t22, t30 = t23 ^ t24;
    const Plane t31 = t22 ^ t26, t32 = t31 & t30, t33 = t32 ^ t24, t34 = t23 ^ t33, t35 = t27 ^ t33, t36 = t24 & t35;
    const Plane t37 = t36 ^ t34, t38 = t27 ^ t36, t39 = t29 & t38, t40 = t25 ^ t39;
    const Plane t41 = t40 ^ t37, t42 = t29 ^ t33, t43 = t29 ^ t40, t44 = t33 ^ t37, t45 = t42 ^ t41;
    const Plane z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1, z5 = t29 & y7;
    const Plane z6 = t42 & y11, z7 = t45 & y17, z8 = t41 & y10, z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4;
    const Plane z12 = t43 & y13, z13 = t40 & y5, z14 = t29 & y2, z15 = t42 & y9, z16 = t45 & y14, z17 = t41 & y8;
    // out of it, and the affine map
    const Plane t46 = z15 ^ z16, t47 = z10 ^ z11, t48 = z5 ^ z13, t49 = z9 ^ z10, t50 = z2 ^ z12, t51 = z2 ^ z5;
    const Plane t52 = z7 ^ z8, t53 = z0 ^ z3, t54 = z6 ^ z7, t55 = z16 ^ z17, t56 = z12 ^ t48, t57 = t50 ^ t53;
    const Plane t58 = z4 ^ t46, t59 = z3 ^ t54, t60 = t46 ^ t57, t61 = z14 ^ t57, t62 = t52 ^ t58, t63 = t49 ^ t58;
    const Plane t64 = z4 ^ t59, t65 = t61 ^ t62, t66 = z1 ^ t63, t67 = t64 ^ t65, s3 = t53 ^ t66;
    s.p[7] = t59 ^ t63;
    s.p[6] = ~(t64 ^ s3);
    s.p[5] = ~(t55 ^ t67);
    s.p[4] = s3;
    s.p[3] = t51 ^ t66;
    s.p[2] = t47 ^ t65;
    s.p[1] = ~(t56 ^ t62);
    s.p[0] = ~(t48 ^ t60);
}

// Byte 4c+r of the state is row r, column c. ShiftRows; ShiftRows then up one row; up two rows.
inline Plane shift_rows(Plane x) {
    return __builtin_shuffle(x, Plane{0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11});
}
inline Plane shift_rows_up(Plane x) {
    return __builtin_shuffle(x, Plane{5, 10, 15, 0, 9, 14, 3, 4, 13, 2, 7, 8, 1, 6, 11, 12});
}
inline Plane up_two(Plane x) {
    return __builtin_shuffle(x, Plane{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
}

inline void add_key(Planes& s, const Planes& key) {
    for (int i = 0; i < 8; ++i) s.p[i] ^= key.p[i];
}

// 2a + 3a' + a'' + a''' is 2(a + a') + a' + (a + a')''.
inline void shift_and_mix(Planes& s) {
    Plane next[8], sum[8];
    for (int i = 0; i < 8; ++i) {
        next[i] = shift_rows_up(s.p[i]);
        sum[i] = shift_rows(s.p[i]) ^ next[i];
    }
    for (int i = 0; i < 8; ++i) s.p[i] = next[i] ^ up_two(sum[i]);
    s.p[0] ^= sum[7];
    for (int i = 1; i < 8; ++i) s.p[i] ^= sum[i - 1];
    s.p[1] ^= sum[7], s.p[3] ^= sum[7], s.p[4] ^= sum[7];
}

// One round key, the same for all eight blocks.
inline void slice_key(Planes& planes, const uint8_t* round_key) {
    Plane key;
    memcpy(&key, round_key, 16);
    for (int i = 0; i < 8; ++i) {
        Plane bit;
        memset(&bit, 1 << i, sizeof bit);
        planes.p[i] = reinterpret_cast<Plane>((key & bit) == bit);
    }
}

// AES with Rounds rounds (10 for keys of 128 bits, 14 for those of 256) of blocks that come and go as blocks.
template <int Rounds>
inline void encrypt_blocks(Planes& s, const Planes (&round_keys)[Rounds + 1]) {
    transpose(s);
    add_key(s, round_keys[0]);
    for (int r = 1; r < Rounds; ++r) {
        substitute(s);
        shift_and_mix(s);
        add_key(s, round_keys[r]);
    }
    substitute(s);
    for (int i = 0; i < 8; ++i) s.p[i] = shift_rows(s.p[i]);
    add_key(s, round_keys[Rounds]);
    transpose(s);
}

}  // namespace
