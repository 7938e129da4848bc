"""What seals and headers are bound to; both ends compute it."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["column_commitment", "image_seal_info", "owner_seal_info", "shares_seal_info"]


def owner_seal_info(deployment: bytes, owner: bytes, server: int) -> bytes:
    """What an owner's sealed secrets are bound to."""
    return b"mipp v1 owner secrets" + deployment + owner + bytes([server])


def image_seal_info(deployment: bytes, user: bytes, server: int, ids: list[bytes]) -> bytes:
    """What sealed image-key parts are bound to."""
    return b"mipp v1 image parts" + deployment + user + bytes([server]) + hashlib.sha256(b"".join(ids)).digest()


def column_commitment(salt: bytes, column: np.ndarray, theta: np.ndarray) -> bytes:
    """SHA-256(salt | column | thresholds), the header's commitment for one server."""
    return hashlib.sha256(salt + column.tobytes() + theta.tobytes()).digest()


def shares_seal_info(deployment: bytes, owner: bytes, server: int, batch: bytes) -> bytes:
    """What an owner's own rows, given back to it, are bound to."""
    return b"mipp v2 shares" + deployment + owner + bytes([server]) + batch
