"""Paillier keys: generation, checks, encryption and decryption of arrays of numbers.

c = (1 + m n) r^n mod n^2. Source: Paillier, EUROCRYPT 1999; short randomness: Damgard, Jurik, Nielsen, "A
generalization of Paillier's public-key system with applications to electronic voting", 2010 (section 4.2).
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from typing import TYPE_CHECKING, Any

import gmpy2
import numpy as np

from .._native import _core
from ..crypto.schedule import random_bytes
from ..errors import DTypeError, ParameterError, ShapeError
from .limbs import from_limbs, limbs_of, random_below, to_limbs

if TYPE_CHECKING:
    from .array import EncryptedArray

__all__ = ["DEFAULT_BITS", "PrivateKey", "PublicKey", "generate_keypair"]

DEFAULT_BITS = 3072
LEAST_BITS, MOST_BITS = 2048, 4096
_PUBLIC, _PRIVATE = b"mipp paillier public 1\n", b"mipp paillier private 1\n"
#: encryptions with one key from which a table of powers pays for itself
_TABLE_FROM = 24
_SMALL_PRIMES = math.prod(p for p in range(3, 1000) if all(p % d for d in range(2, int(p**0.5) + 1)))


class PublicKey:
    """Paillier's public key n.

    Parameters
    ----------
    n : the product of two secret primes
    insecure : allow fewer than 2048 bits; for tests

    Attributes
    ----------
    n, n_squared : gmpy2.mpz
    bits : of n
    limbs, element_limbs : 64-bit limbs of a plaintext and of a ciphertext
    fingerprint : 32 bytes, SHA-256 of n with a label
    modulus : native arithmetic modulo n^2

    Raises
    ------
    ParameterError
        Even, of the wrong size, prime, a perfect power, or with a factor below 1000. That n has two large prime factors
        cannot be seen from outside.

    Safe to use from several threads. Pickles as n alone: bases and tables of randomness are never written anywhere.
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
        """n, with a label and version."""
        return _PUBLIC + int(self.n).to_bytes(-(-self.bits // 8), "big")

    @classmethod
    def from_bytes(cls, data: bytes, *, insecure: bool = False) -> PublicKey:
        """Inverse of :meth:`to_bytes`; ParameterError for anything else."""
        raw = _body(data, _PUBLIC, "public")
        return cls(int.from_bytes(raw, "big"), insecure=insecure)

    # --- encryption ---------------------------------------------------------------------------------------------

    def randomness(self, count: int, *, full_range: bool = False, threads: int | None = None) -> np.ndarray:
        """Fresh r^n mod n^2, each for one ciphertext and then never again.

        Parameters
        ----------
        count : how many
        full_range : r uniform in Z_n*. Else r = h^a with h = -x^2 mod n of this process, x random, and a uniform of
            half the bits of n: much faster. Then nobody without the factors of n can tell it from full range if a is as
            good as uniform in the group of h (Damgard, Jurik, Nielsen; short exponents: Koshiba, Kurosawa 2004); who
            has them can tell, and strip it off: answers *to the key's owner* need ``full_range``.
        threads : native threads

        Returns
        -------
        (count, element_limbs) uint64; secret

        Cost: one power of n's size each with full range; with the table that the first larger call makes, a tenth or
        less.
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
        """Make the table of powers now, so that no later encryption has to: some milliseconds, 10 to 20 MB."""
        with self._guard():
            if self._base is None:
                x = self._units(1)[0]
                h = self._powers_of_n([self.n - x * x % self.n], threads)
                self._base = _core.FixedBase(self.modulus, h[0], -(-self.bits // 2), threads=threads)

    @property
    def prepared(self) -> bool:
        """Whether the table is there."""
        return self._base is not None

    def _guard(self) -> threading.Lock:
        if self._process != os.getpid():  # a fork may have copied a lock that another thread held
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock

    def raw_encrypt(
        self, plain: np.ndarray, randomness: np.ndarray | None = None, *, full_range: bool = False,
        threads: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Encrypt numbers below n.

        Parameters
        ----------
        plain : (N, limbs) uint64; secret
        randomness : (N, element_limbs) from :meth:`randomness`, not used before; default fresh
        full_range, threads : as for :meth:`randomness`

        Returns
        -------
        (N, element_limbs) uint64 ciphertexts

        Raises
        ------
        ParameterError, ShapeError, DTypeError
            Numbers that are not below n, or of another shape.
        """
        if randomness is None:
            randomness = self.randomness(len(plain), full_range=full_range, threads=threads)
        return self.modulus.add_plain(randomness, plain, threads=threads)

    def encrypt(self, values: Any, **options: Any) -> EncryptedArray:
        """Encrypt numbers: see :func:`mipp.paillier.encrypt`."""
        from .array import encrypt

        return encrypt(self, values, **options)

    def _table_pays(self, count: int, threads: int | None) -> bool:
        with self._guard():
            self._encrypted += count
            wanted = self._base is not None or self._encrypted >= _TABLE_FROM
        if wanted:
            self.prepare(threads=threads)
        return wanted

    def _units(self, count: int) -> list[Any]:
        """Uniform in Z_n*. For keys of full size any number is a unit, but for odds of factoring n by chance."""
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
    """Paillier's private key: the primes p and q.

    Parameters
    ----------
    p, q : secret primes
    insecure : allow a modulus of fewer than 2048 bits; for tests

    Raises
    ------
    ParameterError
        Not prime, equal, of different size, or gcd(pq, (p-1)(q-1)) is not 1.

    Does not pickle; nothing it prints tells the primes.
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
        """Both primes in the clear, with a label and version: **secret**, to be stored encrypted."""
        size = -(-max(self.p.bit_length(), self.q.bit_length()) // 8)
        return _PRIVATE + b"".join(int(x).to_bytes(size, "big") for x in (self.p, self.q))

    @classmethod
    def from_bytes(cls, data: bytes, *, insecure: bool = False) -> PrivateKey:
        """Inverse of :meth:`to_bytes`, with all checks; ParameterError for anything else."""
        raw = _body(data, _PRIVATE, "private")
        if len(raw) % 2:
            raise ParameterError("no Paillier private key: two primes of one length are expected")
        half = len(raw) // 2
        return cls(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"), insecure=insecure)

    def raw_decrypt(self, ciphertexts: np.ndarray, *, threads: int | None = None) -> np.ndarray:
        """Plaintexts (N, limbs) below n of ciphertexts (N, element_limbs) uint64; secret.

        Time does not depend on the key or the plaintexts.

        Raises
        ------
        ParameterError, ShapeError, DTypeError
            Numbers that are not below n^2, or not prime to n, so no ciphertexts of this key; another shape.
        """
        check_ciphertexts(self.public, ciphertexts, threads=threads)
        return self._decryptor.decrypt(ciphertexts, threads=threads)

    def decrypt(self, array: EncryptedArray, *, threads: int | None = None) -> np.ndarray:
        """Decrypt numbers: see :func:`mipp.paillier.decrypt`."""
        from .array import decrypt

        return decrypt(self, array, threads=threads)


def generate_keypair(bits: int = DEFAULT_BITS, *, insecure: bool = False) -> PrivateKey:
    """A new key pair from the operating system's randomness; ``.public`` is its public part.

    Parameters
    ----------
    bits : of n, even: 2048, 3072 (default, 128-bit security) or 4096
    insecure : allow any even number of bits from 16 on, for tests

    p and q are uniform among primes of bits/2 bits whose two top bits are set, both 3 mod 4 with gcd(p-1, q-1) = 2, as
    short randomness wants (-1 is then no square, and the squares are cyclic).
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
    """Refuse what cannot be ciphertexts under ``key``: (N, element_limbs) numbers below n^2 and prime to n.

    Cost: a product mod n^2 each, and one gcd. That a number encrypts anything in particular cannot be seen.
    """
    if not isinstance(ciphertexts, np.ndarray) or ciphertexts.dtype != np.uint64:
        raise DTypeError("ciphertexts must be a uint64 array")
    if ciphertexts.ndim != 2 or ciphertexts.shape[1] != key.element_limbs:
        raise ShapeError(f"ciphertexts must be (N, {key.element_limbs}), not {ciphertexts.shape}")
    product = key.modulus.product(np.ascontiguousarray(ciphertexts)[None], threads=threads)
    if gmpy2.gcd(from_limbs(product)[0], key.n) != 1:
        raise ParameterError("a number that is not prime to n is no ciphertext of this key")


def _prime(bits: int) -> gmpy2.mpz:
    while True:
        # the two top bits, so that n has all its bits; 3 mod 4
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
        raise ParameterError(f"no Paillier {kind} key of this format version")
    return bytes(data)[len(label) :]
