"""Paillier keys: generation, checks, and encryption and decryption of arrays of 64-bit limbs.

A ciphertext is c = (1 + m n) r^n mod n^2 (Paillier, EUROCRYPT 1999). Short randomness: Damgard, Jurik, Nielsen, "A
generalization of Paillier's public-key system with applications to electronic voting", 2010 (section 4.2).
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from typing import Any

import gmpy2
import numpy as np

from .._native import _core
from ..crypto.schedule import random_bytes
from ..errors import DTypeError, ParameterError, ShapeError
from .limbs import from_limbs, limbs_of, random_below, to_limbs

__all__ = ["DEFAULT_BITS", "PrivateKey", "PublicKey", "generate_keypair"]

DEFAULT_BITS = 3072
LEAST_BITS, MOST_BITS = 2048, 4096
_PUBLIC, _PRIVATE = b"mipp paillier public 1\n", b"mipp paillier private 1\n"
#: number of encryptions with one key from which a table of powers pays for itself
_TABLE_FROM = 24
_SMALL_PRIMES = math.prod(p for p in range(3, 1000) if all(p % d for d in range(2, int(p**0.5) + 1)))


class PublicKey:
    """A Paillier public key: the modulus n.

    Parameters
    ----------
    n : int
        The product of two secret primes, 2048 to 4096 bits. Public.
    insecure : bool
        Allow fewer than 2048 bits; for tests only.

    Attributes
    ----------
    n, n_squared : gmpy2.mpz
        The modulus, and its square.
    bits : int
        Bits of n.
    limbs, element_limbs : int
        64-bit limbs of a plaintext and of a ciphertext.
    fingerprint : bytes
        32 bytes: SHA-256 of n with a label.
    modulus : Modulus
        Native arithmetic modulo n^2.

    Raises
    ------
    ParameterError
        n is even, has the wrong size, is prime or a perfect power, or has a factor below 1000. Whether n has two large
        prime factors cannot be checked from outside.
    DTypeError
        n is not an integer.

    Notes
    -----
    Keys can be used from several threads. A key pickles as n alone; bases and tables of randomness are never written
    anywhere.

    Examples
    --------
    >>> from mipp.paillier import PublicKey, generate_keypair
    >>> public = generate_keypair(256, insecure=True).public  # a test key; leave out both arguments for a real one
    >>> public.bits, public.element_limbs
    (256, 8)
    >>> PublicKey.from_bytes(public.to_bytes(), insecure=True) == public
    True
    """

    def __init__(self, n: int, *, insecure: bool = False) -> None:
        n = gmpy2.mpz(_integer(n, "n"))
        bits = n.bit_length()
        if not insecure and not LEAST_BITS <= bits <= MOST_BITS:
            raise ParameterError(f"a Paillier modulus has {LEAST_BITS} to {MOST_BITS} bits, not {bits}")
        if n < 15 or n % 2 == 0 or bits > MOST_BITS:
            raise ParameterError("a Paillier modulus is odd, the product of two odd primes, and has at most 4096 bits")
        if not insecure and gmpy2.gcd(n, _SMALL_PRIMES) != 1:
            raise ParameterError("this Paillier modulus has a small factor")
        if gmpy2.is_prime(n) or gmpy2.is_power(n):
            raise ParameterError("a Paillier modulus is neither prime nor a perfect power")
        self.n, self.n_squared, self.bits = n, n * n, bits
        self.limbs = limbs_of(n)
        self.element_limbs = 2 * self.limbs
        self.insecure = insecure
        self.fingerprint = hashlib.sha256(b"mipp v1 paillier" + n.to_bytes(8 * self.limbs, "big")).digest()
        self.modulus = _core.Modulus(to_limbs([n], self.limbs)[0], True)
        self._base: _core.FixedBase | None = None
        self._encrypted = 0
        self._lock, self._process = threading.Lock(), os.getpid()

    def __repr__(self) -> str:
        return f"PublicKey({self.bits} bits, {self.fingerprint[:8].hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.n == other.n

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> Any:
        return _load_public, (self.to_bytes(), self.insecure)

    def to_bytes(self) -> bytes:
        """Serialise the key: label, format version and n, big-endian.

        Returns
        -------
        bytes
            Public.
        """
        return _PUBLIC + int(self.n).to_bytes(-(-self.bits // 8), "big")

    @classmethod
    def from_bytes(cls, data: bytes, *, insecure: bool = False) -> PublicKey:
        """Read a key that :meth:`to_bytes` wrote.

        Parameters
        ----------
        data : bytes
            The serialised key.
        insecure : bool
            As for :class:`PublicKey`.

        Returns
        -------
        PublicKey
            The key.

        Raises
        ------
        ParameterError
            Not a public key of this format version, or a bad modulus.
        """
        raw = _body(data, _PUBLIC, "public")
        return cls(int.from_bytes(raw, "big"), insecure=insecure)

    # --- encryption ---------------------------------------------------------------------------------------------

    def randomness(self, count: int, *, full_range: bool = False, threads: int | None = None) -> np.ndarray:
        """Make fresh values r^n mod n^2. Each one is for a single ciphertext.

        Parameters
        ----------
        count : int
            Number of values.
        full_range : bool
            Draw r uniformly from Z_n*. Otherwise r = h^a, with h = -x^2 mod n for a random x of this process, and a
            uniform exponent a of half the bits of n. See Notes.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        ndarray of uint64, shape (count, element_limbs)
            Secret.

        Raises
        ------
        ParameterError
            ``count`` is negative or not an integer.

        Notes
        -----
        Short exponents are ten times faster or more, once a table of powers is made. Without the factors of n, short
        randomness cannot be told from full-range randomness, if a short exponent is as good as a uniform one in the
        group of h (Damgard, Jurik, Nielsen 2010; short exponents: Koshiba, Kurosawa 2004). Whoever has the factors
        can tell, and can strip such randomness off: what is sent *to the key's owner* needs ``full_range``.

        Cost: one power of n's size per value with full range, a tenth or less with the table.
        """
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
            raise ParameterError(f"count must be a number of ciphertexts, not {count!r}")
        count = int(count)
        if full_range or not self._table_pays(count, threads):
            return self._powers_of_n(self._units(count), threads)
        assert self._base is not None
        half = -(-self.bits // 2)
        raw = np.frombuffer(random_bytes(-(-half // 64) * 8 * count), np.uint64).reshape(count, -(-half // 64)).copy()
        if half % 64:
            raw[:, -1] &= np.uint64((1 << half % 64) - 1)
        return self._base.pow(raw, threads=threads)

    def prepare(self, *, threads: int | None = None) -> None:
        """Make the table of powers for short randomness now: some milliseconds, 10 to 20 MB.

        Otherwise the first call that encrypts many numbers makes it.

        Parameters
        ----------
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.
        """
        with self._guard():
            if self._base is None:
                x = self._units(1)[0]
                h = self._powers_of_n([self.n - x * x % self.n], threads)
                self._base = _core.FixedBase(self.modulus, h[0], -(-self.bits // 2), threads=threads)

    @property
    def prepared(self) -> bool:
        """Whether the table of powers exists."""
        return self._base is not None

    def _guard(self) -> threading.Lock:
        if self._process != os.getpid():  # a fork may have copied a lock that another thread held
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock

    def raw_encrypt(
        self, plain: np.ndarray, randomness: np.ndarray | None = None, *, full_range: bool = False,
        threads: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Encrypt numbers below n, given as limbs.

        Parameters
        ----------
        plain : ndarray of uint64, shape (N, limbs)
            Numbers, least significant limb first. Secret.
        randomness : ndarray of uint64, shape (N, element_limbs), optional
            Values from :meth:`randomness` that no ciphertext has used. Default: fresh ones.
        full_range : bool
            As for :meth:`randomness`.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        ndarray of uint64, shape (N, element_limbs)
            Ciphertexts.

        Raises
        ------
        ParameterError, ShapeError, DTypeError
            A number is not below n, or an array has another shape or dtype.
        """
        if randomness is None:
            randomness = self.randomness(len(plain), full_range=full_range, threads=threads)
        return self.modulus.add_plain(randomness, plain, threads=threads)

    def _table_pays(self, count: int, threads: int | None) -> bool:
        with self._guard():
            self._encrypted += count
            wanted = self._base is not None or self._encrypted >= _TABLE_FROM
        if wanted:
            self.prepare(threads=threads)
        return wanted

    def _units(self, count: int) -> list[Any]:
        """Uniform elements of Z_n*. With a full-size key, a number that is not a unit would factor n."""
        found = random_below(self.n, count)
        while self.bits < 256 and any(gmpy2.gcd(x, self.n) != 1 for x in found):
            found = [x if gmpy2.gcd(x, self.n) == 1 else random_below(self.n, 1)[0] for x in found]
        return found

    def _powers_of_n(self, roots: list[Any], threads: int | None) -> np.ndarray:
        wide = np.zeros((len(roots), self.element_limbs), np.uint64)
        wide[:, : self.limbs] = to_limbs(roots, self.limbs)
        return self.modulus.pow_var(wide, to_limbs([self.n], self.limbs)[0], threads=threads)


