"""The rendezvous: starts a ranking when the three servers of its query have it, in one order for all, a few at a time.

Each server reports the queries that it has (HAVE) or refuses (REFUSE). The rendezvous starts an attempt when the third
server has reported, and tells all three at once when one refuses. In one process a :class:`LocalRendezvous` is shared
by all servers. Over a network the key centre plays this part, and each server holds a proxy with the same
interface (:class:`Rendezvous`) that exchanges HAVE, START, REFUSE and DONE with it.

Leakage: the rendezvous sees who asks and when, and hashes of query headers. All three servers know these anyway.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from ..crypto import schedule
from ..errors import MippError, ProtocolError
from ..mpc.link import PARTIES, Link, local_links
from ..rpc.failures import error_from_wire, error_to_wire

__all__ = ["RUNNING", "Key", "LocalRendezvous", "Rendezvous", "Ticket"]

#: Attempts that run at the same time. The native kernels of one attempt use all cores, so more attempts only fill the
#: pauses while messages travel; each one holds some eight words a score and one thread at every server.
RUNNING = 4
#: Seconds that a query waits for the servers that have not reported it; then it is dropped.
GATHER_LIMIT = 30.0
#: Refusals kept for servers that have not reported the query yet, per user and in all; the oldest go first.
USER_REFUSALS = 64
REFUSALS = 1024
#: users and owners of whom it is remembered when they were served
SERVED = 1024

#: (user id, hash of the query's header). The hash alone would let one user block or join another user's query.
Key: TypeAlias = tuple[bytes, bytes]


class Ticket(Protocol):
    """A server's side of one parked query. Exactly one of the two is called, once; neither may block.

    ``servers``: the three servers of the query, as this one read it; empty if it is not known here.
    """

    servers: tuple[int, ...]

    def go(self, attempt: bytes, link: Link) -> None:
        """All three have the query: run ``attempt`` (16 bytes) over ``link``, then call :meth:`Rendezvous.done`."""

    def refused(self, error: MippError) -> None:
        """A server refused, or the others did not come in time: nothing runs."""


class Rendezvous(Protocol):
    """Interface of the rendezvous for servers. No method blocks for another server.

    Within one attempt a server calls, for each key: ``have`` once, or ``refuse`` once. Only the rendezvous decides
    whether a query starts, so that three servers never differ on it.
    """

    def have(self, key: Key, server: int, ticket: Ticket) -> None:
        """``server`` checked the query and parked it; ``ticket`` is called later, perhaps before this returns."""

    def refuse(self, key: Key, server: int, error: BaseException) -> None:
        """``server`` refuses the query. Whoever parked it is told, with the type and text of ``error``.

        Without effect on an attempt that has started.
        """

    def done(self, attempt: bytes, server: int) -> None:
        """``server`` has ended its part of an attempt, well or not. The next one starts when all three have."""

    def sweep(self) -> None:
        """Drop queries that waited too long for the other servers. Called about every second while any is parked."""


@dataclass
class _Gathering:
    """A query that not all of its servers have reported yet."""

    since: float
    tickets: dict[int, Ticket] = field(default_factory=dict)

    @property
    def servers(self) -> tuple[int, ...]:
        """The query's servers; empty while nobody who knows them has reported it."""
        return next((t.servers for t in self.tickets.values() if t.servers), ())


@dataclass
class _Refusal:
    """A refusal, kept for servers that have not reported the query."""

    name: str
    text: str
    since: float
    missing: set[int]
    by: int

    def told(self) -> MippError:
        """A fresh error for one peer."""
        return error_from_wire(self.name, self.text)


