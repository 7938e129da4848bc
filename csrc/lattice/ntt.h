// The negacyclic number-theoretic transform, for the numbers of any tier. Included by one file of each tier.
//
// A `Field` has vectors of `width` numbers, and on them: load and store, a butterfly each way with a factor (broadcast,
// or a vector of them), the transposition of `width` vectors, and what keeps numbers small (`shrink` before the last
// levels forward, `settle` before each group of levels back).
//
// Several levels are done in one pass over memory: a pass of K levels holds 2^K vectors. The last six levels are done
// on blocks of 8 x 8 numbers, which are transposed after three, so that no level moves numbers within a vector. Blocks
// stay transposed: that is the order of values. A degree below 64 has no blocks; portable code does it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lattice_kernels.h"

namespace {

template <class Field>
struct Ntt {
    using Vec = typename Field::Vec;
    static constexpr size_t width = Field::width;
    static constexpr size_t side = 8, block = 64, lanes = side / width;
    static constexpr int log_side = 3;

    static inline int outer_levels(const LatticePrime& p) { return p.n < block ? p.log_n : p.log_n - 2 * log_side; }

    // Levels first..first + K - 1 of the transform; level l has 2^l groups.
    template <int K, class Load>
    static inline void pass(const Field& f, const LatticePrime& p, uint64_t* a, int first, Load load) {
        constexpr size_t parts = size_t{1} << K;
        const size_t groups = size_t{1} << first, stride = p.n >> (first + K);
        for (size_t i = 0; i < groups; ++i) {
            typename Field::Factor w[parts - 1];
            for (size_t u = 0, k = 0; k < K; ++k) {
                for (size_t j = 0; j < size_t{1} << k; ++j, ++u) {
                    const size_t at = (groups << k) + (i << k) + j;
                    w[u] = f.broadcast(p.forward[at], p.forward_aux[at]);
                }
            }
            const size_t base = i * parts * stride;
            for (size_t j = 0; j < stride; j += width) {
                Vec x[parts];
#pragma GCC unroll 16
                for (size_t q = 0; q < parts; ++q) x[q] = load(base + j + q * stride);
#pragma GCC unroll 4
                for (int k = 0; k < K; ++k) {
                    const size_t half = parts >> (k + 1);
#pragma GCC unroll 8
                    for (size_t u = 0; u < size_t{1} << k; ++u) {
#pragma GCC unroll 8
                        for (size_t b = 0; b < half; ++b) {
                            f.forward(x[2 * half * u + b], x[2 * half * u + b + half], w[(size_t{1} << k) - 1 + u]);
                        }
                    }
                }
#pragma GCC unroll 16
                for (size_t q = 0; q < parts; ++q) f.store(a + base + j + q * stride, x[q]);
            }
        }
    }

    template <class Load>
    static inline void passes(const Field& f, const LatticePrime& p, uint64_t* a, int first, int levels, Load load) {
        switch (levels) {
            case 1:
                return pass<1>(f, p, a, first, load);
            case 2:
                return pass<2>(f, p, a, first, load);
            case 3:
                return pass<3>(f, p, a, first, load);
            default:
                return pass<4>(f, p, a, first, load);
        }
    }

    // How many levels the next pass takes of `left`: as even as the longest pass allows.
    static inline int share(int left) {
        const int count = (left + Field::most_levels - 1) / Field::most_levels;
        return left / count;
    }

    // Three levels, forward, of eight vectors of each of some blocks; `factor` gives that of group u in level k.
    template <size_t together, class Factors>
    static inline void three(const Field& f, Vec (&x)[together * side], Factors factor) {
#pragma GCC unroll 3
        for (int k = 0; k < log_side; ++k) {
            const size_t half = side >> (k + 1);
#pragma GCC unroll 4
            for (size_t u = 0; u < size_t{1} << k; ++u) {
#pragma GCC unroll 4
                for (size_t b = 0; b < half; ++b) {
#pragma GCC unroll 2
                    for (size_t i = 0; i < together; ++i) {
                        const size_t at = i * side + 2 * half * u + b;
                        f.forward(x[at], x[at + half], factor(i, k, u));
                    }
                }
            }
        }
    }

