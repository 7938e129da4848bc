// Polynomials modulo X^N + 1 and primes: the arithmetic of the lattice scheme. Formulas: README.md.
//
// A polynomial is L x N residues in [0, p), 64 bits each: prime by prime, as coefficients or as values at the odd
// powers of a root (lattice_forward). Polynomials lie one behind the other. Secrets, errors, rows and what is made of
// them are secret: no branch and no address depends on them, but where a name ends in _var.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../common/status.h"
#include "../cpu/cpu.h"
#include "../prf/prf.h"
#include "lattice_kernels.h"

namespace mipp {

constexpr std::size_t lattice_max_degree = std::size_t{1} << 14, lattice_max_primes = 8;
// Primes are below 2^48, at degree 2^14 below 2^47: numbers of 52 and 53 bits hold a transform without reductions.
constexpr int lattice_prime_bits = 48;
// Coordinates of one product: as many products of 104 bits are added up.
constexpr std::size_t lattice_max_coordinates = std::size_t{1} << 12;
constexpr int lattice_max_flood = 126;

Level lattice_tier();

// In which form a tier has the factors of a transform.
enum LatticeForm { lattice_words, lattice_floats, lattice_limbs, lattice_forms };

class LatticeRing {
  public:
    // Null, or what is wrong with a degree and primes.
    static const char* fault(std::size_t degree, const std::vector<std::uint64_t>& primes);
    // May throw std::bad_alloc.
    LatticeRing(std::size_t degree, const std::vector<std::uint64_t>& primes);

    std::size_t degree() const { return degree_; }
    std::size_t limbs() const { return primes_.size(); }
    std::size_t size() const { return degree_ * primes_.size(); }
    const std::vector<std::uint64_t>& primes() const { return primes_; }
    const LatticePrime& prime(std::size_t limb, LatticeForm form) const { return facts_[form][limb]; }

  private:
    std::size_t degree_;
    std::vector<std::uint64_t> primes_;
    std::vector<LatticePrime> facts_[lattice_forms];
    std::vector<std::vector<std::uint64_t>> tables_;
};

// In place, `count` polynomials.
Status lattice_forward(const LatticeRing& ring, std::uint64_t* a, std::size_t count, int threads);
Status lattice_inverse(const LatticeRing& ring, std::uint64_t* a, std::size_t count, int threads);

// out = a b, or out += a b, pointwise. All b's, or one for all a's. out may be a.
Status lattice_multiply(const LatticeRing& ring, const std::uint64_t* a, const std::uint64_t* b, std::size_t count,
                        bool one_b, std::uint64_t* out, bool add, int threads);
// a += b
Status lattice_add(const LatticeRing& ring, std::uint64_t* a, const std::uint64_t* b, std::size_t count, bool one_b,
                   int threads);
Status lattice_negate(const LatticeRing& ring, std::uint64_t* a, std::size_t count, int threads);
// Residues of signed numbers, count x N, of less than 2^62.
Status lattice_residues(const LatticeRing& ring, const std::int64_t* values, std::size_t count, std::uint64_t* out,
                        int threads);

// What random polynomials are: uniform (public: by rejection, so its time tells of it), ternary, rounded Gaussian with
// sigma 3.2, or uniform in [-2^(bits-1), 2^(bits-1)). Polynomial m is made of the keystream of schedules[first + m].
enum class LatticeKind { uniform_var, ternary, gaussian, flood };
Status lattice_sample(const LatticeRing& ring, LatticeKind kind, int bits, const KeySchedules& schedules,
                      std::size_t first, std::size_t count, std::uint64_t* out, int threads);

// out[b] = sum over d of (coordinate d of the N rows of block b, centred modulo 2^plain_bits) times ciphertext d of
// `query` (D x 2 x L x N values): blocks x 2 x L x N values. Words of `bits` bits, rows x D; rows that are not there
// count as zeros. Primes are above 2^(plain_bits - 1).
Status lattice_matvec(const LatticeRing& ring, const void* words, int bits, std::size_t rows, std::size_t dim,
                      int plain_bits, const std::uint64_t* query, std::uint64_t* out, int threads);

// out (count x N) = round(a 2^bits / q) modulo 2^bits, of coefficients; q the product of the primes.
Status lattice_switch(const LatticeRing& ring, const std::uint64_t* a, std::size_t count, int bits, std::uint64_t* out,
                      int threads);

// Residues, count x L, of round(q value / 2^plain_bits).
Status lattice_encode(const LatticeRing& ring, const std::int64_t* values, std::size_t count, int plain_bits,
                      std::uint64_t* out);

// out = c0 + c1 s modulo 2^bits, c0 and c1 being count x N numbers of `bits` bits, s the values of a ternary
// polynomial. N 2^ceil(bits / 2) is below half of the first prime.
Status lattice_phase(const LatticeRing& ring, const std::uint64_t* c0, const std::uint64_t* c1, std::size_t count,
                     const std::uint64_t* secret, int bits, std::uint64_t* out, int threads);

// Ciphertexts (values) of 2^levels times coefficient j < count of what `ciphertext` (2 x L x N coefficients) encrypts,
// 2^levels >= count. ring: at most MIPP_LATTICE_COLUMNS primes. key_ring: those and one more. keys: levels x L x 2 x (L
// + 1) x N values.
Status lattice_expand(const LatticeRing& ring, const LatticeRing& key_ring, const std::uint64_t* ciphertext,
                      const std::uint64_t* keys, int levels, std::size_t count, std::uint64_t* out, int threads);

}  // namespace mipp
