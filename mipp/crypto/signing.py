"""Ed25519 identities. A party's id is the first 16 bytes of the SHA-256 of its public keys."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import AuthenticationError

__all__ = ["party_id", "sign", "sign_public", "signed_bytes", "verify"]


def sign_public(seed: bytes) -> bytes:
    """Public key (32 bytes) of an Ed25519 seed (32 secret bytes)."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def party_id(*public: bytes) -> bytes:
    """Id of the party with these public keys: 16 bytes."""
    return hashlib.sha256(b"mipp v1 party" + b"".join(public)).digest()[:16]


def signed_bytes(deployment: bytes, purpose: str, content_hash: bytes) -> bytes:
    """What is signed: deployment, purpose and content hash, each of known length."""
    name = purpose.encode()
    return b"mipp v1 signed" + deployment + bytes([len(name)]) + name + content_hash


def sign(seed: bytes, deployment: bytes, purpose: str, content_hash: bytes) -> bytes:
    """Ed25519 signature (64 bytes)."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(signed_bytes(deployment, purpose, content_hash))


def verify(public: bytes, signature: bytes, deployment: bytes, purpose: str, content_hash: bytes) -> None:
    """AuthenticationError unless the signature is right."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature, signed_bytes(deployment, purpose, content_hash))
    except (InvalidSignature, ValueError):
        raise AuthenticationError(f"the signature of this {purpose} is not valid") from None
