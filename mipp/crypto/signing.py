"""Ed25519 identities. A party's id is the first 16 bytes of the SHA-256 of its public keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import AuthenticationError

__all__ = ["Statement", "party_id", "private_key", "sign", "sign_public", "sign_raw", "verify", "verify_raw"]


def sign_public(seed: bytes) -> bytes:
    """Public key (32 bytes) of an Ed25519 seed (32 secret bytes)."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def party_id(*public: bytes) -> bytes:
    """Id of the party with these public keys: 16 bytes."""
    return hashlib.sha256(b"mipp v1 party" + b"".join(public)).digest()[:16]


@dataclass(frozen=True)
class Statement:
    """What a signature covers.

    deployment : 16 bytes
    receiver : number of the server that it is for, 0 for all
    purpose : kind of the request
    content : 32 bytes, hash of the request
    issued : Unix time in milliseconds
    random : 16 bytes, new for every request
    """

    deployment: bytes
    receiver: int
    purpose: str
    content: bytes
    issued: int
    random: bytes

    def to_bytes(self) -> bytes:
        """The bytes that are signed; AuthenticationError if a value has the wrong size."""
        name = self.purpose.encode()
        fits = len(self.deployment) == 16 and len(self.content) == 32 and len(self.random) == 16
        if not fits or not 0 <= self.receiver < 256 or not 0 <= self.issued < 1 << 63 or len(name) > 255:
            raise AuthenticationError("a signed request with values of the wrong size")
        numbers = bytes([self.receiver]) + self.issued.to_bytes(8, "big") + self.random
        return b"mipp v2 signed" + self.deployment + numbers + bytes([len(name)]) + name + self.content


def private_key(seed: bytes) -> Ed25519PrivateKey:
    """The private key of a seed (32 secret bytes); making it costs as much as a signature."""
    return Ed25519PrivateKey.from_private_bytes(seed)


def sign(key: Ed25519PrivateKey, statement: Statement) -> bytes:
    """Ed25519 signature (64 bytes)."""
    return sign_raw(key, statement.to_bytes())


def verify(public: bytes, signature: bytes, statement: Statement) -> None:
    """AuthenticationError unless the signature is right."""
    verify_raw(public, signature, statement.to_bytes(), statement.purpose)


def sign_raw(key: Ed25519PrivateKey, data: bytes) -> bytes:
    """Ed25519 signature (64 bytes) of bytes that begin with a label of their own."""
    return key.sign(data)


def verify_raw(public: bytes, signature: bytes, data: bytes, what: str) -> None:
    """AuthenticationError unless the signature is right; ``what`` names it in the text."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        raise AuthenticationError(f"the signature of this {what} is not valid") from None
