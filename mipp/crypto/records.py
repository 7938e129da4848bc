"""Records: keys of albums, and sealing of many records at once (AES-256-GCM).

A sealed record is salt (16 bytes) | ciphertext | tag (16 bytes). Its key is HKDF(album key, "mipp v1 record" | salt).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .._native import _core
from ..errors import AuthenticationError, ParameterError
from . import schedule

__all__ = ["RECORD_OVERHEAD", "album_check", "album_key", "album_part", "open_record", "seal_records"]

SALT_BYTES, TAG_BYTES = 16, 16
#: bytes that sealing adds to a record
RECORD_OVERHEAD = SALT_BYTES + TAG_BYTES
_LABEL = b"mipp v1 record"
# A key seals one record only: it depends on 16 random bytes drawn for that record. So a constant nonce never repeats
# under a key, unless two salts of one album are equal, whose chance for 2^40 records is below 2^-48.
_GCM_NONCE = b"\0" * 12


def album_part(image_part: bytes, album: bytes) -> bytes:
    """Derive the key part of one album, so that a user who has one album's parts cannot open another album.

    Parameters
    ----------
    image_part : bytes
        A server's part of the owner's image keys (:func:`mipp.crypto.schedule.key_centre_image_part`,
        :func:`mipp.crypto.schedule.cloud_image_part`), 32 bytes. Secret.
    album : bytes
        Id of the album, 16 bytes. Public.

    Returns
    -------
    bytes
        32 bytes. Secret.

    Raises
    ------
    ParameterError
        A value has another length.
    """
    schedule.exactly(image_part, schedule.KEY_BYTES, "a part of an owner's image keys")
    return schedule.hkdf(image_part, b"mipp v1 album" + schedule.exactly(album, 16, "an album id"))


def album_key(key_centre: bytes, cloud: bytes, deployment: bytes, owner: bytes, album: bytes) -> bytes:
    """Derive the key of an album from both of its parts. Neither the key centre nor a cloud can do it alone.

    Parameters
    ----------
    key_centre, cloud : bytes
        Key parts of the album (:func:`album_part`), 32 bytes each. Secret.
    deployment, owner, album : bytes
        Ids, 16 bytes each. Public.

    Returns
    -------
    bytes
        32 bytes. Secret.

    Raises
    ------
    ParameterError
        A value has another length.
    """
    both = b"".join(
        schedule.exactly(part, schedule.KEY_BYTES, "a key part of an album") for part in (key_centre, cloud)
    )
    ids = b"".join(
        schedule.exactly(value, 16, f"{name} id")
        for name, value in (("a deployment", deployment), ("an owner", owner), ("an album", album))
    )
    return schedule.hkdf(both, b"mipp v1 album key" + ids)


def _record_keys(key: bytes, salts: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Keys of records (n, 32) from an album's key and their salts (n, 16): HKDF(key, label | salt)."""
    infos = np.empty((len(salts), len(_LABEL) + SALT_BYTES), np.uint8)
    infos[:, : len(_LABEL)] = np.frombuffer(_LABEL, np.uint8)
    infos[:, len(_LABEL) :] = salts
    return _core.hkdf_expand_batch(schedule.exactly(key, schedule.KEY_BYTES, "an album key"), infos)


def seal_records(key: bytes, plains: Sequence[bytes], associated: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """Seal records under the key of their album.

    Parameters
    ----------
    key : bytes
        Key of the album (:func:`album_key`), 32 bytes. Secret.
    plains : sequence of bytes
        n contents, all of one length. Secret.
    associated : sequence of bytes
        Associated data of each; opening needs the same.

    Returns
    -------
    ndarray of uint8, shape (n, length of a content + RECORD_OVERHEAD)
        Sealed records. They show the length of the contents, which is the same for all.

    Raises
    ------
    ParameterError
        Contents of several lengths, another number of associated data, a key of another length.

    Notes
    -----
    Every call draws fresh salts, so the same content sealed twice shows no likeness.
    """
    count, size = len(plains), len(plains[0]) if len(plains) else 0
    if len(associated) != count:
        raise ParameterError(f"{count} records have {len(associated)} associated data, one each is needed")
    if any(len(plain) != size for plain in plains):
        raise ParameterError("records that are sealed together have one length")
    salts = np.frombuffer(schedule.random_bytes(count * SALT_BYTES), np.uint8).reshape(count, SALT_BYTES)
    keys = _record_keys(key, salts)
    out = np.empty((count, size + RECORD_OVERHEAD), np.uint8)
    out[:, :SALT_BYTES] = salts
    for row, own, plain, about in zip(out, keys, plains, associated, strict=True):
        row[SALT_BYTES:] = np.frombuffer(AESGCM(own.tobytes()).encrypt(_GCM_NONCE, plain, about), np.uint8)
    return out


def open_record(key: bytes, sealed: bytes | npt.NDArray[np.uint8], associated: bytes) -> bytes:
    """Open a record that :func:`seal_records` sealed.

    Parameters
    ----------
    key : bytes
        Key of the album, 32 bytes. Secret.
    sealed : bytes or ndarray of uint8
        The sealed record.
    associated : bytes
        The associated data that it was sealed with.

    Returns
    -------
    bytes
        The content. Secret.

    Raises
    ------
    AuthenticationError
        The record is damaged, another row's or version's, or of another album.
    ParameterError
        The key has another length.
    """
    blob = bytes(sealed)
    if len(blob) < RECORD_OVERHEAD:
        raise AuthenticationError("the sealed record is too short")
    own = _record_keys(key, np.frombuffer(blob[:SALT_BYTES], np.uint8).reshape(1, SALT_BYTES))
    try:
        return AESGCM(own.tobytes()).decrypt(_GCM_NONCE, blob[SALT_BYTES:], associated)
    except InvalidTag:
        raise AuthenticationError("the record was tampered with, or its key or place is another's") from None


def album_check(key: bytes) -> bytes:
    """Check value of an album's key: who puts the key together from parts notices a wrong one.

    Parameters
    ----------
    key : bytes
        Key of the album, 32 bytes. Secret.

    Returns
    -------
    bytes
        16 bytes. Public: it tells nothing of the key.

    Raises
    ------
    ParameterError
        The key has another length.
    """
    return hashlib.sha256(b"mipp v1 album check" + schedule.exactly(key, schedule.KEY_BYTES, "an album key")).digest()[
        :16
    ]
