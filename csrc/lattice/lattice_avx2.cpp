// Floating-point numbers: integers below 2^53, and products by fused multiply-add, whose error is a number itself. AVX2
// has no product of 64-bit integers; four of these take six instructions. All numbers are integers, so every step but
// the quotient is exact, and nothing is ever denormal: the time does not depend on numbers.
#include <immintrin.h>

#include "kernels.h"
#include "transpose.h"

namespace {

struct Field {
    using Vec = __m256d;
    struct Factor {
        Vec value, aux;
    };
    static constexpr size_t width = 4;
    static constexpr int most_levels = 3;
    static constexpr size_t blocks_together = 1;

    Vec p, inverse_p;

    explicit Field(const LatticePrime& facts)
        : p(_mm256_set1_pd(static_cast<double>(facts.p))),
          inverse_p(_mm256_set1_pd(1.0 / static_cast<double>(facts.p))) {}

    static inline Vec bits(uint64_t x) { return _mm256_castsi256_pd(_mm256_set1_epi64x(static_cast<long long>(x))); }
    static inline Vec load(const uint64_t* a) { return _mm256_loadu_pd(reinterpret_cast<const double*>(a)); }
    static inline void store(uint64_t* a, Vec x) { _mm256_storeu_pd(reinterpret_cast<double*>(a), x); }
    static inline Factor broadcast(uint64_t value, uint64_t aux) { return {bits(value), bits(aux)}; }
    static inline Factor factors(const uint64_t* value, const uint64_t* aux) { return {load(value), load(aux)}; }
    static inline Vec rounded(Vec x) { return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

    // x y - quotient p, x y being high + low exactly: below p in absolute value while abs(x y) < 2^51 p
    inline Vec less(Vec x, Vec y, Vec quotient, Vec high) const {
        const Vec low = _mm256_fmsub_pd(x, y, high);
        return _mm256_add_pd(_mm256_fnmadd_pd(quotient, p, high), low);
    }
    inline Vec multiply(Vec x, const Factor& w) const {
        return less(x, w.value, rounded(_mm256_mul_pd(x, w.aux)), _mm256_mul_pd(x, w.value));
    }
    inline Vec product(Vec x, Vec y) const {
        const Vec high = _mm256_mul_pd(x, y);
        return less(x, y, rounded(_mm256_mul_pd(high, inverse_p)), high);
    }
    inline void forward(Vec& x, Vec& y, const Factor& w) const {
        const Vec t = multiply(y, w);
        y = _mm256_sub_pd(x, t);
        x = _mm256_add_pd(x, t);
    }
    inline void inverse(Vec& x, Vec& y, const Factor& w) const {
        const Vec sum = _mm256_add_pd(x, y), difference = _mm256_sub_pd(x, y);
        x = sum;
        y = multiply(difference, w);
    }
    static inline Vec shrink(Vec x) { return x; }
    inline Vec settle(Vec x) const { return _mm256_fnmadd_pd(rounded(_mm256_mul_pd(x, inverse_p)), p, x); }

    // an integer below 2^52 is the fraction of a number between 2^52 and 2^53
    static inline Vec enter(const uint64_t* a) {
        const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
        const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a));
        return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(x, magic)), _mm256_castsi256_pd(magic));
    }
    static inline Vec enter_signed(const int32_t* a) {
        return _mm256_cvtepi32_pd(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a)));
    }
    // a number between -2^51 and 2^51, from 2^52 + 2^51 on
    static inline Vec enter_signed(const int64_t* a) {
        const __m256i magic = _mm256_set1_epi64x(0x4338000000000000);
        const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a));
        return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_add_epi64(x, magic)), _mm256_castsi256_pd(magic));
    }
    inline void leave(uint64_t* a, Vec x) const {
        const Vec r = settle(x), negative = _mm256_cmp_pd(r, _mm256_setzero_pd(), _CMP_LT_OQ);
        const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
        const Vec positive = _mm256_add_pd(_mm256_add_pd(r, _mm256_and_pd(negative, p)), _mm256_castsi256_pd(magic));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(a), _mm256_xor_si256(_mm256_castpd_si256(positive), magic));
    }
    static inline Vec plus(Vec x, Vec y) { return _mm256_add_pd(x, y); }
    static inline Vec minus(Vec x, Vec y) { return _mm256_sub_pd(x, y); }

    // products are below 1.5 p, so sums of MIPP_LATTICE_RUN of them stay below 2^53
    static inline Vec sum_at(const uint64_t* from, size_t) { return load(from); }
    inline void accumulate(Vec& sum, Vec x, Vec y) const { sum = _mm256_add_pd(sum, product(x, y)); }
    static inline void keep(uint64_t* to, size_t, Vec sum) { store(to, sum); }
    inline void settle_sum(uint64_t* sum) const { store(sum, settle(load(sum))); }
    static inline Vec no_sum() { return _mm256_setzero_pd(); }
    static inline Vec value(Vec sum) { return sum; }

    static inline void transpose(Vec (&x)[4]) {
        const Vec a = _mm256_unpacklo_pd(x[0], x[1]), b = _mm256_unpackhi_pd(x[0], x[1]);
        const Vec c = _mm256_unpacklo_pd(x[2], x[3]), d = _mm256_unpackhi_pd(x[2], x[3]);
        x[0] = _mm256_permute2f128_pd(a, c, 0x20);
        x[1] = _mm256_permute2f128_pd(b, d, 0x20);
        x[2] = _mm256_permute2f128_pd(a, c, 0x31);
        x[3] = _mm256_permute2f128_pd(b, d, 0x31);
    }
};

}  // namespace

MIPP_LATTICE_FORWARD(lattice_forward_avx2) { Kernels<Field>::forward(*prime, a); }
MIPP_LATTICE_INVERSE(lattice_inverse_avx2) { Kernels<Field>::inverse(*prime, a); }
MIPP_LATTICE_MULTIPLY(lattice_multiply_avx2) { Kernels<Field>::multiply(*prime, a, b, out, add); }
MIPP_LATTICE_TRANSPOSE(lattice_transpose_avx2) { transpose_tile(rows, out, stride); }
MIPP_LATTICE_COLUMN(lattice_column_avx2) { Kernels<Field>::column(*prime, column, values); }
MIPP_LATTICE_DIGITS(lattice_digits_avx2) { Kernels<Field>::column(*prime, digits, values); }
MIPP_LATTICE_ADD(lattice_add_avx2) { Kernels<Field>::add(*prime, values, count, query, apart, sums); }
MIPP_LATTICE_SETTLE(lattice_settle_avx2) { Kernels<Field>::settle(*prime, sums); }
MIPP_LATTICE_FINISH(lattice_finish_avx2) { Kernels<Field>::finish(*prime, sums, out0, out1); }
MIPP_LATTICE_PRODUCTS(lattice_products_avx2) {
    Kernels<Field>::products(*prime, values, count, query, apart, out0, out1);
}
MIPP_LATTICE_CHILDREN(lattice_children_avx2) {
    Kernels<Field>::children(*prime, quotient, rest, *inverse, image, c, even, difference);
}
MIPP_LATTICE_GAUSSIAN(lattice_gaussian_avx2) { Kernels<Field>::gaussian(words, n, table, entries, out); }
