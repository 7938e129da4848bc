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
#: Refusals of each server that are kept for servers that have not reported the query yet, per user and in all; its own
#: oldest go first. No server displaces another's: the query would wait in vain.
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


@dataclass(eq=False)
class _Refusal:
    """A refusal, kept for servers that have not reported the query."""

    name: str
    text: str
    since: float
    missing: set[int]
    by: int
    #: the query's servers, once they are known
    chosen: tuple[int, ...] = ()

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
        self._refusals: dict[int, dict[Key, _Refusal]] = {}  # by the server that refuses

    # Tickets are called without the lock: a server may call back at once.

    def have(self, key: Key, server: int, ticket: Ticket) -> None:
        calls: list[Callable[[], None]] = []
        with self._lock:
            gathering = self._gathering.get(key)
            chosen = ticket.servers or (gathering.servers if gathering is not None else ())
            standing = self._standing(key, chosen)
            if chosen:
                for refusal in self._of(key):
                    if refusal not in standing:
                        self._forget(key, refusal)
            elif server not in self._always:  # a new attempt of it; others wait for the one who knows whose query it is
                for refusal in self._of(key):
                    if refusal.by == server:
                        self._forget(key, refusal)
            current = next((r for r in standing if server in r.missing), None)
            if current is not None:
                self._absorb(key, current, standing)
                if chosen:
                    current.chosen = chosen
                    current.missing &= {server, *chosen}
                waited = self._gathering.pop(key, _Gathering(0.0)).tickets
                for other, parked in [*waited.items(), (server, ticket)]:
                    self._told(key, current, other)
                    calls.append(functools.partial(parked.refused, current.told()))
            else:
                for refusal in standing:  # a new attempt of the one that refused, or of one that was told
                    self._forget(key, refusal)
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
            standing = self._standing(key, asked)
            refusal = next((r for r in standing if server in r.missing), None)
            if not self._has_say(server, asked):
                if refusal is not None:
                    self._told(key, refusal, server)
                elif not asked and key not in self._refusals.get(server, {}):
                    self._remember(key, self._refusal(server, error, set(self._all) - {server}))
                return
            gathering = self._gathering.pop(key, None)
            known = gathering.servers if gathering is not None else ()
            tickets = gathering.tickets if gathering is not None else self._complete.pop(key, {})
            if refusal is not None:
                self._told(key, refusal, server)
            else:
                missing = set(known or self._all) - {server} - set(tickets)
                refusal = self._refusal(server, error, missing)
                self._absorb(key, refusal, self._of(key))
                if refusal.missing:
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
            old = [(key, r) for of in self._refusals.values() for key, r in of.items() if r.since <= limit]
            for key, refusal in old:
                self._forget(key, refusal)
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

    def _of(self, key: Key) -> list[_Refusal]:
        """All refusals of a query, the first one first."""
        found = (of[key] for of in self._refusals.values() if key in of)
        return sorted(found, key=lambda refusal: refusal.since)

    def _standing(self, key: Key, chosen: tuple[int, ...]) -> list[_Refusal]:
        """Refusals of a query by servers that may refuse it."""
        return [refusal for refusal in self._of(key) if self._has_say(refusal.by, chosen or refusal.chosen)]

    def _absorb(self, key: Key, refusal: _Refusal, others: Iterable[_Refusal]) -> None:
        """Have one refusal stand for all of an attempt; who refused that attempt as well need not be told."""
        for other in others:
            if other is not refusal:
                if refusal.by in other.missing:
                    refusal.missing.discard(other.by)
                self._forget(key, other)

    def _told(self, key: Key, refusal: _Refusal, server: int) -> None:
        refusal.missing.discard(server)
        if not refusal.missing:
            self._forget(key, refusal)

    def _forget(self, key: Key, refusal: _Refusal) -> None:
        of = self._refusals.get(refusal.by, {})
        if of.get(key) is refusal:
            del of[key]
        if not of:
            self._refusals.pop(refusal.by, None)

    def _remember(self, key: Key, refusal: _Refusal) -> None:
        of = self._refusals.setdefault(refusal.by, {})
        of.pop(key, None)
        mine = [k for k in of if k[0] == key[0]]
        if len(mine) >= USER_REFUSALS:
            del of[mine[0]]
        elif len(of) >= REFUSALS:
            del of[next(iter(of))]
        of[key] = refusal
