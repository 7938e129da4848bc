"""Key schedule: which key comes from which, byte by byte. Everything here but labels and nonces is secret.

HKDF is HKDF-SHA256 with an empty salt (RFC 5869). Layouts of the first four functions are fixed between
implementations (DESIGN section 4 and its executable reference).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import ParameterError

__all__ = [
    "SCHEMES",
    "batch_info",
    "batch_nonce",
    "cloud_image_part",
    "hkdf",
    "image_key",
    "image_part",
    "journal_key",
    "key_centre_image_part",
    "key_centre_key",
    "mask_infos",
    "pair_key",
    "random_bytes",
    "zero_infos",
]

#: numbers of the schemes in the key schedule
SCHEMES = {"shares": 1, "homomorphic": 2}
KEY_BYTES = 32
NONCE_BYTES = 16


def random_bytes(n: int) -> bytes:
    """``n`` bytes of the operating system's randomness: the only source of secrets in mipp."""
    return os.urandom(n)


def hkdf(key: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256, empty salt. ``key`` is secret, ``info`` public."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(key)


def _exactly(value: bytes, size: int, what: str) -> bytes:
    if len(value) != size:
        raise ParameterError(f"{what} must be {size} bytes, not {len(value)}")
    return bytes(value)


def key_centre_key(
    root: bytes, deployment: bytes, registration: bytes, n: int, t: int, server: int, scheme: str = "shares"
) -> bytes:
    """What an owner hands to key server ``server``, once per registration: 32 secret bytes."""
    _exactly(root, KEY_BYTES, "owner root")
    _exactly(deployment, NONCE_BYTES, "deployment id")
    _exactly(registration, NONCE_BYTES, "registration nonce")
    return hkdf(
        root, b"mipp v1 key server" + bytes([SCHEMES[scheme]]) + deployment + registration + bytes([n, t, server])
    )


def batch_info(nonce: bytes, k: int, dim: int, rows: int) -> bytes:
    """HKDF info of a batch's AES-256 key under the key server's key. ``dim`` and ``rows`` as uploaded, for ever."""
    return (
        b"mipp v1 batch"
        + _exactly(nonce, NONCE_BYTES, "batch nonce")
        + bytes([k])
        + int(dim).to_bytes(4, "big")
        + int(rows).to_bytes(8, "big")
    )


def zero_infos(header: bytes, nonces: np.ndarray, queries: range) -> np.ndarray:
    """HKDF infos of the zero shares of some queries over S batches, query-major.

    Parameters
    ----------
    header : 32 bytes, hash that binds the query
    nonces : (S, 16) uint8, batch nonces
    queries : which queries of the batch of queries

    Returns
    -------
    (len(queries) * S, 64) uint8
    """
    label = np.frombuffer(b"mipp v1 zero" + _exactly(header, 32, "header hash"), np.uint8)
    out = np.empty((len(queries), len(nonces), len(label) + NONCE_BYTES + 4), np.uint8)
    out[:, :, : len(label)] = label
    out[:, :, len(label) : len(label) + NONCE_BYTES] = nonces
    out[:, :, len(label) + NONCE_BYTES :] = np.array(queries, ">u4").view(np.uint8).reshape(-1, 1, 4)
    return out.reshape(len(queries) * len(nonces), -1)


def mask_infos(header: bytes, queries: int) -> np.ndarray:
    """HKDF infos, under a pair key, of the homomorphic scheme's masks of each query: (queries, 52) uint8."""
    label = b"mipp v1 homomorphic mask" + _exactly(header, 32, "header hash")
    infos = b"".join(label + q.to_bytes(4, "big") for q in range(queries))
    return np.frombuffer(infos, np.uint8).reshape(queries, -1)


def batch_nonce(root: bytes, content: Iterable[bytes | memoryview]) -> bytes:
    """A fresh batch nonce: HMAC(HKDF(root, "mipp v1 nonce"), 32 random bytes | SHA-256(content)), first 16 bytes.

    Randomness and content both enter, so that neither a cloned machine nor a restored backup masks two different
    contents with one keystream.
    """
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    key = hkdf(root, b"mipp v1 nonce")
    return hmac.digest(key, random_bytes(32) + digest.digest(), "sha256")[:NONCE_BYTES]


def pair_key(shared_secret: bytes, deployment: bytes, low: int, high: int) -> bytes:
    """Key of the server pair ``low < high`` from their X25519 secret."""
    return hkdf(shared_secret, b"mipp v1 pair" + deployment + bytes([low, high]))


def key_centre_image_part(root: bytes, deployment: bytes, registration: bytes) -> bytes:
    """The key centre's part of an owner's image keys: 32 secret bytes."""
    return hkdf(root, b"mipp v1 image key centre" + deployment + registration)


def cloud_image_part(root: bytes, deployment: bytes, registration: bytes) -> bytes:
    """The clouds' part of an owner's image keys: 32 secret bytes."""
    return hkdf(root, b"mipp v1 image cloud" + deployment + registration)


def journal_key(root: bytes, deployment: bytes, registration: bytes) -> bytes:
    """Key of an owner's own journal: 32 secret bytes that no server gets."""
    return hkdf(root, b"mipp v1 journal" + deployment + registration)


def image_part(part: bytes, image: bytes) -> bytes:
    """One image's part under a server's part, so that a user who fetches one image cannot open another."""
    return hkdf(part, b"mipp v1 image part" + image)


def image_key(key_centre: bytes, cloud: bytes, image: bytes, salt: bytes) -> bytes:
    """AES-256 key of one image file from both parts of that image."""
    return hkdf(key_centre + cloud, b"mipp v1 image" + image + _exactly(salt, 16, "file salt"))
