"""Associated data of sealed boxes, and commitments of query headers; both ends compute them."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = [
    "audit_seal_info",
    "image_seal_info",
    "owner_seal_info",
    "owner_secret_commitment",
    "query_share_commitment",
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


def query_share_commitment(salt: bytes, query_share: np.ndarray, theta: np.ndarray) -> bytes:
    """SHA-256(salt | query share | thresholds), the header's commitment for one server."""
    return hashlib.sha256(salt + query_share.tobytes() + theta.tobytes()).digest()


def shares_seal_info(deployment: bytes, owner: bytes, server: int, batch: bytes) -> bytes:
    """Associated data of an owner's own rows, given back to it."""
    return b"mipp v2 shares" + deployment + owner + bytes([server]) + batch


def audit_seal_info(deployment: bytes, owner: bytes, server: int, seed: bytes) -> bytes:
    """Associated data of the answer to an audit, sealed to the owner."""
    return b"mipp v1 audit" + deployment + owner + bytes([server]) + seed
