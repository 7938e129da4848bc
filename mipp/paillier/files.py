"""Encrypted arrays as bytes and files: label and version, header, ciphertexts, SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IntegrityError, ParameterError, StoreError
from .array import EncryptedArray
from .keys import PublicKey, check_ciphertexts

__all__ = ["array_from_bytes", "array_to_bytes", "load_array", "save_array"]

_LABEL = b"mipp paillier array 1\n"


def array_to_bytes(array: EncryptedArray) -> bytes:
    """Label, length of the header (4 bytes), header (JSON), ciphertexts (little-endian), SHA-256 of all that."""
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
    """Inverse of :func:`array_to_bytes`.

    Raises
    ------
    IntegrityError
        Truncated, changed, or no encrypted array of this format version.
    ParameterError
        Of another key, or numbers that are no ciphertexts.
    """
    data = bytes(data)
    if not data.startswith(_LABEL):
        raise IntegrityError("no encrypted array of this format version")
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
        raise ParameterError("this encrypted array is of another key")
    if words.size != int(np.prod(shape)) * key.element_limbs:
        raise IntegrityError("an encrypted array has the wrong number of ciphertexts")
    check_ciphertexts(key, words.reshape(-1, key.element_limbs))
    return EncryptedArray(key, words.reshape(*shape, key.element_limbs), fraction, bound)


def save_array(array: EncryptedArray, path: str | os.PathLike[str]) -> None:
    """Write a file, whole or not at all."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        with open(temporary, "wb") as file:
            file.write(array_to_bytes(array))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {target}: {error.strerror}") from None


def load_array(path: str | os.PathLike[str], key: PublicKey) -> EncryptedArray:
    """Read a file that :func:`save_array` wrote; StoreError if it cannot be read, else as :func:`array_from_bytes`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    return array_from_bytes(data, key)
