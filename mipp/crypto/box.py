"""Sealing to a public key (HPKE, RFC 9180) and image files under AES-256-GCM."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from ..errors import AuthenticationError, ParameterError
from . import schedule

__all__ = ["box_private", "box_public", "open_image", "open_sealed", "seal", "seal_image", "shared_secret"]

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_IMAGE_MAGIC = b"mippimg1"
SALT_BYTES = 16
IMAGE_ID_BYTES = 24
_HEADER_BYTES = len(_IMAGE_MAGIC) + 16 + 16 + IMAGE_ID_BYTES + SALT_BYTES
# The key is used for one file only (its salt is fresh and in the key), so a constant nonce repeats nothing.
_GCM_NONCE = b"\0" * 12


def box_private(raw: bytes) -> X25519PrivateKey:
    """X25519 private key from its 32 secret bytes."""
    return X25519PrivateKey.from_private_bytes(raw)


def box_public(raw: bytes) -> X25519PublicKey:
    """X25519 public key from 32 bytes."""
    if len(raw) != 32:
        raise ParameterError("an X25519 public key has 32 bytes")
    return X25519PublicKey.from_public_bytes(raw)


def shared_secret(private: bytes, public: bytes) -> bytes:
    """X25519 secret of two servers; AuthenticationError for a public key of small order."""
    try:
        return box_private(private).exchange(box_public(public))
    except ValueError:
        raise AuthenticationError("the peer's public key is not usable") from None


def seal(public: bytes, secret: bytes, info: bytes) -> bytes:
    """HPKE (X25519, HKDF-SHA256, AES-256-GCM) of ``secret`` to ``public``, bound to ``info``.

    ParameterError for a public key of small order, with which any secret would be known.
    """
    try:
        return bytes(_SUITE.encrypt(secret, box_public(public), info))
    except ValueError as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError("the X25519 public key is not usable") from None


def open_sealed(private: bytes, sealed: bytes, info: bytes) -> bytes:
    """Inverse of :func:`seal`; AuthenticationError when key, info or content do not match."""
    try:
        return bytes(_SUITE.decrypt(sealed, box_private(private), info))
    except (InvalidTag, ValueError):
        raise AuthenticationError("sealed data does not open: wrong recipient, purpose or damaged content") from None


def seal_image(key_centre: bytes, cloud: bytes, deployment: bytes, owner: bytes, image: bytes, content: bytes) -> bytes:
    """Encrypted image file: clear header (magic, deployment, owner, image id, fresh salt), then AES-256-GCM.

    ``key_centre`` and ``cloud`` are that image's parts (:func:`mipp.crypto.schedule.image_part`). The header holds no
    name, label or EXIF data and is authenticated.
    """
    salt = schedule.random_bytes(SALT_BYTES)
    header = _IMAGE_MAGIC + deployment + owner + image + salt
    if len(header) != _HEADER_BYTES:
        raise ParameterError("deployment and owner ids have 16 bytes, an image id 24")
    key = schedule.image_key(key_centre, cloud, image, salt)
    return header + AESGCM(key).encrypt(_GCM_NONCE, content, header)


def open_image(key_centre: bytes, cloud: bytes, deployment: bytes, owner: bytes, image: bytes, blob: bytes) -> bytes:
    """Inverse of :func:`seal_image`; AuthenticationError for a file that is damaged or another image's."""
    header = blob[:_HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[:-SALT_BYTES] != _IMAGE_MAGIC + deployment + owner + image:
        raise AuthenticationError("the encrypted image file is not the one that was asked for")
    key = schedule.image_key(key_centre, cloud, image, header[-SALT_BYTES:])
    try:
        return AESGCM(key).decrypt(_GCM_NONCE, blob[_HEADER_BYTES:], header)
    except InvalidTag:
        raise AuthenticationError("the encrypted image file was tampered with or its key is another's") from None
