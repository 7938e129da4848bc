// Eight numbers at a time with AVX512-IFMA: limb l of all eight in one register, 52 bits each.
//
// Columns of a product are sums of 52-bit halves in 64 bits: at most 2^12 of them, and 2 L halves a product; the engine
// adds up at most seven products and a reduction, 16 L < 2^12 for L <= 158 (8192 bits).
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../common/status.h"
#include "pair52.h"

namespace {

struct Radix52 {
    using Word = std::uint64_t __attribute__((vector_size(64)));
    static constexpr int width = 8;
    static constexpr int bits = 52;
    static constexpr std::uint64_t mask = (std::uint64_t{1} << 52) - 1;

    static constexpr auto pair_make = ::pair_make;
    static constexpr auto pair_free = ::pair_free;
    static constexpr auto pair_pow = ::pair_pow;

    static Word all(std::uint64_t x) { return (Word)_mm512_set1_epi64(static_cast<long long>(x)); }
    static void set_lane(Word& w, int lane, std::uint64_t x) { w[lane] = x; }
    static std::uint64_t lane(const Word& w, int lane) { return w[lane]; }
    static Word lo(Word acc, Word a, Word b) {
        return (Word)_mm512_madd52lo_epu64((__m512i)acc, (__m512i)a, (__m512i)b);
    }
    static Word hi(Word acc, Word a, Word b) {
        return (Word)_mm512_madd52hi_epu64((__m512i)acc, (__m512i)a, (__m512i)b);
    }

    // z = x + y; the sum fits
    static void add(Word* z, const Word* x, const Word* y, int n) {
        Word carry = all(0);
        for (int i = 0; i < n; ++i) {
            const Word s = x[i] + y[i] + carry;
            carry = s >> 52;
            z[i] = s & mask;
        }
    }

    // z = x - y mod 2^(52 n); all ones where x < y, else 0
    static Word subtract(Word* z, const Word* x, const Word* y, int n) {
        Word borrow = all(0);
        for (int i = 0; i < n; ++i) {
            const Word d = x[i] - y[i] - borrow;
            borrow = d >> 63;
            z[i] = d & mask;
        }
        return all(0) - borrow;
    }

    static Word equal(Word a, std::uint64_t b) { return (Word)(a == all(b)); }

    // --- columns: 2 n accumulators ---

    static void columns_start(Word* acc, const Word* x, const Word* y, int n) {  // (2^(52 n) - 1 - x) + y
        for (int i = 0; i < n; ++i) acc[i] = (mask - x[i]) + y[i];
        for (int i = n; i < 2 * n; ++i) acc[i] = all(0);
    }

    static void columns_add(Word* acc, const Word* x, int n) {
        for (int i = 0; i < n; ++i) acc[i] += x[i];
    }

    static void columns_carry(Word* acc, int n) {
        Word carry = all(0);
        for (int i = 0; i < n; ++i) {
            const Word s = acc[i] + carry;
            carry = s >> 52;
            acc[i] = s & mask;
        }
    }

    // acc[0 ..] += x[0 .. P) * b[0 .. n): a window of 2 P accumulators slides over the columns. `low` is what the
    // window holds at first.
    template <int P>
    static inline __attribute__((always_inline)) void panel(Word* acc, const Word (&x)[P], const Word* b, int n,
                                                            Word (&low)[P]) {
        Word high[P];
        for (int t = 0; t < P; ++t) high[t] = all(0);
        Word over = all(0);
        for (int j = 0; j < n; ++j) {
            const Word y = b[j];
#pragma GCC unroll 8
            for (int t = 0; t < P; ++t) low[t] = lo(low[t], x[t], y);
#pragma GCC unroll 8
            for (int t = 0; t < P; ++t) high[t] = hi(high[t], x[t], y);
            acc[j] += low[0] + over;
            over = high[0];
#pragma GCC unroll 8
            for (int t = 0; t + 1 < P; ++t) {
                low[t] = low[t + 1];
                high[t] = high[t + 1];
            }
            low[P - 1] = all(0);
            high[P - 1] = all(0);
        }
        acc[n] += low[0] + over;
        for (int t = 1; t < P; ++t) acc[n + t] += low[t] + high[t - 1];
    }

    // f(width, first row) for rows 0 .. n in panels of 8 and a narrower last one
    template <int P>
    struct Width {
        static constexpr int rows = P;
    };
    template <class F>
    static inline void each_panel(int n, F f) {
        int i = 0;
        for (; i + 8 <= n; i += 8) f(Width<8>(), i);
        switch (n - i) {
            case 1:
                return f(Width<1>(), i);
            case 2:
                return f(Width<2>(), i);
            case 3:
                return f(Width<3>(), i);
            case 4:
                return f(Width<4>(), i);
            case 5:
                return f(Width<5>(), i);
            case 6:
                return f(Width<6>(), i);
            case 7:
                return f(Width<7>(), i);
            default:
                return;
        }
    }

    template <int P>
    static __attribute__((noinline)) void multiply_panel(Word* acc, const Word* a, const Word* b, int n) {
        Word x[P], low[P];
        for (int t = 0; t < P; ++t) {
            x[t] = a[t];
            low[t] = all(0);
        }
        panel<P>(acc, x, b, n, low);
    }

