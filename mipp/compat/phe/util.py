"""Helpers of the same names as ``phe.util``, over gmpy2."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode

import gmpy2

from ...crypto.schedule import random_bytes

__all__ = [
    "base64_to_int",
    "base64url_decode",
    "base64url_encode",
    "extended_euclidean_algorithm",
    "first_primes",
    "getprimeover",
    "improved_i_sqrt",
    "int_to_base64",
    "invert",
    "is_prime",
    "isqrt",
    "miller_rabin",
    "mulmod",
    "powmod",
]

HAVE_GMP = True
HAVE_CRYPTO = False


def powmod(a: int, b: int, c: int) -> int:
    """a^b mod c; time depends on all three."""
    return int(gmpy2.powmod(a, b, c))


def mulmod(a: int, b: int, c: int) -> int:
    """a b mod c"""
    return int(gmpy2.mpz(a) * b % c)


def extended_euclidean_algorithm(a: int, b: int) -> tuple[int, int, int]:
    """(g, s, t) with g = gcd(a, b) = s a + t b"""
    g, s, t = gmpy2.gcdext(a, b)
    return int(g), int(s), int(t)


def invert(a: int, b: int) -> int:
    """1/a mod b; ZeroDivisionError if there is none."""
    return int(gmpy2.invert(a, b))


def getprimeover(N: int) -> int:
    """A random prime of exactly N bits, from the operating system's randomness, uniform among those."""
    if N < 2:
        raise ValueError("a prime has at least 2 bits")
    while True:
        x = int.from_bytes(random_bytes(-(-N // 8)), "big") % (1 << N - 1) | 1 << N - 1
        if is_prime(x):
            return x


def isqrt(N: int) -> int:
    """Integer square root; ValueError for negative numbers."""
    return int(gmpy2.isqrt(N))


def improved_i_sqrt(n: int) -> int:
    """Integer square root; AssertionError for negative numbers."""
    if n.bit_length() and n < 0:
        raise AssertionError("the number is negative")
    return isqrt(n)


def base64url_encode(payload: bytes) -> str:
    """URL-safe base64 without padding."""
    return urlsafe_b64encode(payload).rstrip(b"=").decode()


def base64url_decode(payload: str) -> bytes:
    """Inverse of :func:`base64url_encode`."""
    return urlsafe_b64decode((payload + "=" * (-len(payload) % 4)).encode())


def base64_to_int(source: str) -> int:
    """An integer from its big-endian bytes in URL-safe base64."""
    return int(binascii.hexlify(base64url_decode(source)), 16)


def int_to_base64(source: int) -> str:
    """Inverse of :func:`base64_to_int`, for positive integers."""
    if source == 0:
        raise AssertionError("0 has no representation")
    text = f"{int(source):x}"
    return base64url_encode(binascii.unhexlify(text if len(text) % 2 == 0 else "0" + text))


def miller_rabin(n: int, k: int) -> bool:
    """Whether n passes k rounds."""
    return bool(gmpy2.is_prime(n, k))


def is_prime(n: int, mr_rounds: int = 25) -> bool:
    """Whether n is (almost certainly) prime."""
    return n > 1 and bool(gmpy2.is_prime(n, mr_rounds))


def _first(count: int) -> list[int]:
    found, x = [], gmpy2.mpz(1)
    for _ in range(count):
        x = gmpy2.next_prime(x)
        found.append(int(x))
    return found


#: the first 2048 primes
first_primes = _first(2048)
