"""Updates of a server's address: a new URL, TLS certificate or X25519 keys, signed by that server's identity alone.

The description of a deployment never changes, and people compared its fingerprint. A server that moves, or takes a new
TLS key, signs an update with the identity that the description names. The newest update counts. It names at most two
certificates, the new one and the one before it, so that both are accepted until the server signs an update without
the earlier one; and at most two epochs of its box and pair keys (:mod:`mipp.rpc.key_sets`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..crypto import box, signing
from ..crypto.certificates import MAX_CERTIFICATE_BYTES, MAX_PROOF_BYTES, check_possession
from ..errors import DeploymentError, ParameterError
from .addresses import Address, check_url
from .description import DeploymentConfig
from .key_sets import EpochKeys, first_keys
from .strict_json import canonical, read_object

__all__ = [
    "MAX_UPDATES_BYTES",
    "AddressUpdate",
    "check_update",
    "possession_statement",
    "read_updates",
    "signed_update",
    "updates_json",
]

#: most servers that a list of updates speaks of, and most bytes of its JSON
_MAX_SERVERS, MAX_UPDATES_BYTES = 16, 1 << 20
_MAX_VERSION, _MAX_URL = 1 << 31, 300
_FORMAT, _VERSION = "mipp addresses", 1
_LABEL, _POSSESSION = b"mipp v1 address update", b"mipp v1 certificate of a server"
#: of an update that names X25519 keys, so that none of them passes for a certificate
_LABEL_KEYS = b"mipp v1 address and key update"


@dataclass(frozen=True, repr=False)
class AddressUpdate:
    """A later URL, and later certificates and keys, of one server. Public.

    Making one checks sizes only, since it may come from anybody; :func:`check_update` checks all else.

    Parameters
    ----------
    deployment : bytes
        Id of the deployment, 16 bytes.
    server : int
        Number of the server.
    version : int
        Counts the updates of this server from 1; the description itself is version 0.
    url : str
        ``https://HOST:PORT``.
    certificates : tuple of bytes
        One or two TLS certificates (DER) that the server may show, the newest first.
    proofs : tuple of bytes
        For each certificate, the signature of :func:`possession_statement` by its key.
    signature : bytes
        Ed25519 signature by the server's identity over all that, 64 bytes.
    keys : tuple of EpochKeys
        Its valid box and pair keys of one or two epochs, the newest first; empty: those of the description.

    Raises
    ------
    DeploymentError
        A value of another type or size.
    """

    deployment: bytes
    server: int
    version: int
    url: str
    certificates: tuple[bytes, ...]
    proofs: tuple[bytes, ...]
    signature: bytes
    keys: tuple[EpochKeys, ...] = ()

    def __post_init__(self) -> None:
        fits = (
            len(self.deployment) == 16
            and type(self.server) is int
            and 1 <= self.server < 256
            and type(self.version) is int
            and 1 <= self.version < _MAX_VERSION
            and type(self.url) is str
            and len(self.url) <= _MAX_URL
            and self.url.isascii()
            and 1 <= len(self.certificates) == len(self.proofs) <= 2
            and len(set(self.certificates)) == len(self.certificates)
            and all(0 < len(c) <= MAX_CERTIFICATE_BYTES for c in self.certificates)
            and all(0 < len(p) <= MAX_PROOF_BYTES for p in self.proofs)
            and len(self.signature) == 64
            and len(self.keys) <= 2
            and all(type(k.epoch) is int and 0 <= k.epoch < _MAX_VERSION for k in self.keys)
            and all(len(k.box) == len(k.pair) == 32 for k in self.keys)
            and [k.epoch for k in self.keys] == sorted({k.epoch for k in self.keys}, reverse=True)
        )
        if not fits:
            raise DeploymentError("an update of a server's address is corrupt")

    def __repr__(self) -> str:
        return f"AddressUpdate(server {self.server}, version {self.version})"

    def signed_bytes(self) -> bytes:
        """The bytes that the signature covers: a label, then each value with its length."""
        return _signed_bytes(
            self.deployment, self.server, self.version, self.url, self.certificates, self.proofs, self.keys
        )

    def to_data(self) -> dict[str, Any]:
        """The update as JSON holds it."""
        data: dict[str, Any] = {
            "deployment": self.deployment.hex(),
            "server": self.server,
            "version": self.version,
            "url": self.url,
            "certificates": [_text(c) for c in self.certificates],
            "proofs": [_text(p) for p in self.proofs],
            "signature": self.signature.hex(),
        }
        if self.keys:
            data["keys"] = [{"epoch": k.epoch, "box": k.box.hex(), "pair": k.pair.hex()} for k in self.keys]
        return data

    @classmethod
    def from_data(cls, data: Any) -> AddressUpdate:
        """Inverse of :meth:`to_data`; DeploymentError for anything else."""
        try:
            update = cls(
                bytes.fromhex(data["deployment"]), data["server"], data["version"], data["url"],
                tuple(base64.b64decode(c, validate=True) for c in data["certificates"]),
                tuple(base64.b64decode(p, validate=True) for p in data["proofs"]), bytes.fromhex(data["signature"]),
                tuple(
                    EpochKeys(k["epoch"], bytes.fromhex(k["box"]), bytes.fromhex(k["pair"]))
                    for k in data.get("keys", ())
                ),
            )  # fmt: skip
            same = canonical(update.to_data()) == canonical(data)
        except DeploymentError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            same = False
        if not same:
            raise DeploymentError("an update of a server's address is corrupt")
        return update


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _signed_bytes(
    deployment: bytes, server: int, version: int, url: str, certificates: Iterable[bytes], proofs: Iterable[bytes],
    keys: Iterable[EpochKeys],
) -> bytes:  # fmt: skip
    values = [deployment, bytes([server]), version.to_bytes(8, "big"), url.encode()]
    for certificate, proof in zip(certificates, proofs, strict=True):
        values += [certificate, proof]
    label = _LABEL
    for epoch, box_key, pair in keys:
        label = _LABEL_KEYS
        values += [epoch.to_bytes(8, "big") + box_key + pair]
    return label + b"".join(len(value).to_bytes(4, "big") + value for value in values)


def possession_statement(deployment: bytes, server: int, certificate: bytes) -> bytes:
    """What the key of a certificate signs, so that no server can name a certificate of another one.

    Parameters
    ----------
    deployment : bytes
        Id of the deployment, 16 bytes.
    server : int
        Number of the server whose certificate it is.
    certificate : bytes
        DER.

    Returns
    -------
    bytes
        Public. The same for all updates that name the certificate.
    """
    return _POSSESSION + deployment + bytes([server]) + hashlib.sha256(certificate).digest()


def signed_update(
    config: DeploymentConfig,
    server: int,
    version: int,
    url: str,
    certificates: Iterable[tuple[bytes, bytes]],
    key: Ed25519PrivateKey,
    keys: tuple[EpochKeys, ...] = (),
) -> AddressUpdate:
    """Make an update.

    Parameters
    ----------
    config : DeploymentConfig
        The deployment's description.
    server, version, url
        As of :class:`AddressUpdate`.
    certificates : iterable of (bytes, bytes)
        Certificate and proof of possession of each, the newest first.
    key : Ed25519PrivateKey
        The server's identity. Secret.
    keys : tuple of EpochKeys
        As of :class:`AddressUpdate`.
    """
    ders, proofs = zip(*certificates, strict=True)
    signature = signing.sign_raw(key, _signed_bytes(config.id, server, version, url, ders, proofs, keys))
    return AddressUpdate(config.id, server, version, url, ders, proofs, signature, keys)


def check_update(config: DeploymentConfig, update: AddressUpdate) -> Address:
    """Check an update of anybody against the description.

    The signature is checked before anything is parsed.

    Parameters
    ----------
    config : DeploymentConfig
        The deployment's description.
    update : AddressUpdate
        From anybody.

    Returns
    -------
    Address
        The server's, with the newest of its certificates. Name and keys are those of the description.

    Raises
    ------
    DeploymentError
        It is of another deployment, of an unknown server, or names a URL, certificate or key that is none.
    AuthenticationError
        It is not signed by that server's identity, or a certificate is not that server's.
    """
    if update.deployment != config.id:
        raise DeploymentError("an update of a server's address is of another deployment")
    if update.server not in config.addresses:
        raise DeploymentError(f"an update of an address names server {update.server}, which this deployment lacks")
    what = f"update of the address of server {update.server}"
    signing.verify_raw(config.servers[update.server].sign, update.signature, update.signed_bytes(), what)
    try:
        if check_url(update.url)[0] != update.url:
            raise ParameterError("a server's URL is in lower case")
        for certificate, proof in zip(update.certificates, update.proofs, strict=True):
            check_possession(certificate, proof, possession_statement(config.id, update.server, certificate))
        first = first_keys(config, update.server)
        for keys in update.keys:
            if keys.box == keys.pair or (keys.epoch == 0 and keys != first):
                raise ParameterError("its keys are not two new ones of a later epoch")
            for one in (keys.box, keys.pair):
                box.seal(one, b"", b"")  # refuses keys that nothing can be sealed to
    except ParameterError as error:
        raise DeploymentError(f"the {what} is not usable: {error}") from None
    return Address(config.addresses[update.server].name, update.url, update.certificates[0])


def updates_json(updates: Iterable[AddressUpdate], refused: Iterable[AddressUpdate] = ()) -> bytes:
    """A list of updates as JSON: what servers tell, and what a folder keeps.

    Parameters
    ----------
    updates : iterable of AddressUpdate
        The newest one of each server.
    refused : iterable of AddressUpdate
        One of the same version as a server's newest, with other content, which that server signed, too.
    """
    data: dict[str, Any] = {"format": _FORMAT, "version": _VERSION, "updates": [u.to_data() for u in updates]}
    if twice := [u.to_data() for u in refused]:
        data["refused"] = twice
    return canonical(data) + b"\n"


def read_updates(text: bytes) -> tuple[list[AddressUpdate], list[AddressUpdate]]:
    """Inverse of :func:`updates_json`, of bounded size; DeploymentError for anything else. Checks no signatures."""
    data = read_object(text, MAX_UPDATES_BYTES, "the list of addresses")
    if data.get("format") != _FORMAT or data.get("version") != _VERSION:
        raise DeploymentError(f"this is no list of servers' addresses of version {_VERSION}")
    lists = data.get("updates"), data.get("refused", [])
    if not all(isinstance(some, list) and len(some) <= _MAX_SERVERS for some in lists):
        raise DeploymentError("the list of addresses is corrupt")
    updates, refused = ([AddressUpdate.from_data(one) for one in some] for some in lists if some is not None)
    return updates, refused