    // acc += a * b, n limbs each
    static void columns_multiply(Word* acc, const Word* a, const Word* b, int n) {
        each_panel(n, [=](auto width, int i) { multiply_panel<decltype(width)::rows>(acc + i, a + i, b, n); });
    }

    // acc += products a[i] a[j], i < j, of rows i in this panel; n limbs from its first row on
    template <int P>
    static __attribute__((noinline)) void square_panel(Word* acc, const Word* a, int n) {
        Word x[P], col[2 * P], low[P];
        for (int t = 0; t < P; ++t) x[t] = a[t];
        for (int t = 0; t < 2 * P; ++t) col[t] = all(0);
#pragma GCC unroll 8
        for (int i = 0; i < P; ++i) {
#pragma GCC unroll 8
            for (int j = i + 1; j < P; ++j) {
                col[i + j] = lo(col[i + j], x[i], x[j]);
                col[i + j + 1] = hi(col[i + j + 1], x[i], x[j]);
            }
        }
        for (int t = 0; t < P; ++t) acc[t] += col[t];
        for (int t = 0; t < P; ++t) low[t] = col[P + t];
        panel<P>(acc + P, x, a + P, n - P, low);
    }

    // acc = a * a
    static void columns_square(Word* acc, const Word* a, int n) {
        for (int i = 0; i < 2 * n; ++i) acc[i] = all(0);
        each_panel(n, [=](auto width, int i) { square_panel<decltype(width)::rows>(acc + 2 * i, a + i, n - i); });
        for (int j = 0; j < n; ++j) {
            acc[2 * j] = lo(acc[2 * j] + acc[2 * j], a[j], a[j]);
            acc[2 * j + 1] = hi(acc[2 * j + 1] + acc[2 * j + 1], a[j], a[j]);
        }
    }

    // P columns of a reduction: quotient digits q, one after the other, and their products with m. A digit clears its
    // column, so the carry out of it need not wait for the digit.
    template <int P>
    static __attribute__((noinline)) void reduce_panel(Word* acc, const Word* m, Word inverse, int n, Word* quotient) {
        Word col[2 * P], q[P], low[P];
        for (int t = 0; t < P; ++t) col[t] = acc[t];
        for (int t = P; t < 2 * P; ++t) col[t] = all(0);
#pragma GCC unroll 8
        for (int t = 0; t < P; ++t) {
            q[t] = lo(all(0), col[t], inverse);
            quotient[t] = q[t];
            col[t + 1] += (col[t] + mask) >> 52;
#pragma GCC unroll 8
            for (int s = 1; s < P; ++s) col[t + s] = lo(col[t + s], q[t], m[s]);
#pragma GCC unroll 8
            for (int s = 0; s < P; ++s) col[t + s + 1] = hi(col[t + s + 1], q[t], m[s]);
        }
        for (int t = 0; t < P; ++t) low[t] = col[P + t];
        panel<P>(acc + P, q, m + P, n - P, low);
    }

    // out = acc / 2^(52 n) mod m, below 2 m for acc < 2^(52 n) m; quotient: n limbs, acc + quotient * m = out * 2^(52
    // n)
    static void reduce(Word* out, Word* quotient, Word* acc, const Word* m, Word inverse, int n) {
        each_panel(
            n, [=](auto width, int i) { reduce_panel<decltype(width)::rows>(acc + i, m, inverse, n, quotient + i); });
        Word carry = all(0);
        for (int j = 0; j < n; ++j) {
            const Word s = acc[n + j] + carry;
            carry = s >> 52;
            out[j] = s & mask;
        }
    }

    // --- tables shared by all lanes: [limb][entry], at least 8 entries wide ---

    static std::size_t table_words(int entries, int size) {
        return static_cast<std::size_t>(size) * static_cast<std::size_t>(entries < 8 ? 8 : entries);
    }

    static void table_put(std::uint64_t* table, int entries, int entry, const Word* x, int size, int lane) {
        const int row = entries < 8 ? 8 : entries;
        for (int i = 0; i < size; ++i) table[static_cast<std::size_t>(i) * row + entry] = x[i][lane];
    }

    // out = entry index[lane] for each lane: every entry is read, whatever the index
    static void table_get(Word* out, const std::uint64_t* table, int entries, const Word& index, int size) {
        const __m512i id = (__m512i)index;
        if (entries <= 8) {
            for (int i = 0; i < size; ++i) {
                out[i] =
                    (Word)_mm512_permutexvar_epi64(id, _mm512_loadu_si512(table + 8 * static_cast<std::size_t>(i)));
            }
            return;
        }
        for (int i = 0; i < size; ++i, table += entries) {
            // sixteen entries by one permutation, merged by the higher bits of the index
            __m512i found[16];
            int n = entries / 16;
            for (int e = 0; e < n; ++e) {
                found[e] = _mm512_permutex2var_epi64(_mm512_loadu_si512(table + 16 * e), id,
                                                     _mm512_loadu_si512(table + 16 * e + 8));
            }
            for (int bit = 16; n > 1; n /= 2, bit *= 2) {
                const __mmask8 high = _mm512_test_epi64_mask(id, _mm512_set1_epi64(bit));
                for (int e = 0; e < n / 2; ++e) found[e] = _mm512_mask_mov_epi64(found[2 * e], high, found[2 * e + 1]);
            }
            out[i] = (Word)found[0];
        }
    }
};

}  // namespace
