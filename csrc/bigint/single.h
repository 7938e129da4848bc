// Arithmetic on one number in 64-bit limbs, for what comes after a single power: time depends on the limbs alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine.h"

namespace {
namespace single {

using Wide = unsigned __int128;

// -1/m mod 2^64
inline std::uint64_t negative_inverse(std::uint64_t m) {
    std::uint64_t inverse = 1;
    for (int i = 0; i < 6; ++i) inverse *= 2 - m * inverse;
    return 0 - inverse;
}

// (u - 1) / m for u = 1 + L m, or 0 for u = 0: out is L, l limbs; u, 2 l limbs, is overwritten
inline void quotient(std::uint64_t* out, std::uint64_t* u, const std::uint64_t* m, std::size_t l) {
    std::uint64_t any = 0;
    for (std::size_t i = 0; i < 2 * l; ++i) any |= u[i];
    std::uint64_t borrow = (any | (0 - any)) >> 63;
    for (std::size_t i = 0; i < l; ++i) {  // only the low half matters: L is below 2^(64 l)
        const Wide d = static_cast<Wide>(u[i]) - borrow;
        u[i] = static_cast<std::uint64_t>(d);
        borrow = static_cast<std::uint64_t>(d >> 64) & 1;
    }
    const std::uint64_t inverse = 0 - negative_inverse(m[0]);
    for (std::size_t i = 0; i < l; ++i) {  // exact division from below
        const std::uint64_t digit = u[i] * inverse;
        std::uint64_t carry = 0;
        for (std::size_t j = 0; i + j < l; ++j) {
            const Wide p = static_cast<Wide>(digit) * m[j] + carry;
            const Wide d = static_cast<Wide>(u[i + j]) - static_cast<std::uint64_t>(p);
            u[i + j] = static_cast<std::uint64_t>(d);
            carry = static_cast<std::uint64_t>(p >> 64) + (static_cast<std::uint64_t>(d >> 64) & 1);
        }
        out[i] = digit;
    }
}

// out = x y / 2^(64 l) mod m, below m, for x of l limbs and y below m; spare: 2 l limbs. out may be x.
inline void multiply(std::uint64_t* out, const std::uint64_t* x, const std::uint64_t* y, const std::uint64_t* m,
                     std::size_t l, std::uint64_t* spare) {
    const std::uint64_t inverse = negative_inverse(m[0]);
    std::uint64_t* sum = spare;
    for (std::size_t i = 0; i < l; ++i) sum[i] = 0;
    std::uint64_t top = 0;
    for (std::size_t i = 0; i < l; ++i) {
        Wide carry = 0;
        for (std::size_t j = 0; j < l; ++j) {
            carry += static_cast<Wide>(x[i]) * y[j] + sum[j];
            sum[j] = static_cast<std::uint64_t>(carry);
            carry >>= 64;
        }
        const Wide above = carry + top;
        const std::uint64_t digit = sum[0] * inverse;
        carry = (static_cast<Wide>(digit) * m[0] + sum[0]) >> 64;
        for (std::size_t j = 1; j < l; ++j) {
            carry += static_cast<Wide>(digit) * m[j] + sum[j];
            sum[j - 1] = static_cast<std::uint64_t>(carry);
            carry >>= 64;
        }
        carry += above;
        sum[l - 1] = static_cast<std::uint64_t>(carry);
        top = static_cast<std::uint64_t>(carry >> 64);
    }
    subtract_if(sum, m, top, spare + l, l);
    for (std::size_t i = 0; i < l; ++i) out[i] = sum[i];
}

// x = x - y mod m, both below m
inline void subtract(std::uint64_t* x, const std::uint64_t* y, const std::uint64_t* m, std::size_t l) {
    std::uint64_t borrow = 0, carry = 0;
    for (std::size_t i = 0; i < l; ++i) {
        const Wide d = static_cast<Wide>(x[i]) - y[i] - borrow;
        x[i] = static_cast<std::uint64_t>(d);
        borrow = static_cast<std::uint64_t>(d >> 64) & 1;
    }
    const std::uint64_t all = 0 - borrow;
    for (std::size_t i = 0; i < l; ++i) {
        const Wide s = static_cast<Wide>(x[i]) + (m[i] & all) + carry;
        x[i] = static_cast<std::uint64_t>(s);
        carry = static_cast<std::uint64_t>(s >> 64);
    }
}

// x = x 2^bits mod m, for x below m
inline void shift(std::uint64_t* x, std::size_t bits, const std::uint64_t* m, std::size_t l, std::uint64_t* spare) {
    for (std::size_t i = 0; i < bits; ++i) double_mod(x, 0, m, spare, l);
}

}  // namespace single
}  // namespace
