// Integers of 52 bits (AVX512-IFMA). Numbers stay below 2^52: a butterfly forward adds at most 2 p, so primes below
// 2^47 need no reduction in up to 13 levels; larger ones, below 2^48, need one before the last six.
#include <immintrin.h>

#include "kernels.h"
#include "transpose.h"

namespace {

struct Field {
    using Vec = __m512i;
    struct Factor {
        Vec value, aux;
    };
    static constexpr size_t width = 8;
    static constexpr int most_levels = 3;
    static constexpr size_t blocks_together = 2;

    Vec p, minus_p, p2, mask;
    const LatticePrime& prime;

    explicit Field(const LatticePrime& facts) : prime(facts) {
        p = _mm512_set1_epi64(static_cast<long long>(facts.p));
        p2 = _mm512_slli_epi64(p, 1);
        mask = _mm512_set1_epi64((1LL << 52) - 1);
        minus_p = _mm512_sub_epi64(_mm512_set1_epi64(1LL << 52), p);
    }

    static inline Vec load(const uint64_t* a) { return _mm512_loadu_si512(a); }
    static inline void store(uint64_t* a, Vec x) { _mm512_storeu_si512(a, x); }
    static inline Factor broadcast(uint64_t value, uint64_t aux) {
        return {_mm512_set1_epi64(static_cast<long long>(value)), _mm512_set1_epi64(static_cast<long long>(aux))};
    }
    static inline Factor factors(const uint64_t* value, const uint64_t* aux) { return {load(value), load(aux)}; }

    // x w modulo p, below 2 p, for x below 2^52: x w - floor(x aux / 2^52) p, of which 52 bits suffice (Shoup)
    inline Vec multiply(Vec x, const Factor& w) const {
        const Vec zero = _mm512_setzero_si512();
        const Vec quotient = _mm512_madd52hi_epu64(zero, x, w.aux);
        const Vec low = _mm512_madd52lo_epu64(zero, x, w.value);
        return _mm512_and_si512(_mm512_madd52lo_epu64(low, quotient, minus_p), mask);
    }

    // multiply(y, w) is added to x on the way; all is below 2^52, so its bits are the sum
    inline void forward(Vec& x, Vec& y, const Factor& w) const {
        const Vec quotient = _mm512_madd52hi_epu64(_mm512_setzero_si512(), y, w.aux);
        const Vec twice = _mm512_add_epi64(_mm512_add_epi64(x, x), p2);
        x = _mm512_and_si512(_mm512_madd52lo_epu64(_mm512_madd52lo_epu64(x, y, w.value), quotient, minus_p), mask);
        y = _mm512_sub_epi64(twice, x);
    }
    // both stay below 2 p
    inline void inverse(Vec& x, Vec& y, const Factor& w) const {
        const Vec sum = _mm512_add_epi64(x, y), difference = _mm512_sub_epi64(_mm512_add_epi64(x, p2), y);
        x = _mm512_min_epu64(sum, _mm512_sub_epi64(sum, p2));
        y = multiply(difference, w);
    }

    // below 4 p, where six more levels could reach 2^52
    inline Vec shrink(Vec x) const {
        if (prime.p >> 47 == 0) return x;
        const Vec p4 = _mm512_slli_epi64(p2, 1), p8 = _mm512_slli_epi64(p2, 2);
        x = _mm512_min_epu64(x, _mm512_sub_epi64(x, p8));
        return _mm512_min_epu64(x, _mm512_sub_epi64(x, p4));
    }
    static inline Vec settle(Vec x) { return x; }

