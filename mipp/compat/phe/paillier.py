"""Keys and encrypted numbers of the same names and meaning as ``phe.paillier``.

Single calls go through gmpy2 (or one native power where that is faster); batches through :mod:`mipp.paillier`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gmpy2

from ...paillier import generate_keypair
from .encoding import EncodedNumber
from .keys import PaillierPrivateKey, PaillierPublicKey
from .numbers import EncryptedNumber
from .util import getprimeover, invert, isqrt, mulmod, powmod

__all__ = [
    "DEFAULT_KEYSIZE",
    "EncodedNumber",
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


def generate_paillier_keypair(
    private_keyring: PaillierPrivateKeyring | None = None, n_length: int = DEFAULT_KEYSIZE
) -> tuple[PaillierPublicKey, PaillierPrivateKey]:
    """Make a new key pair. As ``phe.generate_paillier_keypair``, with p = q = 3 mod 4.

    Parameters
    ----------
    private_keyring : PaillierPrivateKeyring, optional
        The private key is added to it.
    n_length : int
        Bits of n; 3072 by default. Fewer than 2048 protect nothing.

    Returns
    -------
    public_key : PaillierPublicKey
        Public.
    private_key : PaillierPrivateKey
        Secret.

    Examples
    --------
    >>> import mipp.compat.phe as phe
    >>> public_key, private_key = phe.generate_paillier_keypair(n_length=256)
    >>> public_key.n.bit_length()
    256
    """
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


class PaillierPrivateKeyring(Mapping[PaillierPublicKey, PaillierPrivateKey]):
    """A mapping from public keys to their private keys. Secret. As ``phe.PaillierPrivateKeyring``.

    Parameters
    ----------
    private_keys : sequence of PaillierPrivateKey, optional
        The first keys.

    Examples
    --------
    >>> import mipp.compat.phe as phe
    >>> ring = phe.PaillierPrivateKeyring()
    >>> public_key, private_key = phe.generate_paillier_keypair(ring, n_length=256)
    >>> ring.decrypt(public_key.encrypt(5))
    5
    """

    def __init__(self, private_keys: Sequence[PaillierPrivateKey] | None = None) -> None:
        self.__keyring: dict[Any, PaillierPrivateKey] = {key.public_key: key for key in private_keys or ()}

    def __getitem__(self, key: PaillierPublicKey) -> PaillierPrivateKey:
        return self.__keyring[key]

    def __len__(self) -> int:
        return len(self.__keyring)

    def __iter__(self) -> Iterator[PaillierPublicKey]:
        return iter(self.__keyring)

    def __delitem__(self, public_key: PaillierPublicKey) -> None:
        del self.__keyring[public_key]

    def add(self, private_key: PaillierPrivateKey) -> None:
        """Add a private key.

        Parameters
        ----------
        private_key : PaillierPrivateKey
            Secret.

        Raises
        ------
        TypeError
            Not a private key.
        """
        if not isinstance(private_key, PaillierPrivateKey):
            raise TypeError(f"private_key should be of type PaillierPrivateKey, not {type(private_key)}")
        self.__keyring[private_key.public_key] = private_key

    def decrypt(self, encrypted_number: EncryptedNumber) -> Any:
        """Decrypt a number with the key that it belongs to.

        Parameters
        ----------
        encrypted_number : EncryptedNumber
            Public.

        Returns
        -------
        int or float
            Secret.

        Raises
        ------
        KeyError
            The key is not in this keyring.
        OverflowError
            As :meth:`PaillierPrivateKey.decrypt`.
        """
        return self.__keyring[encrypted_number.public_key].decrypt(encrypted_number)
