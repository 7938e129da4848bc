// One number at a time, limbs of 64 bits: for every processor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/status.h"

namespace {

struct Radix64 {
    using Word = std::uint64_t;
    using Wide = unsigned __int128;
    static constexpr int width = 1;
    static constexpr int bits = 64;
    static constexpr std::uint64_t mask = ~std::uint64_t{0};

    // no kernel for pairs of powers
    static constexpr mipp::BigintPair* (*pair_make)(const std::uint64_t*, const std::uint64_t*, std::size_t) = nullptr;
    static constexpr void (*pair_free)(mipp::BigintPair*) = nullptr;
    static constexpr Status (*pair_pow)(const mipp::BigintPair*, const std::uint64_t*, std::size_t,
                                        const std::uint64_t* const*, std::size_t, std::uint64_t* const*) = nullptr;

    static Word all(std::uint64_t x) { return x; }
    static void set_lane(Word& w, int, std::uint64_t x) { w = x; }
    static std::uint64_t lane(const Word& w, int) { return w; }

    static void add(Word* z, const Word* x, const Word* y, int n) {
        Word carry = 0;
        for (int i = 0; i < n; ++i) {
            const Wide s = static_cast<Wide>(x[i]) + y[i] + carry;
            z[i] = static_cast<Word>(s);
            carry = static_cast<Word>(s >> 64);
        }
    }

    static Word subtract(Word* z, const Word* x, const Word* y, int n) {
        Word borrow = 0;
        for (int i = 0; i < n; ++i) {
            const Wide d = static_cast<Wide>(x[i]) - y[i] - borrow;
            z[i] = static_cast<Word>(d);
            borrow = static_cast<Word>(d >> 64) & 1;
        }
        return 0 - borrow;
    }

    // all ones where equal
    static Word equal(Word a, std::uint64_t b) {
        const Word d = a ^ b;
        return ((d | (0 - d)) >> 63) - 1;
    }

    // --- columns: 2 n limbs, always carried ---

    static void columns_start(Word* acc, const Word* x, const Word* y, int n) {
        Word carry = 0;
        for (int i = 0; i < n; ++i) {
            const Wide s = static_cast<Wide>(~x[i]) + y[i] + carry;
            acc[i] = static_cast<Word>(s);
            carry = static_cast<Word>(s >> 64);
        }
        acc[n] = carry;
        for (int i = n + 1; i < 2 * n; ++i) acc[i] = 0;
    }

    static void columns_add(Word* acc, const Word* x, int n) {
        Word carry = 0;
        for (int i = 0; i < n; ++i) {
            const Wide s = static_cast<Wide>(acc[i]) + x[i] + carry;
            acc[i] = static_cast<Word>(s);
            carry = static_cast<Word>(s >> 64);
        }
        for (int i = n; i < 2 * n; ++i) {
            const Wide s = static_cast<Wide>(acc[i]) + carry;
            acc[i] = static_cast<Word>(s);
            carry = static_cast<Word>(s >> 64);
        }
    }

    static void columns_carry(Word*, int) {}

    // acc[0 .. n) += x * b[0 .. n); answers the carry
    static inline Word multiply_row(Word* acc, const Word* b, Word x, int n) {
        Word carry = 0;
        int j = 0;
        for (; j + 4 <= n; j += 4) {
            for (int t = 0; t < 4; ++t) {
                const Wide s = static_cast<Wide>(x) * b[j + t] + acc[j + t] + carry;
                acc[j + t] = static_cast<Word>(s);
                carry = static_cast<Word>(s >> 64);
            }
        }
        for (; j < n; ++j) {
            const Wide s = static_cast<Wide>(x) * b[j] + acc[j] + carry;
            acc[j] = static_cast<Word>(s);
            carry = static_cast<Word>(s >> 64);
        }
        return carry;
    }

    // acc += a * b; the sum stays below 2^(128 n)
    static void columns_multiply(Word* acc, const Word* a, const Word* b, int n) {
        Word over = 0;  // carry into acc[i + n], from the row before
        for (int i = 0; i < n; ++i) {
            const Word carry = multiply_row(acc + i, b, a[i], n);
            const Wide s = static_cast<Wide>(acc[i + n]) + carry + over;
            acc[i + n] = static_cast<Word>(s);
            over = static_cast<Word>(s >> 64);
        }
    }

    // acc = a * a
    static void columns_square(Word* acc, const Word* a, int n) {
        for (int i = 0; i < 2 * n; ++i) acc[i] = 0;
        for (int i = 0; i + 1 < n; ++i) acc[i + n] = multiply_row(acc + 2 * i + 1, a + i + 1, a[i], n - i - 1);
        Word top = 0, carry = 0;
        for (int i = 0; i < n; ++i) {
            const Wide square = static_cast<Wide>(a[i]) * a[i];
            const Word low = acc[2 * i], high = acc[2 * i + 1];
            const Wide s = static_cast<Wide>(low << 1 | top) + static_cast<Word>(square) + carry;
            const Wide t =
                static_cast<Wide>(high << 1 | low >> 63) + static_cast<Word>(square >> 64) + static_cast<Word>(s >> 64);
            acc[2 * i] = static_cast<Word>(s);
            acc[2 * i + 1] = static_cast<Word>(t);
            carry = static_cast<Word>(t >> 64);
            top = high >> 63;
        }
    }

    // out = acc / 2^(64 n) mod m, below 2 m for acc < 2^(64 n) m; quotient: n limbs, acc + quotient * m = out * 2^(64
    // n)
    static void reduce(Word* out, Word* quotient, Word* acc, const Word* m, Word inverse, int n) {
        Word over = 0;
        for (int i = 0; i < n; ++i) {
            quotient[i] = acc[i] * inverse;
            const Word carry = multiply_row(acc + i, m, quotient[i], n);
            const Wide s = static_cast<Wide>(acc[i + n]) + carry + over;
            acc[i + n] = static_cast<Word>(s);
            over = static_cast<Word>(s >> 64);
        }
        for (int i = 0; i < n; ++i) out[i] = acc[n + i];
    }

    // --- tables: [entry][limb] ---

    static std::size_t table_words(int entries, int size) {
        return static_cast<std::size_t>(size) * static_cast<std::size_t>(entries);
    }

    static void table_put(std::uint64_t* table, int, int entry, const Word* x, int size, int) {
        for (int i = 0; i < size; ++i) table[static_cast<std::size_t>(entry) * size + i] = x[i];
    }

    // out = entry index: every entry is read, whatever the index
    static void table_get(Word* out, const std::uint64_t* table, int entries, const Word& index, int size) {
        for (int i = 0; i < size; ++i) out[i] = 0;
        for (int e = 0; e < entries; ++e, table += size) {
            const Word hit = equal(index, static_cast<std::uint64_t>(e));
            for (int i = 0; i < size; ++i) out[i] |= table[i] & hit;
        }
    }
};

}  // namespace
