"""Arithmetic modulo n^2 under one public key, shared by the keys and the encrypted numbers of the drop-in."""

from __future__ import annotations

import functools
import threading
from typing import Any

import gmpy2
import numpy as np

from ... import cpu
from ...errors import ParameterError
from ...paillier import PublicKey
from ...paillier.keys import LEAST_BITS, MOST_BITS
from ...paillier.limbs import from_limbs, random_below

__all__ = ["Residues", "whole"]

#: encryptions with one key after which tables are made for more
_TABLE_FROM = 8


class Residues:
    """The residues modulo n and n^2 of a public key; :class:`~mipp.compat.phe.PaillierPublicKey` is the public class.

    Parameters
    ----------
    n : int
        Modulus, public.
    """

    def __init__(self, n: int) -> None:
        self.n = int(n)
        self.g = self.n + 1
        self.nsquare = self.n * self.n
        self.max_int = self.n // 3 - 1
        self._n, self._nsquare = gmpy2.mpz(self.n), gmpy2.mpz(self.nsquare)
        self._calls = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Residues) and self.n == other.n

    def __hash__(self) -> int:
        return hash(self.n)

    @functools.cached_property
    def batched(self) -> PublicKey | None:
        """The key of :mod:`mipp.paillier` that batches use.

        Returns
        -------
        mipp.paillier.PublicKey or None
            None if n has more than 4096 bits or cannot be a modulus of that class.
        """
        try:
            return PublicKey(self.n, insecure=True)
        except ParameterError:
            return None

    def get_random_lt_n(self) -> int:
        """Draw a number from the operating system's randomness.

        Returns
        -------
        int
            Uniform in 1 .. n-1. Secret where it obfuscates a ciphertext.
        """
        return int(random_below(self._n, 1)[0])

    def raw_encrypt(self, plaintext: int, r_value: int | None = None) -> int:
        """Compute (1 + n plaintext) r^n mod n^2.

        Parameters
        ----------
        plaintext : int
            Secret; taken modulo n.
        r_value : int, optional
            The obfuscator r, secret; default random. With 1 everybody can read the plaintext.

        Returns
        -------
        int
            The ciphertext, below n^2. Public.

        Raises
        ------
        TypeError
            An argument that is not an integer.
        ValueError
            ``r_value`` is a multiple of n; phe takes 0 for "none given".
        """
        return int(self._encrypt(plaintext, r_value))

    def _encrypt(self, plaintext: Any, r_value: int | None) -> Any:
        plaintext = whole(plaintext, "Expected int type plaintext but got")
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
        """A random r^n mod n^2 that hides the plaintext of a new ciphertext.

        r has full range until a background thread has made this key's tables; then the tables give short randomness.
        Results of arithmetic need full range always (:meth:`_obfuscator`): short randomness does not hide their plain
        factors from the holder of the private key. A new ciphertext has no such factors.
        """
        if self._calls > _TABLE_FROM and self.batched is not None and self.batched.prepared:
            return from_limbs(self.batched.randomness(1, threads=1))[0]
        self._calls += 1
        wanted = self._calls == _TABLE_FROM and LEAST_BITS <= self._n.bit_length() <= MOST_BITS
        if wanted and self.batched is not None:
            threading.Thread(target=self.batched.prepare, kwargs={"threads": 1}, daemon=True).start()
        return self._obfuscator()


def whole(value: Any, what: str) -> Any:
    """``value`` if it is an integer, of numpy as Python's; else TypeError that begins with ``what``."""
    if isinstance(value, (int, gmpy2.mpz)):
        return value
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"{what}: {type(value)}")
