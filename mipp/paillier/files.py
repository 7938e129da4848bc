"""Encrypted arrays as bytes, files and pickles: label and version, header, ciphertexts, SHA-256."""

from __future__ import annotations

import copyreg
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IntegrityError, ParameterError, StoreError
from ..io.files import replacing
from .array import EncryptedArray
from .keys import PublicKey, check_ciphertexts

__all__ = ["array_from_bytes", "array_to_bytes", "load_array", "save_array"]

_LABEL = b"mipp paillier array 1\n"


def array_to_bytes(array: EncryptedArray) -> bytes:
    """Serialise an encrypted array.

    The bytes are a label with the format version, the length of the header (4 bytes, big-endian), the header (JSON),
    the ciphertexts (little-endian limbs), and the SHA-256 of all of that.

    Parameters
    ----------
    array : EncryptedArray
        The array.

    Returns
    -------
    bytes
        Holds the key's fingerprint, not the key.

    Examples
    --------
    >>> from mipp.paillier import array_from_bytes, array_to_bytes, decrypt, encrypt, generate_keypair
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> data = array_to_bytes(encrypt(key.public, [1, 2]))
    >>> data[:21]
    b'mipp paillier array 1'
    >>> decrypt(key, array_from_bytes(data, key.public)).tolist()
    [1, 2]
    """
    header: dict[str, Any] = {
        "key": array.public.fingerprint.hex(),
        "shape": array.shape,
        "fraction_bits": array.fraction_bits,
        "bound": hex(array.bound),
    }
    text = json.dumps(header, sort_keys=True).encode()
    body = _LABEL + len(text).to_bytes(4, "big") + text + array.data.astype("<u8", copy=False).tobytes()
    return body + hashlib.sha256(body).digest()


def array_from_bytes(data: bytes, key: PublicKey) -> EncryptedArray:
    """Read an encrypted array that :func:`array_to_bytes` wrote.

    Parameters
    ----------
    data : bytes
        The serialised array.
    key : PublicKey
        The key that it was encrypted with.

    Returns
    -------
    EncryptedArray
        The array.

    Raises
    ------
    IntegrityError
        The data is truncated or changed, or is not an encrypted array of this format version.
    ParameterError
        The array belongs to another key, or holds numbers that are not ciphertexts.

    Examples
    --------
    >>> from mipp.paillier import array_from_bytes, array_to_bytes, encrypt, generate_keypair
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> array_from_bytes(array_to_bytes(encrypt(key.public, [1, 2])), key.public).shape
    (2,)
    """
    data = bytes(data)
    if not data.startswith(_LABEL):
        raise IntegrityError("not an encrypted array of this format version")
    body, digest = data[:-32], data[-32:]
    if hashlib.sha256(body).digest() != digest:
        raise IntegrityError("an encrypted array was truncated or changed")
    try:
        start = len(_LABEL) + 4
        size = int.from_bytes(body[len(_LABEL) : start], "big")
        header = json.loads(body[start : start + size])
        shape = tuple(int(n) for n in header["shape"])
        fraction, bound, owner = int(header["fraction_bits"]), int(header["bound"], 16), bytes.fromhex(header["key"])
        words = np.frombuffer(body, "<u8", offset=start + size).astype(np.uint64)
        if min(shape, default=0) < 0 or fraction < 0 or bound < 0:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise IntegrityError("the header of an encrypted array is corrupt") from None
    if owner != key.fingerprint:
        raise ParameterError("this encrypted array belongs to another key")
    if words.size != int(np.prod(shape)) * key.element_limbs:
        raise IntegrityError("an encrypted array has the wrong number of ciphertexts")
    check_ciphertexts(key, words.reshape(-1, key.element_limbs))
    return EncryptedArray(key, words.reshape(*shape, key.element_limbs), fraction, bound)


def save_array(array: EncryptedArray, path: str | os.PathLike[str]) -> None:
    """Write an encrypted array to a file, completely or not at all.

    Parameters
    ----------
    array : EncryptedArray
        The array.
    path : str or path-like
        File to write; an existing one is replaced.

    Raises
    ------
    StoreError
        The file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.paillier import decrypt, encrypt, generate_keypair, load_array, save_array
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "numbers"
    ...     save_array(encrypt(key.public, [1, 2]), path)
    ...     decrypt(key, load_array(path, key.public)).tolist()
    [1, 2]
    """
    with replacing(path, failed=StoreError) as file:
        file.write(array_to_bytes(array))


def load_array(path: str | os.PathLike[str], key: PublicKey) -> EncryptedArray:
    """Read an encrypted array from a file that :func:`save_array` wrote.

    Parameters
    ----------
    path : str or path-like
        File to read.
    key : PublicKey
        The key that the array was encrypted with.

    Returns
    -------
    EncryptedArray
        The array.

    Raises
    ------
    StoreError
        The file cannot be read.
    IntegrityError, ParameterError
        As for :func:`array_from_bytes`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.paillier import encrypt, generate_keypair, load_array, save_array
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "numbers"
    ...     save_array(encrypt(key.public, [[1, 2]]), path)
    ...     load_array(path, key.public).shape
    (1, 2)
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    return array_from_bytes(data, key)


def _reduce(array: EncryptedArray) -> tuple[object, tuple[bytes, PublicKey]]:
    return array_from_bytes, (array_to_bytes(array), array.public)


# pickle, copy and deepcopy go through the serialised form and its checks
copyreg.pickle(EncryptedArray, _reduce)  # type: ignore[arg-type]
