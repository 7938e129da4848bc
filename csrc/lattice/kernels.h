// The kernels of one tier, from its Field.
#pragma once

#include "ntt.h"

namespace {

template <class Field>
struct Kernels {
    using Vec = typename Field::Vec;
    static constexpr size_t width = Field::width;

    static inline void forward(const LatticePrime& p, uint64_t* a) {
        const Field f(p);
        Ntt<Field>::forward(f, p, a, [&](size_t at) { return f.enter(a + at); });
        for (size_t i = 0; i < p.n; i += width) f.leave(a + i, f.load(a + i));
    }

    static inline void inverse(const LatticePrime& p, uint64_t* a) {
        const Field f(p);
        for (size_t i = 0; i < p.n; i += width) f.store(a + i, f.enter(a + i));
        Ntt<Field>::inverse(f, p, a);
        const auto n = f.broadcast(p.inverse_n.value, p.inverse_n.aux);
        for (size_t i = 0; i < p.n; i += width) f.leave(a + i, f.multiply(f.settle(f.load(a + i)), n));
    }

    static inline void multiply(const LatticePrime& p, const uint64_t* a, const uint64_t* b, uint64_t* out, int add) {
        const Field f(p);
        if (add != 0) {
            for (size_t i = 0; i < p.n; i += width) {
                f.leave(out + i, f.plus(f.product(f.enter(a + i), f.enter(b + i)), f.enter(out + i)));
            }
        } else {
            for (size_t i = 0; i < p.n; i += width) f.leave(out + i, f.product(f.enter(a + i), f.enter(b + i)));
        }
    }

    template <class Number>
    static inline void column(const LatticePrime& p, const Number* column, uint64_t* values) {
        const Field f(p);
        Ntt<Field>::forward(f, p, values, [&](size_t at) { return f.enter_signed(column + at); });
    }

    template <size_t count>
    static inline void add(const LatticePrime& p, const uint64_t* values, const uint64_t* query, size_t apart,
                           uint64_t* sums) {
        const Field f(p);
        const size_t n = p.n;
        for (size_t i = 0; i < n; i += width) {
            Vec x[count];
#pragma GCC unroll 4
            for (size_t c = 0; c < count; ++c) x[c] = f.load(values + c * n + i);
#pragma GCC unroll 2
            for (size_t part = 0; part < 2; ++part) {
                auto sum = f.sum_at(sums + 2 * n * part + i, n);
#pragma GCC unroll 4
                for (size_t c = 0; c < count; ++c) f.accumulate(sum, x[c], f.enter(query + (2 * c + part) * apart + i));
                f.keep(sums + 2 * n * part + i, n, sum);
            }
        }
    }

    static inline void add(const LatticePrime& p, const uint64_t* values, size_t count, const uint64_t* query,
                           size_t apart, uint64_t* sums) {
        if (count == MIPP_LATTICE_COLUMNS) return add<MIPP_LATTICE_COLUMNS>(p, values, query, apart, sums);
        for (size_t c = 0; c < count; ++c) add<1>(p, values + c * p.n, query + 2 * c * apart, apart, sums);
    }

    static inline void settle(const LatticePrime& p, uint64_t* sums) {
        const Field f(p);
        for (size_t i = 0; i < p.n; i += width) {
            f.settle_sum(sums + i);
            f.settle_sum(sums + 2 * p.n + i);
        }
    }

    static inline void finish(const LatticePrime& p, const uint64_t* sums, uint64_t* out0, uint64_t* out1) {
        const Field f(p);
        for (size_t i = 0; i < p.n; i += width) {
            f.leave(out0 + i, f.value(f.sum_at(sums + i, p.n)));
            f.leave(out1 + i, f.value(f.sum_at(sums + 2 * p.n + i, p.n)));
        }
    }

    template <size_t count>
    static inline void products(const LatticePrime& p, const uint64_t* values, const uint64_t* query, size_t apart,
                                uint64_t* out0, uint64_t* out1) {
        const Field f(p);
        for (size_t i = 0; i < p.n; i += width) {
            for (size_t part = 0; part < 2; ++part) {
                auto sum = f.no_sum();
#pragma GCC unroll 4
                for (size_t c = 0; c < count; ++c) {
                    f.accumulate(sum, f.load(values + c * p.n + i), f.enter(query + (2 * c + part) * apart + i));
                }
                f.leave((part == 0 ? out0 : out1) + i, f.value(sum));
            }
        }
    }

    static inline void products(const LatticePrime& p, const uint64_t* values, size_t count, const uint64_t* query,
                                size_t apart, uint64_t* out0, uint64_t* out1) {
        switch (count) {
            case 1:
                return products<1>(p, values, query, apart, out0, out1);
            case 2:
                return products<2>(p, values, query, apart, out0, out1);
            case 3:
                return products<3>(p, values, query, apart, out0, out1);
            default:
                return products<4>(p, values, query, apart, out0, out1);
        }
    }

    static inline void children(const LatticePrime& p, const uint64_t* quotient, const int64_t* rest,
                                const LatticeFactor& inverse, const uint64_t* image, const uint64_t* c, uint64_t* even,
                                uint64_t* difference) {
        const Field f(p);
        const auto by = f.broadcast(inverse.value, inverse.aux);
        for (size_t i = 0; i < p.n; i += width) {
            Vec s = f.multiply(f.minus(f.enter(quotient + i), f.enter_signed(rest + i)), by);
            if (image != nullptr) s = f.plus(s, f.enter(image + i));
            const Vec from = f.enter(c + i);
            f.leave(even + i, f.plus(from, s));
            f.leave(difference + i, f.minus(from, s));
        }
    }

    // 63 random bits below entry k say that the number is at least k + 1.
    static inline void gaussian(const uint64_t* words, size_t n, const uint64_t* table, size_t entries, int64_t* out) {
        for (size_t i = 0; i < n; ++i) {
            const int64_t random = static_cast<int64_t>(words[i] >> 1), sign = -static_cast<int64_t>(words[i] & 1);
            int64_t number = 0;
            for (size_t k = 0; k < entries; ++k) number += random < static_cast<int64_t>(table[k]);
            out[i] = (number ^ sign) - sign;
        }
    }
};

}  // namespace
