// Two powers at a time, one modulo each of two numbers, with AVX512-IFMA: for single decryptions, where eight numbers a
// register would leave seven lanes idle. Here limbs of one number lie across the lanes, 52 bits each, and the two
// moduli take turns, so that one computes while the other waits ("almost Montgomery multiplication": Gueron, "Efficient
// software implementations of modular exponentiation", 2012).
//
// With R = 2^(52 n) >= 64 m, x < a m and y < b m, a product x y / R comes out below (a b / 64 + 1) m. Numbers come in
// as at most five digits of R, each below R times a power of R below 2 m: 15 m together. So everything stays below 15 m
// and below R. A column gathers at most four halves of products a step: 4 n 2^52 < 2^61.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "engine.h"

namespace {

using mipp::BigintPair;
using Vec = __m512i;

constexpr int pair_digits = 5;
constexpr int most_pair_vectors = 10;  // moduli of 4096 bits
constexpr std::uint64_t pair_mask = (std::uint64_t{1} << 52) - 1;

struct PairContext {
    int n, vectors;
    std::size_t limbs;         // 64-bit limbs of the moduli
    std::uint64_t inverse[2];  // -1/m mod 2^52
    std::size_t words;
    std::uint64_t* memory;
    Vec* m[2];
    Vec* powers[2][pair_digits + 1];  // R, R^2, ..
};

// a, columns of up to 63 bits, to limbs of 52 bits. Carries run as additions of masks, a bit a limb.
template <int V>
inline __attribute__((always_inline)) void pair_carry(Vec* z, Vec (&a)[V]) {
    const Vec mask = _mm512_set1_epi64(static_cast<long long>(pair_mask)), zero = _mm512_setzero_si512();
    Vec over[V + 1];  // of the vector below
    over[0] = zero;
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) over[v + 1] = _mm512_srli_epi64(a[v], 52);
    // limbs that hand on a carry; that do if they get one. Two words of 64 limbs: with one of 128 bits gcc 12 made
    // wrong code
    std::uint64_t made[2] = {0, 0}, full[2] = {0, 0};
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) {
        const Vec below = _mm512_alignr_epi64(over[v + 1], over[v], 7);
        a[v] = _mm512_add_epi64(_mm512_and_si512(a[v], mask), below);
        made[v / 8] |= static_cast<std::uint64_t>(_mm512_cmpgt_epu64_mask(a[v], mask)) << (8 * (v % 8));
        full[v / 8] |= static_cast<std::uint64_t>(_mm512_cmpeq_epu64_mask(a[v], mask)) << (8 * (v % 8));
    }
    const std::uint64_t from = made[0] << 1, sum = from + full[0];
    const std::uint64_t out = ((from & full[0]) | ((from | full[0]) & ~sum)) >> 63;
    const std::uint64_t carries[2] = {sum ^ full[0], ((made[1] << 1 | made[0] >> 63) + full[1] + out) ^ full[1]};
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) {
        const auto in = static_cast<__mmask8>(carries[v / 8] >> (8 * (v % 8)));
        // adding 1 is subtracting -1
        const Vec whole = _mm512_mask_sub_epi64(a[v], in, a[v], _mm512_set1_epi64(-1));
        _mm512_store_si512(z + v, _mm512_and_si512(whole, mask));
    }
}

// One step of x y / R: the limb `digit` of y, and the quotient that clears the lowest column.
template <int V>
inline __attribute__((always_inline)) void pair_step(Vec (&a)[V], const Vec* x, const Vec* m, Vec digit, Vec inverse) {
    const Vec zero = _mm512_setzero_si512();
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) a[v] = _mm512_madd52lo_epu64(a[v], x[v], digit);
    const Vec low = _mm512_madd52lo_epu64(zero, a[0], inverse);
    const Vec q = _mm512_broadcastq_epi64(_mm512_castsi512_si128(low));
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) a[v] = _mm512_madd52lo_epu64(a[v], m[v], q);
    const Vec carry = _mm512_maskz_srli_epi64(1, a[0], 52);
