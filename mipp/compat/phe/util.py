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
    """Compute a^b mod c. Time depends on all three arguments.

    Parameters
    ----------
    a, b, c : int
        Public, or secret where time may tell.

    Returns
    -------
    int

    Raises
    ------
    ZeroDivisionError
        c is 0.

    Examples
    --------
    >>> powmod(3, 4, 50)
    31
    """
    return int(gmpy2.powmod(a, b, c))


def mulmod(a: int, b: int, c: int) -> int:
    """Compute a b mod c.

    Parameters
    ----------
    a, b, c : int
        Integers, c not 0.

    Returns
    -------
    int

    Examples
    --------
    >>> mulmod(7, 8, 10)
    6
    """
    return int(gmpy2.mpz(a) * b % c)


def extended_euclidean_algorithm(a: int, b: int) -> tuple[int, int, int]:
    """Compute the greatest common divisor and its coefficients.

    Parameters
    ----------
    a, b : int
        Integers.

    Returns
    -------
    g, s, t : int
        g = gcd(a, b) = s a + t b.

    Examples
    --------
    >>> extended_euclidean_algorithm(6, 4)
    (2, 1, -1)
    """
    g, s, t = gmpy2.gcdext(a, b)
    return int(g), int(s), int(t)


def invert(a: int, b: int) -> int:
    """Compute the inverse of a modulo b.

    Parameters
    ----------
    a, b : int
        Integers, b not 0.

    Returns
    -------
    int
        1/a modulo b.

    Raises
    ------
    ZeroDivisionError
        a has no inverse.

    Examples
    --------
    >>> invert(3, 10)
    7
    """
    return int(gmpy2.invert(a, b))


def getprimeover(N: int) -> int:
    """Draw a random prime from the operating system's randomness.

    Parameters
    ----------
    N : int
        Bits, at least 2.

    Returns
    -------
    int
        A prime of exactly N bits, uniform among those.

    Raises
    ------
    ValueError
        N is below 2.

    Examples
    --------
    >>> getprimeover(64).bit_length()
    64
    """
    if N < 2:
        raise ValueError("a prime has at least 2 bits")
    while True:
        x = int.from_bytes(random_bytes(-(-N // 8)), "big") % (1 << N - 1) | 1 << N - 1
        if is_prime(x):
            return x


def isqrt(N: int) -> int:
    """Compute the integer square root.

    Parameters
    ----------
    N : int
        Not negative.

    Returns
    -------
    int
        The largest integer whose square is at most N.

    Raises
    ------
    ValueError
        N is negative.

    Examples
    --------
    >>> isqrt(17)
    4
    """
    return int(gmpy2.isqrt(N))


def improved_i_sqrt(n: int) -> int:
    """Compute the integer square root. As :func:`isqrt`, with phe's error.

    Parameters
    ----------
    n : int
        Not negative.

    Returns
    -------
    int
        The largest integer whose square is at most n.

    Raises
    ------
    AssertionError
        n is negative.

    Examples
    --------
    >>> improved_i_sqrt(17)
    4
    """
    if n.bit_length() and n < 0:
        raise AssertionError("the number is negative")
    return isqrt(n)


def base64url_encode(payload: bytes) -> str:
    """Encode bytes as URL-safe base64 without padding.

    Parameters
    ----------
    payload : bytes
        Any bytes.

    Returns
    -------
    str

    Examples
    --------
    >>> base64url_encode(b"abcd")
    'YWJjZA'
    """
    return urlsafe_b64encode(payload).rstrip(b"=").decode()


def base64url_decode(payload: str) -> bytes:
    """Decode URL-safe base64: the inverse of :func:`base64url_encode`.

    Parameters
    ----------
    payload : str
        Text without padding.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        The text is not base64.

    Examples
    --------
    >>> base64url_decode("YWJjZA")
    b'abcd'
    """
    return urlsafe_b64decode((payload + "=" * (-len(payload) % 4)).encode())


def base64_to_int(source: str) -> int:
    """Decode an integer: the inverse of :func:`int_to_base64`.

    Parameters
    ----------
    source : str
        The big-endian bytes of the integer in URL-safe base64.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        The text is empty or not base64.

    Examples
    --------
    >>> base64_to_int("AQA")
    256
    """
    return int(binascii.hexlify(base64url_decode(source)), 16)


def int_to_base64(source: int) -> str:
    """Encode a positive integer as URL-safe base64 of its big-endian bytes.

    Parameters
    ----------
    source : int
        Positive.

    Returns
    -------
    str

    Raises
    ------
    AssertionError
        The integer is 0.

    Examples
    --------
    >>> int_to_base64(256)
    'AQA'
    """
    if source == 0:
        raise AssertionError("0 has no representation")
    text = f"{int(source):x}"
    return base64url_encode(binascii.unhexlify(text if len(text) % 2 == 0 else "0" + text))


def miller_rabin(n: int, k: int) -> bool:
    """Test whether n passes k rounds of a probabilistic primality test.

    Parameters
    ----------
    n, k : int
        The number, and how many rounds.

    Returns
    -------
    bool

    Examples
    --------
    >>> miller_rabin(97, 5)
    True
    """
    return bool(gmpy2.is_prime(n, k))


def is_prime(n: int, mr_rounds: int = 25) -> bool:
    """Test whether n is prime.

    Parameters
    ----------
    n : int
        The number.
    mr_rounds : int
        Rounds of the probabilistic test.

    Returns
    -------
    bool
        False for composite numbers, but for a chance below 4^-mr_rounds.

    Examples
    --------
    >>> is_prime(97), is_prime(91)
    (True, False)
    """
    return n > 1 and bool(gmpy2.is_prime(n, mr_rounds))


def _first(count: int) -> list[int]:
    found, x = [], gmpy2.mpz(1)
    for _ in range(count):
        x = gmpy2.next_prime(x)
        found.append(int(x))
    return found


#: the first 2048 primes
first_primes = _first(2048)
