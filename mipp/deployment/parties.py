"""Owners and users of a deployment: made, opened, blocked."""

from __future__ import annotations

import contextlib
import functools
import shutil
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import schemes
from ..client.blocklist import changed_blocked, read_blocked, write_blocked
from ..client.choosing import owner_id, owner_refs
from ..client.journal_recovery import settle_journal
from ..client.owner import ImageOwner
from ..client.row_checks import OwnerTags
from ..client.user import User
from ..crypto import box, schedule, signing
from ..crypto.keyfile import load_key_file, read_public, save_key_file
from ..errors import KeyFileError, MippError, UnreachableError, VerificationError
from ..paillier import DEFAULT_BITS
from ..rpc.invitations import Invitation
from ..rpc.names import check_name, is_id
from .party_files import PartyFiles, kept_invitation, removed_if_refused, require_id
from .sessions import OwnerTurn

__all__ = ["Parties"]


class Parties(PartyFiles):
    """Makes and opens owners and users; base of embedded deployments and of those over a network.

    Parameters are those of :class:`~mipp.deployment.party_files.PartyFiles`.
    """

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
                invitation=kept_invitation(public),
                threads=self._threads,
                journal=journal,
                tags=self._tags(path, secrets["root"], registration),
                turn=turn,
                adding=OwnerTurn(path.with_suffix(".adding"), waiting),
            )
        except (KeyError, ValueError) as error:
            raise KeyFileError(f"key file {path} is corrupt") from (error if isinstance(error, MippError) else None)
        require_id(path, public, owner.id)
        owner.ahead, owner.key_set = self._ahead, self._key_set
        with removed_if_refused(path) if new else contextlib.nullcontext():
            self._register(owner, path)
        owner.recover, owner.find_user = self._settler(owner), functools.partial(self._find_user, owner)
        try:
            with owner.turn:  # not while another process is between its entry and its upload
                settle_journal(owner)
        except VerificationError:  # said when it matters; an audit finds out who lies
            pass
        except UnreachableError:  # what is asked of the owner may do without that cloud
            if not self.config.params.spare_clouds:
                raise
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
        secrets |= schemes.get(self.config.params.scheme).user_secrets(self.config, key_bits)
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
                invitation=kept_invitation(public),
            )  # fmt: skip
        except (KeyError, ValueError) as error:
            raise KeyFileError(f"key file {path} is corrupt") from (error if isinstance(error, MippError) else None)
        require_id(path, public, user.id)
        user.ahead, user.key_set = self._ahead, self._key_set
        user.keep_blocked = functools.partial(write_blocked, self.blocked_path(name))
        with removed_if_refused(path) if new else contextlib.nullcontext():
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
