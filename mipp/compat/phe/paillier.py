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
from .encoding import EncodedNumber, common_base, encoding_of, python_number, step
from .util import getprimeover, invert, isqrt, mulmod, powmod

__all__ = [
    "DEFAULT_KEYSIZE",
    "EncryptedNumber",
    "PaillierPrivateKey",
    "PaillierPrivateKeyring",
    "PaillierPublicKey",
    "generate_paillier_keypair",
    "getprimeover",
    "invert",
    "isqrt",
    "mulmod",
    "powmod",
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
    def batched(self) -> PublicKey | None:
        """The key of :mod:`mipp.paillier` that batches use; None if n is beyond 4096 bits or no modulus for it."""
        try:
            return PublicKey(self.n, insecure=True)
        except ParameterError:
            return None

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
        return int(self._encrypt(plaintext, r_value))

    def _encrypt(self, plaintext: Any, r_value: int | None) -> Any:
        plaintext = _integer(plaintext, "Expected int type plaintext but got")
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
        # eight lanes for one number are about as fast as GMP, but not worth making the batch key for
        fits = r_value is None and 1024 <= self._n.bit_length() <= MOST_BITS and "batched" in self.__dict__
        if fits and cpu.active()["bigint"] == "avx512" and self.batched is not None:
            return from_limbs(self.batched._powers_of_n([r], 1))[0]
        return gmpy2.powmod(r, self._n, self._nsquare)

    def _fresh(self) -> Any:
        """r^n mod n^2 for a new ciphertext: of full range at first; by tables from when a background thread has made
        them.

         Whoever decrypts a new ciphertext learns its number anyway. Not for obfuscating results, see
         PublicKey.randomness.
        """
        if self._calls > _TABLE_FROM and self.batched is not None and self.batched.prepared:
            return from_limbs(self.batched.randomness(1, threads=1))[0]
        self._calls += 1
        wanted = self._calls == _TABLE_FROM and LEAST_BITS <= self._n.bit_length() <= MOST_BITS
        if wanted and self.batched is not None:
            threading.Thread(target=self.batched.prepare, kwargs={"threads": 1}, daemon=True).start()
        return self._obfuscator()

    def encrypt(self, value: Any, precision: float | None = None, r_value: int | None = None) -> EncryptedNumber:
        """Encrypt an int, a float or an EncodedNumber; see :meth:`EncodedNumber.encode`."""
        encoded = value if isinstance(value, EncodedNumber) else EncodedNumber.encode(self, value, precision)
        return self.encrypt_encoded(encoded, r_value)

    def encrypt_encoded(self, encoding: EncodedNumber, r_value: int | None) -> EncryptedNumber:
        """Encrypt an encoded number. With an ``r_value`` the result counts as not obfuscated."""
        made = self._encrypt(encoding.encoding, 1 if r_value is None else r_value)
        if r_value is None:
            made = made * self._fresh() % self._nsquare
        return EncryptedNumber._made(self, made, encoding.exponent, encoding.BASE, r_value is None)

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
        residues = [_integer(e.encoding, "Expected int type plaintext but got") % self._n for e in encoded]
        if self.batched is None:
            made = [self._encrypt(m, None) for m in residues]
        else:
            plain = to_limbs(residues, self.batched.limbs)
            made = from_limbs(self.batched.raw_encrypt(plain, full_range=full_range, threads=threads))
        return [EncryptedNumber._made(self, c, e.exponent, e.BASE, True) for c, e in zip(made, encoded, strict=True)]


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
        return self._decrypt([_integer(ciphertext, "Expected ciphertext to be an int, not")], 1)[0]

    def _decrypt(self, ciphertexts: Sequence[Any], threads: int | None) -> list[int]:
        if self.batched is None:
            return [self._decrypt_unbatched(c) for c in ciphertexts]
        nsquare = self.public_key._nsquare
        native = self.batched._decryptor
        # without IFMA, GMP's constant-time power is faster for one number; what follows is native all the same
        if len(ciphertexts) == 1 and native.finishes and cpu.active()["bigint"] != "avx512":
            powers = [
                to_limbs([gmpy2.powmod_sec(ciphertexts[0], s - 1, s * s)], native.power_limbs)
                for s in (self.batched.p, self.batched.q)
            ]
            return [int(m) for m in from_limbs(native.finish(*powers))]
        limbs = to_limbs([c % nsquare for c in ciphertexts], self.batched.public.element_limbs)
        return [int(m) for m in from_limbs(native.decrypt(limbs, threads=threads))]

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
        """The encoded number, of class ``Encoding`` (default EncodedNumber, of the base the number was made in)."""
        self._check(encrypted_number)
        plain = self._decrypt([encrypted_number._number], 1)[0]
        return (Encoding or encrypted_number._encoding)(self.public_key, plain, encrypted_number.exponent)

    def decrypt_batch(self, encrypted_numbers: Any, *, threads: int | None = None) -> list[Any]:
        """Decrypt many numbers at once (beyond phe): a sequence or array of EncryptedNumbers, flattened."""
        numbers = np.asarray(encrypted_numbers, object).reshape(-1).tolist()
        for number in numbers:
            self._check(number)
        plain = self._decrypt([number._number for number in numbers], threads)
        return [
            number._encoding(self.public_key, m, number.exponent).decode()
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
        self.__keyring = {key.public_key: key for key in private_keys or ()}

    def __getitem__(self, key: PaillierPublicKey) -> PaillierPrivateKey:
        return self.__keyring[key]

    def __len__(self) -> int:
        return len(self.__keyring)

    def __iter__(self) -> Iterator[PaillierPublicKey]:
        return iter(self.__keyring)

    def __delitem__(self, public_key: PaillierPublicKey) -> None:
        del self.__keyring[public_key]

    def add(self, private_key: PaillierPrivateKey) -> None:
        """Add a key; TypeError for anything else."""
        if not isinstance(private_key, PaillierPrivateKey):
            raise TypeError(f"private_key should be of type PaillierPrivateKey, not {type(private_key)}")
        self.__keyring[private_key.public_key] = private_key

    def decrypt(self, encrypted_number: EncryptedNumber) -> Any:
        """Decrypt with the key that fits; KeyError if it is not here."""
        return self.__keyring[encrypted_number.public_key].decrypt(encrypted_number)


class EncryptedNumber:
    """A ciphertext with its key and exponent.

    Adds to encrypted and plain numbers, multiplies with and divides by plain ones. Results are not obfuscated until
    :meth:`ciphertext` or :meth:`obfuscate` is called: before that, who knows the operands can see how one was made.
    """

    def __init__(self, public_key: PaillierPublicKey, ciphertext: int, exponent: int = 0) -> None:
        if not isinstance(public_key, PaillierPublicKey):
            raise TypeError("public_key should be a PaillierPublicKey")
        self.public_key = public_key
        self.__ciphertext = int(_integer(ciphertext, "ciphertext should be an integer, not"))
        self.exponent = exponent
        self.__is_obfuscated = False
        self._base: int | None = None  # of the exponent, if known

    @classmethod
    def _made(
        cls, key: PaillierPublicKey, ciphertext: Any, exponent: int, base: int | None, obfuscated: bool = False
    ) -> EncryptedNumber:
        made = cls(key, ciphertext, exponent)
        made._base, made.__is_obfuscated = base, obfuscated
        return made

    @property
    def _number(self) -> int:
        return self.__ciphertext

    @property
    def _encoding(self) -> type[EncodedNumber]:
        return EncodedNumber if self._base is None else encoding_of(self._base)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, EncryptedNumber):
            return self._add_encrypted(other)
        if isinstance(other, np.ndarray):
            return NotImplemented  # numpy adds element by element
        if isinstance(other, EncodedNumber):
            return self._add_encoded(other)
        return self._add_scalar(other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, EncryptedNumber):
            raise NotImplementedError("Paillier ciphertexts cannot be multiplied with each other")
        if isinstance(other, np.ndarray):
            return NotImplemented
        encoded = other if isinstance(other, EncodedNumber) else self._encoding.encode(self.public_key, other)
        base = common_base(self._base, self.exponent, encoded.BASE, encoded.exponent)
        product = self._raw_mul(encoded.encoding)
        return EncryptedNumber._made(self.public_key, product, self.exponent + encoded.exponent, base)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        if isinstance(other, EncodedNumber):
            return self + type(other)(other.public_key, -other.encoding % other.public_key.n, other.exponent)
        return self + python_number(other) * -1

    def __rsub__(self, other: Any) -> Any:
        return self * -1 + other

    def __truediv__(self, scalar: Any) -> Any:
        if isinstance(scalar, np.ndarray):
            return NotImplemented
        return self * (1 / python_number(scalar))

    def ciphertext(self, be_secure: bool = True) -> int:
        """The ciphertext as an int, obfuscated first unless it already is or ``be_secure`` is false."""
        if be_secure and not self.__is_obfuscated:
            self.obfuscate()
        return self.__ciphertext

    def decrease_exponent_to(self, new_exp: int) -> EncryptedNumber:
        """The same number with a smaller exponent; ValueError if ``new_exp`` is larger."""
        return self._decrease(new_exp, self._base)

    def _decrease(self, new_exp: int, base: int | None) -> EncryptedNumber:
        if new_exp > self.exponent:
            raise ValueError(f"New exponent {new_exp} should be more negative than old exponent {self.exponent}")
        factor = step(base or EncodedNumber.BASE, self.exponent, new_exp, self.public_key)
        return EncryptedNumber._made(self.public_key, self._raw_mul(factor), new_exp, base)

    def obfuscate(self) -> None:
        """Multiply by a fresh r^n: nobody can link the new ciphertext to the old one."""
        key = self.public_key
        self.__ciphertext = int(self.__ciphertext * key._obfuscator() % key._nsquare)
        self.__is_obfuscated = True

    def _add_scalar(self, scalar: Any) -> EncryptedNumber:
        """The sum with an int or float."""
        return self._add_encoded(self._encoding.encode(self.public_key, scalar, max_exponent=self.exponent))

    def _add_encoded(self, encoded: EncodedNumber) -> EncryptedNumber:
        """The sum with an encoded number of the same key."""
        key = self.public_key
        if key != encoded.public_key:
            raise ValueError("Attempted to add numbers encoded against different public keys!")
        a, base = self, common_base(self._base, self.exponent, encoded.BASE, encoded.exponent)
        if a.exponent > encoded.exponent:
            a = a._decrease(encoded.exponent, base)
        elif a.exponent < encoded.exponent:
            if base != encoded.BASE:  # an integer, of any base
                encoded = encoding_of(base or EncodedNumber.BASE)(key, encoded.encoding, encoded.exponent)
            encoded = encoded.decrease_exponent_to(a.exponent)
        opened = key._encrypt(encoded.encoding, 1)
        return EncryptedNumber._made(key, a._number * opened % key._nsquare, a.exponent, base)

    def _add_encrypted(self, other: EncryptedNumber) -> EncryptedNumber:
        """The sum with an encrypted number of the same key."""
        if self.public_key != other.public_key:
            raise ValueError("Attempted to add numbers encrypted against different public keys!")
        a, b, base = self, other, common_base(self._base, self.exponent, other._base, other.exponent)
        if a.exponent > b.exponent:
            a = a._decrease(b.exponent, base)
        elif a.exponent < b.exponent:
            b = b._decrease(a.exponent, base)
        return EncryptedNumber._made(self.public_key, self._raw_add(a._number, b._number), a.exponent, base)

    def _raw_add(self, e_a: int, e_b: int) -> int:
        """The product of two ciphertexts, which encrypts the sum, as an int."""
        return int(gmpy2.mpz(e_a) * e_b % self.public_key._nsquare)

    def _raw_mul(self, plaintext: int) -> int:
        """ciphertext^plaintext; of negative numbers, the inverse to a small power. Time depends on the plaintext."""
        key = self.public_key
        plaintext = int(_integer(plaintext, "Expected ciphertext to be int, not"))
        if not 0 <= plaintext < key.n:
            raise ValueError(f"Scalar out of bounds: {plaintext}")
        if plaintext >= key.n - key.max_int:
            return int(gmpy2.powmod(gmpy2.invert(self.__ciphertext, key._nsquare), key.n - plaintext, key._nsquare))
        return int(gmpy2.powmod(self.__ciphertext, plaintext, key._nsquare))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"_base": None, **state})


