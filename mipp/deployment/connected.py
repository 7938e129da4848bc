"""A deployment over a network: the servers are elsewhere; here are a description and the keys of owners and users."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from ..client.client import Client
from ..client.owner import ImageOwner
from ..client.user import User
from ..crypto import signing
from ..errors import DeploymentError, KeyFileError, MippError, NotFoundError
from ..io.durable import replace_file
from ..rpc import messages as m
from ..rpc.address_book import AddressBook
from ..rpc.description import DeploymentConfig
from ..rpc.http_channel import HttpChannel
from ..rpc.key_sets import KeySet
from ..rpc.names import check_name
from .given import checked_threads, folder_path
from .parties import Parties
from .servers import CARD_NAME, CONFIG_NAME

__all__ = ["ConnectedDeployment", "ServerState", "is_connected"]


#: servers of the scheme ``shares`` before a cloud joins
_FIRST_SERVERS = 3


class ServerState(TypedDict):
    """How a server of a deployment over a network stands (:meth:`ConnectedDeployment.server_states`)."""

    name: str
    url: str
    #: updates of its address that are known here; 0: that of the description holds
    address_version: int
    #: whether it serves requests
    ready: bool
    #: whether it takes part in changes: not before it heard all other servers since its start
    takes_changes: bool
    #: why not, a sentence each
    reasons: list[str]
    #: batches with live rows whose file it lacks, so that searches leave them out
    lost_batches: int


class ConnectedDeployment(Parties):
    """A deployment whose three servers are reached over a network.

    Made by :meth:`mipp.Deployment.connect` from a folder that ``mipp connect`` made. Everything that owners and users
    do works as in an embedded deployment. The folder holds their keys, and nothing of the servers.

    Parameters
    ----------
    folder : Path
        The folder.
    config : DeploymentConfig
        Public description with the servers' addresses.
    threads : int, optional
        Native threads of owners and users; default all cores.

    Attributes
    ----------
    config : DeploymentConfig
        As given.
    channel : HttpChannel
        From owners and users to the servers. Counts ``rounds``, and ``bytes_sent`` by kind of message.
    notes : list of str
        Sentences for a person: on servers that signed two different addresses of one version.
    """

    def __init__(self, folder: Path, config: DeploymentConfig, threads: int | None = None) -> None:
        self.channel: HttpChannel
        super().__init__(folder, config, HttpChannel(config, AddressBook(config, folder)), threads)
        self.notes: list[str] = self.channel.book.conflicts
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"ConnectedDeployment({str(self.folder)!r})"

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, threads: int | None = None) -> ConnectedDeployment:
        """Open a folder; connects to nobody yet.

        Parameters
        ----------
        folder : str or path
            Made by ``mipp connect``.
        threads : int, optional
            Native threads of owners and users; default all cores.

        Returns
        -------
        ConnectedDeployment
            The deployment; a context manager.

        Raises
        ------
        DeploymentError
            The folder holds no description of servers with addresses.
        """
        path, threads = folder_path(folder), checked_threads(threads)
        try:
            text = (path / CONFIG_NAME).read_bytes()
        except OSError:
            raise DeploymentError(
                f"{path} is connected to no deployment; do that with: mipp connect deployment.json --to {path}"
            ) from None
        config = DeploymentConfig.from_json(text)
        if (path / CARD_NAME).exists():
            raise DeploymentError(f"{path} is a server's folder; owners and users have folders of their own")
        if not config.addresses:
            raise DeploymentError(f"{path} is an embedded deployment, whose servers have no addresses")
        return cls(path, config, threads)

    def close(self) -> None:
        """Close connections and files; nothing is lost without it."""
        if os.getpid() == self._process:
            self.channel.close()
            for journal in self._journals:
                journal.close()

    # --- parties ------------------------------------------------------------------------------------------------

    def _require_free(self, kind: str, name: str) -> None:
        """No question to the servers: strangers learn no names. They refuse a registration whose name is taken."""
        self.channel.require_here()  # before a key file is written
        path = self._key_path(f"{kind}s", name)
        if path.exists() and not path.with_suffix(".registered").exists():
            raise KeyFileError(
                f"the key of {name} is there, and may not be registered yet; the next command of {name} completes that"
            )

    def _register(self, party: ImageOwner | User, path: Path) -> None:
        self.channel.require_here()
        mark = path.with_suffix(".registered")  # so that later openings need no server
        try:
            identity, *count = mark.read_text().split()
        except (OSError, ValueError):
            identity, count = "", []
        if identity != party.id.hex():
            party.register()
            self._registered(party, path)
        elif isinstance(party, ImageOwner):
            # a cloud that joined since gets nothing of it before it consents
            servers = int(count[0]) if count and count[0].isdigit() else _FIRST_SERVERS
            new = {i for i in self.config.servers if i > max(servers, _FIRST_SERVERS)}
            party.away.leave_out(new)
            if new:
                name = self.config.addresses[max(new)].name
                note = f"cloud {name} joined and stores nothing of owner {party.name}: mipp owner reseal {party.name}"
                self.notes += [note] * (note not in self.notes)

    def _registered(self, party: ImageOwner | User, path: Path) -> None:
        replace_file(path.with_suffix(".registered"), f"{party.id.hex()} {len(self.config.servers)}".encode())

    def reseal(self, owner: ImageOwner) -> None:
        """Seal an owner's secrets to the newest keys of all servers; a cloud that joined may store its rows then.

        Parameters
        ----------
        owner : ImageOwner
            Of this deployment.
        """
        owner.register()
        self._registered(owner, self._key_path("owners", owner.name))

    def _check_known(self, path: Path, public: dict[str, str], identity: bytes) -> None:
        try:
            keys = bytes.fromhex(public["sign_key"]), bytes.fromhex(public["box_key"])
        except (KeyError, ValueError):
            keys = b"", b""
        if signing.party_id(*keys) != identity:
            raise KeyFileError(f"the id in key file {path} is not that of its keys")

    def _ahead(self, server: int) -> float:
        return self.channel.ahead(server)

    def _key_set(self) -> KeySet:
        return self.channel.book.key_set()

    def _find_user(self, owner: ImageOwner, name: str) -> bytes:
        return _agreed(owner, m.UserRequest(check_name(name)))

    def owner_names(self, user: str, passphrase: str | None = None) -> dict[bytes, str]:
        asker, found = self.user(user, passphrase), dict[bytes, str]()
        for reply in asker.ask_present(m.GrantersRequest(asker.id)).values():
            found |= dict(zip(reply.owners, reply.names, strict=True))
        return found

    def _settler(self, party: ImageOwner | User) -> Callable[[], None] | None:
        return functools.partial(_settle, party) if isinstance(party, ImageOwner) else None

    # --- operation ----------------------------------------------------------------------------------------------

    def wait_certified(self, seconds: float | None = None) -> bool:
        """Nothing to wait for: servers over a network check rows before they are visible.

        Parameters
        ----------
        seconds : float, optional
            Not used.

        Returns
        -------
        bool
            True.
        """
        return True

    def server_states(self) -> dict[int, ServerState]:
        """Ask each server whether it is ready.

        Returns
        -------
        dict of int to ServerState
            By number of the server. One that cannot be reached is not ready, and its reasons say why.
        """
        return {server: self._state(server) for server in self.channel.servers}

    def _state(self, server: int) -> ServerState:
        try:
            _, body = self.channel.get(server, "/readyz")
            told = json.loads(body)
            ready, votes = bool(told["ready"]), bool(told["takes_changes"])
            lost = max(0, int(told.get("lost_batches", 0)))  # earlier versions do not say
            reasons = ["".join(c if c.isprintable() else "?" for c in str(r)[:300]) for r in told["reasons"]]
        except MippError as error:
            ready, votes, lost, reasons = False, False, 0, [str(error)]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            ready, votes, lost, reasons = False, False, 0, ["it sent no page on its state"]
        book = self.channel.book
        address = book.address(server)
        return {
            "name": address.name,
            "url": address.url,
            "address_version": book.version(server),
            "ready": ready,
            "takes_changes": votes,
            "reasons": reasons,
            "lost_batches": lost,
        }


def is_connected(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is one that ``mipp connect`` made: a description of servers with addresses, and no servers.

    Parameters
    ----------
    folder : str or path
        Any folder.

    Returns
    -------
    bool
        False also for a folder that is missing or holds something else.
    """
    path = folder_path(folder)
    try:
        embedded_or_server = (path / "servers").exists() or (path / CARD_NAME).exists()
        return not embedded_or_server and b'"addresses"' in (path / CONFIG_NAME).read_bytes()
    except OSError:
        return False


def _settle(owner: ImageOwner) -> None:
    owner.ask_present(m.SettleOwn(owner.id))


def _agreed(asker: Client, msg: Any) -> bytes:
    """Id of the party that all servers know by a name; its keys are the same at all."""
    replies = asker.ask_present(msg)
    keys = {(reply.name, reply.sign_key, reply.second) for reply in replies.values()}
    if len(keys) != 1:
        raise DeploymentError("the servers do not agree on who has this name; tell their operators")
    ((name, sign_key, second),) = keys
    if name != msg.name:
        raise NotFoundError("the servers know another name")
    return signing.party_id(sign_key, second)
