// The kernels of every tier, each for one prime and on one thread; lattice.cpp picks a tier, tests run each as itself.
//
// Residues at the borders are integers in [0, p). Between, each tier has numbers of its own (`form`): integers of 52
// bits, floating-point numbers, integers of 64 bits. `aux` is what makes a product with a known factor cheap.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Columns that are transposed at a time, those of a cache line of 32-bit words; and the longest run of products that
// may be added up before MIPP_LATTICE_SETTLE.
#define MIPP_LATTICE_RUN 16
// Columns that are multiplied in one pass over the sums.
#define MIPP_LATTICE_COLUMNS 4

struct LatticeFactor {
    uint64_t value, aux;
};

// The facts of one prime in the form of one tier. Factors of the transform lie in bit-reversed order; those of its
// levels within a vector lie in the order in which they are used.
struct LatticePrime {
    uint64_t p;
    size_t n;
    int log_n;
    const uint64_t *forward, *forward_aux, *forward_last, *forward_last_aux;
    const uint64_t *inverse, *inverse_aux, *inverse_last, *inverse_last_aux;
    // 2^52 and 2^104, or 2^64, modulo p; 1; the inverse of n
    struct LatticeFactor radix, radix_squared, one, inverse_n;
};

// Each macro is one kernel's declaration. A kernel is defined by the same macro, with its whole name, in its tier's
// file.

// n residues, in place: coefficients to values (in the project's order), and back.
#define MIPP_LATTICE_FORWARD(name) void name(const struct LatticePrime* prime, uint64_t* a)
#define MIPP_LATTICE_INVERSE(name) void name(const struct LatticePrime* prime, uint64_t* a)
// out[i] = a[i] b[i] modulo p, and out[i] += a[i] b[i].
#define MIPP_LATTICE_MULTIPLY(name) \
    void name(const struct LatticePrime* prime, const uint64_t* a, const uint64_t* b, uint64_t* out, int add)
// MIPP_LATTICE_RUN rows of as many numbers, written as columns that begin `stride` numbers apart.
#define MIPP_LATTICE_TRANSPOSE(name) void name(const int32_t* rows, int32_t* out, size_t stride)
// Values of a signed column of coefficients, as numbers of this tier.
#define MIPP_LATTICE_COLUMN(name) void name(const struct LatticePrime* prime, const int32_t* column, uint64_t* values)
// The same of signed numbers below p in absolute value.
#define MIPP_LATTICE_DIGITS(name) void name(const struct LatticePrime* prime, const int64_t* digits, uint64_t* values)
// sums (4 n words) += the sum over `count` columns (at most MIPP_LATTICE_COLUMNS, their values n words apart) of values
// times two polynomials of residues: those of column c begin at query + 2 c apart and `apart` words behind. After
// MIPP_LATTICE_RUN columns comes the next kernel.
#define MIPP_LATTICE_ADD(name)                                                                               \
    void name(const struct LatticePrime* prime, const uint64_t* values, size_t count, const uint64_t* query, \
              size_t apart, uint64_t* sums)
#define MIPP_LATTICE_SETTLE(name) void name(const struct LatticePrime* prime, uint64_t* sums)
// The two residues of sums.
#define MIPP_LATTICE_FINISH(name) \
    void name(const struct LatticePrime* prime, const uint64_t* sums, uint64_t* out0, uint64_t* out1)
// The same sum of at most MIPP_LATTICE_COLUMNS columns alone, as residues.
#define MIPP_LATTICE_PRODUCTS(name)                                                                          \
    void name(const struct LatticePrime* prime, const uint64_t* values, size_t count, const uint64_t* query, \
              size_t apart, uint64_t* out0, uint64_t* out1)
// The children of a ciphertext's part c in a step of an expansion (expand.cpp): even = c + s and difference = c - s,
// where s = image + (quotient - rest) inverse; rest: signed, below p in absolute value; image may be null. even may be
// c.
#define MIPP_LATTICE_CHILDREN(name)                                                                          \
    void name(const struct LatticePrime* prime, const uint64_t* quotient, const int64_t* rest,               \
              const struct LatticeFactor* inverse, const uint64_t* image, const uint64_t* c, uint64_t* even, \
              uint64_t* difference)
// Rounded Gaussian numbers from random words: the sign, and 63 bits that are compared with all entries of a table.
#define MIPP_LATTICE_GAUSSIAN(name) \
    void name(const uint64_t* words, size_t n, const uint64_t* table, size_t entries, int64_t* out)

#define MIPP_LATTICE_KERNELS(tier)                    \
    MIPP_LATTICE_FORWARD(lattice_forward_##tier);     \
    MIPP_LATTICE_INVERSE(lattice_inverse_##tier);     \
    MIPP_LATTICE_MULTIPLY(lattice_multiply_##tier);   \
    MIPP_LATTICE_TRANSPOSE(lattice_transpose_##tier); \
    MIPP_LATTICE_COLUMN(lattice_column_##tier);       \
    MIPP_LATTICE_DIGITS(lattice_digits_##tier);       \
    MIPP_LATTICE_ADD(lattice_add_##tier);             \
    MIPP_LATTICE_SETTLE(lattice_settle_##tier);       \
    MIPP_LATTICE_FINISH(lattice_finish_##tier);       \
    MIPP_LATTICE_PRODUCTS(lattice_products_##tier);   \
    MIPP_LATTICE_CHILDREN(lattice_children_##tier);   \
    MIPP_LATTICE_GAUSSIAN(lattice_gaussian_##tier);

extern "C" {
MIPP_LATTICE_KERNELS(portable)
#ifdef MIPP_X86
MIPP_LATTICE_KERNELS(avx2)
MIPP_LATTICE_KERNELS(avx512)
#endif
}
