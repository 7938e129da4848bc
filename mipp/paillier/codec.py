"""Numbers to plaintexts modulo n and back: signed integers, and fixed point with public fraction bits.

An integer v with abs(v) <= n // 3 - 1 is stored as v mod n. A plaintext in the middle third has overflowed.
"""

from __future__ import annotations

import math
from typing import Any

import gmpy2
import numpy as np

from ..errors import DTypeError, ParameterError, PlaintextRangeError, ShapeError
from .keys import PublicKey
from .limbs import from_limbs, to_limbs

__all__ = [
    "FLOAT_BITS",
    "decode",
    "encode",
    "integers",
    "largest",
    "objects",
    "plain_matrix",
    "plain_numbers",
]

#: fraction bits of floats where none are given
FLOAT_BITS = 32
#: a bound on floats where none is given
_FLOAT_LIMIT = 1 << 32
_NUMBERS = (int, float, gmpy2.mpz, np.integer, np.floating)


def largest(key: PublicKey) -> int:
    """Largest absolute value that a plaintext can hold.

    Parameters
    ----------
    key : PublicKey
        The key.

    Returns
    -------
    int
        n // 3 - 1.
    """
    return int(key.n // 3 - 1)


def integers(
    values: Any, fraction_bits: int | None, max_abs: float | None
) -> tuple[list[int], int, int, tuple[int, ...]]:
    """Turn numbers into integers, with a public bound that comes from their type and not from their values.

    Parameters
    ----------
    values : array_like of int or float
        The numbers. Secret.
    fraction_bits : int, optional
        Fraction bits to keep; default 32 for floats, 0 for integers.
    max_abs : float, optional
        Bound on the absolute values. Default: the range of the dtype for numpy integers, the next power of 2^64 for
        Python integers, 2^32 for floats.

    Returns
    -------
    numbers : list of int
        The numbers times 2^fraction_bits, rounded half to even. Secret.
    fraction_bits : int
        Fraction bits. Public.
    bound : int
        Bound on the integers. Public.
    shape : tuple of int
        Shape of ``values``. Public.

    Raises
    ------
    DTypeError
        ``values`` are not numbers.
    ParameterError
        A number is not finite, or an option is out of range.
    PlaintextRangeError
        A number is larger than the bound.
    """
    # numpy would turn a list of large integers into floats
    a = values if isinstance(values, (np.ndarray, np.generic)) else np.array(values, object)
    if a.dtype.kind not in "iufO":
        raise DTypeError(f"numbers must be integers or floats, not {a.dtype}")
    flat = a.reshape(-1).tolist()
    if a.dtype.kind == "O" and not all(isinstance(v, _NUMBERS) and not isinstance(v, bool) for v in flat):
        raise DTypeError("numbers must be integers or floats")
    floats = a.dtype.kind == "f" or any(isinstance(v, (float, np.floating)) for v in flat)
    if fraction_bits is None:
        fraction_bits = FLOAT_BITS if floats else 0
    if isinstance(fraction_bits, bool) or not isinstance(fraction_bits, int) or not 0 <= fraction_bits <= 1024:
        raise ParameterError(f"fraction_bits must be 0 to 1024, not {fraction_bits!r}")
    if floats:
        if not all(math.isfinite(v) for v in flat):
            raise ParameterError("numbers must be finite")
        scaled = [
            round(gmpy2.mpq(float(v) if isinstance(v, np.floating) else v) * (1 << fraction_bits)) for v in flat
        ]  # exact, half to even
    else:
        scaled = [int(v) << fraction_bits for v in flat]
    if max_abs is not None:
        if not max_abs > 0 or not math.isfinite(max_abs):
            raise ParameterError(f"max_abs must be positive, not {max_abs!r}")
        limit = math.ceil(gmpy2.mpq(max_abs) * (1 << fraction_bits))
    elif floats:
        limit = _FLOAT_LIMIT << fraction_bits
    elif a.dtype.kind in "iu":
        limit = 1 << (8 * a.itemsize - (a.dtype.kind == "i") + fraction_bits)
    else:
        limit = 1 << -(-max((v.bit_length() for v in scaled), default=1) // 64) * 64
    if any(abs(v) > limit for v in scaled):
        raise PlaintextRangeError("a number is larger than max_abs allows (2^32 for floats unless it is given)")
    return [int(v) for v in scaled], fraction_bits, int(limit), a.shape


def encode(key: PublicKey, numbers: list[int]) -> np.ndarray:
    """Turn signed integers into plaintexts modulo n.

    Parameters
    ----------
    key : PublicKey
        The key.
    numbers : list of int
        Integers of absolute value at most :func:`largest`. Secret.

    Returns
    -------
    ndarray of uint64, shape (N, limbs)
        Plaintexts. Secret.
    """
    n = key.n
    return to_limbs([v % n for v in numbers], key.limbs)


def decode(key: PublicKey, plain: np.ndarray) -> list[int]:
    """Turn plaintexts into signed integers.

    Parameters
    ----------
    key : PublicKey
        The key.
    plain : ndarray of uint64, shape (N, limbs)
        Plaintexts. Secret.

    Returns
    -------
    list of int
        Signed integers. Secret.

    Raises
    ------
    PlaintextRangeError
        A plaintext lies in the middle third, so a number has overflowed.
    """
    n, limit = key.n, key.n // 3 - 1
    out = []
    for m in from_limbs(plain):
        if m <= limit:
            out.append(int(m))
        elif m >= n - limit:
            out.append(int(m - n))
        else:
            raise PlaintextRangeError("a decrypted number has overflowed")
    return out


def objects(numbers: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """Python integers as an array of dtype object."""
    out = np.empty(len(numbers), object)
    out[:] = numbers
    return out.reshape(shape)


def plain_numbers(values: Any) -> tuple[list[int], int, int, tuple[int, ...]]:
    """Like :func:`integers`, but a single number is public, and its own size is the bound."""
    numbers, fraction, bound, shape = integers(values, None, None)
    return numbers, fraction, bound if shape else max(1, abs(numbers[0])), shape


def plain_matrix(values: Any) -> tuple[np.ndarray, int, int]:
    """Plain weights as an array of integers (dtype kept, or object), their fraction bits and their bound."""
    a = values if isinstance(values, np.ndarray) else np.array(values, object)
    if a.ndim not in (1, 2):
        raise ShapeError(f"plain weights must have one or two dimensions, not {a.ndim}")
    if a.dtype.kind in "iu":
        return a, 0, 1 << 8 * a.itemsize - (a.dtype.kind == "i")
    numbers, fraction, bound, shape = integers(a, None, None)
    return objects(numbers, shape), fraction, bound