    template <class Factors>
    static inline void three_back(const Field& f, Vec (&x)[side], Factors factor) {
#pragma GCC unroll 3
        for (int k = log_side - 1; k >= 0; --k) {
            const size_t half = side >> (k + 1);
#pragma GCC unroll 4
            for (size_t u = 0; u < size_t{1} << k; ++u) {
                const auto w = factor(k, u);
#pragma GCC unroll 4
                for (size_t b = 0; b < half; ++b) f.inverse(x[2 * half * u + b], x[2 * half * u + b + half], w);
            }
        }
    }

    // Eight vectors that are part `part` of the rows of a block, written as the same part of its columns.
    static inline void transposed(const Field& f, const Vec* x, size_t part, uint64_t* to) {
#pragma GCC unroll 8
        for (size_t r = 0; r < side; r += width) {
            Vec tile[width];
            for (size_t i = 0; i < width; ++i) tile[i] = x[r + i];
            f.transpose(tile);
            for (size_t i = 0; i < width; ++i) f.store(to + (part * width + i) * side + r, tile[i]);
        }
    }

    // `load` gives the vector of coefficients at a position, for the first levels; then numbers are read from a.
    template <class Load>
    static inline void forward(const Field& f, const LatticePrime& p, uint64_t* a, Load load) {
        const int outer = outer_levels(p);
        const auto again = [&](size_t at) { return f.load(a + at); };
        if (outer == 0) {
            for (size_t at = 0; at < p.n; at += width) f.store(a + at, load(at));
        }
        for (int first = 0; first < outer;) {
            const int levels = share(outer - first);
            if (first == 0) {
                passes(f, p, a, first, levels, load);
            } else {
                passes(f, p, a, first, levels, again);
            }
            first += levels;
        }
        size_t done = 0;
        if (Field::blocks_together > 1) done = blocks<Field::blocks_together>(f, p, a, done);
        blocks<1>(f, p, a, done);
    }

    // The last six levels of blocks from `first` on, `together` at a time; the first that was not done.
    template <size_t together>
    static inline size_t blocks(const Field& f, const LatticePrime& p, uint64_t* a, size_t first) {
        const size_t count = p.n / block;
        for (; first + together <= count; first += together) {
            alignas(64) uint64_t columns[together * block];
            uint64_t* at = a + first * block;
            Vec x[together * side];
#pragma GCC unroll 2
            for (size_t part = 0; part < lanes; ++part) {
#pragma GCC unroll 2
                for (size_t i = 0; i < together; ++i) {
#pragma GCC unroll 8
                    for (size_t q = 0; q < side; ++q) {
                        x[i * side + q] = f.shrink(f.load(at + i * block + q * side + part * width));
                    }
                }
                three<together>(f, x, [&](size_t i, int k, size_t u) {
                    const size_t w = (count << k) + ((first + i) << k) + u;
                    return f.broadcast(p.forward[w], p.forward_aux[w]);
                });
#pragma GCC unroll 2
                for (size_t i = 0; i < together; ++i) transposed(f, x + i * side, part, columns + i * block);
            }
#pragma GCC unroll 2
            for (size_t part = 0; part < lanes; ++part) {
#pragma GCC unroll 2
                for (size_t i = 0; i < together; ++i) {
#pragma GCC unroll 8
                    for (size_t q = 0; q < side; ++q)
                        x[i * side + q] = f.load(columns + i * block + q * side + part * width);
                }
                three<together>(f, x, [&](size_t i, int k, size_t u) {
                    const size_t w = (first + i) * (block - side) + ((size_t{1} << k) - 1 + u) * side + part * width;
                    return f.factors(p.forward_last + w, p.forward_last_aux + w);
                });
#pragma GCC unroll 2
                for (size_t i = 0; i < together; ++i) {
#pragma GCC unroll 8
                    for (size_t q = 0; q < side; ++q)
                        f.store(at + i * block + q * side + part * width, x[i * side + q]);
                }
            }
        }
        return first;
    }

