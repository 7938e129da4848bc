"""Cards: what an operator hands out about its server, signed by the server's identity."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..crypto import box, signing
from ..errors import AuthenticationError, DeploymentError, MippError
from .addresses import Address
from .strict_json import canonical, read_object

__all__ = ["MAX_CARD_BYTES", "ROLES", "ServerCard", "signed_card"]

#: roles of servers
ROLES = ("cloud", "key-centre")
#: most bytes of a card's JSON
MAX_CARD_BYTES = 64 << 10
_FORMAT, _VERSION = "mipp server card", 1
_LABEL = b"mipp v1 server card"


@dataclass(frozen=True, repr=False)
class ServerCard:
    """Role, address and public keys of a server, signed by its identity. Public.

    A card proves that whoever made it has the identity's secret key, no more: who that is, operators tell each other.

    Parameters
    ----------
    role : str
        ``cloud`` or ``key-centre``.
    name, url, certificate : str, str, bytes
        As of :class:`~mipp.rpc.addresses.Address`.
    box, pair, sign : bytes
        Public keys, 32 bytes each, as of :class:`~mipp.rpc.description.ServerKeys`.
    signature : bytes
        Ed25519 signature by ``sign`` over all that, 64 bytes.

    Raises
    ------
    DeploymentError
        A value that is not as described, or a wrong signature.
    """

    role: str
    name: str
    url: str
    box: bytes
    pair: bytes
    sign: bytes
    certificate: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DeploymentError(f"a server is a {ROLES[0]} or a {ROLES[1]}")
        if {len(self.box), len(self.pair), len(self.sign)} != {32} or len({self.box, self.pair, self.sign}) != 3:
            raise DeploymentError("a server has three different public keys of 32 bytes")
        _ = self.address  # checked there
        try:
            for key in (self.box, self.pair):
                box.seal(key, b"", b"")  # refuses keys that nothing can be sealed to
            signing.verify_raw(self.sign, self.signature, _signed_bytes(self.role, *self._signed()), "card")
        except AuthenticationError:
            raise DeploymentError("the signature of this card is not valid: it was changed, or cut") from None
        except MippError:
            raise DeploymentError("a key of this card is not usable") from None

    def __repr__(self) -> str:
        return f"ServerCard({self.role!r}, {self.name!r}, {self.url!r})"

    def _signed(self) -> tuple[Address, bytes, bytes, bytes]:
        return self.address, self.box, self.pair, self.sign

    @property
    def address(self) -> Address:
        """Name, URL and certificate."""
        return Address(self.name, self.url, self.certificate)

    @property
    def pin(self) -> bytes:
        """SHA-256 of the certificate's public key, 32 bytes."""
        return self.address.pin

    def to_json(self) -> str:
        return json.dumps(self._data(), indent=1) + "\n"

    def _data(self) -> dict[str, Any]:
        return {
            "format": _FORMAT, "version": _VERSION, "role": self.role, "name": self.name, "url": self.url,
            "box": self.box.hex(), "pair": self.pair.hex(), "sign": self.sign.hex(),
            "certificate": base64.b64encode(self.certificate).decode(), "signature": self.signature.hex(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes) -> ServerCard:
        """Inverse of :meth:`to_json`; DeploymentError for anything else, and for a wrong signature."""
        data = read_object(text, MAX_CARD_BYTES, "the card")
        if data.get("format") != _FORMAT:
            raise DeploymentError("this file is no card of a server; mipp server init writes card.json")
        if data.get("version") != _VERSION:
            raise DeploymentError(f"the card is of another format version; this program reads version {_VERSION}")
        try:
            box_key, pair, sign = (bytes.fromhex(data[name]) for name in ("box", "pair", "sign"))
            certificate = base64.b64decode(data["certificate"], validate=True)
            signature = bytes.fromhex(data["signature"])
            card = cls(
                str(data["role"]), str(data["name"]), str(data["url"]), box_key, pair, sign, certificate, signature
            )
            same = canonical(card._data()) == canonical(data)
        except DeploymentError:
            raise
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise DeploymentError("the card is corrupt")
        return card


def _signed_bytes(role: str, address: Address, *keys: bytes) -> bytes:
    """The bytes that a card's signature covers: a label, then each value with its length."""
    values = (role.encode(), address.name.encode(), address.url.encode(), *keys, address.certificate)
    return _LABEL + b"".join(len(value).to_bytes(4, "big") + value for value in values)


def signed_card(role: str, address: Address, box_key: bytes, pair: bytes, key: Ed25519PrivateKey) -> ServerCard:
    """Make a card.

    Parameters
    ----------
    role : str
        ``cloud`` or ``key-centre``.
    address : Address
        Of the server.
    box_key, pair : bytes
        The server's X25519 public keys.
    key : Ed25519PrivateKey
        Its identity. Secret.
    """
    sign = key.public_key().public_bytes_raw()
    signature = signing.sign_raw(key, _signed_bytes(role, address, box_key, pair, sign))
    return ServerCard(role, address.name, address.url, box_key, pair, sign, address.certificate, signature)