#pragma GCC unroll 10
    for (int v = 0; v + 1 < V; ++v) a[v] = _mm512_alignr_epi64(a[v + 1], a[v], 1);
    a[V - 1] = _mm512_alignr_epi64(zero, a[V - 1], 1);
    a[0] = _mm512_add_epi64(a[0], carry);
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) a[v] = _mm512_madd52hi_epu64(a[v], x[v], digit);
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) a[v] = _mm512_madd52hi_epu64(a[v], m[v], q);
}

// z = x y / R for both numbers: V vectors of the first modulus, then V of the second. z may be x or y.
template <int V>
__attribute__((noinline)) void pair_multiply(const PairContext& c, Vec* z, const Vec* x, const Vec* y) {
    Vec a[V], b[V];
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) a[v] = b[v] = _mm512_setzero_si512();
    const auto* digits = reinterpret_cast<const long long*>(y);
    const Vec *m0 = c.m[0], *m1 = c.m[1];
    const Vec inverse0 = _mm512_set1_epi64(static_cast<long long>(c.inverse[0]));
    const Vec inverse1 = _mm512_set1_epi64(static_cast<long long>(c.inverse[1]));
    for (int i = 0; i < c.n; ++i) {
        pair_step<V>(a, x, m0, _mm512_set1_epi64(digits[i]), inverse0);
        pair_step<V>(b, x + V, m1, _mm512_set1_epi64(digits[8 * V + i]), inverse1);
    }
    pair_carry<V>(z, a);
    pair_carry<V>(z + V, b);
}

// z += x for both numbers
template <int V>
__attribute__((noinline)) void pair_add(Vec* z, const Vec* x) {
    Vec a[V], b[V];
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) {
        a[v] = _mm512_add_epi64(z[v], x[v]);
        b[v] = _mm512_add_epi64(z[V + v], x[V + v]);
    }
    pair_carry<V>(z, a);
    pair_carry<V>(z + V, b);
}

// Limbs of 52 bits from bit `first` on, n of them.
inline void pair_load(Vec* to, int n, int vectors, const std::uint64_t* x, std::size_t limbs, std::size_t first) {
    auto* out = reinterpret_cast<long long*>(to);
    for (int i = 0; i < 8 * vectors; ++i) out[i] = 0;
    for (int i = 0; i < n; ++i) {
        const std::size_t bit = first + 52 * static_cast<std::size_t>(i), word = bit / 64, offset = bit % 64;
        std::uint64_t found = word < limbs ? x[word] >> offset : 0;
        if (offset != 0 && word + 1 < limbs) found |= x[word + 1] << (64 - offset);
        out[i] = static_cast<long long>(found & pair_mask);
    }
}

