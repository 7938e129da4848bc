"""Owners and users of a deployment: their key files, and the files beside them."""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .. import schemes
from ..client.blocklist import changed_blocked, read_blocked, write_blocked
from ..client.choosing import owner_id, owner_refs
from ..client.journal import Journal
from ..client.owner import ImageOwner
from ..client.row_checks import OwnerTags
from ..client.user import User
from ..crypto import box, schedule, signing
from ..crypto.keyfile import change_passphrase, is_protected, load_key_file, read_public, save_key_file
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    KeyFileError,
    LimitError,
    MippError,
    NotFoundError,
    ParameterError,
)
from ..paillier import DEFAULT_BITS
from ..rpc.channel import LocalChannel
from ..rpc.description import DeploymentConfig
from ..rpc.http_channel import HttpChannel
from ..rpc.invitations import Invitation, check_invitation
from ..rpc.key_sets import KeySet
from ..rpc.names import check_name, is_id
from .sessions import OwnerTurn

__all__ = ["Parties"]


class Parties(ABC):
    """Makes and opens owners and users; base of embedded deployments and of those over a network.

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

    # --- owners -------------------------------------------------------------------------------------------------

    def create_owner(
        self, name: str, passphrase: str | None = None, *, invitation: Invitation | str | None = None
    ) -> ImageOwner:
        """Make an owner: a key file in ``owners/``, and its registration with all servers.

        Parameters
        ----------
        name : str
            Name of the owner, 1 to 64 characters; public, unique in the deployment.
        passphrase : str, optional
            Encrypts the secrets of the key file (mode 0600); without it whoever reads the file has them. Secret.
        invitation : Invitation or str, optional
            The registrar's, for a deployment that takes owners by invitation. A password until it is used.

        Returns
        -------
        ImageOwner
            The owner, with new keys.

        Raises
        ------
        KeyFileError, ParameterError
            The name is taken, here or at the servers; a name, passphrase or invitation that cannot be used.
        AccessDeniedError, AuthenticationError
            The invitation is missing, another party's, ended, used, or not the registrar's.
        """
        invited = self._invited("owner", name, invitation)
        name = self._free_name("owner", name)
        secrets = {"root": schedule.random_bytes(32), "sign": schedule.random_bytes(32)}
        registration = schedule.random_bytes(16)
        public = {"name": name, "registration": registration.hex(), "deployment": self.config.id.hex()}
        public["id"] = signing.party_id(signing.sign_public(secrets["sign"]), registration).hex()
        public |= invited
        path = self._key_path("owners", name)
        save_key_file(path, "owner", public, secrets, passphrase)
        # of an earlier owner, whose key file was taken away
        path.with_suffix(".journal").unlink(missing_ok=True)
        shutil.rmtree(path.with_suffix(".tags"), ignore_errors=True)
        return self._opened_owner(name, passphrase, new=True)

    def owner(
        self, name: str, passphrase: str | None = None, *, waiting: Callable[[], None] | None = None
    ) -> ImageOwner:
        """Open the owner of a key file in ``owners/``; registers it if a crash prevented that.

        Parameters
        ----------
        name : str
            Name of the owner.
        passphrase : str, optional
            Passphrase of the key file, if it has one. Secret.
        waiting : callable, optional
            Called without arguments when adding has to wait for another process that adds files of this owner.

        Returns
        -------
        ImageOwner
            The owner.

        Raises
        ------
        NotFoundError
            No such owner, or it was forgotten.
        KeyFileError
            The key file is damaged or of another deployment; the passphrase is missing or wrong.
        """
        return self._opened_owner(name, passphrase, waiting)

    def _opened_owner(
        self, name: str, passphrase: str | None, waiting: Callable[[], None] | None = None, *, new: bool = False
    ) -> ImageOwner:
        """The owner of a key file; ``new``: the file was just made, and goes again if the servers refuse it."""
        path = self._party_path("owners", name)
        public, secrets = load_key_file(path, "owner", passphrase)
        self._check_public(path, public, name)
        turn = OwnerTurn(path.with_suffix(".lock"))
        try:
            registration = bytes.fromhex(public["registration"])
            with turn:  # one process at a time makes a journal, or seals one of an earlier version
                journal = self._journal(path, public, secrets)
            self._journals.append(journal)
            owner = ImageOwner(
                name,
                self.config,
                self.channel,
                secrets["root"],
                secrets["sign"],
                registration,
                invitation=_kept_invitation(public),
                threads=self._threads,
                journal=journal,
                tags=self._tags(path, secrets["root"], registration),
                turn=turn,
                adding=OwnerTurn(path.with_suffix(".adding"), waiting),
            )
        except (KeyError, ValueError) as error:
            raise KeyFileError(f"key file {path} is corrupt") from (error if isinstance(error, MippError) else None)
        _require_id(path, public, owner.id)
        owner.ahead, owner.key_set = self._ahead, self._key_set
        with _removed_if_refused(path) if new else contextlib.nullcontext():
            self._register(owner, path)
        owner.recover, owner.find_user = self._settler(owner), functools.partial(self._find_user, owner)
        with owner.turn:  # not while another process is between its entry and its upload
            journal.settle({b.id: b.live for b in owner.batches()})
        return owner

    def owners(self) -> list[str]:
        """List the owners that have a key file here.

        Returns
        -------
        list of str
            Their names, sorted.
        """
        return sorted(p.stem for p in (self.folder / "owners").glob("*.key"))

    def _tags(self, path: Path, root: bytes, registration: bytes) -> OwnerTags:
        key = schedule.audit_key(root, self.config.id, registration)
        dim = self.config.encoding.encoded_dim
        return OwnerTags(path.with_suffix(".tags"), key, self.config.params, dim, self._threads)

    def _journal(self, path: Path, public: dict[str, str], secrets: dict[str, bytes]) -> Journal:
        key = schedule.journal_key(secrets["root"], self.config.id, bytes.fromhex(public["registration"]))
        return Journal(path.with_suffix(".journal"), key)

    # --- users --------------------------------------------------------------------------------------------------

    def create_user(
        self,
        name: str,
        passphrase: str | None = None,
        *,
        key_bits: int = DEFAULT_BITS,
        invitation: Invitation | str | None = None,
    ) -> User:
        """Make a user: a key file in ``users/``, and its registration with all servers.

        Parameters
        ----------
        name : str
            Name of the user, 1 to 64 characters; public, unique in the deployment.
        passphrase : str, optional
            Encrypts the secrets of the key file (mode 0600); without it whoever reads the file has them. Secret.
        key_bits : int
            Bits of the user's Paillier key: 2048, 3072 or 4096. Used in the Paillier scheme only.
        invitation : Invitation or str, optional
            The registrar's, for a deployment that takes users by invitation. A password until it is used.

        Returns
        -------
        User
            The user, with new keys. It can search nothing before an owner grants it something.

        Raises
        ------
        KeyFileError, ParameterError
            The name is taken, here or at the servers; a name, passphrase, key size or invitation that cannot be used.
        AccessDeniedError, AuthenticationError
            The invitation is missing, another party's, ended, used, or not the registrar's.
        """
        invited = self._invited("user", name, invitation)
        name = self._free_name("user", name)
        secrets = {"sign": schedule.random_bytes(32), "box": schedule.random_bytes(32)}
        secrets |= schemes.get(self.config.params.scheme).user_secrets(key_bits)
        public_box = box.box_private(secrets["box"]).public_key().public_bytes_raw()
        public_sign = signing.sign_public(secrets["sign"])
        identity = signing.party_id(public_sign, public_box)
        public = {"name": name, "id": identity.hex(), "deployment": self.config.id.hex()}
        # so that owners compute the id from the keys themselves
        public |= {"sign_key": public_sign.hex(), "box_key": public_box.hex()} | invited
        path = self._key_path("users", name)
        save_key_file(path, "user", public, secrets, passphrase)
        return self._opened_user(name, passphrase, new=True)

    def user(self, name: str, passphrase: str | None = None) -> User:
        """Open the user of a key file in ``users/``; registers it if a crash prevented that.

        Parameters
        ----------
        name : str
            Name of the user.
        passphrase : str, optional
            Passphrase of the key file, if it has one. Secret.

        Returns
        -------
        User
            The user.

        Raises
        ------
        NotFoundError
            No such user.
        KeyFileError
            The key file is damaged or of another deployment; the passphrase is missing or wrong.
        StoreError
            The list of blocked owners cannot be read.
        """
        return self._opened_user(name, passphrase)

    def _opened_user(self, name: str, passphrase: str | None, *, new: bool = False) -> User:
        """The user of a key file; ``new`` as for owners."""
        path = self._party_path("users", name)
        public, secrets = load_key_file(path, "user", passphrase)
        self._check_public(path, public, name)
        try:
            user = User(
                name, self.config, self.channel, secrets["sign"], secrets["box"], secrets=secrets,
                threads=self._threads, blocked=read_blocked(self.blocked_path(name)),
                invitation=_kept_invitation(public),
            )  # fmt: skip
        except (KeyError, ValueError) as error:
            raise KeyFileError(f"key file {path} is corrupt") from (error if isinstance(error, MippError) else None)
        _require_id(path, public, user.id)
        user.ahead, user.key_set = self._ahead, self._key_set
        user.keep_blocked = functools.partial(write_blocked, self.blocked_path(name))
        with _removed_if_refused(path) if new else contextlib.nullcontext():
            self._register(user, path)
        user.recover = self._settler(user)
        return user

    def users(self) -> list[str]:
        """List the users that have a key file here.

        Returns
        -------
        list of str
            Their names, sorted.
        """
        return sorted(p.stem for p in (self.folder / "users").glob("*.key"))

    def user_id(self, name: str) -> bytes:
        """Look up the id of a user that has a key file here, for owners who grant to it by name. Needs no passphrase.

        The id is computed from the public keys of the key file. In an embedded deployment all servers must have
        registered the same keys under that name.

        Parameters
        ----------
        name : str
            Name of the user.

        Returns
        -------
        bytes
            The user's id, 16 bytes; public.

        Raises
        ------
        NotFoundError
            No such user here or at the servers.
        KeyFileError
            The id in the key file is not that of its keys, or the servers know other keys under that name.
        """
        path = self._party_path("users", name)
        public = read_public(path, "user")
        self._check_public(path, public)
        identity = bytes.fromhex(public["id"])
        self._check_known(path, public, identity)
        if public.get("name") != check_name(name):
            raise KeyFileError(f"key file {path} is that of another user, {public.get('name')!r}")
        return identity

    # --- blocked owners -----------------------------------------------------------------------------------------

    def blocked_path(self, user: str) -> Path:
        """Path of the file with the owners that a user blocks.

        Parameters
        ----------
        user : str
            Name of the user.

        Returns
        -------
        Path
            The file, beside the user's key file; missing if the user blocked nobody yet.
        """
        return self._key_path("users", user).with_suffix(".blocked")

    def change_blocked(self, user: str, owners: Any = (), *, block: bool = True) -> frozenset[bytes]:
        """Block owners for a user, or unblock them. Needs no passphrase.

        Parameters
        ----------
        user : str
            Name of the user.
        owners : str, bytes, ImageOwner or sequence of them
            Names, ids (16 bytes or 32 hex digits) or owner objects, one or several; none changes nothing.
        block : bool
            True to block, False to unblock.

        Returns
        -------
        frozenset of bytes
            Ids of all owners that the user blocks now.

        Raises
        ------
        NotFoundError
            An unknown user or owner, or an owner to unblock that is not blocked; nothing changes.
        """
        self._party_path("users", user)
        path = self.blocked_path(user)
        refs = owner_refs(owners)
        names = self.owner_names(user) if any(isinstance(o, str) and not is_id(o) for o in refs) else {}
        with OwnerTurn(path.with_suffix(".lock")):  # of two processes at once neither undoes the other's change
            blocked = read_blocked(path)
            changed = changed_blocked(blocked, [owner_id(o, names) for o in refs], block=block)
            if changed != blocked:
                write_blocked(path, changed)
        return changed

    @abstractmethod
    def owner_names(self, user: str, passphrase: str | None = None) -> dict[bytes, str]:
        """List the owners that a user can name, to block them for one.

        Parameters
        ----------
        user : str
            Name of the user.
        passphrase : str, optional
            Passphrase of its key file, if it has one; not needed in an embedded deployment. Secret.

        Returns
        -------
        dict of bytes to str
            Names by id. In an embedded deployment all owners, over a network those that grant this user something.

        Raises
        ------
        NotFoundError, KeyFileError
            No such user; over a network, a passphrase that is missing or wrong.
        """

    # --- key files ----------------------------------------------------------------------------------------------

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
def _removed_if_refused(path: Path) -> Iterator[None]:
    """Remove a new key file again if the first server that is asked refuses its party: nobody knows it then."""
    try:
        yield
    except (ParameterError, AccessDeniedError, AuthenticationError, LimitError):
        path.unlink(missing_ok=True)
        raise


def _kept_invitation(public: dict[str, str]) -> bytes:
    """The invitation in a key file's public part; empty without one."""
    text = public.get("invitation", "")
    return Invitation.from_text(text).to_bytes() if text else b""


def _require_id(path: Path, public: dict[str, str], identity: bytes) -> None:
    """KeyFileError unless a key file's public part names the id of its secret keys."""
    if public["id"] != identity.hex():
        raise KeyFileError(f"the id in key file {path} is not that of its keys")
