"""Keys and encrypted numbers of the same names and meaning as ``phe.paillier``.

Single calls go through gmpy2 (or one native power where that is faster); batches through :mod:`mipp.paillier`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gmpy2
import numpy as np

from ... import cpu
from ...errors import ParameterError
from ...paillier import PrivateKey, PublicKey, generate_keypair
from ...paillier.keys import LEAST_BITS, MOST_BITS
from ...paillier.limbs import from_limbs, limbs_of, random_below, to_limbs
from .encoding import EncodedNumber
from .util import getprimeover, invert, isqrt

__all__ = [
    "DEFAULT_KEYSIZE",
    "EncryptedNumber",
    "PaillierPrivateKey",
    "PaillierPrivateKeyring",
    "PaillierPublicKey",
    "generate_paillier_keypair",
]

DEFAULT_KEYSIZE = 3072
#: encryptions with one key after which tables are made for more
_TABLE_FROM = 8


def generate_paillier_keypair(
    private_keyring: PaillierPrivateKeyring | None = None, n_length: int = DEFAULT_KEYSIZE
) -> tuple[PaillierPublicKey, PaillierPrivateKey]:
    """A new key pair of ``n_length`` bits, added to the keyring if one is given."""
    if n_length % 2 == 0 and 16 <= n_length <= 4096:
        made = generate_keypair(n_length, insecure=True)
        p, q = int(made.p), int(made.q)
    else:
        p = q = n = 1
        while n.bit_length() != n_length or p == q or gmpy2.gcd(n, (p - 1) * (q - 1)) != 1:
            p, q = getprimeover(n_length // 2), getprimeover(n_length - n_length // 2)
            n = p * q
    public_key = PaillierPublicKey(p * q)
    private_key = PaillierPrivateKey(public_key, p, q)
    if private_keyring is not None:
        private_keyring.add(private_key)
    return public_key, private_key


class PaillierPublicKey:
    """Public key: ``n``, ``g`` = n + 1, ``nsquare``, and ``max_int``, the largest absolute value of an integer."""

    def __init__(self, n: int) -> None:
        self.n = int(n)
        self.g = self.n + 1
        self.nsquare = self.n * self.n
        self.max_int = self.n // 3 - 1
        self._n, self._nsquare = gmpy2.mpz(self.n), gmpy2.mpz(self.nsquare)
        self._calls = 0

    def __repr__(self) -> str:
        return f"<PaillierPublicKey {hex(hash(self))[2:][:10]}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PaillierPublicKey) and self.n == other.n

    def __hash__(self) -> int:
        return hash(self.n)

    def __reduce__(self) -> Any:
        return PaillierPublicKey, (self.n,)

    @functools.cached_property
    def batched(self) -> PublicKey:
        """The key of :mod:`mipp.paillier` that batches use."""
        return PublicKey(self.n, insecure=True)

    def get_random_lt_n(self) -> int:
        """Uniform in 1 .. n-1, from the operating system's randomness."""
        return int(random_below(self._n, 1)[0])

    def raw_encrypt(self, plaintext: int, r_value: int | None = None) -> int:
        """(1 + n plaintext) r^n mod n^2.

        Parameters
        ----------
        plaintext : int, taken mod n
        r_value : obfuscator; default random. 1 leaves the plaintext open to everybody.
        """
        if not isinstance(plaintext, int):
            raise TypeError(f"Expected int type plaintext but got: {type(plaintext)}")
        return int(self._encrypt(plaintext, r_value))

    def _encrypt(self, plaintext: Any, r_value: int | None) -> Any:
        opened = (self._n * plaintext + 1) % self._nsquare
        if r_value == 1:
            return opened
        return opened * self._obfuscator(r_value) % self._nsquare

    def _obfuscator(self, r_value: int | None = None) -> Any:
        """r^n mod n^2"""
        if r_value is None:
            r = random_below(self._n, 1)[0]
        elif isinstance(r_value, (int, gmpy2.mpz)):
            r = r_value
            if r % self._n == 0:
                raise ValueError("an obfuscator must not be a multiple of n")
        else:
            raise TypeError(f"Expected int type r_value but got: {type(r_value)}")
        # eight lanes for one number still beat GMP
        if r_value is None and 1024 <= self._n.bit_length() <= MOST_BITS and cpu.active()["bigint"] == "avx512":
            return from_limbs(self.batched._powers_of_n([r], 1))[0]
        return gmpy2.powmod(r, self._n, self._nsquare)

    def _fresh(self) -> Any:
        """r^n mod n^2 for a new ciphertext: of full range at first; by tables from when a background thread has made
        them.

         Whoever decrypts a new ciphertext learns its number anyway. Not for obfuscating results, see
         PublicKey.randomness.
        """
        if self._calls > _TABLE_FROM and self.batched.prepared:
            return from_limbs(self.batched.randomness(1, threads=1))[0]
        self._calls += 1
        if self._calls == _TABLE_FROM and LEAST_BITS <= self._n.bit_length() <= MOST_BITS:
            threading.Thread(target=self.batched.prepare, kwargs={"threads": 1}, daemon=True).start()
        return self._obfuscator()

    def encrypt(self, value: Any, precision: float | None = None, r_value: int | None = None) -> EncryptedNumber:
        """Encrypt an int, a float or an EncodedNumber; see :meth:`EncodedNumber.encode`."""
        encoded = value if isinstance(value, EncodedNumber) else EncodedNumber.encode(self, value, precision)
        return self.encrypt_encoded(encoded, r_value)

    def encrypt_encoded(self, encoding: EncodedNumber, r_value: int | None) -> EncryptedNumber:
        """Encrypt an encoded number. With an ``r_value`` the result counts as not obfuscated."""
        if r_value is None:
            opened = (self._n * encoding.encoding + 1) % self._nsquare
            return EncryptedNumber._made(self, opened * self._fresh() % self._nsquare, encoding.exponent, True)
        return EncryptedNumber._made(self, self._encrypt(encoding.encoding, r_value), encoding.exponent, False)

    def encrypt_batch(
        self,
        values: Any,
        precision: float | None = None,
        *,
        full_range: bool = False,
        threads: int | None = None,
    ) -> list[EncryptedNumber]:
        """Encrypt many numbers at once (beyond phe); the same encodings as one by one.

        Parameters
        ----------
        values : ints, floats, EncodedNumbers, or an array of numbers (flattened)
        full_range, threads : see :meth:`mipp.paillier.PublicKey.randomness`
        """
        items = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else list(values)
        encoded = [v if isinstance(v, EncodedNumber) else EncodedNumber.encode(self, v, precision) for v in items]
        plain = to_limbs([e.encoding % self._n for e in encoded], self.batched.limbs)
        made = from_limbs(self.batched.raw_encrypt(plain, full_range=full_range, threads=threads))
        return [EncryptedNumber._made(self, c, e.exponent, True) for c, e in zip(made, encoded, strict=True)]


