"""Encrypted numbers: ciphertexts with a key and an exponent, and their arithmetic."""

from __future__ import annotations

from typing import Any

import gmpy2
import numpy as np

from .encoding import EncodedNumber, common_base, encoding_of, python_number, step
from .residues import Residues, whole

__all__ = ["EncryptedNumber"]


class EncryptedNumber:
    """A ciphertext with its key and exponent.

    Adds to encrypted and plain numbers, multiplies with and divides by plain ones; arrays of numpy take part element by
    element. Results are not obfuscated until :meth:`ciphertext` or :meth:`obfuscate` is called: before that, who knows
    the operands can see how one was computed. As ``phe.EncryptedNumber``, but it knows the base of its encoding.

    Parameters
    ----------
    public_key : PaillierPublicKey
        Public.
    ciphertext : int
        Below n^2. Public.
    exponent : int
        Of the encoding. Public.

    Raises
    ------
    TypeError
        Another kind of key; a ciphertext that is not an integer.

    Examples
    --------
    >>> import mipp.compat.phe as phe
    >>> public_key, private_key = phe.generate_paillier_keypair(n_length=256)
    >>> a, b = public_key.encrypt(1.5), public_key.encrypt(2)
    >>> private_key.decrypt((a + b) * 4 - 1)
    13.0
    """

    __module__ = "mipp.compat.phe.paillier"  # pickles name it as phe does

    def __init__(self, public_key: Residues, ciphertext: int, exponent: int = 0) -> None:
        if not isinstance(public_key, Residues):
            raise TypeError("public_key should be a PaillierPublicKey")
        self.public_key: Any = public_key
        self.__ciphertext = int(whole(ciphertext, "ciphertext should be an integer, not"))
        self.exponent = exponent
        self.__is_obfuscated = False
        self._base: int | None = None  # of the exponent, if known

    @classmethod
    def _made(
        cls, key: Residues, ciphertext: Any, exponent: int, base: int | None, obfuscated: bool = False
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
        """Return the ciphertext.

        Parameters
        ----------
        be_secure : bool
            Whether to obfuscate the number first, unless it is obfuscated.

        Returns
        -------
        int
            Below n^2. Public if obfuscated.
        """
        if be_secure and not self.__is_obfuscated:
            self.obfuscate()
        return self.__ciphertext

    def decrease_exponent_to(self, new_exp: int) -> EncryptedNumber:
        """Return the same number with a smaller exponent.

        Parameters
        ----------
        new_exp : int
            The exponent, at most the present one.

        Returns
        -------
        EncryptedNumber
            Not obfuscated.

        Raises
        ------
        ValueError
            ``new_exp`` is larger than the present exponent, or so much smaller that the factor does not fit the key.
        """
        return self._decrease(new_exp, self._base)

    def _decrease(self, new_exp: int, base: int | None) -> EncryptedNumber:
        if new_exp > self.exponent:
            raise ValueError(f"New exponent {new_exp} should be more negative than old exponent {self.exponent}")
        factor = step(base or EncodedNumber.BASE, self.exponent, new_exp, self.public_key)
        return EncryptedNumber._made(self.public_key, self._raw_mul(factor), new_exp, base)

    def obfuscate(self) -> None:
        """Multiply by a fresh r^n with r of full range, so that nobody can link the new ciphertext to the old one."""
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
        plaintext = int(whole(plaintext, "Expected ciphertext to be int, not"))
        if not 0 <= plaintext < key.n:
            raise ValueError(f"Scalar out of bounds: {plaintext}")
        if plaintext >= key.n - key.max_int:
            return int(gmpy2.powmod(gmpy2.invert(self.__ciphertext, key._nsquare), key.n - plaintext, key._nsquare))
        return int(gmpy2.powmod(self.__ciphertext, plaintext, key._nsquare))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"_base": None, **state})
