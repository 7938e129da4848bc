"""A server's folder: its secret keys, and the class that runs there. The same in every deployment."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .. import schemes
from ..crypto import box, schedule, signing
from ..crypto.keyfile import load_key_file, save_key_file
from ..errors import DeploymentError, KeyFileError, ParameterError
from ..params import Params
from ..rpc.address_book import AddressBook
from ..rpc.description import DeploymentConfig, ServerKeys
from ..rpc.key_sets import EpochKeys
from ..server.cloud import CloudServer
from ..server.key_centre import KeyCentre
from ..server.server import Server

__all__ = [
    "CARD_NAME",
    "CONFIG_NAME",
    "IDENTITY_NAME",
    "ServerSecrets",
    "drop_pairs",
    "key_files",
    "key_pairs",
    "known_scheme",
    "load_identity",
    "open_server",
    "own_secrets",
    "public_pair",
    "save_pair",
    "server_class",
]

CONFIG_NAME = "deployment.json"
#: a server's card, in its folder
CARD_NAME = "card.json"
#: key file of a server's two X25519 keys of epoch 0, of a later epoch; and of its identity
KEYS_NAME, LATER_NAME, IDENTITY_NAME = "server.key", "server-{}.key", "identity.key"


class ServerSecrets(NamedTuple):
    """A server's secret keys, 32 bytes each, in the order in which :class:`~mipp.server.server.Server` takes them."""

    box: bytes
    pair: bytes
    sign: bytes

    def __repr__(self) -> str:
        return "ServerSecrets(..)"

    @classmethod
    def new(cls) -> ServerSecrets:
        """Make keys from OS randomness."""
        return cls(*(schedule.random_bytes(32) for _ in cls._fields))

    @classmethod
    def load(cls, folder: Path) -> ServerSecrets:
        """Read a server's first keys, those on its card; KeyFileError if the key files are missing or damaged."""
        return cls(*_pair(folder / KEYS_NAME), load_identity(folder))

    def save(self, folder: Path, public: dict[str, str]) -> None:
        """Write the key files into a server's folder, with public values in the clear; KeyFileError."""
        save_key_file(folder / KEYS_NAME, "server", public, {"box": self.box, "pair": self.pair})
        save_key_file(folder / IDENTITY_NAME, "server", public, {"sign": self.sign})

    def public(self) -> ServerKeys:
        """The public keys."""
        return ServerKeys(*public_pair((self.box, self.pair)), signing.sign_public(self.sign))


def load_identity(folder: Path) -> bytes:
    """Read the seed of a server's identity, 32 secret bytes; KeyFileError if its file is missing or damaged."""
    return _secrets(folder / IDENTITY_NAME, "sign")[0]


def _pair(path: Path) -> tuple[bytes, bytes]:
    box_key, pair = _secrets(path, "box", "pair")
    return box_key, pair


def _secrets(path: Path, *names: str) -> list[bytes]:
    _, secret = load_key_file(path, "server")
    found = [secret.get(name, b"") for name in names]
    if any(len(one) != 32 for one in found):
        raise KeyFileError(f"key file {path} is corrupt")
    return found


def key_files(folder: Path) -> list[Path]:
    """The files of a server's box and pair keys of all epochs."""
    return sorted(p for p in folder.glob("server*.key") if re.fullmatch(r"server(-[1-9][0-9]*)?\.key", p.name))


def key_pairs(folder: Path) -> dict[Path, tuple[bytes, bytes]]:
    """Read a server's box and pair private keys of all epochs, by the file; KeyFileError if one is damaged."""
    return {path: _pair(path) for path in key_files(folder)}


def save_pair(folder: Path, epoch: int, pair: tuple[bytes, bytes]) -> Path:
    """Write a server's box and pair private keys of a later epoch to a file of their own; KeyFileError."""
    path = folder / LATER_NAME.format(epoch)
    path.unlink(missing_ok=True)  # left by a rotation that died before its keys counted
    save_key_file(path, "server", {"epoch": str(epoch)}, dict(zip(("box", "pair"), pair, strict=True)))
    return path


def public_pair(pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """The public keys of a box and a pair private key."""
    box_key, other = (box.box_private(key).public_key().public_bytes_raw() for key in pair)
    return box_key, other


def drop_pairs(folder: Path, kept: Iterable[EpochKeys]) -> None:
    """Remove the files of all box and pair keys but these."""
    public = {keys[1:] for keys in kept}
    for path, pair in key_pairs(folder).items():
        if public_pair(pair) not in public:
            path.unlink(missing_ok=True)


def own_secrets(folder: Path, config: DeploymentConfig, index: int) -> ServerSecrets:
    """Read a server's newest secret keys, and check that they are those that the description or its update names.

    Raises
    ------
    DeploymentError
        They are another server's, or keys of an earlier epoch.
    KeyFileError
        The key files are damaged.
    """
    sign, pairs = load_identity(folder), key_pairs(folder)
    if signing.sign_public(sign) != config.servers[index].sign:
        raise DeploymentError(f"the key files in {folder} are not those that the description names")
    newest = AddressBook(config, folder, keep=False).keys(index)[0]
    for pair in pairs.values():
        if public_pair(pair) == newest[1:]:
            return ServerSecrets(*pair, sign)
    if not newest.epoch and pairs:
        raise DeploymentError(f"the key files in {folder} are not those that the description names")
    raise DeploymentError(
        f"the keys of epoch {newest.epoch} are not in {folder}; make new ones with: mipp server rotate {folder} "
        "--new-keys --finish"
    )


def open_server(folder: Path, config: DeploymentConfig, index: int, **options: Any) -> Server:
    """Open the server in a folder with the keys of all epochs that it has; errors as of :func:`own_secrets`."""
    secrets, book = own_secrets(folder, config, index), AddressBook(config, folder, keep=False)
    server = server_class(config.params, index)(config, index, folder, *secrets, **options)
    server.keys.take(key_pairs(folder).values(), {i: book.keys(i) for i in config.servers})
    return server


def server_class(params: Params, index: int) -> type[Server]:
    """The class of the server with this number."""
    return CloudServer if index in params.clouds else KeyCentre


def known_scheme(config: DeploymentConfig) -> DeploymentConfig:
    """The description of a deployment, if this program knows its scheme; else DeploymentError."""
    try:
        schemes.get(config.params.scheme)
    except ParameterError:
        name = config.params.scheme[:80]
        raise DeploymentError(f"the description of the deployment names an unknown scheme, {name!r}") from None
    return config
