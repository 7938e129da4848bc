"""Associated data of sealed boxes, and commitments of query headers; both ends compute them."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = [
    "album_seal_info",
    "audit_seal_info",
    "fetch_commitment",
    "image_seal_info",
    "owner_seal_info",
    "owner_secret_commitment",
    "query_share_commitment",
    "record_data",
    "shares_seal_info",
]


def owner_seal_info(deployment: bytes, owner: bytes, server: int) -> bytes:
    """Associated data of an owner's secrets, sealed to a server."""
    return b"mipp v1 owner secrets" + deployment + owner + bytes([server])


def owner_secret_commitment(deployment: bytes, owner: bytes, server: int, secret: bytes) -> bytes:
    """Hash of an owner's secrets for a server, 32 bytes; public. They are random, so it tells nothing of them."""
    return hashlib.sha256(b"mipp v1 owner commitment" + deployment + owner + bytes([server]) + secret).digest()


def image_seal_info(deployment: bytes, user: bytes, server: int, ids: list[bytes]) -> bytes:
    """Associated data of image-key parts, sealed to a user."""
    return b"mipp v1 image parts" + deployment + user + bytes([server]) + hashlib.sha256(b"".join(ids)).digest()


def album_seal_info(deployment: bytes, user: bytes, server: int, albums: list[bytes]) -> bytes:
    """Associated data of album-key parts, sealed to a user."""
    return b"mipp v1 album parts" + deployment + user + bytes([server]) + hashlib.sha256(b"".join(albums)).digest()


def record_data(deployment: bytes, owner: bytes, pack: bytes, row: int) -> bytes:
    """Associated data of a sealed record: its place and its version; ids have 16 bytes each.

    ``pack`` is the id of the change that wrote the record, so a server cannot pass off an earlier record of the row.
    """
    return b"mipp v1 record data" + deployment + owner + pack + row.to_bytes(8, "big")


def query_share_commitment(salt: bytes, query_share: np.ndarray, theta: np.ndarray) -> bytes:
    """SHA-256(salt | query share | thresholds), the header's commitment for one server. Query shares are not copied.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.rpc.associated_data import query_share_commitment
    >>> query_share_commitment(bytes(32), np.arange(4, dtype="<u4").reshape(2, 2), np.array([7], "<u4")).hex()[:16]
    'bb30bcc4170a06ea'
    """
    digest = hashlib.sha256(salt)
    for part in (query_share, theta):
        digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return digest.digest()


def shares_seal_info(deployment: bytes, owner: bytes, server: int, batch: bytes) -> bytes:
    """Associated data of an owner's own rows, given back to it."""
    return b"mipp v2 shares" + deployment + owner + bytes([server]) + batch


def audit_seal_info(deployment: bytes, owner: bytes, server: int, seed: bytes) -> bytes:
    """Associated data of the answer to an audit, sealed to the owner."""
    return b"mipp v1 audit" + deployment + owner + bytes([server]) + seed


def fetch_commitment(salt: bytes, keys: list[bytes]) -> bytes:
    """SHA-256 of a salt and the keys of a private fetch for one cloud, each with its length: what the header says."""
    sized = b"".join(len(key).to_bytes(4, "big") + key for key in keys)
    return hashlib.sha256(b"mipp v1 fetch keys" + salt + sized).digest()
