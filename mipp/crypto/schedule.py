"""Key schedule: how keys derive from each other, byte by byte. All of it is secret, except labels and nonces.

HKDF is HKDF-SHA256 with an empty salt (RFC 5869). Implementations must agree on every layout here; tests compare them
with known answers.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import ParameterError
from ..params import FINITE, INFINITY, MASKED

__all__ = [
    "answer_key",
    "audit_draws_info",
    "audit_key",
    "audit_rows_info",
    "audit_weights_info",
    "batch_info",
    "batch_nonce",
    "cloud_image_part",
    "completion_info",
    "exactly",
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

#: forms of sharing in the labels of the key schedule
_LAYOUTS = {FINITE: 1, MASKED: 2, INFINITY: 3}
KEY_BYTES = 32
NONCE_BYTES = 16


def random_bytes(n: int) -> bytes:
    """Draw random bytes from the operating system: the only source of secrets in mipp.

    Parameters
    ----------
    n : int
        Number of bytes.

    Returns
    -------
    bytes
        Secret, unless used as an id or nonce.
    """
    return os.urandom(n)


def hkdf(key: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """Derive a key: HKDF-SHA256 with an empty salt (RFC 5869).

    Parameters
    ----------
    key : bytes
        Input key. Secret.
    info : bytes
        Label. Public.
    length : int
        Number of bytes.

    Returns
    -------
    bytes
        The derived key. Secret.
    """
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(key)


def exactly(value: bytes, size: int, what: str) -> bytes:
    """Check the length of a key, an id or a nonce.

    Parameters
    ----------
    value : bytes
        May be secret.
    size : int
        Bytes that it must have.
    what : str
        Its name, for the error.

    Returns
    -------
    bytes
        The value.

    Raises
    ------
    ParameterError
        It has another length.
    """
    if len(value) != size:
        raise ParameterError(f"{what} must be {size} bytes, not {len(value)}")
    return bytes(value)


def key_centre_key(
    root: bytes, deployment: bytes, registration: bytes, size: int, t: int, point: int, sharing: str
) -> bytes:
    """Derive the key that an owner hands to a key centre, once per registration.

    Parameters
    ----------
    root : bytes
        The owner's root, 32 bytes. Secret.
    deployment : bytes
        Id of the deployment, 16 bytes. Public.
    registration : bytes
        Random bytes of the owner's registration, 16 bytes. Public.
    size, t : int
        Layout of the deployment (:attr:`mipp.params.Params.layout`).
    point : int
        Number of the key centre's point (:meth:`mipp.params.Params.point_number`).
    sharing : str
        Form of sharing of the deployment.

    Returns
    -------
    bytes
        32 bytes. Secret.

    Raises
    ------
    ParameterError
        A value has another length.
    """
    exactly(root, KEY_BYTES, "owner root")
    exactly(deployment, NONCE_BYTES, "deployment id")
    exactly(registration, NONCE_BYTES, "registration nonce")
    layout = bytes([_LAYOUTS[sharing]])
    return hkdf(root, b"mipp v1 key server" + layout + deployment + registration + bytes([size, t, point]))


def batch_info(nonce: bytes, ring_bits: int, dim: int, rows: int) -> bytes:
    """HKDF label of a batch's AES-256 key under the key centre's key.

    Parameters
    ----------
    nonce : bytes
        Nonce of the batch, 16 bytes.
    ring_bits : int
        Bits of a ring word.
    dim, rows : int
        Features per row, and number of rows, when the batch was uploaded; deletions do not change them.

    Returns
    -------
    bytes
        Public.

    Raises
    ------
    ParameterError
        The nonce has another length.
    """
    return (
        b"mipp v1 batch"
        + exactly(nonce, NONCE_BYTES, "batch nonce")
        + bytes([ring_bits])
        + int(dim).to_bytes(4, "big")
        + int(rows).to_bytes(8, "big")
    )


def zero_infos(header: bytes, nonces: np.ndarray, queries: range) -> np.ndarray:
    """HKDF labels of the zero shares of some queries over S batches.

    Parameters
    ----------
    header : bytes
        Hash of the query's header, 32 bytes.
    nonces : ndarray of uint8, shape (S, 16)
        Nonces of the batches.
    queries : range
        Numbers of the queries.

    Returns
    -------
    ndarray of uint8, shape (len(queries) * S, 64)
        Labels, all batches of the first query first. Public.

    Raises
    ------
    ParameterError
        The header hash has another length.
    """
    label = np.frombuffer(b"mipp v1 zero" + exactly(header, 32, "header hash"), np.uint8)
    out = np.empty((len(queries), len(nonces), len(label) + NONCE_BYTES + 4), np.uint8)
    out[:, :, : len(label)] = label
    out[:, :, len(label) : len(label) + NONCE_BYTES] = nonces
    out[:, :, len(label) + NONCE_BYTES :] = np.array(queries, ">u4").view(np.uint8).reshape(-1, 1, 4)
    return out.reshape(len(queries) * len(nonces), -1)


def completion_info(session: bytes, nonce: bytes, points: Sequence[int]) -> bytes:
    """HKDF label, under a pair key, of the mask of a share that its holders rebuild.

    Parameters
    ----------
    session : bytes
        What the holders agreed on for this attempt, 32 bytes.
    nonce : bytes
        Nonce of the batch, 16 bytes.
    points : sequence of int
        Numbers of the points of the target and of all holders.

    Returns
    -------
    bytes
        Public.

    Raises
    ------
    ParameterError
        A value has another length.
    """
    return (
        b"mipp v1 complete"
        + exactly(session, 32, "session of a completion")
        + exactly(nonce, NONCE_BYTES, "batch nonce")
        + bytes(points)
    )


def mask_infos(header: bytes, queries: int) -> np.ndarray:
    """HKDF labels, under a pair key, of the Paillier scheme's masks of each query.

    Parameters
    ----------
    header : bytes
        Hash of the query's header, 32 bytes.
    queries : int
        Number of queries.

    Returns
    -------
    ndarray of uint8, shape (queries, 60)
        Public.

    Raises
    ------
    ParameterError
        The header hash has another length.
    """
    label = b"mipp v1 homomorphic mask" + exactly(header, 32, "header hash")
    infos = b"".join(label + q.to_bytes(4, "big") for q in range(queries))
    return np.frombuffer(infos, np.uint8).reshape(queries, -1)


def answer_key(sign_seed: bytes, deployment: bytes, server: int) -> bytes:
    """Derive the key of a server's own randomness in answers; no other server knows it, nor any user.

    It stays the same while the server has its identity, so that a query that comes again is answered by the same bytes.

    Parameters
    ----------
    sign_seed : bytes
        Seed of the server's Ed25519 identity, 32 bytes. Secret.
    deployment : bytes
        Id of the deployment, 16 bytes. Public.
    server : int
        Number of the server.

    Returns
    -------
    bytes
        32 bytes. Secret.
    """
    return hkdf(sign_seed, b"mipp v1 answers" + deployment + bytes([server]))


def batch_nonce(root: bytes, content: Iterable[bytes | memoryview]) -> bytes:
    """Draw a fresh batch nonce.

    Parameters
    ----------
    root : bytes
        The owner's root, 32 bytes. Secret.
    content : iterable of bytes
        Content of the batch. Secret.

    Returns
    -------
    bytes
        16 bytes. Public.

    Notes
    -----
    The nonce is HMAC-SHA256(HKDF(root, "mipp v1 nonce"), 32 random bytes | SHA-256(content)), cut to 16 bytes. Both
    randomness and content enter, so that neither a cloned machine nor a restored backup masks two contents with one
    keystream.
    """
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    key = hkdf(root, b"mipp v1 nonce")
    return hmac.digest(key, random_bytes(32) + digest.digest(), "sha256")[:NONCE_BYTES]


def pair_key(shared_secret: bytes, deployment: bytes, low: int, high: int) -> bytes:
    """Derive the key that a pair of servers shares.

    Parameters
    ----------
    shared_secret : bytes
        X25519 secret of both (:func:`mipp.crypto.box.shared_secret`), 32 bytes. Secret.
    deployment : bytes
        Id of the deployment, 16 bytes. Public.
    low, high : int
        Numbers of the servers, the smaller first.

    Returns
    -------
    bytes
        32 bytes. Secret.
    """
    return hkdf(shared_secret, b"mipp v1 pair" + deployment + bytes([low, high]))


def key_centre_image_part(root: bytes, deployment: bytes, registration: bytes) -> bytes:
    """Derive the key centre's part of an owner's image keys.

    Parameters
    ----------
    root : bytes
        The owner's root, 32 bytes. Secret.
    deployment : bytes
        Id of the deployment, 16 bytes. Public.
    registration : bytes
        Random bytes of the owner's registration, 16 bytes. Public.

    Returns
    -------
    bytes
        32 bytes. Secret.
    """
    return hkdf(root, b"mipp v1 image key centre" + deployment + registration)


def cloud_image_part(root: bytes, deployment: bytes, registration: bytes) -> bytes:
    """Derive the clouds' part of an owner's image keys.

    Parameters
    ----------
    root : bytes
        The owner's root, 32 bytes. Secret.
    deployment : bytes
        Id of the deployment, 16 bytes. Public.
    registration : bytes
        Random bytes of the owner's registration, 16 bytes. Public.

    Returns
    -------
    bytes
        32 bytes. Secret.
    """
    return hkdf(root, b"mipp v1 image cloud" + deployment + registration)


def journal_key(root: bytes, deployment: bytes, registration: bytes) -> bytes:
    """Derive the key of an owner's own journal; no server gets it.

    Parameters
    ----------
    root : bytes
        The owner's root, 32 bytes. Secret.
    deployment : bytes
        Id of the deployment, 16 bytes. Public.
    registration : bytes
        Random bytes of the owner's registration, 16 bytes. Public.

    Returns
    -------
    bytes
        32 bytes. Secret.
    """
    return hkdf(root, b"mipp v1 journal" + deployment + registration)


def audit_key(root: bytes, deployment: bytes, registration: bytes) -> bytes:
    """Derive the key of an owner's audits: of its tags' weights and of the files that hold the tags; no server gets it.

    Parameters
    ----------
    root : bytes
        The owner's root, 32 bytes. Secret.
    deployment : bytes
        Id of the deployment, 16 bytes. Public.
    registration : bytes
        Random bytes of the owner's registration, 16 bytes. Public.

    Returns
    -------
    bytes
        32 bytes. Secret.
    """
    return hkdf(root, b"mipp v1 audit" + deployment + registration)


def audit_weights_info(cloud: int, words: int) -> bytes:
    """HKDF label of the weights of an owner's tags, under its audit key.

    Parameters
    ----------
    cloud : int
        Number of the cloud; 0 for weights of image ids.
    words : int
        Words of 32 bits in a row.

    Returns
    -------
    bytes
        Public.
    """
    return b"mipp v1 audit weights" + bytes([cloud]) + words.to_bytes(4, "big")


def audit_rows_info(batch: bytes) -> bytes:
    """HKDF label of the coefficients of a batch's rows, under the seed of an audit.

    Parameters
    ----------
    batch : bytes
        Id of the batch, 16 bytes.

    Returns
    -------
    bytes
        Public.

    Raises
    ------
    ParameterError
        The id has another length.
    """
    return b"mipp v1 audit rows" + exactly(batch, NONCE_BYTES, "batch id")


def audit_draws_info() -> bytes:
    """HKDF label of the rows that an audit draws, and of their coefficients, under its seed.

    Returns
    -------
    bytes
        Public.
    """
    return b"mipp v1 audit draws"


def image_part(part: bytes, image: bytes) -> bytes:
    """Derive one image's key part, so that a user who fetches one image cannot open another.

    Parameters
    ----------
    part : bytes
        A server's part of the owner's image keys, 32 bytes. Secret.
    image : bytes
        Id of the image.

    Returns
    -------
    bytes
        32 bytes. Secret.
    """
    return hkdf(part, b"mipp v1 image part" + image)


def image_key(key_centre: bytes, cloud: bytes, image: bytes, salt: bytes) -> bytes:
    """Derive the AES-256 key of one image file from both parts of that image.

    Parameters
    ----------
    key_centre, cloud : bytes
        Key parts of the image (:func:`image_part`), 32 bytes each. Secret.
    image : bytes
        Id of the image.
    salt : bytes
        Salt of the file, 16 bytes. Public.

    Returns
    -------
    bytes
        32 bytes. Secret.

    Raises
    ------
    ParameterError
        The salt has another length.
    """
    return hkdf(key_centre + cloud, b"mipp v1 image" + image + exactly(salt, 16, "file salt"))