class PaillierPrivateKey:
    """Private key: the primes ``p`` < ``q`` of ``public_key.n``.

    As phe's, it pickles, primes and all: whoever reads the pickle has the key. Decryption takes the same time for all
    keys of one size and all ciphertexts.
    """

    def __init__(self, public_key: PaillierPublicKey, p: int, q: int) -> None:
        if p * q != public_key.n:
            raise ValueError("given public key does not match the given p and q.")
        if p == q:
            raise ValueError("p and q have to be different")
        self.public_key = public_key
        self.p, self.q = sorted((int(p), int(q)))
        self.psquare, self.qsquare = self.p * self.p, self.q * self.q
        self.p_inverse = invert(self.p, self.q)
        self.hp = self.h_function(self.p, self.psquare)
        self.hq = self.h_function(self.q, self.qsquare)

    @staticmethod
    def from_totient(public_key: PaillierPublicKey, totient: int) -> PaillierPrivateKey:
        """The key from (p - 1)(q - 1); ValueError if that does not fit."""
        total = public_key.n - totient + 1
        square = total * total - 4 * public_key.n
        difference = isqrt(square) if square >= 0 else 0
        p, q = (total - difference) // 2, (total + difference) // 2
        if p < 2 or p * q != public_key.n:
            raise ValueError("given public key and totient do not match.")
        return PaillierPrivateKey(public_key, p, q)

    def __repr__(self) -> str:
        return f"<PaillierPrivateKey for {self.public_key!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PaillierPrivateKey) and (self.p, self.q) == (other.p, other.q)

    def __hash__(self) -> int:
        return hash((self.p, self.q))

    def __reduce__(self) -> Any:
        return PaillierPrivateKey, (self.public_key, self.p, self.q)

    @functools.cached_property
    def batched(self) -> PrivateKey | None:
        """The key of :mod:`mipp.paillier` that batches use; None if p and q are too different in size for it."""
        try:
            return PrivateKey(self.p, self.q, insecure=True)
        except ParameterError:
            return None

    def h_function(self, x: int, xsquare: int) -> int:
        """1 / L(g^(x-1) mod x^2) mod x"""
        return invert(self.l_function(int(gmpy2.powmod_sec(self.public_key.g, x - 1, xsquare)), x), x)

    def l_function(self, x: int, p: int) -> int:
        """(x - 1) / p"""
        return (x - 1) // p

    def crt(self, mp: int, mq: int) -> int:
        """The number that is mp mod p and mq mod q."""
        return mp + (mq - mp) * self.p_inverse % self.q * self.p

    def raw_decrypt(self, ciphertext: int) -> int:
        """The plaintext, 0 to n - 1, of a ciphertext as an int."""
        if not isinstance(ciphertext, int):
            raise TypeError(f"Expected ciphertext to be an int, not: {type(ciphertext)}")
        return self._decrypt([ciphertext], 1)[0]

    def _decrypt(self, ciphertexts: Sequence[Any], threads: int | None) -> list[int]:
        if self.batched is None:
            return [self._decrypt_unbatched(c) for c in ciphertexts]
        nsquare = self.public_key._nsquare
        limbs = to_limbs([c % nsquare for c in ciphertexts], self.batched.public.element_limbs)
        return [int(m) for m in from_limbs(self.batched._decryptor.decrypt(limbs, threads=threads))]

    def _decrypt_unbatched(self, ciphertext: Any) -> int:
        parts = [
            self.l_function(int(gmpy2.powmod_sec(ciphertext, s - 1, square)), s) * h % s
            for s, square, h in ((self.p, self.psquare, self.hp), (self.q, self.qsquare, self.hq))
        ]
        return self.crt(*parts)

    def decrypt(self, encrypted_number: EncryptedNumber) -> Any:
        """The number, int or float.

        Raises
        ------
        TypeError, ValueError
            Not an EncryptedNumber; of another key.
        OverflowError
            It lies in the middle third of the residues: something overflowed.
        """
        return self.decrypt_encoded(encrypted_number).decode()

    def decrypt_encoded(
        self, encrypted_number: EncryptedNumber, Encoding: type[EncodedNumber] | None = None
    ) -> EncodedNumber:
        """The encoded number, of class ``Encoding`` (default EncodedNumber)."""
        self._check(encrypted_number)
        plain = self._decrypt([encrypted_number._number], 1)[0]
        return (Encoding or EncodedNumber)(self.public_key, plain, encrypted_number.exponent)

    def decrypt_batch(self, encrypted_numbers: Any, *, threads: int | None = None) -> list[Any]:
        """Decrypt many numbers at once (beyond phe): a sequence or array of EncryptedNumbers, flattened."""
        numbers = np.asarray(encrypted_numbers, object).reshape(-1).tolist()
        for number in numbers:
            self._check(number)
        plain = self._decrypt([number._number for number in numbers], threads)
        return [
            EncodedNumber(self.public_key, m, number.exponent).decode()
            for m, number in zip(plain, numbers, strict=True)
        ]

    def _check(self, encrypted_number: Any) -> None:
        if not isinstance(encrypted_number, EncryptedNumber):
            raise TypeError(f"Expected encrypted_number to be an EncryptedNumber not: {type(encrypted_number)}")
        if self.public_key != encrypted_number.public_key:
            raise ValueError("encrypted_number was encrypted against a different key!")


