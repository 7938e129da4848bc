"""Numbers as rows of 64-bit limbs, least significant first: the form that native code takes."""

from __future__ import annotations

import gmpy2

from .._native._mpz import from_limbs, to_limbs
from ..crypto.schedule import random_bytes

__all__ = ["from_limbs", "limbs_of", "random_below", "to_limbs"]


def limbs_of(n: int) -> int:
    """Number of 64-bit limbs of a positive number."""
    return -(-int(n).bit_length() // 64)


def random_below(n: int, count: int) -> list[gmpy2.mpz]:
    """Draw ``count`` uniform numbers from 1 to n-1 from the operating system's randomness, by rejection."""
    bits = int(n).bit_length()
    size, shift = -(-bits // 8), -bits % 8
    out: list[gmpy2.mpz] = []
    while len(out) < count:
        raw = random_bytes(size * (count - len(out)))
        for i in range(0, len(raw), size):
            x = gmpy2.from_binary(b"\x01\x01" + raw[i : i + size]) >> shift
            if 0 < x < n:
                out.append(x)
    return out
