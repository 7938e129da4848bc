"""What a user may search: the owners that grant it something, less those that it blocks, and their batches."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable

from ..errors import AccessDeniedError, MessageError, NotFoundError, ParameterError
from ..protocol import messages as m
from ..protocol.channel import Channel
from ..protocol.wire import decode, unpack_frames
from .choosing import OwnerRef, Owners, owner_id, owner_refs
from .client import Client
from .config import DeploymentConfig
from .found import Index
from .names import known_name

__all__ = ["IndexClient"]


class IndexClient(Client):
    """The part of :class:`~mipp.roles.user.User` that keeps its index up to date and knows owners by name."""

    servers: tuple[int, ...]

    def __init__(
        self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes, blocked: Iterable[bytes] = ()
    ) -> None:
        super().__init__(name, config, channel, sign_seed)
        self._blocked = frozenset(blocked)
        #: keeps the ids of blocked owners when they change; set by the deployment
        self.keep_blocked: Callable[[frozenset[bytes]], None] | None = None
        self._known: dict[tuple[bytes, ...], Index] = {}
        # names of all owners that granted something when last asked, blocked ones too
        self._names: dict[bytes, str] = {}

    def index(self, owners: Owners = ()) -> Index:
        """What may be searched now, of all owners that granted this user or of those named.

        Parameters
        ----------
        owners : names, ids of 16 bytes, ids in hex or owner objects, one or several; default all that are not blocked

        Raises
        ------
        AccessDeniedError
            No grant (of an owner that was named); every owner that grants something is blocked.
        NotFoundError
            A name that no granting owner has, or that several have.
        ParameterError
            An owner that is named and blocked.
        """
        return self._index(self._chosen(owners))

    def _index(self, key: tuple[bytes, ...]) -> Index:
        """The index of the owners with these ids; of all that are not blocked if there are none."""
        known = self._known.get(key)
        server, blocked = self.servers[0], self._blocked
        reply = self._ask({server: m.SnapshotRequest(list(key), known.hash if known else b"")})[server]
        if reply.unchanged and known is not None:
            return known
        found = [decode(unpack_frames(o), m.OwnerSnapshot) for o in reply.owners]
        found = [dataclasses.replace(o, name=known_name(o.name, o.owner)) for o in found]
        if not key:
            self._names = {o.owner: o.name for o in found}
        # a blocked owner is not searched even if all its snapshot is wrong
        found = [o for o in found if o.owner not in blocked]
        if not found:
            raise AccessDeniedError("every owner that grants this user anything is blocked")
        for o in found:
            if o.batches.shape != (len(o.rows), 16) or o.dead_batch.shape != o.dead_row.shape:
                raise MessageError("a server sent a snapshot that does not fit together")
        index = Index(reply.hash, found)
        if blocked is self._blocked:
            self._known[key] = index
        return index

    def _chosen(self, owners: Owners) -> tuple[bytes, ...]:
        """Ids of the owners that a search names, sorted."""
        ids = {self._owner_id(owner) for owner in owner_refs(owners)}
        if ids & self._blocked:
            names = ", ".join(sorted(self._names.get(i, i.hex()) for i in ids & self._blocked))
            raise ParameterError(f"blocked owners are not searched: {names}; unblock them first")
        return tuple(sorted(ids))

    def _owner_id(self, owner: OwnerRef) -> bytes:
        try:
            return owner_id(owner, self._names)
        except NotFoundError:  # perhaps granted since
            self._known.pop((), None)
            with contextlib.suppress(AccessDeniedError):
                self._index(())
            return owner_id(owner, self._names)

    # --- blocking -----------------------------------------------------------------------------------------------

    @property
    def blocked(self) -> frozenset[bytes]:
        """Ids of the owners that this user never searches."""
        return self._blocked

    def block(self, owners: Owners) -> None:
        """Never search these owners again: what they grant, asked for or not, has no effect on this user's searches.

        Parameters
        ----------
        owners : as for :meth:`search`; an owner that has granted nothing is named by its id
        """
        self._set_blocked(self._blocked | {self._owner_id(owner) for owner in owner_refs(owners)})

    def unblock(self, owners: Owners) -> None:
        """Search these owners again; NotFoundError, and nothing changes, for one that is not blocked."""
        ids = {self._owner_id(owner) for owner in owner_refs(owners)}
        if ids - self._blocked:
            raise NotFoundError("not blocked: " + ", ".join(sorted(i.hex() for i in ids - self._blocked)))
        self._set_blocked(self._blocked - ids)

    def _set_blocked(self, blocked: frozenset[bytes]) -> None:
        if self.keep_blocked is not None:
            self.keep_blocked(blocked)
        self._blocked = blocked
        self._known.clear()
