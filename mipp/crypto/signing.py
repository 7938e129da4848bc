"""Ed25519 signatures and identities. A party's id is the first 16 bytes of a labelled SHA-256 of its public keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import AuthenticationError

__all__ = ["Statement", "party_id", "private_key", "sign", "sign_public", "sign_raw", "verify", "verify_raw"]


def sign_public(seed: bytes) -> bytes:
    """Compute the public key of an Ed25519 seed.

    Parameters
    ----------
    seed : bytes
        32 bytes. Secret.

    Returns
    -------
    bytes
        32 bytes. Public.
    """
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def party_id(*public: bytes) -> bytes:
    """Compute the id of a party from its public keys.

    Parameters
    ----------
    *public : bytes
        The public keys, in their fixed order.

    Returns
    -------
    bytes
        16 bytes. Public.
    """
    return hashlib.sha256(b"mipp v1 party" + b"".join(public)).digest()[:16]


@dataclass(frozen=True)
class Statement:
    """The statement that a signature of a request covers.

    Parameters
    ----------
    deployment : bytes
        Id of the deployment, 16 bytes.
    receiver : int
        Number of the server that the request is for; 0 for all.
    purpose : str
        Kind of the request.
    content : bytes
        Hash of the request, 32 bytes.
    issued : int
        Unix time in milliseconds.
    random : bytes
        16 bytes, new for every request.
    """

    deployment: bytes
    receiver: int
    purpose: str
    content: bytes
    issued: int
    random: bytes

    def to_bytes(self) -> bytes:
        """Serialise the statement: these bytes are signed.

        Returns
        -------
        bytes
            Public.

        Raises
        ------
        AuthenticationError
            A value has the wrong size.
        """
        name = self.purpose.encode()
        fits = len(self.deployment) == 16 and len(self.content) == 32 and len(self.random) == 16
        if not fits or not 0 <= self.receiver < 256 or not 0 <= self.issued < 1 << 63 or len(name) > 255:
            raise AuthenticationError("a signed request with values of the wrong size")
        numbers = bytes([self.receiver]) + self.issued.to_bytes(8, "big") + self.random
        return b"mipp v2 signed" + self.deployment + numbers + bytes([len(name)]) + name + self.content


def private_key(seed: bytes) -> Ed25519PrivateKey:
    """Make the private key of a seed; this costs as much as a signature.

    Parameters
    ----------
    seed : bytes
        32 bytes. Secret.

    Returns
    -------
    Ed25519PrivateKey
        Secret.
    """
    return Ed25519PrivateKey.from_private_bytes(seed)


def sign(key: Ed25519PrivateKey, statement: Statement) -> bytes:
    """Sign a statement with Ed25519.

    Parameters
    ----------
    key : Ed25519PrivateKey
        Secret.
    statement : Statement
        The statement.

    Returns
    -------
    bytes
        Signature, 64 bytes.
    """
    return sign_raw(key, statement.to_bytes())


def verify(public: bytes, signature: bytes, statement: Statement) -> None:
    """Verify the signature of a statement.

    Parameters
    ----------
    public : bytes
        Ed25519 public key, 32 bytes.
    signature : bytes
        The signature.
    statement : Statement
        The statement.

    Raises
    ------
    AuthenticationError
        The signature is not valid.
    """
    verify_raw(public, signature, statement.to_bytes(), statement.purpose)


def sign_raw(key: Ed25519PrivateKey, data: bytes) -> bytes:
    """Sign bytes that begin with a label of their own.

    Parameters
    ----------
    key : Ed25519PrivateKey
        Secret.
    data : bytes
        Bytes to sign.

    Returns
    -------
    bytes
        Signature, 64 bytes.
    """
    return key.sign(data)


def verify_raw(public: bytes, signature: bytes, data: bytes, what: str) -> None:
    """Verify the signature of bytes.

    Parameters
    ----------
    public : bytes
        Ed25519 public key, 32 bytes.
    signature : bytes
        The signature.
    data : bytes
        The bytes.
    what : str
        Name of the signed thing, for the message.

    Raises
    ------
    AuthenticationError
        The signature is not valid.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        raise AuthenticationError(f"the signature of this {what} is not valid") from None
