// What a tier offers: one table of functions. Each works on numbers [begin, end) of a batch on the caller's thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/status.h"

namespace mipp {

struct BigintContext;  // a tier's constants of one modulus
struct BigintPair;     // of two moduli

// Numbers are rows of little-endian 64-bit limbs below the modulus; a stride of 0 repeats the first.
struct BigintKernels {
    std::size_t width;  // numbers that are worked on together
    // modulus: `limbs` limbs, odd, at least 3, top limb not 0; with `square` the arithmetic is modulo its square
    BigintContext* (*make)(const std::uint64_t* modulus, std::size_t limbs, bool square);
    void (*free)(BigintContext*);

    Status (*mul)(const BigintContext*, const std::uint64_t* a, std::size_t a_stride, const std::uint64_t* b,
                  std::size_t b_stride, std::uint64_t* out, std::size_t begin, std::size_t end);
    // out[g] = product of a[g][0 .. count)
    Status (*product)(const BigintContext*, const std::uint64_t* a, std::size_t count, std::uint64_t* out,
                      std::size_t begin, std::size_t end);
    // out = base ^ exponent, `bits` bits of it; constant time in both. `variable`: time and addresses depend on the
    // exponent, which then is one for all.
    Status (*pow)(const BigintContext*, const std::uint64_t* base, std::size_t base_stride,
                  const std::uint64_t* exponent, std::size_t exponent_stride, std::size_t bits, bool variable,
                  std::uint64_t* out, std::size_t begin, std::size_t end);
    // wide: `limbs` limbs, any value
    Status (*reduce)(const BigintContext*, const std::uint64_t* wide, std::size_t limbs, std::uint64_t* out,
                     std::size_t begin, std::size_t end);
    Status (*add_plain)(const BigintContext*, const std::uint64_t* a, const std::uint64_t* plain, std::uint64_t* out,
                        std::size_t begin, std::size_t end);

    // Tables of the powers 0 .. 2^window - 1 of some bases, one table after the other.
    std::size_t (*table_words)(const BigintContext*, int window);
    Status (*tables)(const BigintContext*, const std::uint64_t* bases, int window, std::uint64_t* tables,
                     std::size_t begin, std::size_t end);
    // out[i] = base ^ (2^(step i)), i = 0 .. count - 1
    Status (*ladder)(const BigintContext*, const std::uint64_t* base, std::size_t step, std::size_t count,
                     std::uint64_t* out);
    // table t holds powers of base ^ (2^(window t)); constant time in the exponents
    Status (*fixed_pow)(const BigintContext*, const std::uint64_t* tables, int window, std::size_t windows,
                        const std::uint64_t* exponents, std::size_t exponent_limbs, std::uint64_t* out,
                        std::size_t begin, std::size_t end);
    // out[i] = prod_j base_j ^ (sum_s 2^(slot_bits s) exponents[i][s][j]); constant time in the exponents, of `bytes`
    // bytes
    Status (*multi_pow)(const BigintContext*, const std::uint64_t* tables, int window, std::size_t bases,
                        const void* exponents, int bytes, std::size_t slots, std::size_t exponent_bits,
                        std::size_t slot_bits, std::uint64_t* out, std::size_t begin, std::size_t end);

    // L(c^(s-1) mod s^2) h mod s, for the context of a prime's square: rows of the prime's limbs; constant time
    Status (*decrypt)(const BigintContext* square, const std::uint64_t* prime_less_one, const std::uint64_t* h,
                      const std::uint64_t* ciphertexts, std::size_t ciphertext_limbs, std::uint64_t* out,
                      std::size_t begin, std::size_t end);

    // Two single powers at once, modulo two odd numbers of `limbs` limbs each; null in tiers that have nothing better
    // than the above. Constant time in the moduli (but for their size) and exponents.
    BigintPair* (*pair_make)(const std::uint64_t* first, const std::uint64_t* second, std::size_t limbs);
    void (*pair_free)(BigintPair*);
    // out[k] = base ^ exponents[k] mod the k-th, `limbs` limbs; bad_argument for a base of more limbs than five
    // numbers'
    Status (*pair_pow)(const BigintPair*, const std::uint64_t* base, std::size_t base_limbs,
                       const std::uint64_t* const* exponents, std::size_t exponent_limbs, std::uint64_t* const* out);
};

extern "C" {
const BigintKernels* bigint_kernels_portable();
#ifdef MIPP_X86
const BigintKernels* bigint_kernels_avx512();
#endif
}

}  // namespace mipp
