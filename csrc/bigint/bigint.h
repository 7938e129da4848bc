// Batched arithmetic modulo odd numbers and their squares, on the highest tier at or below the level in force.
//
// Numbers are rows of little-endian 64-bit limbs, below the modulus. Names that end in _var take time that depends on
// their data; all others take time that depends on sizes alone.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "../common/status.h"
#include "../cpu/cpu.h"
#include "kernels.h"

namespace mipp {

Level bigint_tier();

constexpr std::size_t bigint_max_bits = 8192;

// An odd modulus m >= 3, or its square. Immutable; each tier's constants are made when they are first needed.
class BigintModulus {
  public:
    // `m`: limbs, the top one not 0; checked by the caller
    BigintModulus(const std::uint64_t* m, std::size_t limbs, bool square);
    ~BigintModulus();
    BigintModulus(const BigintModulus&) = delete;
    BigintModulus& operator=(const BigintModulus&) = delete;

    std::size_t root_limbs() const { return m_.size(); }
    std::size_t limbs() const { return m_.size() * (square_ ? 2 : 1); }
    bool square() const { return square_; }
    const std::vector<std::uint64_t>& value() const { return value_; }  // the modulus itself, limbs() limbs
    const std::vector<std::uint64_t>& root() const { return m_; }

    // whether all of `count` numbers of limbs() limbs are below the modulus; time does not depend on them
    bool contains(const std::uint64_t* x, std::size_t count) const;
    // the same for numbers of root_limbs() limbs and the root
    bool root_contains(const std::uint64_t* x, std::size_t count) const;
    // widest number that reduce() takes, in limbs
    std::size_t max_wide_limbs() const { return 5 * m_.size(); }

    // a stride of 0 repeats the first number; see kernels.h
    Status mul(const std::uint64_t* a, std::size_t a_stride, const std::uint64_t* b, std::size_t b_stride,
               std::size_t count, std::uint64_t* out, int threads) const;
    Status product(const std::uint64_t* a, std::size_t groups, std::size_t count, std::uint64_t* out,
                   int threads) const;
    Status pow(const std::uint64_t* base, std::size_t base_stride, const std::uint64_t* exponent,
               std::size_t exponent_stride, std::size_t bits, std::size_t count, std::uint64_t* out, int threads) const;
    Status pow_var(const std::uint64_t* base, const std::uint64_t* exponent, std::size_t bits, std::size_t count,
                   std::uint64_t* out, int threads) const;
    Status reduce(const std::uint64_t* wide, std::size_t wide_limbs, std::size_t count, std::uint64_t* out,
                  int threads) const;
    Status add_plain(const std::uint64_t* a, const std::uint64_t* plain, std::size_t count, std::uint64_t* out,
                     int threads) const;
    Status multi_pow(const std::uint64_t* bases, std::size_t base_count, const void* exponents, int exponent_bytes,
                     std::size_t slots, std::size_t exponent_bits, std::size_t slot_bits, std::size_t count,
                     std::uint64_t* out, int threads) const;

    // kernels of the tier in force and this modulus' constants for them; null if there was no memory
    const BigintContext* context(const BigintKernels** kernels) const;

  private:
    std::vector<std::uint64_t> m_, value_;
    bool square_;
    mutable std::mutex mutex_;
    mutable std::atomic<BigintContext*> contexts_[level_count] = {};
};

// Powers of one base by tables of base^(d 2^(window i)); keeps the tier that it was made on.
class BigintFixedBase {
  public:
    BigintFixedBase(const BigintModulus& modulus, std::size_t exponent_bits, int window);
    ~BigintFixedBase();
    BigintFixedBase(const BigintFixedBase&) = delete;
    BigintFixedBase& operator=(const BigintFixedBase&) = delete;

    Status build(const std::uint64_t* base, int threads);
    Status pow(const std::uint64_t* exponents, std::size_t count, std::uint64_t* out, int threads) const;
    std::size_t exponent_bits() const { return bits_; }
    std::size_t exponent_limbs() const { return (bits_ + 63) / 64; }
    std::size_t table_bytes() const;

  private:
    const BigintModulus& modulus_;
    std::size_t bits_, windows_;
    int window_;
    const BigintKernels* kernels_ = nullptr;
    const BigintContext* context_ = nullptr;
    std::uint64_t* tables_ = nullptr;
};

// Paillier decryption with both primes; holds secrets, wiped when freed.
class PaillierDecryptor {
  public:
    // p, q, h_p, h_q, q^-1 mod p: rows of `limbs` limbs; checked by the caller
    PaillierDecryptor(const std::uint64_t* p, const std::uint64_t* q, const std::uint64_t* h_p,
                      const std::uint64_t* h_q, const std::uint64_t* q_inverse, std::size_t p_limbs,
                      std::size_t q_limbs, std::size_t n_limbs);
    ~PaillierDecryptor();
    PaillierDecryptor(const PaillierDecryptor&) = delete;
    PaillierDecryptor& operator=(const PaillierDecryptor&) = delete;

    std::size_t limbs() const { return n_limbs_; }
    // ciphertexts: 2 limbs() each, any value; out: limbs() each
    Status decrypt(const std::uint64_t* ciphertexts, std::size_t count, std::uint64_t* out, int threads) const;
    // whether finish_powers() can be called: primes of the same limbs
    bool finishes() const;
    std::size_t power_limbs() const { return 2 * field_.root_limbs(); }
    // the rest of one decryption from c^(p-1) mod p^2 and c^(q-1) mod q^2, power_limbs() limbs each; constant time
    void finish_powers(const std::uint64_t* power_p, const std::uint64_t* power_q, std::uint64_t* out) const;

  private:
    struct Prime {
        Prime(const std::uint64_t* s, const std::uint64_t* h, std::size_t limbs);
        ~Prime();
        BigintModulus square;
        std::vector<std::uint64_t> less_one, h, h_shifted;  // the last times 2^(64 limbs)
    };
    // Few numbers, by a tier's kernel for pairs of powers: unsupported if there is none, or these primes do not fit it.
    Status decrypt_singly(const std::uint64_t* ciphertexts, std::size_t count, std::uint64_t* out) const;
    // powers c^(p-1), c^(q-1) of 2 limbs_of(p) limbs each, at the start of finish_words() words that are overwritten
    void finish(std::uint64_t* memory, std::uint64_t* out) const;
    std::size_t finish_words() const { return 10 * field_.root_limbs(); }
    // m_q + q d for d = (m_p - m_q) / q mod p
    void join(const std::uint64_t* m_q, const std::uint64_t* d, std::uint64_t* sum, std::uint64_t* out) const;

    Prime p_, q_;
    BigintModulus field_;  // mod p
    std::vector<std::uint64_t> q_inverse_, q_inverse_shifted_;
    std::size_t n_limbs_;
    mutable std::mutex mutex_;
    mutable std::atomic<BigintPair*> pairs_[level_count] = {};
};

}  // namespace mipp
