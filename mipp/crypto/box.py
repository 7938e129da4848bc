"""Sealing to a public key (HPKE, RFC 9180), and encrypted image files (AES-256-GCM)."""

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
# Each key encrypts one file only, because the key depends on a fresh salt; so a constant nonce never repeats.
_GCM_NONCE = b"\0" * 12


def box_private(raw: bytes) -> X25519PrivateKey:
    """Make an X25519 private key.

    Parameters
    ----------
    raw : bytes
        The key, 32 bytes. Secret.

    Returns
    -------
    X25519PrivateKey
        Secret.
    """
    return X25519PrivateKey.from_private_bytes(raw)


def box_public(raw: bytes) -> X25519PublicKey:
    """Make an X25519 public key.

    Parameters
    ----------
    raw : bytes
        The key, 32 bytes.

    Returns
    -------
    X25519PublicKey
        Public.

    Raises
    ------
    ParameterError
        Not 32 bytes.
    """
    if len(raw) != 32:
        raise ParameterError("an X25519 public key has 32 bytes")
    return X25519PublicKey.from_public_bytes(raw)


def shared_secret(private: bytes, public: bytes) -> bytes:
    """Agree on the X25519 secret of two servers.

    Parameters
    ----------
    private : bytes
        The own private key, 32 bytes. Secret.
    public : bytes
        The peer's public key, 32 bytes.

    Returns
    -------
    bytes
        32 bytes. Secret.

    Raises
    ------
    AuthenticationError
        The public key has small order, so the secret would be known to everybody.
    """
    try:
        return box_private(private).exchange(box_public(public))
    except ValueError:
        raise AuthenticationError("the peer's public key is not usable") from None


def seal(public: bytes, secret: bytes, info: bytes) -> bytes:
    """Seal a secret to a public key: HPKE with X25519, HKDF-SHA256 and AES-256-GCM.

    Parameters
    ----------
    public : bytes
        The recipient's X25519 public key, 32 bytes.
    secret : bytes
        Content to seal. Secret.
    info : bytes
        Associated data (HPKE's info): opening needs the same.

    Returns
    -------
    bytes
        Encapsulated key and ciphertext. They show the length of the secret.

    Raises
    ------
    ParameterError
        The public key has another length, or small order, with which everybody could open the seal.
    """
    try:
        return bytes(_SUITE.encrypt(secret, box_public(public), info))
    except ValueError as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError("the X25519 public key is not usable") from None


def open_sealed(private: bytes, sealed: bytes, info: bytes) -> bytes:
    """Open what :func:`seal` sealed.

    Parameters
    ----------
    private : bytes
        The recipient's X25519 private key, 32 bytes. Secret.
    sealed : bytes
        The sealed box.
    info : bytes
        The associated data that it was sealed with.

    Returns
    -------
    bytes
        The content. Secret.

    Raises
    ------
    AuthenticationError
        Key, associated data or content do not match.
    """
    try:
        return bytes(_SUITE.decrypt(sealed, box_private(private), info))
    except (InvalidTag, ValueError):
        raise AuthenticationError("sealed data does not open: wrong recipient, purpose or damaged content") from None


def seal_image(key_centre: bytes, cloud: bytes, deployment: bytes, owner: bytes, image: bytes, content: bytes) -> bytes:
    """Encrypt an image file.

    Parameters
    ----------
    key_centre, cloud : bytes
        Key parts of this image (:func:`mipp.crypto.schedule.image_part`), 32 bytes each. Secret.
    deployment, owner : bytes
        Ids, 16 bytes each.
    image : bytes
        Id of the image, 24 bytes.
    content : bytes
        The file. Secret.

    Returns
    -------
    bytes
        A header in the clear (magic, deployment, owner, image id, fresh salt), then the AES-256-GCM ciphertext.

    Raises
    ------
    ParameterError
        An id has another length.

    Notes
    -----
    The header is authenticated, and holds no name, label or EXIF data.
    """
    salt = schedule.random_bytes(SALT_BYTES)
    header = _IMAGE_MAGIC + deployment + owner + image + salt
    if len(header) != _HEADER_BYTES:
        raise ParameterError("deployment and owner ids have 16 bytes, an image id 24")
    key = schedule.image_key(key_centre, cloud, image, salt)
    return header + AESGCM(key).encrypt(_GCM_NONCE, content, header)


def open_image(key_centre: bytes, cloud: bytes, deployment: bytes, owner: bytes, image: bytes, blob: bytes) -> bytes:
    """Decrypt an image file that :func:`seal_image` encrypted.

    Parameters
    ----------
    key_centre, cloud : bytes
        Key parts of this image, 32 bytes each. Secret.
    deployment, owner : bytes
        Ids, 16 bytes each.
    image : bytes
        Id of the image, 24 bytes.
    blob : bytes
        The encrypted file.

    Returns
    -------
    bytes
        The file. Secret.

    Raises
    ------
    AuthenticationError
        The file is damaged, or belongs to another image.
    """
    header = blob[:_HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[:-SALT_BYTES] != _IMAGE_MAGIC + deployment + owner + image:
        raise AuthenticationError("the encrypted image file is not the one that was asked for")
    key = schedule.image_key(key_centre, cloud, image, header[-SALT_BYTES:])
    try:
        return AESGCM(key).decrypt(_GCM_NONCE, blob[_HEADER_BYTES:], header)
    except InvalidTag:
        raise AuthenticationError("the encrypted image file was tampered with or its key is another's") from None
