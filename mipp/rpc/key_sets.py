"""Public X25519 keys of servers by epoch, and key sets: one epoch's keys of every server, which count together.

A server that takes new keys begins an epoch; the keys before stay valid beside them until it ends them. Masks that
servers add to their shares cancel only if all use keys of the same epochs, so each query names its key set in its
header. The keys of a deployment's description are epoch 0.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .description import DeploymentConfig

__all__ = ["EpochKeys", "KeySet", "first_keys"]


class EpochKeys(NamedTuple):
    """Public keys of a server in one epoch.

    Parameters
    ----------
    epoch : int
        Counts the keys of this server; 0 are those of the description.
    box : bytes
        X25519, 32 bytes; owners seal secrets to it.
    pair : bytes
        X25519, 32 bytes; for the keys that it shares with each other server.
    """

    epoch: int
    box: bytes
    pair: bytes


def first_keys(config: DeploymentConfig, server: int) -> EpochKeys:
    """Keys of a server that the description names.

    Parameters
    ----------
    config : DeploymentConfig
        The deployment's description.
    server : int
        Number of the server.

    Returns
    -------
    EpochKeys
        Those of epoch 0.
    """
    keys = config.servers[server]
    return EpochKeys(0, keys.box, keys.pair)


@dataclass(frozen=True)
class KeySet:
    """Keys of all servers that count together. Public.

    Parameters
    ----------
    deployment : bytes
        Id of the deployment, 16 bytes.
    servers : mapping of int to EpochKeys
        Keys by number of the server, all servers.
    """

    deployment: bytes
    servers: Mapping[int, EpochKeys]

    @classmethod
    def first(cls, config: DeploymentConfig) -> KeySet:
        """The set of the description's keys.

        Parameters
        ----------
        config : DeploymentConfig
            The deployment's description.

        Returns
        -------
        KeySet
            Of epoch 0 everywhere.
        """
        return cls(config.id, {server: first_keys(config, server) for server in config.servers})

    @functools.cached_property
    def id(self) -> bytes:
        """Name of the set: a hash over all its keys, 32 bytes; empty for the description's own."""
        if not any(keys.epoch for keys in self.servers.values()):
            return b""
        digest = hashlib.sha256(b"mipp v1 key set" + self.deployment)
        for server, keys in sorted(self.servers.items()):
            digest.update(bytes([server]) + keys.epoch.to_bytes(8, "big") + keys.box + keys.pair)
        return digest.digest()