class LocalRendezvous:
    """The rendezvous of servers in one process.

    A query is named by user and header hash. The start order is the order in which third servers reported. A server
    that reports a key again after its attempt ended takes part in a new attempt, with a fresh link and session.

    Parameters
    ----------
    clock : seconds, monotonic
    running : attempts at the same time
    servers : all of the deployment
    always : those that are among the servers of every query
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        running: int = RUNNING,
        servers: Iterable[int] = PARTIES,
        always: Iterable[int] = (),
    ) -> None:
        self._clock, self._most, self._all = clock, running, frozenset(servers)
        self._always = self._all if len(self._all) == len(PARTIES) else frozenset(always)
        self._served: dict[bytes, None] = {}  # whose queries were started, the last one last
        self._lock = threading.Lock()
        self._gathering: dict[Key, _Gathering] = {}  # in order of their first report
        self._complete: dict[Key, dict[int, Ticket]] = {}  # all three have it; waits for its turn, in order
        self._running: dict[bytes, set[int]] = {}  # attempt -> servers that have not ended it
        self._refusals: dict[Key, _Refusal] = {}

    # Tickets are called without the lock: a server may call back at once.

    def have(self, key: Key, server: int, ticket: Ticket) -> None:
        calls: list[Callable[[], None]] = []
        with self._lock:
            refusal, gathering = self._refusals.get(key), self._gathering.get(key)
            chosen = ticket.servers or (gathering.servers if gathering is not None else ())
            if refusal is not None and not self._has_say(refusal.by, chosen):
                if chosen or refusal.by == server:
                    del self._refusals[key]
                refusal = None  # else it waits for the one who knows whose query it is
            if refusal is not None and server in refusal.missing:
                waited = self._gathering.pop(key, _Gathering(0.0)).tickets
                for other, parked in [*waited.items(), (server, ticket)]:
                    self._told(key, refusal, other)
                    calls.append(functools.partial(parked.refused, refusal.told()))
            else:
                if refusal is not None:  # a new attempt of the one that refused, or of one that was told
                    del self._refusals[key]
                if gathering is None:
                    gathering = self._gathering[key] = _Gathering(self._clock())
                gathering.tickets[server] = ticket
                if chosen and gathering.tickets.keys() >= set(chosen):
                    del self._gathering[key]
                    self._complete[key] = {s: gathering.tickets.pop(s) for s in chosen}
                    error = ProtocolError("the query goes to other servers")
                    calls = [functools.partial(t.refused, error) for t in gathering.tickets.values()]
                    calls += self._start()
        for call in calls:
            call()

    def refuse(self, key: Key, server: int, error: BaseException) -> None:
        with self._lock:
            open_ = self._gathering.get(key)
            asked = open_.servers if open_ is not None else tuple(self._complete.get(key, ()))
            if not self._has_say(server, asked):
                if not asked and key not in self._refusals:
                    self._remember(key, self._refusal(server, error, set(self._all) - {server}))
                return
            gathering = self._gathering.pop(key, None)
            known = gathering.servers if gathering is not None else ()
            tickets = gathering.tickets if gathering is not None else self._complete.pop(key, {})
            refusal = self._refusals.get(key)
            if refusal is not None and server in refusal.missing:
                self._told(key, refusal, server)
            else:
                missing = set(known or self._all) - {server} - set(tickets)
                refusal = self._refusal(server, error, missing)
                if missing:
                    self._remember(key, refusal)
            told = [(ticket, refusal.told()) for ticket in tickets.values()]
        for ticket, copy in told:
            ticket.refused(copy)

    def done(self, attempt: bytes, server: int) -> None:
        with self._lock:
            left = self._running.get(attempt, set())
            left.discard(server)
            if not left:
                self._running.pop(attempt, None)
            calls = self._start()
        for call in calls:
            call()

    def sweep(self) -> None:
        late: list[tuple[Ticket, str]] = []
        with self._lock:
            limit = self._clock() - GATHER_LIMIT
            for key, gathering in list(self._gathering.items()):
                if gathering.since <= limit:
                    del self._gathering[key]
                    wanted = sorted(gathering.servers or self._all)
                    missing = " and ".join(str(s) for s in wanted if s not in gathering.tickets)
                    text = f"the query did not reach server {missing} within {GATHER_LIMIT:g} s; nothing was computed"
                    late += [(ticket, text) for ticket in gathering.tickets.values()]
            for key, refusal in list(self._refusals.items()):
                if refusal.since <= limit:
                    del self._refusals[key]
        for ticket, text in late:
            ticket.refused(ProtocolError(text))

    def _links(self, attempt: bytes, tickets: dict[int, Ticket]) -> Mapping[int, Link]:
        """Each server's link in a new attempt."""
        return local_links(tickets)

    def _start(self) -> list[Callable[[], None]]:
        """Start complete queries in order while there is room; returns the calls of their tickets.

        Of those who have queries here, whoever was served longest ago comes first.
        """
        calls: list[Callable[[], None]] = []
        while self._complete and len(self._running) < self._most:
            turn = {user: number for number, user in enumerate(self._served, 1)}
            key = min(self._complete, key=lambda k: turn.get(k[0], 0))
            tickets = self._complete.pop(key)
            self._served.pop(key[0], None)
            self._served[key[0]] = None
            while len(self._served) > SERVED:
                del self._served[next(iter(self._served))]
            attempt = schedule.random_bytes(16)
            links = self._links(attempt, tickets)
            self._running[attempt] = set(tickets)
            for server, ticket in tickets.items():
                calls.append(functools.partial(ticket.go, attempt, links[server]))
        return calls

    def _has_say(self, server: int, chosen: tuple[int, ...]) -> bool:
        """Whether a server may refuse a query of the servers ``chosen``; empty: not known yet."""
        return server in (chosen or self._always)

    def _refusal(self, server: int, error: BaseException, missing: set[int]) -> _Refusal:
        name, text = error_to_wire(error if isinstance(error, Exception) else ProtocolError("stopped"))
        return _Refusal(name, f"server {server} refused: {text}", self._clock(), missing, server)

    def _told(self, key: Key, refusal: _Refusal, server: int) -> None:
        refusal.missing.discard(server)
        if not refusal.missing:
            self._refusals.pop(key, None)

    def _remember(self, key: Key, refusal: _Refusal) -> None:
        self._refusals.pop(key, None)
        mine = [k for k in self._refusals if k[0] == key[0]]
        if len(mine) >= USER_REFUSALS:
            del self._refusals[mine[0]]
        elif len(self._refusals) >= REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[key] = refusal