def aligned(numbers: Sequence[EncryptedNumber], threads: int | None = None) -> tuple[list[Any], int, int | None]:
    """Ciphertexts of one key brought to their least exponent, that exponent, and its base."""
    key = numbers[0].public_key
    if any(number.public_key != key for number in numbers):
        raise ValueError("Attempted to add numbers encrypted against different public keys!")
    base, exponent = numbers[0]._base, numbers[0].exponent
    for number in numbers:
        base = common_base(base, exponent, number._base, number.exponent)
        exponent = exponent or number.exponent
    exponents = [number.exponent for number in numbers]
    least = min(exponents)
    factors = {e: step(base or EncodedNumber.BASE, e, least, key) for e in set(exponents) - {least}}
    out = [gmpy2.mpz(number._number) % key._nsquare for number in numbers]
    for exponent, factor in factors.items():
        at = [i for i, e in enumerate(exponents) if e == exponent]
        if key.batched is None:
            powers = [gmpy2.powmod(out[i], factor, key._nsquare) for i in at]
        else:
            data = to_limbs([out[i] for i in at], key.batched.element_limbs)
            exponent_limbs = to_limbs([factor], limbs_of(factor))[0]
            powers = from_limbs(key.batched.modulus.pow_var(data, exponent_limbs, threads=threads))
        for i, power in zip(at, powers, strict=True):
            out[i] = power
    return out, least, base


def _integer(value: Any, what: str) -> Any:
    if isinstance(value, (int, gmpy2.mpz)):
        return value
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"{what}: {type(value)}")
