"""Keys and numbers of the package ``phe`` to those of this one and back."""

from __future__ import annotations

from typing import Any

from .encoding import EncodedNumber
from .keys import PaillierPrivateKey, PaillierPublicKey
from .numbers import EncryptedNumber

__all__ = ["from_phe", "to_phe"]


def from_phe(thing: Any) -> Any:
    """Convert a key or number of the package ``phe`` to this package.

    Parameters
    ----------
    thing : object
        A public or private key, an encrypted or an encoded number of ``phe``. Encrypted numbers are converted as they
        are, obfuscated or not.

    Returns
    -------
    object
        The key or number of the same name in :mod:`mipp.compat.phe`.

    Raises
    ------
    TypeError
        Any other object.

    Examples
    --------
    >>> import importlib.util
    >>> import mipp.compat.phe as ours
    >>> if importlib.util.find_spec("phe"):  # the original package
    ...     import phe
    ...     assert ours.from_phe(phe.PaillierPublicKey(35)) == ours.PaillierPublicKey(35)
    """
    kind = type(thing).__name__
    if not type(thing).__module__.startswith("phe."):
        raise TypeError(f"expected a key or number of phe, not {type(thing)}")
    if kind == "PaillierPublicKey":
        return PaillierPublicKey(thing.n)
    key = PaillierPublicKey(thing.public_key.n)
    if kind == "PaillierPrivateKey":
        return PaillierPrivateKey(key, thing.p, thing.q)
    if kind == "EncryptedNumber":
        return EncryptedNumber(key, thing.ciphertext(be_secure=False), thing.exponent)
    if kind == "EncodedNumber":
        return EncodedNumber(key, thing.encoding, thing.exponent)
    raise TypeError(f"expected a key or number of phe, not {type(thing)}")


def to_phe(thing: Any) -> Any:
    """Convert a key or number of this package to the package ``phe``: the inverse of :func:`from_phe`.

    Parameters
    ----------
    thing : object
        A public or private key, an encrypted or an encoded number of :mod:`mipp.compat.phe`.

    Returns
    -------
    object
        The key or number of the same name in ``phe``.

    Raises
    ------
    ImportError
        ``phe`` is not installed.
    TypeError
        Any other object.

    Examples
    --------
    >>> import importlib.util
    >>> import mipp.compat.phe as ours
    >>> if importlib.util.find_spec("phe"):  # the original package
    ...     assert ours.to_phe(ours.PaillierPublicKey(35)).n == 35
    """
    import phe

    if isinstance(thing, PaillierPublicKey):
        return phe.PaillierPublicKey(thing.n)
    if isinstance(thing, PaillierPrivateKey):
        return phe.PaillierPrivateKey(phe.PaillierPublicKey(thing.public_key.n), thing.p, thing.q)
    if isinstance(thing, EncryptedNumber):
        key = phe.PaillierPublicKey(thing.public_key.n)
        return phe.EncryptedNumber(key, thing.ciphertext(be_secure=False), thing.exponent)
    if isinstance(thing, EncodedNumber):
        return phe.EncodedNumber(phe.PaillierPublicKey(thing.public_key.n), thing.encoding, thing.exponent)
    raise TypeError(f"expected a key or number of mipp.compat.phe, not {type(thing)}")
