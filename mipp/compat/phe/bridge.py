"""Keys and numbers of the package ``phe`` to those of this one and back."""

from __future__ import annotations

from typing import Any

from .encoding import EncodedNumber
from .paillier import EncryptedNumber, PaillierPrivateKey, PaillierPublicKey

__all__ = ["from_phe", "to_phe"]


def from_phe(thing: Any) -> Any:
    """A key, encrypted or encoded number of ``phe`` as one of this package; TypeError for anything else.

    Encrypted numbers are handed over as they are, obfuscated or not.
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
    """Inverse of :func:`from_phe`; needs ``phe`` to be installed (ImportError)."""
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