// out[k] = base^exponent[k] mod m[k]: windows from the top, all entries of the table read for each.
template <int V>
Status pair_power(const PairContext& c, const std::uint64_t* base, std::size_t base_limbs,
                  const std::uint64_t* const* exponents, std::size_t exponent_limbs, std::uint64_t* const* out) {
    constexpr int size = 2 * V;
    const std::size_t bits = 64 * exponent_limbs;
    const int window = bits <= 320 ? 4 : 5, entries = 1 << window;
    Scratch memory(sizeof(Vec) * static_cast<std::size_t>(size * (entries + 3)));
    if (memory.failed()) return Status::no_memory;
    Vec* table = memory.as<Vec>();
    Vec *x = table + entries * size, *found = x + size, *digit = found + size;
    const std::size_t chunk = 52 * static_cast<std::size_t>(c.n);
    // the base in digits of R
    Vec* entered = table + size;
    for (int v = 0; v < size; ++v) x[v] = entered[v] = _mm512_setzero_si512();
    for (int i = 0; static_cast<std::size_t>(i) * chunk < 64 * base_limbs; ++i) {
        for (int k = 0; k < 2; ++k) {
            pair_load(digit + k * V, c.n, V, base, base_limbs, static_cast<std::size_t>(i) * chunk);
            for (int v = 0; v < V; ++v) found[k * V + v] = c.powers[k][i + 1][v];
        }
        pair_multiply<V>(c, found, found, digit);
        pair_add<V>(entered, found);
    }
    for (int k = 0; k < 2; ++k) {
        for (int v = 0; v < V; ++v) table[k * V + v] = x[k * V + v] = c.powers[k][0][v];
    }
    for (int i = 2; i < entries; ++i) {
        if (i % 2 == 0) {
            pair_multiply<V>(c, table + i * size, table + i / 2 * size, table + i / 2 * size);
        } else {
            pair_multiply<V>(c, table + i * size, table + (i - 1) * size, entered);
        }
    }
    const std::size_t windows = (bits + static_cast<std::size_t>(window) - 1) / static_cast<std::size_t>(window);
    for (std::size_t w = windows; w-- > 0;) {
        if (w + 1 != windows) {
            for (int i = 0; i < window; ++i) pair_multiply<V>(c, x, x, x);
        }
        const std::size_t first = w * static_cast<std::size_t>(window), word = first / 64, offset = first % 64;
        Vec wanted[2], got[size];
        for (int k = 0; k < 2; ++k) {
            std::uint64_t d = exponents[k][word] >> offset;
            if (offset + static_cast<std::size_t>(window) > 64 && word + 1 < exponent_limbs) {
                d |= exponents[k][word + 1] << (64 - offset);
            }
            wanted[k] = _mm512_set1_epi64(static_cast<long long>(d & ((std::uint64_t{1} << window) - 1)));
        }
        for (int v = 0; v < size; ++v) got[v] = _mm512_setzero_si512();
        for (int entry = 0; entry < entries; ++entry) {
            const Vec here = _mm512_set1_epi64(entry);
            const __mmask8 hit[2] = {_mm512_cmpeq_epi64_mask(wanted[0], here),
                                     _mm512_cmpeq_epi64_mask(wanted[1], here)};
#pragma GCC unroll 20
            for (int v = 0; v < size; ++v) {
                got[v] = _mm512_mask_mov_epi64(got[v], hit[v / V], table[entry * size + v]);
            }
        }
        for (int v = 0; v < size; ++v) found[v] = got[v];
        pair_multiply<V>(c, x, x, found);
    }
    // out of Montgomery form: at most m, and m itself for 0
    for (int v = 0; v < size; ++v) digit[v] = _mm512_setzero_si512();
    for (int k = 0; k < 2; ++k) digit[k * V] = _mm512_maskz_set1_epi64(1, 1);
    pair_multiply<V>(c, x, x, digit);
    for (int k = 0; k < 2; ++k) {
        auto* limbs = reinterpret_cast<const long long*>(x + k * V);
        auto* m = reinterpret_cast<const long long*>(c.m[k]);
        std::uint64_t differs = 0;
        for (int i = 0; i < c.n; ++i) differs |= static_cast<std::uint64_t>(limbs[i] ^ m[i]);
        std::uint64_t keep = 0 - ((differs | (0 - differs)) >> 63);
        __asm__("" : "+r"(keep));  // else the compiler makes a branch of it
        for (std::size_t j = 0; j < c.limbs; ++j) out[k][j] = 0;
        for (int i = 0; i < c.n; ++i) {
            const std::size_t first = 52 * static_cast<std::size_t>(i), word = first / 64, offset = first % 64;
            const std::uint64_t limb = static_cast<std::uint64_t>(limbs[i]) & keep;
            if (word < c.limbs) out[k][word] |= limb << offset;
            if (offset > 12 && word + 1 < c.limbs) out[k][word + 1] |= limb >> (64 - offset);
        }
    }
    return Status::ok;
}

// f(V), with V the vectors of a number as a constant
template <class F>
inline void with_vectors(int vectors, F f) {
    switch (vectors) {
#define MIPP_VECTORS(v) \
    case v:             \
        return f(std::integral_constant<int, v>());
        MIPP_VECTORS(1)
        MIPP_VECTORS(2)
        MIPP_VECTORS(3)
        MIPP_VECTORS(4)
        MIPP_VECTORS(5)
        MIPP_VECTORS(6)
        MIPP_VECTORS(7)
        MIPP_VECTORS(8)
        MIPP_VECTORS(9)
        MIPP_VECTORS(10)
#undef MIPP_VECTORS
        default:
            return;
    }
}

