"""The index of a user: batches of all owners that grant it something, without the owners that it blocks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

from ..errors import AccessDeniedError, MessageError, ParameterError
from ..rpc import messages as m
from ..rpc.channel import Channel
from ..rpc.description import DeploymentConfig
from ..rpc.names import known_name
from ..rpc.wire import decode, unpack_frames
from .blocklist import changed_blocked
from .choosing import Owners, as_id, owner_id, owner_refs
from .client import Client
from .index import Index
from .server_sets import ServerSets
from .snapshots import Told, common_state

__all__ = ["IndexClient"]

#: how often servers are asked for a state on which they agree, before an owner is left out
_SETTLING = 4
#: choices of owners whose state is remembered
_REMEMBERED = 48
#: servers, and ids of owners
_State = tuple[tuple[int, ...], tuple[bytes, ...]]


class IndexClient(Client):
    """The part of :class:`~mipp.client.user.User` that keeps its index up to date and knows owners by name.

    Its parameters are those of :class:`~mipp.client.user.User`.
    """

    def __init__(
        self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes, blocked: Iterable[bytes] = (),
        servers: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, config, channel, sign_seed)
        #: the sets of servers that queries can go to
        self.sets = ServerSets(config.params, self.away, servers)
        self._blocked = frozenset(blocked)
        #: called with the ids of all blocked owners when they change; set by the deployment, which stores them
        self.keep_blocked: Callable[[frozenset[bytes]], None] | None = None
        self._known: dict[_State, Index] = {}
        self._told: dict[_State, dict[int, Told]] = {}
        # owners on whom the servers differed when last asked, by set of servers
        self._unsettled: dict[tuple[int, ...], frozenset[bytes]] = {}
        # names of all owners that granted something when last asked, blocked ones too
        self._names: dict[bytes, str] = {}

    def index(self, owners: Owners | None = None) -> Index:
        """Ask the servers which rows this user may search now. One small round; a state that is known is sent as such.

        Parameters
        ----------
        owners : str, bytes, ImageOwner or sequence of them, optional
            Names, ids (16 bytes or 32 hex digits) or owner objects, one or several; default all that are not blocked.

        Returns
        -------
        Index
            Owners and batches in row order; :meth:`scores` and :meth:`nearest` number rows by it. Public facts.

        Raises
        ------
        AccessDeniedError
            No grant (of an owner that was named); every owner that grants something is blocked.
        NotFoundError
            A name that no granting owner has, or that several have.
        ParameterError
            An owner that is named and blocked; a value that names no owner.
        """
        key = self._chosen(owners)
        return self.sets.run(lambda servers: self._index(key, servers)).result

    def _index(self, key: tuple[bytes, ...], servers: tuple[int, ...]) -> Index:
        """The index of the owners with these ids, at these servers; of all that are not blocked if there are no ids.

        The first server lists the batches, the others send their state alone; the result is the newest state that all
        can answer. Servers that differ because a change is under way are asked again, a few times.
        """
        full, blocked, state = servers[0], self._blocked, (servers, key)
        waited = self._unsettled.get(servers, frozenset())
        for attempt in range(_SETTLING):
            before = self._told.get(state, {})
            replies = self.ask(
                {s: m.SnapshotRequest(list(key), before[s][0] if s in before else b"", s != full) for s in servers},
                spare=self.spare,
            )
            if state in self._known and all(r.unchanged for r in replies.values()):
                return self._known[state]
            told: dict[int, Told] = {}
            for s, r in replies.items():
                same = r.unchanged and s in before
                told[s] = before[s] if same else (r.hash, [decode(unpack_frames(o), m.OwnerSnapshot) for o in r.owners])
            if not key:
                self._names = {o.owner: known_name(o.name, o.owner) for o in told[full][1]}
            # a blocked owner is left out even if all its snapshot is wrong
            if all(o.owner in blocked for o in told[full][1]):
                raise AccessDeniedError("every owner that grants this user anything is blocked")
            index, unsettled = common_state(told, full, blocked)
            # owners that differed before are not waited for: none slows the searches of others for ever
            if attempt == _SETTLING - 1 or not unsettled - waited:
                break
            if attempt and self.recover is not None:
                self.recover()  # a change got stuck
            time.sleep(0.005 * 4**attempt)
        self._unsettled[servers] = unsettled
        if blocked is self._blocked:
            self._told[state], self._known[state] = told, index
            while len(self._known) > _REMEMBERED:
                oldest = next(iter(self._known))
                del self._known[oldest], self._told[oldest]
        return index

    def owners_of_batches(self) -> dict[bytes, list[bytes]]:
        """Look up the owners of each batch, among the owners that grant something and are not blocked.

        Returns
        -------
        dict of bytes to list of bytes
            Ids of owners by id of batch; damaged batches too. Owners choose batch ids, so one id may have several.
        """
        servers = self.sets.run(lambda servers: self._index((), servers)).servers
        owners: dict[bytes, list[bytes]] = {}
        for o in self._told[servers, ()][servers[0]][1]:
            if o.owner not in self._blocked:
                for batch in o.batches:
                    owners.setdefault(batch.tobytes(), []).append(o.owner)
        return owners

    def _remembered(self, key: tuple[bytes, ...], servers: tuple[int, ...], least: int, ranking: str) -> Index | None:
        """A remembered state that holds ``least`` rows; the first server refuses a query if it knows a newer one."""
        known = self._known.get((servers, key))
        if known is None or known.left_out or known.behind or known.total < least:
            return None
        if known.unranked and ranking != "user":  # it may have been certified since
            return None
        return known.asking(b"\1" if key else known.grants)

    def _chosen(self, owners: Owners | None) -> tuple[bytes, ...]:
        """Ids of the owners that a search names, sorted; none for all."""
        if owners is not None and not owner_refs(owners):
            raise ParameterError("no owner is named; leave owners out to search all")
        ids = set(self._ids(owners))
        if ids & self._blocked:
            names = ", ".join(sorted(self._names.get(i, i.hex()) for i in ids & self._blocked))
            raise ParameterError(f"blocked owners are not searched: {names}; unblock them first")
        return tuple(sorted(ids))

    def _ids(self, owners: Owners | None) -> list[bytes]:
        """Ids of owners. Names are looked up at one server each time: who has a name may change."""
        refs = owner_refs(owners)
        if any(as_id(owner) is None for owner in refs):
            # blocked owners are unblocked by name, also when they grant nothing any more
            self._names = {i: name for i, name in self._names.items() if i in self._blocked}
            with contextlib.suppress(AccessDeniedError):  # nobody grants anything
                told = self.sets.run(lambda s: self.ask({s[0]: m.GrantersRequest(self.id)})[s[0]]).result
                if len(told.owners) != len(told.names):
                    raise MessageError("a server sent another number of owners than of names")
                self._names |= {o: known_name(n, o) for o, n in zip(told.owners, told.names, strict=True)}
        return [owner_id(owner, self._names) for owner in refs]

    # --- blocking -----------------------------------------------------------------------------------------------

    @property
    def blocked(self) -> frozenset[bytes]:
        """Ids of the owners that this user never searches."""
        return self._blocked

    def block(self, owners: Owners) -> None:
        """Block owners: this user's searches leave them out until they are unblocked, whatever they grant.

        The list stays with the user; servers never see it.

        Parameters
        ----------
        owners : str, bytes, ImageOwner or sequence of them
            As for :meth:`search`; an owner that has granted nothing is named by its id.

        Raises
        ------
        NotFoundError
            A name that no granting owner has, or that several have; nothing changes.
        """
        self._change_blocked(owners, block=True)

    def unblock(self, owners: Owners) -> None:
        """Unblock owners: this user's searches cover what they grant again.

        Parameters
        ----------
        owners : str, bytes, ImageOwner or sequence of them
            As for :meth:`block`.

        Raises
        ------
        NotFoundError
            An owner that is not blocked; nothing changes.
        """
        self._change_blocked(owners, block=False)

    def _change_blocked(self, owners: Owners, *, block: bool) -> None:
        if not owner_refs(owners):
            raise ParameterError("no owner is named")
        blocked = changed_blocked(self._blocked, self._ids(owners), block=block)
        if self.keep_blocked is not None:
            self.keep_blocked(blocked)
        self._blocked = blocked
        self._known.clear()
