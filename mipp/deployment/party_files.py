"""Key files of a deployment's owners and users, and what an embedded deployment and one over a network do apart."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from ..client.journal import Journal
from ..client.owner import ImageOwner
from ..client.user import User
from ..crypto import schedule
from ..crypto.keyfile import change_passphrase, is_protected, load_key_file
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    KeyFileError,
    LimitError,
    NotFoundError,
    ParameterError,
)
from ..rpc.channel import LocalChannel
from ..rpc.description import DeploymentConfig
from ..rpc.http_channel import HttpChannel
from ..rpc.invitations import Invitation, check_invitation
from ..rpc.key_sets import KeySet
from ..rpc.names import check_name
from .sessions import OwnerTurn

__all__ = ["PartyFiles", "kept_invitation", "removed_if_refused", "require_id"]


class PartyFiles(ABC):
    """The key files of owners and users in a deployment's folder, and what depends on where the servers are.

    Parameters
    ----------
    folder : Path
        The deployment's folder; key files are in its folders ``owners`` and ``users``.
    config : DeploymentConfig
        Public description of the deployment.
    channel : LocalChannel or HttpChannel
        To the servers, for owners and users.
    threads : int, optional
        Native threads of owners and users; default all cores.
    """

    def __init__(
        self, folder: Path, config: DeploymentConfig, channel: LocalChannel | HttpChannel, threads: int | None = None
    ) -> None:
        self.folder, self.config, self.channel = folder, config, channel
        self._threads = threads
        self._journals: list[Journal] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what depends on where the servers are ------------------------------------------------------------------

    def _ahead(self, server: int) -> float:
        """Seconds by which a server's clock is ahead of this machine's."""
        return 0.0

    def _key_set(self) -> KeySet:
        """The servers' newest keys."""
        return KeySet.first(self.config)

    @abstractmethod
    def close(self) -> None:
        """Close all files and connections; nothing is lost without it."""

    @abstractmethod
    def _require_free(self, kind: str, name: str) -> None:
        """ParameterError if the servers are known to have another party of this name."""

    @abstractmethod
    def _register(self, party: ImageOwner | User, path: Path) -> None:
        """Register the party of a key file, if it is not; NotFoundError if it was forgotten."""

    def reseal(self, owner: ImageOwner) -> None:
        """Seal an owner's secrets to the servers' newest keys.

        Parameters
        ----------
        owner : ImageOwner
            Of this deployment.

        Raises
        ------
        MippError
            A server cannot be reached or refuses.
        """
        owner.register()

    @abstractmethod
    def _check_known(self, path: Path, public: dict[str, str], identity: bytes) -> None:
        """KeyFileError unless a user's id is that of the keys in its file, and of those that the servers know."""

    @abstractmethod
    def _find_user(self, owner: ImageOwner, name: str) -> bytes:
        """Id of the user that an owner names."""

    @abstractmethod
    def _settler(self, party: ImageOwner | User) -> Callable[[], None] | None:
        """What has the servers settle open changes, for this party; None where it cannot ask for that."""

    # --- key files ----------------------------------------------------------------------------------------------

    def _journal(self, path: Path, public: dict[str, str], secrets: dict[str, bytes]) -> Journal:
        key = schedule.journal_key(secrets["root"], self.config.id, bytes.fromhex(public["registration"]))
        return Journal(path.with_suffix(".journal"), key)

    def change_passphrase(self, kind: str, name: str, old: str | None, new: str | None) -> None:
        """Change, set or remove the passphrase of an owner's or user's key file; the keys stay the same.

        Copies of the file from before, such as backups, still open with the old passphrase.

        Parameters
        ----------
        kind : str
            ``owner`` or ``user``.
        name : str
            Name of the owner or user.
        old, new : str, optional
            The passphrase now and the next one; None for none. Secret.

        Raises
        ------
        NotFoundError
            No such owner or user.
        KeyFileError
            A wrong ``old``, or an empty ``new``; see :func:`mipp.crypto.keyfile.change_passphrase`.
        """
        path = self._party_path(f"{kind}s", name)
        if kind == "owner" and path.with_suffix(".journal").exists():
            public, secrets = load_key_file(path, kind, old)
            with OwnerTurn(path.with_suffix(".lock")):  # a journal of an earlier version, in the clear, is sealed first
                self._journal(path, public, secrets).close()
        change_passphrase(path, kind, old, new)

    def has_passphrase(self, kind: str, name: str) -> bool:
        """Tell whether a key file has a passphrase.

        Parameters
        ----------
        kind : str
            ``owner`` or ``user``.
        name : str
            Name of the owner or user.

        Returns
        -------
        bool
            True if it has one.

        Raises
        ------
        NotFoundError
            No such owner or user.
        KeyFileError
            The key file is damaged.
        """
        return is_protected(self._party_path(f"{kind}s", name), kind)

    def _free_name(self, kind: str, name: str) -> str:
        """The checked name of a new party; ParameterError if the servers know another party by it."""
        name = check_name(name)
        self._require_free(kind, name)
        return name  # saving the key file refuses one that exists

    def _invited(self, kind: str, name: str, invitation: Invitation | str | None) -> dict[str, str]:
        """Public values of a new key file that keep its party's invitation, which was checked."""
        if isinstance(invitation, str):
            invitation = Invitation.from_text(invitation)
        check_invitation(self.config, invitation, kind, check_name(name), time.time())
        return {} if invitation is None else {"invitation": invitation.to_text()}

    def _key_path(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{check_name(name)}.key"

    def _party_path(self, kind: str, name: str) -> Path:
        path = self._key_path(kind, name)
        if not path.exists():
            raise NotFoundError(f"unknown {kind[:-1]} {name!r}; there is no {path}")
        return path

    def _check_public(self, path: Path, public: dict[str, str], name: str | None = None) -> None:
        if name is not None and public.get("name") != check_name(name):
            raise KeyFileError(f"key file {path} is that of {public.get('name')!r}, not of {name!r}")
        try:
            mine = bytes.fromhex(public["deployment"]) == self.config.id
            bytes.fromhex(public["id"])
        except (KeyError, ValueError, TypeError):
            raise KeyFileError(f"key file {path} is corrupt") from None
        if not mine:
            raise KeyFileError(f"key file {path} belongs to another deployment")


@contextlib.contextmanager
def removed_if_refused(path: Path) -> Iterator[None]:
    """Remove a new key file again if the first server that is asked refuses its party: nobody knows it then."""
    try:
        yield
    except (ParameterError, AccessDeniedError, AuthenticationError, LimitError):
        path.unlink(missing_ok=True)
        raise


def kept_invitation(public: dict[str, str]) -> bytes:
    """The invitation in a key file's public part; empty without one."""
    text = public.get("invitation", "")
    return Invitation.from_text(text).to_bytes() if text else b""


def require_id(path: Path, public: dict[str, str], identity: bytes) -> None:
    """KeyFileError unless a key file's public part names the id of its secret keys."""
    if public["id"] != identity.hex():
        raise KeyFileError(f"the id in key file {path} is not that of its keys")