class PaillierPrivateKeyring(Mapping[PaillierPublicKey, PaillierPrivateKey]):
    """Private keys by their public keys."""

    def __init__(self, private_keys: Sequence[PaillierPrivateKey] | None = None) -> None:
        self._keys = {key.public_key: key for key in private_keys or ()}

    def __getitem__(self, key: PaillierPublicKey) -> PaillierPrivateKey:
        return self._keys[key]

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[PaillierPublicKey]:
        return iter(self._keys)

    def __delitem__(self, public_key: PaillierPublicKey) -> None:
        del self._keys[public_key]

    def add(self, private_key: PaillierPrivateKey) -> None:
        """Add a key; TypeError for anything else."""
        if not isinstance(private_key, PaillierPrivateKey):
            raise TypeError(f"private_key should be of type PaillierPrivateKey, not {type(private_key)}")
        self._keys[private_key.public_key] = private_key

    def decrypt(self, encrypted_number: EncryptedNumber) -> Any:
        """Decrypt with the key that fits; KeyError if it is not here."""
        return self._keys[encrypted_number.public_key].decrypt(encrypted_number)


class EncryptedNumber:
    """A ciphertext with its key and exponent.

    Adds to encrypted and plain numbers, multiplies with and divides by plain ones. Results are not obfuscated until
    :meth:`ciphertext` or :meth:`obfuscate` is called: before that, who knows the operands can see how one was made.
    """

    def __init__(self, public_key: PaillierPublicKey, ciphertext: int, exponent: int = 0) -> None:
        self.public_key = public_key
        self.__ciphertext = ciphertext
        self.exponent = exponent
        self.__is_obfuscated = False

    @classmethod
    def _made(cls, key: PaillierPublicKey, ciphertext: Any, exponent: int, obfuscated: bool) -> EncryptedNumber:
        made = cls(key, ciphertext, exponent)
        made.__is_obfuscated = obfuscated
        return made

    @property
    def _number(self) -> Any:
        return self.__ciphertext

    def __add__(self, other: Any) -> Any:
        if isinstance(other, EncryptedNumber):
            return self._add_encrypted(other)
        if isinstance(other, np.ndarray):
            return NotImplemented  # numpy adds element by element
        if isinstance(other, EncodedNumber):
            return self._add_encoded(other)
        return self._add_encoded(EncodedNumber.encode(self.public_key, other, max_exponent=self.exponent))

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, EncryptedNumber):
            raise NotImplementedError("Paillier ciphertexts cannot be multiplied with each other")
        if isinstance(other, np.ndarray):
            return NotImplemented
        key = self.public_key
        encoded = other if isinstance(other, EncodedNumber) else EncodedNumber.encode(key, other)
        return EncryptedNumber(key, self._power(encoded.encoding), self.exponent + encoded.exponent)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, EncodedNumber):
            return self + EncodedNumber(other.public_key, -other.encoding % other.public_key.n, other.exponent)
        return self + other * -1

    def __rsub__(self, other: Any) -> Any:
        return other + self * -1

    def __truediv__(self, scalar: Any) -> Any:
        return self * (1 / scalar)

    def ciphertext(self, be_secure: bool = True) -> int:
        """The ciphertext as an int, obfuscated first unless it already is or ``be_secure`` is false."""
        if be_secure and not self.__is_obfuscated:
            self.obfuscate()
        return int(self.__ciphertext)

    def decrease_exponent_to(self, new_exp: int) -> EncryptedNumber:
        """The same number with a smaller exponent; ValueError if ``new_exp`` is larger."""
        if new_exp > self.exponent:
            raise ValueError(f"New exponent {new_exp} should be more negative than old exponent {self.exponent}")
        factor = EncodedNumber.BASE ** (self.exponent - new_exp)
        if factor > self.public_key.max_int:
            raise ValueError(f"Integer needs to be within +/- {self.public_key.max_int} but got {factor}")
        return EncryptedNumber(self.public_key, self._power(factor), new_exp)

    def obfuscate(self) -> None:
        """Multiply by a fresh r^n: nobody can link the new ciphertext to the old one."""
        key = self.public_key
        self.__ciphertext = self.__ciphertext * key._obfuscator() % key._nsquare
        self.__is_obfuscated = True

    def _add_encoded(self, encoded: EncodedNumber) -> EncryptedNumber:
        key = self.public_key
        if key != encoded.public_key:
            raise ValueError("Attempted to add numbers encoded against different public keys!")
        a = self
        if a.exponent > encoded.exponent:
            a = a.decrease_exponent_to(encoded.exponent)
        elif a.exponent < encoded.exponent:
            encoded = encoded.decrease_exponent_to(a.exponent)
        return EncryptedNumber(key, a._number * (key._n * encoded.encoding + 1) % key._nsquare, a.exponent)

    def _add_encrypted(self, other: EncryptedNumber) -> EncryptedNumber:
        if self.public_key != other.public_key:
            raise ValueError("Attempted to add numbers encrypted against different public keys!")
        a, b = self, other
        if a.exponent > b.exponent:
            a = a.decrease_exponent_to(b.exponent)
        elif a.exponent < b.exponent:
            b = b.decrease_exponent_to(a.exponent)
        return EncryptedNumber(a.public_key, gmpy2.mpz(a._number) * b._number % a.public_key._nsquare, a.exponent)

    def _power(self, plaintext: int) -> Any:
        """ciphertext^plaintext; of negative numbers, the inverse to a small power. Time depends on the plaintext."""
        key = self.public_key
        if not 0 <= plaintext < key.n:
            raise ValueError(f"Scalar out of bounds: {plaintext}")
        if plaintext >= key.n - key.max_int:
            return gmpy2.powmod(gmpy2.invert(self.__ciphertext, key._nsquare), key.n - plaintext, key._nsquare)
        return gmpy2.powmod(self.__ciphertext, plaintext, key._nsquare)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_EncryptedNumber__ciphertext": int(self.__ciphertext)}


def aligned(numbers: Sequence[EncryptedNumber], threads: int | None = None) -> tuple[np.ndarray, int]:
    """Ciphertexts of one key as limbs (N, element_limbs), brought to their least exponent, and that exponent."""
    key = numbers[0].public_key
    if any(number.public_key != key for number in numbers):
        raise ValueError("Attempted to add numbers encrypted against different public keys!")
    least = min(number.exponent for number in numbers)
    modulus = key.batched.modulus
    data = to_limbs([gmpy2.mpz(number._number) % key._nsquare for number in numbers], key.batched.element_limbs)
    exponents = np.array([number.exponent for number in numbers])
    for exponent in np.unique(exponents):
        if exponent != least:
            factor = EncodedNumber.BASE ** int(exponent - least)
            at = exponents == exponent
            data[at] = modulus.pow_var(data[at], to_limbs([factor], limbs_of(factor))[0], threads=threads)
    return data, least
