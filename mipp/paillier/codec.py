"""Numbers to integers modulo n and back: signed integers, and fixed point with public fraction bits.

v is kept as v mod n, with |v| <= n // 3 - 1; what decrypts to the middle third has overflowed.
"""

from __future__ import annotations

import math
from typing import Any

import gmpy2
import numpy as np

from ..errors import DTypeError, ParameterError, PlaintextRangeError
from .keys import PublicKey
from .limbs import from_limbs, to_limbs

__all__ = ["FLOAT_BITS", "decode", "encode", "largest"]

#: fraction bits of floats where none are given
FLOAT_BITS = 32
#: a bound on floats where none is given
_FLOAT_LIMIT = 1 << 32
_NUMBERS = (int, float, gmpy2.mpz, np.integer, np.floating)


def largest(key: PublicKey) -> int:
    """Largest absolute value of a plaintext."""
    return int(key.n // 3 - 1)


def integers(
    values: Any, fraction_bits: int | None, max_abs: float | None
) -> tuple[list[int], int, int, tuple[int, ...]]:
    """(integers, fraction bits, bound, shape) of numbers; the bound comes from their type, not from their values.

    Integers of a numpy dtype are bounded by it, Python integers by the next power of 2^64, floats by 2^32.
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
    """Signed integers to plaintexts (N, limbs)."""
    n = key.n
    return to_limbs([v % n for v in numbers], key.limbs)


def decode(key: PublicKey, plain: np.ndarray) -> list[int]:
    """Plaintexts (N, limbs) to signed integers; PlaintextRangeError for what lies in the middle third."""
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