    static inline Vec enter(const uint64_t* a) { return load(a); }
    inline Vec positive(Vec x) const { return _mm512_add_epi64(x, _mm512_and_si512(p, _mm512_srai_epi64(x, 63))); }
    inline Vec enter_signed(const int32_t* a) const {
        return positive(_mm512_cvtepi32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a))));
    }
    inline Vec enter_signed(const int64_t* a) const { return positive(_mm512_loadu_si512(a)); }
    // of a number below 2^52, or of one below 2 p
    inline Vec reduced(Vec x) const {
        const Vec r = multiply(x, broadcast(prime.one.value, prime.one.aux));
        return _mm512_min_epu64(r, _mm512_sub_epi64(r, p));
    }
    inline void leave(uint64_t* a, Vec x) const { store(a, reduced(x)); }

    // the low and high parts of a product; what is above 2^52 times its residue
    inline Vec product(Vec x, Vec y) const {
        const Vec zero = _mm512_setzero_si512();
        return wide(_mm512_madd52lo_epu64(zero, x, y), _mm512_madd52hi_epu64(zero, x, y));
    }
    // low + 2^52 high, low and high below 2^52: below 4 p
    inline Vec wide(Vec low, Vec high) const {
        const Vec a = multiply(high, broadcast(prime.radix.value, prime.radix.aux));
        return _mm512_add_epi64(a, multiply(low, broadcast(prime.one.value, prime.one.aux)));
    }
    static inline Vec plus(Vec x, Vec y) { return _mm512_add_epi64(x, y); }
    // of y below 4 p
    inline Vec minus(Vec x, Vec y) const { return _mm512_sub_epi64(_mm512_add_epi64(x, _mm512_slli_epi64(p2, 1)), y); }

    // low and high parts of products are added up apart: 2^12 of them fit
    struct Sum {
        Vec low, high;
    };
    static inline Sum sum_at(const uint64_t* from, size_t n) { return {load(from), load(from + n)}; }
    static inline void accumulate(Sum& sum, Vec x, Vec y) {
        sum.low = _mm512_madd52lo_epu64(sum.low, x, y);
        sum.high = _mm512_madd52hi_epu64(sum.high, x, y);
    }
    static inline void keep(uint64_t* to, size_t n, const Sum& sum) {
        store(to, sum.low);
        store(to + n, sum.high);
    }
    static inline void settle_sum(uint64_t*) {}
    static inline Sum no_sum() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
    inline Vec value(const Sum& sum) const {
        const Vec high = _mm512_add_epi64(sum.high, _mm512_srli_epi64(sum.low, 52));
        const Vec top =
            multiply(_mm512_srli_epi64(high, 52), broadcast(prime.radix_squared.value, prime.radix_squared.aux));
        return _mm512_add_epi64(top, wide(_mm512_and_si512(sum.low, mask), _mm512_and_si512(high, mask)));
    }

    static inline void transpose(Vec (&x)[8]) {
        Vec y[8];
        for (int i = 0; i < 8; i += 2) {
            y[i] = _mm512_unpacklo_epi64(x[i], x[i + 1]);
            y[i + 1] = _mm512_unpackhi_epi64(x[i], x[i + 1]);
        }
        const Vec low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13),
                  high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
        Vec z[8];
        for (int i = 0; i < 8; i += 4) {
            for (int j = 0; j < 2; ++j) {
                z[i + j] = _mm512_permutex2var_epi64(y[i + j], low, y[i + j + 2]);
                z[i + j + 2] = _mm512_permutex2var_epi64(y[i + j], high, y[i + j + 2]);
            }
        }
        for (int i = 0; i < 4; ++i) {
            x[i] = _mm512_shuffle_i64x2(z[i], z[i + 4], 0x44);
            x[i + 4] = _mm512_shuffle_i64x2(z[i], z[i + 4], 0xee);
        }
    }
};

}  // namespace

MIPP_LATTICE_FORWARD(lattice_forward_avx512) { Kernels<Field>::forward(*prime, a); }
MIPP_LATTICE_INVERSE(lattice_inverse_avx512) { Kernels<Field>::inverse(*prime, a); }
MIPP_LATTICE_MULTIPLY(lattice_multiply_avx512) { Kernels<Field>::multiply(*prime, a, b, out, add); }
MIPP_LATTICE_TRANSPOSE(lattice_transpose_avx512) { transpose_tile(rows, out, stride); }
MIPP_LATTICE_COLUMN(lattice_column_avx512) { Kernels<Field>::column(*prime, column, values); }
MIPP_LATTICE_DIGITS(lattice_digits_avx512) { Kernels<Field>::column(*prime, digits, values); }
MIPP_LATTICE_ADD(lattice_add_avx512) { Kernels<Field>::add(*prime, values, count, query, apart, sums); }
MIPP_LATTICE_SETTLE(lattice_settle_avx512) { Kernels<Field>::settle(*prime, sums); }
MIPP_LATTICE_FINISH(lattice_finish_avx512) { Kernels<Field>::finish(*prime, sums, out0, out1); }
MIPP_LATTICE_PRODUCTS(lattice_products_avx512) {
    Kernels<Field>::products(*prime, values, count, query, apart, out0, out1);
}
MIPP_LATTICE_CHILDREN(lattice_children_avx512) {
    Kernels<Field>::children(*prime, quotient, rest, *inverse, image, c, even, difference);
}
MIPP_LATTICE_GAUSSIAN(lattice_gaussian_avx512) { Kernels<Field>::gaussian(words, n, table, entries, out); }
