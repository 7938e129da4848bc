// Integers of 64 bits, one at a time. Factors have floor(value 2^64 / p): a product with one is below 2 p for every
// 64-bit number (Shoup), and a butterfly forward adds at most 2 p to numbers that begin below p < 2^48.
#include "kernels.h"

namespace {

struct Field {
    using Vec = uint64_t;
    struct Factor {
        uint64_t value, aux;
    };
    static constexpr size_t width = 1;
    static constexpr int most_levels = 3;
    static constexpr size_t blocks_together = 1;

    uint64_t p;
    const LatticePrime& prime;

    explicit Field(const LatticePrime& facts) : p(facts.p), prime(facts) {}

    static inline uint64_t load(const uint64_t* a) { return *a; }
    static inline void store(uint64_t* a, uint64_t x) { *a = x; }
    static inline Factor broadcast(uint64_t value, uint64_t aux) { return {value, aux}; }
    static inline Factor factors(const uint64_t* value, const uint64_t* aux) { return {*value, *aux}; }

    inline uint64_t multiply(uint64_t x, const Factor& w) const {
        const auto quotient = static_cast<uint64_t>(static_cast<unsigned __int128>(x) * w.aux >> 64);
        return x * w.value - quotient * p;
    }
    inline void forward(uint64_t& x, uint64_t& y, const Factor& w) const {
        const uint64_t t = multiply(y, w);
        y = x + 2 * p - t;
        x += t;
    }
    // numbers double at most: below 2^16 p after a transform of 2^14
    inline void inverse(uint64_t& x, uint64_t& y, const Factor& w) const {
        const uint64_t sum = x + y, difference = x + (p << 4) - y;
        x = sum;
        y = multiply(difference, w);
    }
    static inline uint64_t shrink(uint64_t x) { return x; }
    inline uint64_t settle(uint64_t x) const { return multiply(x, {prime.one.value, prime.one.aux}); }

    static inline uint64_t enter(const uint64_t* a) { return *a; }
    template <class Number>
    inline uint64_t enter_signed(const Number* a) const {
        const int64_t x = *a;
        return static_cast<uint64_t>(x) + (p & static_cast<uint64_t>(x >> 63));
    }
    // x - p, or x where that is negative
    inline uint64_t reduced(uint64_t x) const {
        const uint64_t r = settle(x) - p;
        return r + (p & -(r >> 63));
    }
    inline void leave(uint64_t* a, uint64_t x) const { *a = reduced(x); }

    inline uint64_t wide(uint64_t low, uint64_t high) const {
        return multiply(high, {prime.radix.value, prime.radix.aux}) + multiply(low, {prime.one.value, prime.one.aux});
    }
    inline uint64_t product(uint64_t x, uint64_t y) const {
        const unsigned __int128 full = static_cast<unsigned __int128>(x) * y;
        return wide(static_cast<uint64_t>(full), static_cast<uint64_t>(full >> 64));
    }
    static inline uint64_t plus(uint64_t x, uint64_t y) { return x + y; }
    // of y below 4 p
    inline uint64_t minus(uint64_t x, uint64_t y) const { return x + 4 * p - y; }

    // sums of 128 bits
    static inline unsigned __int128 sum_at(const uint64_t* from, size_t n) {
        return static_cast<unsigned __int128>(from[n]) << 64 | from[0];
    }
    static inline void accumulate(unsigned __int128& sum, uint64_t x, uint64_t y) {
        sum += static_cast<unsigned __int128>(x) * y;
    }
    static inline void keep(uint64_t* to, size_t n, unsigned __int128 sum) {
        to[0] = static_cast<uint64_t>(sum);
        to[n] = static_cast<uint64_t>(sum >> 64);
    }
    static inline void settle_sum(uint64_t*) {}
    static inline unsigned __int128 no_sum() { return 0; }
    inline uint64_t value(unsigned __int128 sum) const {
        return wide(static_cast<uint64_t>(sum), static_cast<uint64_t>(sum >> 64));
    }

    static inline void transpose(uint64_t (&)[1]) {}
};

}  // namespace

MIPP_LATTICE_FORWARD(lattice_forward_portable) { Kernels<Field>::forward(*prime, a); }
MIPP_LATTICE_INVERSE(lattice_inverse_portable) { Kernels<Field>::inverse(*prime, a); }
MIPP_LATTICE_MULTIPLY(lattice_multiply_portable) { Kernels<Field>::multiply(*prime, a, b, out, add); }
MIPP_LATTICE_TRANSPOSE(lattice_transpose_portable) {
    for (size_t c = 0; c < MIPP_LATTICE_RUN; ++c) {
        for (size_t r = 0; r < MIPP_LATTICE_RUN; ++r) out[c * stride + r] = rows[r * MIPP_LATTICE_RUN + c];
    }
}
MIPP_LATTICE_COLUMN(lattice_column_portable) { Kernels<Field>::column(*prime, column, values); }
MIPP_LATTICE_DIGITS(lattice_digits_portable) { Kernels<Field>::column(*prime, digits, values); }
MIPP_LATTICE_ADD(lattice_add_portable) { Kernels<Field>::add(*prime, values, count, query, apart, sums); }
MIPP_LATTICE_SETTLE(lattice_settle_portable) { Kernels<Field>::settle(*prime, sums); }
MIPP_LATTICE_FINISH(lattice_finish_portable) { Kernels<Field>::finish(*prime, sums, out0, out1); }
MIPP_LATTICE_PRODUCTS(lattice_products_portable) {
    Kernels<Field>::products(*prime, values, count, query, apart, out0, out1);
}
MIPP_LATTICE_CHILDREN(lattice_children_portable) {
    Kernels<Field>::children(*prime, quotient, rest, *inverse, image, c, even, difference);
}
MIPP_LATTICE_GAUSSIAN(lattice_gaussian_portable) { Kernels<Field>::gaussian(words, n, table, entries, out); }
