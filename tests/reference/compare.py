"""Oracles of the comparison kernels, in plain integers.

Planes are lists of Python integers of any length: bit i of plane b is bit b of value i. ``to_planes`` and
``from_planes`` change between these and the arrays of the kernels.
"""

import numpy as np

from tests.reference import prf

MASK = 2**64 - 1


def plane_words(n):
    """Words of a plane of n values: whole lines of eight."""
    return -(-n // 512) * 8


def to_planes(planes, words):
    return np.array([[p >> 64 * w & MASK for w in range(words)] for p in planes], np.uint64).reshape(len(planes), words)


def from_planes(array):
    return [sum(int(word) << 64 * w for w, word in enumerate(row)) for row in array]


def slice_bits(values, first_bit, width):
    """One integer a plane."""
    return [sum((int(v) >> first_bit + b & 1) << i for i, v in enumerate(values)) for b in range(width)]


def unslice_bits(planes, n):
    return [sum((p >> i & 1) << b for b, p in enumerate(planes)) for i in range(n)]


def stream(key, words):
    """F(key): AES-256-CTR from block 0 in little-endian words."""
    return [int(w) for w in prf.keystream(key, np.uint64, words)]


def stream_planes(key, planes, words):
    """The same as planes."""
    return from_planes(prf.keystream(key, np.uint64, planes * words).reshape(planes, words))


def and_layer(x_lo, x_hi, y_lo, y_hi, key_a, key_b, words):
    """A party's part of x & y, plane by plane."""
    masks = zip(stream_planes(key_a, len(x_lo), words), stream_planes(key_b, len(x_lo), words), strict=True)
    operands = zip(x_lo, x_hi, y_lo, y_hi, strict=True)
    return [(a & c) ^ (a & d) ^ (b & c) ^ m ^ n for (a, b, c, d), (m, n) in zip(operands, masks, strict=True)]


def tree_gates(n):
    """Operands of the AND gates of a layer over n positions: pairs of ("g" or "p", position)."""
    pairs = range(n // 2)
    carried = [(("p", 2 * j + 1), ("g", 2 * j)) for j in pairs]
    return carried + [(("p", 2 * j + 1), ("p", 2 * j)) for j in pairs if j]


def tree_layer(g_lo, g_hi, p_lo, p_hi, key_a, key_b, words):
    lo, hi = {"g": g_lo, "p": p_lo}, {"g": g_hi, "p": p_hi}
    gates = tree_gates(len(g_lo))
    x, y = [a for a, _ in gates], [b for _, b in gates]
    return and_layer(
        [lo[k][i] for k, i in x], [hi[k][i] for k, i in x], [lo[k][i] for k, i in y], [hi[k][i] for k, i in y],
        key_a, key_b, words,
    )  # fmt: skip


def tree_combine(g, p, z):
    """One summand of the next layer; the propagate bits of position 0 are never used and zero."""
    n, pairs = len(g), len(g) // 2
    out_g = [g[2 * j + 1] ^ z[j] for j in range(pairs)] + g[n - 1 :] * (n % 2)
    out_p = [0] * (pairs > 0) + z[pairs:] + p[n - 1 :] * (n % 2)
    return out_g, out_p


def permutation(key, n):
    """Fisher-Yates from the end; also returns the number of words that were rejected."""
    out, at, rejected = list(range(n)), 0, 0
    words = [int(w) for w in prf.keystream(key, np.uint32, n + n // 100 + 64)]
    for last in range(n - 1, 0, -1):
        while (words[at] * (last + 1)) % 2**32 < 2**32 % (last + 1):
            at, rejected = at + 1, rejected + 1
        partner = words[at] * (last + 1) >> 32
        at += 1
        out[last], out[partner] = out[partner], out[last]
    return out, rejected


def shuffle_pass(x, perm, key, sign):
    mask = stream(key, len(x)) if key else [0] * len(x)
    return [(int(x[j]) + sign * m) & MASK for j, m in zip(perm, mask, strict=True)]
