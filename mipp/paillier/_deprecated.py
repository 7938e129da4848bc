"""Methods of keys that one release keeps: ``PublicKey.encrypt`` and ``PrivateKey.decrypt``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .array import EncryptedArray, decrypt, encrypt
from .keys import PrivateKey, PublicKey

__all__: list[str] = []


def _encrypt(self: PublicKey, values: Any, **options: Any) -> EncryptedArray:
    """Encrypt numbers. Deprecated: use :func:`mipp.paillier.encrypt`.

    Parameters
    ----------
    values : array_like of int or float
        Numbers to encrypt. Secret.
    **options : Any
        As for :func:`mipp.paillier.encrypt`.

    Returns
    -------
    EncryptedArray
        The ciphertexts.
    """
    warnings.warn("key.encrypt(values) becomes mipp.paillier.encrypt(key, values)", DeprecationWarning, stacklevel=2)
    return encrypt(self, values, **options)


def _decrypt(self: PrivateKey, array: EncryptedArray, *, threads: int | None = None) -> np.ndarray:
    """Decrypt numbers. Deprecated: use :func:`mipp.paillier.decrypt`.

    Parameters
    ----------
    array : EncryptedArray
        Ciphertexts under this key.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray
        The numbers. Secret.
    """
    warnings.warn("key.decrypt(array) becomes mipp.paillier.decrypt(key, array)", DeprecationWarning, stacklevel=2)
    return decrypt(self, array, threads=threads)


setattr(PublicKey, "encrypt", _encrypt)  # noqa: B010  (type checkers do not see the old names)
setattr(PrivateKey, "decrypt", _decrypt)  # noqa: B010
