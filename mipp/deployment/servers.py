"""A server's folder: its secret keys, and the class that runs there. The same in every deployment."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .. import schemes
from ..crypto import box, schedule, signing
from ..crypto.keyfile import load_key_file, save_key_file
from ..errors import DeploymentError, KeyFileError, ParameterError
from ..params import Params
from ..rpc.description import DeploymentConfig, ServerKeys
from ..server.cloud import CloudServer
from ..server.key_centre import KeyCentre
from ..server.server import Server

__all__ = [
    "CARD_NAME",
    "CONFIG_NAME",
    "IDENTITY_NAME",
    "KEYS_NAME",
    "ServerSecrets",
    "known_scheme",
    "own_secrets",
    "server_class",
]

CONFIG_NAME = "deployment.json"
#: a server's card, in its folder
CARD_NAME = "card.json"
#: key file of a server's two X25519 keys, and of its identity
KEYS_NAME, IDENTITY_NAME = "server.key", "identity.key"


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
        """Read the key files in a server's folder; KeyFileError if they are damaged."""
        _, secret = load_key_file(folder / KEYS_NAME, "server")
        _, identity = load_key_file(folder / IDENTITY_NAME, "server")
        try:
            return cls(secret["box"], secret["pair"], identity["sign"])
        except KeyError:
            raise KeyFileError(f"the key files in {folder} are corrupt") from None

    def save(self, folder: Path, public: dict[str, str]) -> None:
        """Write the key files into a server's folder, with public values in the clear; KeyFileError."""
        save_key_file(folder / KEYS_NAME, "server", public, {"box": self.box, "pair": self.pair})
        save_key_file(folder / IDENTITY_NAME, "server", public, {"sign": self.sign})

    def public(self) -> ServerKeys:
        """The public keys."""
        box_key, pair = (box.box_private(key).public_key().public_bytes_raw() for key in (self.box, self.pair))
        return ServerKeys(box_key, pair, signing.sign_public(self.sign))


def own_secrets(folder: Path, config: DeploymentConfig, index: int) -> ServerSecrets:
    """Read a server's secret keys, and check that they are those that the description names.

    Raises
    ------
    DeploymentError
        They are another server's.
    KeyFileError
        The key files are damaged.
    """
    secrets = ServerSecrets.load(folder)
    if secrets.public() != config.servers[index]:
        raise DeploymentError(f"the key files in {folder} are not those that the description names")
    return secrets


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
