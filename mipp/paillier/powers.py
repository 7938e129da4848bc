"""Powers and inverses of arrays of ciphertexts: products with plain numbers of either sign."""

from __future__ import annotations

import gmpy2
import numpy as np

from ..errors import ParameterError
from .keys import PublicKey
from .limbs import from_limbs, to_limbs

__all__ = ["elementwise_power", "invert", "weighted_products"]

_DIGIT = 32


def invert(key: PublicKey, data: np.ndarray, *, threads: int | None = None) -> np.ndarray:
    """Invert ciphertexts (N, element_limbs) mod n^2: one inverse for all, three products each (Montgomery's trick)."""
    data = np.ascontiguousarray(data)
    levels = [data]
    while len(levels[-1]) > 1:
        x = levels[-1]
        pairs = key.modulus.mul(x[0 : len(x) - 1 : 2].copy(), x[1::2].copy(), threads=threads)
        levels.append(np.concatenate([pairs, x[-1:]]) if len(x) % 2 else pairs)
    if not len(data):
        return data.copy()
    try:
        root = gmpy2.invert(from_limbs(levels[-1])[0], key.n_squared)
    except ZeroDivisionError:
        raise ParameterError("a number that is not coprime to n is not a ciphertext of this key") from None
    inverse = to_limbs([root], key.element_limbs)
    for x in reversed(levels[:-1]):
        below = np.empty_like(x)
        even = len(x) // 2 * 2
        if even:
            swapped = x[:even].reshape(-1, 2, x.shape[1])[:, ::-1].reshape(even, -1)
            below[:even] = key.modulus.mul(np.repeat(inverse[: even // 2], 2, axis=0), swapped.copy(), threads=threads)
        if len(x) % 2:
            below[-1] = inverse[-1]
        inverse = below
    return inverse


def elementwise_power(key: PublicKey, base: np.ndarray, weights: list[int], bound: int, signed: bool) -> np.ndarray:
    """Compute base[i]^weights[i], abs(weights[i]) <= bound, in constant time; negative weights need ``signed``."""
    bits = max(1, bound.bit_length())
    if signed:
        negative = np.array([w < 0 for w in weights], bool)[:, None]
        base = np.where(negative, invert(key, base), base)
    exponents = to_limbs([abs(w) for w in weights], -(-bits // 64))
    return key.modulus.pow(base, exponents, bits)


def weighted_products(
    key: PublicKey, row: np.ndarray, weights: np.ndarray, bound: int, *, threads: int | None = None
) -> np.ndarray:
    """Compute prod_j row[j]^weights[i, j], shape (M, element_limbs), for integers (M, K) with abs(weights) <= bound.

    Negative weights are shifted: weights + bound are not negative, and one power of the product of all ciphertexts
    takes the shift out again.
    """
    k = row.shape[0]
    # the code below reads the words of memory
    weights = np.require(weights, weights.dtype.newbyteorder("="), ("C", "A"))
    if weights.dtype.kind == "u":
        return key.modulus.multi_pow(
            row, _digits(weights, weights.itemsize), *_widths(weights.itemsize), threads=threads
        )
    if weights.dtype.kind == "i":
        size = weights.itemsize
        # flipping the sign bit adds 2^(bits-1)
        raised = weights.view(f"u{size}") ^ np.array(bound, f"u{size}")
        digits, widths = _digits(raised, size), _widths(size)
    else:
        size = -(-(2 * bound).bit_length() // _DIGIT) * _DIGIT // 8
        flat = [int(w) + bound for w in weights.reshape(-1).tolist()]
        raw = b"".join(w.to_bytes(size, "little") for w in flat)
        words = np.frombuffer(raw, "<u4").reshape(len(weights), k, size // 4)
        digits, widths = np.ascontiguousarray(words.transpose(0, 2, 1)), (_DIGIT, _DIGIT)
    sums = key.modulus.multi_pow(row, digits, *widths, threads=threads)
    whole = key.modulus.product(row[None], threads=threads)
    limbs = bound.bit_length() // 64 + 1
    offset = key.modulus.pow_var(whole, to_limbs([bound], limbs)[0])
    return key.modulus.mul(sums, invert(key, offset), threads=threads)


def _digits(weights: np.ndarray, size: int) -> np.ndarray:
    return weights.astype(f"u{size}", copy=False)[:, None, :]


def _widths(size: int) -> tuple[int, int]:
    return 8 * size, 8 * size
