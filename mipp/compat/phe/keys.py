"""Public and private keys of the same names and meaning as phe's."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import gmpy2
import numpy as np

from ... import cpu
from ...errors import ParameterError
from ...paillier import PrivateKey
from ...paillier.limbs import from_limbs, to_limbs
from .encoding import EncodedNumber
from .numbers import EncryptedNumber
from .residues import Residues, whole
from .util import invert, isqrt

__all__ = ["PaillierPrivateKey", "PaillierPublicKey"]


class PaillierPublicKey(Residues):
    """A public key: encrypts numbers.

    Behaves as ``phe.PaillierPublicKey``; adds :meth:`encrypt_batch`. The eighth encryption starts a background thread
    that makes tables for faster ones (see the README of this folder).

    Parameters
    ----------
    n : int
        The modulus, a product of two primes. Public.

    Attributes
    ----------
    n, g, nsquare : int
        The modulus, n + 1, and n^2.
    max_int : int
        Largest absolute value of an encoded integer, about a third of n.

    Examples
    --------
    >>> import mipp.compat.phe as phe
    >>> public_key, private_key = phe.generate_paillier_keypair(n_length=256)
    >>> private_key.decrypt(public_key.encrypt(3) + 4)
    7
    """

    __module__ = "mipp.compat.phe.paillier"  # pickles name it as phe does

    def __repr__(self) -> str:
        return f"<PaillierPublicKey {hex(hash(self))[2:][:10]}>"

    def __reduce__(self) -> Any:
        return PaillierPublicKey, (self.n,)

    def encrypt(self, value: Any, precision: float | None = None, r_value: int | None = None) -> EncryptedNumber:
        """Encrypt a number.

        Parameters
        ----------
        value : int, float or EncodedNumber
            The number, secret.
        precision : float, optional
            Rounding, as in :meth:`EncodedNumber.encode`. The exponent of the result is public.
        r_value : int, optional
            The obfuscator, secret; default random.

        Returns
        -------
        EncryptedNumber
            Obfuscated, unless ``r_value`` is given.

        Raises
        ------
        TypeError
            ``value`` is not a number.
        ValueError, OverflowError
            It is NaN, infinite, or larger than a third of n; ``r_value`` is a multiple of n.
        """
        encoded = value if isinstance(value, EncodedNumber) else EncodedNumber.encode(self, value, precision)
        return self.encrypt_encoded(encoded, r_value)

    def encrypt_encoded(self, encoding: EncodedNumber, r_value: int | None) -> EncryptedNumber:
        """Encrypt an encoded number.

        Parameters
        ----------
        encoding : EncodedNumber
            The number, secret.
        r_value : int or None
            The obfuscator, secret; None draws a random one.

        Returns
        -------
        EncryptedNumber
            With an ``r_value`` it counts as not obfuscated.

        Raises
        ------
        TypeError, ValueError
            An encoding or ``r_value`` that is not an integer; a multiple of n as ``r_value``.
        """
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
        """Encrypt many numbers at once, in native threads. Not in phe.

        Parameters
        ----------
        values : sequence or ndarray
            Ints, floats or EncodedNumbers, secret; an array is flattened.
        precision : float, optional
            Rounding, as in :meth:`EncodedNumber.encode`.
        full_range : bool
            Whether random numbers have the full range of the key; see :meth:`mipp.paillier.PublicKey.randomness`.
        threads : int, optional
            Native threads; default all cores.

        Returns
        -------
        list of EncryptedNumber
            In the order of ``values``, with the encodings of single calls.

        Raises
        ------
        TypeError, ValueError, OverflowError
            As :meth:`encrypt`.

        Examples
        --------
        >>> import mipp.compat.phe as phe
        >>> public_key, private_key = phe.generate_paillier_keypair(n_length=256)
        >>> private_key.decrypt_batch(public_key.encrypt_batch([1, -2, 0.5]))
        [1, -2, 0.5]
        """
        items = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else list(values)
        encoded = [v if isinstance(v, EncodedNumber) else EncodedNumber.encode(self, v, precision) for v in items]
        residues = [whole(e.encoding, "Expected int type plaintext but got") % self._n for e in encoded]
        if self.batched is None:
            made = [self._encrypt(m, None) for m in residues]
        else:
            plain = to_limbs(residues, self.batched.limbs)
            made = from_limbs(self.batched.raw_encrypt(plain, full_range=full_range, threads=threads))
        return [EncryptedNumber._made(self, c, e.exponent, e.BASE, True) for c, e in zip(made, encoded, strict=True)]


class PaillierPrivateKey:
    """A private key: the primes ``p`` < ``q`` of ``public_key.n``. Secret.

    Behaves as ``phe.PaillierPrivateKey``; decryption takes the same time for all keys of one size and all ciphertexts.
    As phe's, it pickles with its primes: whoever reads the pickle has the key.

    Parameters
    ----------
    public_key : PaillierPublicKey
        Public.
    p, q : int
        Different primes with product ``public_key.n``, in any order. Secret.

    Raises
    ------
    ValueError
        The product is another number, or the primes are equal.

    Examples
    --------
    >>> import mipp.compat.phe as phe
    >>> public_key, private_key = phe.generate_paillier_keypair(n_length=256)
    >>> phe.PaillierPrivateKey(public_key, private_key.q, private_key.p) == private_key
    True
    """

    __module__ = "mipp.compat.phe.paillier"  # pickles name it as phe does

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
        """Make the key from its totient.

        Parameters
        ----------
        public_key : PaillierPublicKey
            Public.
        totient : int
            (p - 1)(q - 1), secret.

        Returns
        -------
        PaillierPrivateKey

        Raises
        ------
        ValueError
            The totient is not one of this public key.
        """
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
        """The key of :mod:`mipp.paillier` that batches use.

        Returns
        -------
        mipp.paillier.PrivateKey or None
            None if p and q differ too much in size for that class.
        """
        try:
            return PrivateKey(self.p, self.q, insecure=True)
        except ParameterError:
            return None

    def h_function(self, x: int, xsquare: int) -> int:
        """Compute 1 / L(g^(x-1) mod x^2) mod x.

        Parameters
        ----------
        x, xsquare : int
            A prime of the key and its square. Secret.

        Returns
        -------
        int
            Secret.
        """
        return invert(self.l_function(int(gmpy2.powmod_sec(self.public_key.g, x - 1, xsquare)), x), x)

    def l_function(self, x: int, p: int) -> int:
        """Compute L(x) = (x - 1) / p.

        Parameters
        ----------
        x, p : int
            A number that is 1 modulo p, and p.

        Returns
        -------
        int
        """
        return (x - 1) // p

    def crt(self, mp: int, mq: int) -> int:
        """Combine residues by the Chinese remainder theorem.

        Parameters
        ----------
        mp, mq : int
            Residues modulo p and q.

        Returns
        -------
        int
            The number below n that is mp modulo p and mq modulo q.
        """
        return mp + (mq - mp) * self.p_inverse % self.q * self.p

    def raw_decrypt(self, ciphertext: int) -> int:
        """Decrypt a ciphertext that is given as an integer.

        Parameters
        ----------
        ciphertext : int
            Public.

        Returns
        -------
        int
            The plaintext, 0 to n - 1. Secret.

        Raises
        ------
        TypeError
            Not an integer.
        """
        return self._decrypt([whole(ciphertext, "Expected ciphertext to be an int, not")], 1)[0]

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
        """Decrypt a number.

        Parameters
        ----------
        encrypted_number : EncryptedNumber
            Public.

        Returns
        -------
        int or float
            An int if the exponent is not negative. Secret.

        Raises
        ------
        TypeError
            Not an EncryptedNumber.
        ValueError
            Encrypted under another key.
        OverflowError
            The plaintext lies in the middle third of the residues: a sum or product overflowed.
        """
        return self.decrypt_encoded(encrypted_number).decode()

    def decrypt_encoded(
        self, encrypted_number: EncryptedNumber, Encoding: type[EncodedNumber] | None = None
    ) -> EncodedNumber:
        """Decrypt a number without decoding it.

        Parameters
        ----------
        encrypted_number : EncryptedNumber
            Public.
        Encoding : type, optional
            Class of the result. Default: EncodedNumber, in the base that the number was encoded in.

        Returns
        -------
        EncodedNumber
            Secret.

        Raises
        ------
        TypeError, ValueError
            As :meth:`decrypt`.
        """
        self._check(encrypted_number)
        plain = self._decrypt([encrypted_number._number], 1)[0]
        return (Encoding or encrypted_number._encoding)(self.public_key, plain, encrypted_number.exponent)

    def decrypt_batch(self, encrypted_numbers: Any, *, threads: int | None = None) -> list[Any]:
        """Decrypt many numbers at once, in native threads. Not in phe.

        Parameters
        ----------
        encrypted_numbers : sequence or ndarray of EncryptedNumber
            Public; flattened.
        threads : int, optional
            Native threads; default all cores.

        Returns
        -------
        list of int or float
            In the order of the arguments. Secret.

        Raises
        ------
        TypeError, ValueError, OverflowError
            As :meth:`decrypt`.
        """
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