    template <int K>
    static inline void pass_back(const Field& f, const LatticePrime& p, uint64_t* a, int first) {
        constexpr size_t parts = size_t{1} << K;
        const size_t groups = size_t{1} << first, stride = p.n >> (first + K);
        for (size_t i = 0; i < groups; ++i) {
            typename Field::Factor w[parts - 1];
            for (size_t u = 0, k = 0; k < K; ++k) {
                for (size_t j = 0; j < size_t{1} << k; ++j, ++u) {
                    const size_t at = (groups << k) + (i << k) + j;
                    w[u] = f.broadcast(p.inverse[at], p.inverse_aux[at]);
                }
            }
            const size_t base = i * parts * stride;
            for (size_t j = 0; j < stride; j += width) {
                Vec x[parts];
#pragma GCC unroll 16
                for (size_t q = 0; q < parts; ++q) x[q] = f.settle(f.load(a + base + j + q * stride));
#pragma GCC unroll 4
                for (int k = K - 1; k >= 0; --k) {
                    const size_t half = parts >> (k + 1);
#pragma GCC unroll 8
                    for (size_t u = 0; u < size_t{1} << k; ++u) {
#pragma GCC unroll 8
                        for (size_t b = 0; b < half; ++b) {
                            f.inverse(x[2 * half * u + b], x[2 * half * u + b + half], w[(size_t{1} << k) - 1 + u]);
                        }
                    }
                }
#pragma GCC unroll 16
                for (size_t q = 0; q < parts; ++q) f.store(a + base + j + q * stride, x[q]);
            }
        }
    }

    // Numbers of this tier, in place; not divided by n.
    static inline void inverse(const Field& f, const LatticePrime& p, uint64_t* a) {
        const int outer = outer_levels(p);
        const size_t blocks = p.n / block;
        const uint64_t *w = p.inverse_last, *aux = p.inverse_last_aux;
        for (size_t i = 0; i < blocks; ++i, w += block - side, aux += block - side) {
            uint64_t* from = a + i * block;
            alignas(64) uint64_t rows[block];
            Vec x[side];
#pragma GCC unroll 2
            for (size_t part = 0; part < lanes; ++part) {
#pragma GCC unroll 8
                for (size_t q = 0; q < side; ++q) x[q] = f.settle(f.load(from + q * side + part * width));
                three_back(f, x, [&](int k, size_t u) {
                    const size_t at = ((size_t{1} << k) - 1 + u) * side + part * width;
                    return f.factors(w + at, aux + at);
                });
                transposed(f, x, part, rows);
            }
#pragma GCC unroll 2
            for (size_t part = 0; part < lanes; ++part) {
#pragma GCC unroll 8
                for (size_t q = 0; q < side; ++q) x[q] = f.settle(f.load(rows + q * side + part * width));
                three_back(f, x, [&](int k, size_t u) {
                    const size_t at = (blocks << k) + (i << k) + u;
                    return f.broadcast(p.inverse[at], p.inverse_aux[at]);
                });
#pragma GCC unroll 8
                for (size_t q = 0; q < side; ++q) f.store(from + q * side + part * width, x[q]);
            }
        }
        // the same passes as forward, from the last to the first
        int starts[16], counts[16], passes_made = 0;
        for (int first = 0; first < outer; ++passes_made) {
            starts[passes_made] = first;
            counts[passes_made] = share(outer - first);
            first += counts[passes_made];
        }
        while (passes_made-- > 0) {
            const int first = starts[passes_made];
            switch (counts[passes_made]) {
                case 1:
                    pass_back<1>(f, p, a, first);
                    break;
                case 2:
                    pass_back<2>(f, p, a, first);
                    break;
                case 3:
                    pass_back<3>(f, p, a, first);
                    break;
                default:
                    pass_back<4>(f, p, a, first);
            }
        }
    }
};

}  // namespace
