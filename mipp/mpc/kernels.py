"""Local steps of one party: the native kernels of ``csrc/compare``, with outputs allocated here.

Planes: uint64 (width, W), W = ``plane_words(n)``; bit i % 64 of planes[b, i // 64] is bit b of value i. Masks are
AES-256-CTR keystream under keys of one step. Nothing here sends anything.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from .._native import _core

__all__ = [
    "add_mask", "and_gates", "combine", "digest", "digit_carries", "digit_products", "digits", "keystream",
    "layer_gates", "mask_planes", "pack", "packed_words", "permutation", "plane_words", "products",
    "shuffle_pass", "slice_planes", "square_dealer", "square_share", "tree_gates", "unpack", "unpack_add", "words_mask",
    "xor_mask",
]  # fmt: skip

#: both summands that a party holds, and keys of both masks of a zero share
Planes = tuple[np.ndarray, np.ndarray]
Keys = tuple[bytes, bytes]
#: carry, top bit and delta of every mask, or shares of them modulo 2^e: uint8, uint16 or uint32
Hints = tuple[np.ndarray, np.ndarray, np.ndarray]

#: plane words come in groups of 8: 512 values
GROUP = 8
#: words that are unpacked at once when they are added to others
UNPACKED = 1 << 18
GROUP_VALUES = 64 * GROUP


def plane_words(n: int) -> int:
    """Words of one bit plane of n values."""
    return -(-n // GROUP_VALUES) * GROUP


def slice_planes(words: np.ndarray, width: int, threads: int) -> np.ndarray:
    """Bits 0..width-1 of (n,) words as (width, plane_words(n)) planes; bits beyond n are zero."""
    planes = np.empty((width, plane_words(len(words))), np.uint64)
    _core.slice_bits(words, 0, planes, threads)
    return planes


def mask_planes(key: bytes, shape: tuple[int, int], threads: int) -> np.ndarray:
    """Keystream as planes."""
    out = np.empty(shape, np.uint64)
    _core.prf_words(key, out, threads)
    return out


def xor_mask(key: bytes, planes: np.ndarray, threads: int) -> None:
    """XOR keystream onto contiguous planes, in place."""
    _core.prf_xor(key, planes, threads)


def words_mask(key: bytes, out: np.ndarray, threads: int) -> None:
    """Keystream into contiguous uint64 words."""
    _core.prf_words(key, out, threads)


def keystream(key: bytes, count: int, dtype: np.dtype[Any], threads: int) -> np.ndarray:
    """The first ``count`` words of a key's stream, of any unsigned dtype."""
    words = np.empty(-(-count * dtype.itemsize // 8), np.uint64)
    _core.prf_words(key, words, threads)
    return words.view(dtype)[:count]


def add_mask(key: bytes, words: np.ndarray, sign: int, threads: int) -> None:
    """Add (sign 1) or subtract (-1) keystream from uint64 words, in place."""
    _core.prf_add(key, words, sign < 0, threads)


def and_gates(x: Planes, y: Planes, keys: Keys, out: np.ndarray, threads: int) -> None:
    """This party's additive part of x & y, replicated (lo, hi) planes, masked by a zero share."""
    _core.and_layer(x[0], x[1], y[0], y[1], keys[0], keys[1], out, threads)


def digits(n: int) -> int:
    """Digits of three bits, least significant first, that n bits make; the last may be shorter."""
    return -(-n // 3)


def products(n: int) -> int:
    """Products of the bits of every subset of a digit, over all digits of n bits: 7 for three bits, 3 for two, 1."""
    return 7 * (n // 3) + (1 << n % 3) - 1


def digit_products(planes: np.ndarray, threads: int) -> np.ndarray:
    """(v, W) planes to (products(v - 1) + 1, W): products of the digits of all bits but the top one, then that one.

    Subset m of a digit, a number of three bits, is its place m - 1.
    """
    out = np.empty((products(len(planes) - 1) + 1, planes.shape[1]), np.uint64)
    _core.digit_products(planes[:-1], out[:-1], threads)
    out[-1] = planes[-1]
    return out


def digit_carries(shares: np.ndarray, t: np.ndarray, first: bool, threads: int) -> np.ndarray:
    """An XOR share of S + T's generate bits of all digits, then of the propagate bits of all but the lowest.

    Two parties know T and hold XOR shares of the products of S's digits; one of the two is ``first``. The parts are not
    masked.
    """
    out = np.empty((2 * digits(len(t)) - 1, t.shape[1]), np.uint64)
    _core.digit_carries(shares, t, first, out, threads)
    return out


def layer_gates(n: int) -> int:
    """AND gates of a tree layer over n (generate, propagate) pairs: the lowest needs no propagate."""
    return n // 2 + max(n // 2 - 1, 0)


def tree_gates(g: Planes, p: Planes, keys: Keys, out: np.ndarray, threads: int) -> None:
    """This party's masked additive part of one tree layer's gates: (layer_gates(n), W)."""
    _core.tree_layer(g[0], g[1], p[0], p[1], keys[0], keys[1], out, threads)


def combine(g: np.ndarray, p: np.ndarray, z: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """One summand of the next layer's (generate, propagate) from this layer's and its gates."""
    half = (len(g) + 1) // 2
    out_g, out_p = np.empty((half, g.shape[1]), np.uint64), np.empty((half, g.shape[1]), np.uint64)
    _core.tree_combine(g, p, z, out_g, out_p, threads)
    return out_g, out_p


def packed_words(n: int, width: int) -> int:
    """Words that :func:`pack` makes of n words."""
    return -(-n * width // 64)


def pack(words: np.ndarray, width: int, threads: int) -> np.ndarray:
    """The low ``width`` bits of (n,) uint64 words, one after the other; nothing above them is kept."""
    out = np.empty(packed_words(len(words), width), np.uint64)
    _core.pack_words(words, width, out, threads)
    return out


def unpack(packed: np.ndarray, n: int, width: int, threads: int) -> np.ndarray:
    """The n words of :func:`pack`, each below 2^width."""
    out = np.empty(n, np.uint64)
    _core.unpack_words(packed, width, out, threads)
    return out


def unpack_add(packed: np.ndarray, words: np.ndarray, width: int, threads: int) -> None:
    """Add the words of :func:`pack` to (n,) uint64 words, in place."""
    for start in range(0, len(words), UNPACKED):
        part = words[start : start + UNPACKED]
        first = start // 64 * width
        part += unpack(packed[first : first + packed_words(len(part), width)], len(part), width, threads)


def permutation(key: bytes, n: int) -> np.ndarray:
    """The uniform permutation of a key: (n,) uint32."""
    return _core.permutation(key, n)


def shuffle_pass(x: np.ndarray, perm: np.ndarray, mask: tuple[bytes, int], threads: int) -> np.ndarray:
    """x[perm] + mask over uint64 words; the mask is (key, sign)."""
    out = np.empty(len(x), np.uint64)
    _core.shuffle_pass(x, perm, *mask, out, threads)
    return out


def square_dealer(r1: np.ndarray, r2: np.ndarray, weights: np.ndarray, hints: Hints | None, threads: int) -> np.ndarray:
    """The dealer's part of every row's weighted sum of squares; hints, cloud 1's shares, become cloud 2's in place."""
    out = np.empty(len(r1), np.uint64)
    carry, msb, delta = hints or (None, None, None)
    _core.square_dealer(r1, r2, weights, out, carry, msb, delta, threads)
    return out


def square_share(
    m: np.ndarray, r: np.ndarray, weights: np.ndarray, first: bool, hints: Hints | None, threads: int
) -> np.ndarray:
    """A cloud's part, from masked words m, its own mask words r and its shares of the hints; first: cloud 1."""
    out = np.empty(len(m), np.uint64)
    carry, msb, delta = hints or (None, None, None)
    _core.square_share(m, r, weights, first, out, carry, msb, delta, threads)
    return out


def digest(*values: object) -> bytes:
    """SHA-256 over public values, 32 bytes."""
    return hashlib.sha256(repr(values).encode()).digest()