void pair_free(BigintPair* pair) {
    auto* c = reinterpret_cast<PairContext*>(pair);
    if (c->memory != nullptr) mipp::wipe(c->memory, 8 * c->words);
    std::free(c->memory);
    mipp::wipe(c, sizeof *c);
    std::free(c);
}

BigintPair* pair_make(const std::uint64_t* first, const std::uint64_t* second, std::size_t limbs) {
    const std::uint64_t* moduli[2] = {first, second};
    auto* c = static_cast<PairContext*>(std::calloc(1, sizeof(PairContext)));
    if (c == nullptr) return nullptr;
    std::size_t bits = 0;
    for (const auto* m : moduli) {
        std::size_t own = 64 * limbs;
        while (own > 0 && (m[(own - 1) / 64] >> ((own - 1) % 64) & 1) == 0) --own;
        bits = own > bits ? own : bits;
    }
    c->n = static_cast<int>((bits + 6 + 51) / 52);
    c->vectors = (c->n + 7) / 8;
    c->limbs = limbs;
    const auto size = static_cast<std::size_t>(c->vectors);
    c->words = 8 * size * 2 * (pair_digits + 3);
    c->memory = static_cast<std::uint64_t*>(std::aligned_alloc(64, 8 * c->words));
    auto* x = static_cast<std::uint64_t*>(std::calloc(2 * limbs, 8));
    if (c->vectors > most_pair_vectors || c->memory == nullptr || x == nullptr) {
        std::free(x);
        pair_free(reinterpret_cast<BigintPair*>(c));
        return nullptr;
    }
    auto* next = reinterpret_cast<Vec*>(c->memory);
    auto place = [&](Vec** where) {
        where[0] = next;
        where[1] = next + size;
        next += 2 * size;
    };
    // both moduli's powers lie side by side, as pair_multiply wants them
    Vec* both[2];
    place(c->m);
    for (int i = 0; i <= pair_digits; ++i) {
        place(both);
        c->powers[0][i] = both[0];
        c->powers[1][i] = both[1];
    }
    for (int k = 0; k < 2; ++k) {
        std::uint64_t inverse = 1;
        for (int i = 0; i < 6; ++i) inverse *= 2 - moduli[k][0] * inverse;
        c->inverse[k] = (0 - inverse) & pair_mask;
        pair_load(c->m[k], c->n, c->vectors, moduli[k], limbs, 0);
        for (std::size_t j = 0; j < limbs; ++j) x[j] = 0;
        x[0] = 1;
        for (int power = 0; power < 2; ++power) {
            for (int i = 0; i < 52 * c->n; ++i) double_mod(x, 0, moduli[k], x + limbs, limbs);
            pair_load(c->powers[k][power], c->n, c->vectors, x, limbs, 0);
        }
    }
    mipp::wipe(x, 16 * limbs);
    std::free(x);
    with_vectors(c->vectors, [&](auto v) {
        for (int i = 2; i <= pair_digits; ++i) {
            pair_multiply<decltype(v)::value>(*c, c->powers[0][i], c->powers[0][i - 1], c->powers[0][1]);
        }
    });
    return reinterpret_cast<BigintPair*>(c);
}

Status pair_pow(const BigintPair* pair, const std::uint64_t* base, std::size_t base_limbs,
                const std::uint64_t* const* exponents, std::size_t exponent_limbs, std::uint64_t* const* out) {
    const auto& c = *reinterpret_cast<const PairContext*>(pair);
    if (64 * base_limbs > 52 * static_cast<std::size_t>(c.n) * pair_digits) return Status::bad_argument;
    Status status = Status::bad_argument;
    with_vectors(c.vectors, [&](auto v) {
        status = pair_power<decltype(v)::value>(c, base, base_limbs, exponents, exponent_limbs, out);
    });
    return status;
}

}  // namespace