def _load_public(data: bytes, insecure: bool) -> PublicKey:
    return PublicKey.from_bytes(data, insecure=insecure)


class PrivateKey:
    """A Paillier private key: the primes p and q.

    Parameters
    ----------
    p, q : int
        Distinct primes with the same number of bits. Secret.
    insecure : bool
        Allow a modulus of fewer than 2048 bits; for tests only.

    Attributes
    ----------
    public : PublicKey
        The public key.
    p, q : gmpy2.mpz
        The primes. Secret.

    Raises
    ------
    ParameterError
        The numbers are not prime, are equal or differ in size, or gcd(pq, (p-1)(q-1)) is not 1.
    DTypeError
        p or q is not an integer.

    Notes
    -----
    A private key does not pickle, and its repr does not show the primes.

    Examples
    --------
    >>> from mipp.paillier import PrivateKey, decrypt, encrypt
    >>> key = PrivateKey(1019, 1283, insecure=True)  # tiny primes, for the example only
    >>> key.public.n
    mpz(1307377)
    >>> int(decrypt(key, encrypt(key.public, -7, max_abs=100)))
    -7
    """

    def __init__(self, p: int, q: int, *, insecure: bool = False) -> None:
        p, q = (gmpy2.mpz(_integer(x, "p and q")) for x in (p, q))
        if min(p, q) < 3 or not (gmpy2.is_prime(p, 40) and gmpy2.is_prime(q, 40)):
            raise ParameterError("p and q must be odd primes")
        if p == q or gmpy2.gcd(p * q, (p - 1) * (q - 1)) != 1:
            raise ParameterError("p and q must differ, and pq must have no factor in common with (p-1)(q-1)")
        if not insecure and p.bit_length() != q.bit_length():
            raise ParameterError("p and q must have the same number of bits")
        self.public = PublicKey(p * q, insecure=insecure)
        self.p, self.q = p, q
        limbs = max(limbs_of(p), limbs_of(q))
        # L((1+n)^(s-1) mod s^2) = (s-1) n/s mod s = -n/s mod s
        constants = p, q, gmpy2.invert(-q, p), gmpy2.invert(-p, q), gmpy2.invert(q, p)
        self._decryptor = _core.PaillierDecryptor(*to_limbs(list(constants), limbs))

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.bits} bits, {self.public.fingerprint[:8].hex()}, secret hidden)"

    def __reduce__(self) -> str:
        raise TypeError("a private key is secret and does not pickle; see to_bytes")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrivateKey) and {self.p, self.q} == {other.p, other.q}

    def __hash__(self) -> int:
        return hash(self.public)

    def to_bytes(self) -> bytes:
        """Serialise the key: label, format version and both primes in the clear.

        Returns
        -------
        bytes
            **Secret**: store it encrypted.
        """
        size = -(-max(self.p.bit_length(), self.q.bit_length()) // 8)
        return _PRIVATE + b"".join(int(x).to_bytes(size, "big") for x in (self.p, self.q))

    @classmethod
    def from_bytes(cls, data: bytes, *, insecure: bool = False) -> PrivateKey:
        """Read a key that :meth:`to_bytes` wrote, with all checks.

        Parameters
        ----------
        data : bytes
            The serialised key. Secret.
        insecure : bool
            As for :class:`PrivateKey`.

        Returns
        -------
        PrivateKey
            The key.

        Raises
        ------
        ParameterError
            Not a private key of this format version, or bad primes.
        """
        raw = _body(data, _PRIVATE, "private")
        if len(raw) % 2:
            raise ParameterError("not a Paillier private key: two primes of the same length are expected")
        half = len(raw) // 2
        return cls(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"), insecure=insecure)

    def raw_decrypt(self, ciphertexts: np.ndarray, *, threads: int | None = None) -> np.ndarray:
        """Decrypt ciphertexts to numbers below n, given as limbs.

        Time does not depend on the key or the plaintexts.

        Parameters
        ----------
        ciphertexts : ndarray of uint64, shape (N, element_limbs)
            Ciphertexts under this key.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        ndarray of uint64, shape (N, limbs)
            Numbers below n, least significant limb first. Secret.

        Raises
        ------
        ParameterError, ShapeError, DTypeError
            A number is not below n^2 or not coprime to n, so it is not a ciphertext of this key; or the array has
            another shape or dtype.
        """
        check_ciphertexts(self.public, ciphertexts, threads=threads)
        return self._decryptor.decrypt(ciphertexts, threads=threads)


def generate_keypair(bits: int = DEFAULT_BITS, *, insecure: bool = False) -> PrivateKey:
    """Generate a key pair from the operating system's randomness.

    Parameters
    ----------
    bits : int
        Bits of n: 2048, 3072 (default, 128-bit security) or 4096.
    insecure : bool
        Allow any even number of bits from 16 to 4096; for tests only.

    Returns
    -------
    PrivateKey
        The private key; its ``public`` is the public key.

    Raises
    ------
    ParameterError
        Another number of bits.

    Notes
    -----
    p and q are uniform among the primes of bits/2 bits whose two top bits are set, both 3 mod 4, with
    gcd(p-1, q-1) = 2. Short randomness needs this: -1 is then not a square, and the squares form a cyclic group.

    Examples
    --------
    >>> from mipp.paillier import generate_keypair
    >>> key = generate_keypair(256, insecure=True)  # a test key; generate_keypair() has 3072 bits
    >>> key.public.bits
    256
    """
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or bits % 2:
        raise ParameterError(f"bits must be an even number, not {bits!r}")
    if (bits < 16 or bits > MOST_BITS) if insecure else bits not in (2048, 3072, 4096):
        raise ParameterError(f"a key has 2048, 3072 or 4096 bits, not {bits}")
    half = int(bits) // 2
    while True:
        p, q = _prime(half), _prime(half)
        far = abs(p - q).bit_length() > half - 100 or bits < 512
        if p != q and far and gmpy2.gcd(p - 1, q - 1) == 2 and gmpy2.gcd(p * q, (p - 1) * (q - 1)) == 1:
            return PrivateKey(p, q, insecure=insecure)


def check_ciphertexts(key: PublicKey, ciphertexts: np.ndarray, *, threads: int | None = None) -> None:
    """Refuse numbers that cannot be ciphertexts under a key.

    Cost: one product mod n^2 for each, and one gcd. Which number a ciphertext holds cannot be checked.

    Parameters
    ----------
    key : PublicKey
        The key.
    ciphertexts : ndarray of uint64, shape (N, element_limbs)
        Numbers to check.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Raises
    ------
    ParameterError
        A number is not below n^2 or not coprime to n.
    DTypeError, ShapeError
        Another dtype or shape.
    """
    if not isinstance(ciphertexts, np.ndarray) or ciphertexts.dtype != np.uint64:
        raise DTypeError("ciphertexts must be a uint64 array")
    if ciphertexts.ndim != 2 or ciphertexts.shape[1] != key.element_limbs:
        raise ShapeError(f"ciphertexts must be (N, {key.element_limbs}), not {ciphertexts.shape}")
    product = key.modulus.product(np.ascontiguousarray(ciphertexts)[None], threads=threads)
    if gmpy2.gcd(from_limbs(product)[0], key.n) != 1:
        raise ParameterError("a number that is not coprime to n is not a ciphertext of this key")


def _prime(bits: int) -> gmpy2.mpz:
    while True:
        # the two top bits are set, so that n has twice as many bits; the two low ones, so that the prime is 3 mod 4
        x = gmpy2.mpz(int.from_bytes(random_bytes(-(-bits // 8)), "big")) % (gmpy2.mpz(1) << bits - 2)
        x = x | (gmpy2.mpz(3) << bits - 2) | 3
        if (bits < 12 or gmpy2.gcd(x, _SMALL_PRIMES) == 1) and gmpy2.is_prime(x, 40):
            return x


def _integer(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, gmpy2.mpz, np.integer)):
        raise DTypeError(f"{what} must be integers, not {type(value).__name__}")
    return int(value)


def _body(data: bytes, label: bytes, kind: str) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)) or not bytes(data).startswith(label):
        raise ParameterError(f"not a Paillier {kind} key of this format version")
    return bytes(data)[len(label) :]
