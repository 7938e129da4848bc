"""Admission of rankings at one server: a bounded table of parked, running and uncollected ones.

A query for ``ranking="server"`` or a threshold is checked and parked. It starts when the rendezvous says that its three
servers have it; until then nothing is computed and no quota is charged. A request thread waits only briefly. After that
the user gets ``Pending``, a worker thread runs the ranking when it starts, and the user collects the result. So a
server makes progress however few request threads it has: no thread waits long for a query that is queued elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import BusyError, MippError, NotFoundError, ProtocolError
from ..mpc.link import Link
from ..rpc import messages as m
from ..rpc.failures import error_from_wire, error_to_wire
from ..rpc.turns import short_turns
from .rendezvous import RUNNING, Key, Rendezvous

__all__ = ["Admission", "RankingLimits"]

_log = logging.getLogger("mipp.server")

#: Seconds that a request thread waits for a start or a result before it answers Pending.
WAIT = 0.2
#: Request threads of one server that wait so at the same time; a further request gets Pending at once. With RUNNING
#: rankings in request threads as well, a server with ten of them still answers other requests.
WAITING = 4
#: Seconds that a result waits for its user when the server stops.
POLLED = 2.0
#: Seconds between two looks for what is out of time.
SWEEP = 0.5


@dataclass(frozen=True)
class RankingLimits:
    """Limits of rankings, and of tests of rows.

    Parameters
    ----------
    per_user, in_all : rankings that are parked, running or uncollected
    bytes_per_user, bytes_in_all : of their query shares and results; the only query of a user, or of a server, is
        always admitted
    at_once, tests_at_once : rankings, and tests of rows, that run at the same time. The key centre decides
    keep_seconds : that a result or an error is kept for its user
    """

    per_user: int = 64
    in_all: int = 256
    bytes_per_user: int = 256 << 20
    bytes_in_all: int = 1 << 30
    at_once: int = RUNNING
    tests_at_once: int = 1
    keep_seconds: float = 60.0


@dataclass(eq=False)
class _Entry:
    """One open ranking: parked, then running (``started``), then ended (``outcome``). It is its own ticket.

    ``attended``: the request thread that brought the query still waits for it or runs it, and hands out the outcome.
    ``checked``: what the checks found, kept only while attended; a later start checks again.
    """

    admission: Admission
    key: Key
    size: int
    run: Callable[[Link, Any], Any] | None
    servers: tuple[int, ...] = ()
    checked: Any = None
    attended: bool = True
    started: tuple[bytes, Link] | None = None
    outcome: Any = None
    ended: float = 0.0

    def go(self, attempt: bytes, link: Link) -> None:
        self.admission._go(self, attempt, link)

    def refused(self, error: MippError) -> None:
        self.admission._end(self, error)

    @property
    def failed(self) -> bool:
        return isinstance(self.outcome, MippError)

    @property
    def moving(self) -> bool:
        return self.started is not None or self.outcome is not None


class Admission:
    """The rankings that one server has open.

    Parameters
    ----------
    index : this server
    rendezvous : shared with the other servers
    clock : seconds, monotonic
    limits : of what is open here
    """

    def __init__(
        self,
        index: int,
        rendezvous: Rendezvous,
        clock: Callable[[], float] = time.monotonic,
        limits: RankingLimits | None = None,
    ) -> None:
        self._index, self._rendezvous, self._clock = index, rendezvous, clock
        self.limits = RankingLimits() if limits is None else limits
        self._changed = threading.Condition(threading.Lock())
        self._open: dict[Key, _Entry] = {}
        self._waiting = 0
        self._workers: set[threading.Thread] = set()
        self._keeper: threading.Thread | None = None
        self._closed, self._draining = threading.Event(), False

    @property
    def open(self) -> int:
        """How many are parked, running or uncollected."""
        return len(self._open)

    def drain(self, seconds: float) -> None:
        """Take in nothing new, refuse what is parked at all three servers, and wait so long for what runs.

        A user polls for its result: one that ended is waited for a little, too.
        """
        self._draining = True
        with self._changed:
            parked = [entry.key for entry in self._open.values() if not entry.moving]
        for key in parked:
            self._rendezvous.refuse(key, self._index, self._stops())
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with self._changed:
                now = self._clock()
                if not any(e.started and (e.outcome is None or now < e.ended + POLLED) for e in self._open.values()):
                    return
                self._changed.wait(0.05)

    def close(self) -> None:
        """Refuse what is parked, at all three servers, and wait for what runs in worker threads."""
        self._closed.set()
        self.drain(0.0)
        with self._changed:
            workers = list(self._workers)
        for worker in workers:
            worker.join()

    def _stops(self) -> BusyError:
        return BusyError(f"server {self._index} stops; try again later")

    # --- requests -----------------------------------------------------------------------------------------------

    def ask(
        self,
        user: bytes,
        query: bytes,
        size: int,
        check: Callable[[], Any],
        run: Callable[[Link, Any], Any],
        *,
        servers: tuple[int, ...],
        attend: bool = True,
    ) -> Any:
        """Take in a query whose signature has been verified.

        A repeat while the query is parked joins the same attempt; while it runs, it is refused; after that it begins a
        new attempt, with a fresh session, that counts against quotas again.

        Parameters
        ----------
        user : who signed
        query : hash of the header
        size : bytes of the query share and the result
        check : refuses, or returns what ``run`` needs; computes nothing
        run : this server's part of an attempt; gets the link, and what ``check`` returned or None if that is too old
        servers : that take part
        attend : whether the request thread waits for it; False for what takes long

        Raises
        ------
        BusyError
            Too many rankings are open, or this one runs already.
        MippError
            The refusal of this server, or of another one.
        """
        entry = _Entry(self, (user, query), size, run, servers)
        crowding = self._crowding(user)
        if crowding is not None:
            self._rendezvous.refuse(
                crowding, self._index, BusyError("other users' rankings come first; try again later")
            )
        try:
            joined = self._admit(entry)
        except MippError as error:
            self._rendezvous.refuse(entry.key, self._index, error)
            raise
        if joined is not None:
            if joined.started is not None:  # the others may have ended it and begun a new attempt: do not refuse that
                raise BusyError("this query is being ranked; collect its result, or try again later")
            return self._pending()
        try:
            entry.checked = check()
            self._rendezvous.have(entry.key, self._index, entry)
        except BaseException as error:
            self._remove(entry)
            self._rendezvous.refuse(entry.key, self._index, error)
            raise
        return self._attend(entry, wait=attend)

    def collect(self, user: bytes, query: bytes) -> Any:
        """The outcome of an earlier query of this user, handed out once.

        Raises
        ------
        NotFoundError
            This user has no such query here: never asked, handed out already, or given up.
        MippError
            The error that ended it.
        """
        key = user, query
        with self._changed:
            entry = self._open.get(key)
            if entry is not None:
                self._await(functools.partial(_ended, entry))
            if entry is None or self._open.get(key) is not entry:  # the request thread may have handed it out meanwhile
                raise NotFoundError("no ranking of this query waits here: unknown, handed out already, or given up")
            if entry.outcome is None or entry.attended:
                return self._pending()
            del self._open[key]
        return _deliver(entry.outcome)

    # --- states of an entry -------------------------------------------------------------------------------------

    def _crowding(self, user: bytes) -> Key | None:
        """If the table is full: the newest parked query of the user who has most, to give way to one who has fewer."""
        with self._changed:
            kept = [e for e in self._open.values() if not e.failed]
            if len(kept) < self.limits.in_all:
                return None
            count = Counter(e.key[0] for e in kept)
            most, held = count.most_common(1)[0]
            parked = [e.key for e in kept if e.key[0] == most and not e.moving]
            return parked[-1] if parked and held > count[user] + 1 else None

    def _admit(self, entry: _Entry) -> _Entry | None:
        """Enter it into the table, unless that is full; returns the one that is open under its key, if any."""
        with self._changed:
            if self._draining:
                raise self._stops()
            old = self._open.get(entry.key)
            if old is not None and old.outcome is None:
                return old
            kept = [e for e in self._open.values() if e is not old and not e.failed]
            mine = [e for e in kept if e.key[0] == entry.key[0]]
            self._make_room(kept, entry)
            own = self.limits.per_user, self.limits.bytes_per_user
            for some, count, size in ((mine, *own), (kept, self.limits.in_all, self.limits.bytes_in_all)):
                if len(some) >= count or (some and sum(e.size for e in some) + entry.size > size):
                    whose = "this user has" if some is mine else "the server has"
                    raise BusyError(f"{whose} too many rankings open at once; collect results or try again later")
            self._open.pop(entry.key, None)  # an uncollected outcome gives way to the new attempt
            self._open[entry.key] = entry
            return None

    def _make_room(self, kept: list[_Entry], entry: _Entry) -> None:
        """If the table is full, drop uncollected results of whoever has most of it, if that is not who asks now.

        Holds the lock.
        """
        sizes: tuple[tuple[int, Callable[[_Entry], int]], ...] = (
            (self.limits.in_all, lambda e: 1),
            (self.limits.bytes_in_all, lambda e: e.size),
        )
        for most, size in sizes:
            while sum(map(size, kept)) + size(entry) > most:
                held: Counter[bytes] = Counter()
                for e in kept:
                    held[e.key[0]] += size(e)
                users = held.most_common(1)
                ended = [e for e in kept if e.key[0] == users[0][0] and e.outcome is not None and not e.attended]
                if not ended or users[0][1] <= held[entry.key[0]] + size(entry):
                    break
                del self._open[ended[0].key]
                kept.remove(ended[0])

    def _await(self, ready: Callable[[], bool]) -> None:
        """Wait briefly, holding the lock before and after; not at all if many requests wait."""
        if ready() or self._waiting >= WAITING:
            return
        self._waiting += 1
        try:
            self._changed.wait_for(ready, WAIT)
        finally:
            self._waiting -= 1

    def _attend(self, entry: _Entry, *, wait: bool) -> Any:
        """Wait briefly in the request thread; then hand out the outcome, run it here, or leave it to others."""
        with self._changed:
            try:
                self._await(lambda: entry.moving or not wait)
            except BaseException:  # this thread is being stopped
                self._leave(entry)
                raise
            if not entry.moving or (not wait and entry.outcome is None):
                self._leave(entry)
                return self._pending()
        try:
            return self._run(entry) if entry.started else _deliver(entry.outcome)
        finally:
            self._remove(entry)
            self._done(entry)

    def _leave(self, entry: _Entry) -> None:
        """The request thread no longer attends to the entry. Holds the lock."""
        entry.attended, entry.checked = False, None
        if entry.started is not None and entry.outcome is None:
            self._begin(entry)
        if self._keeper is None:
            with contextlib.suppress(RuntimeError):  # no thread left: the next request tries again
                keeper = threading.Thread(target=self._keep, name="mipp rankings", daemon=True)
                keeper.start()
                self._keeper = keeper

    def _go(self, entry: _Entry, attempt: bytes, link: Link) -> None:
        with self._changed:
            entry.started = attempt, link
            if entry.attended:
                self._changed.notify_all()
                return
            begun = self._begin(entry)
        if not begun:  # the peers meet a time limit
            self._end(entry, BusyError("the server has no thread left; try again later"))
            self._done(entry)

    def _begin(self, entry: _Entry) -> bool:
        """Run it in a worker thread; False if the system has none left. Holds the lock."""
        worker = threading.Thread(target=self._work, args=(entry,), name="mipp ranking")
        try:
            worker.start()
        except RuntimeError:
            return False
        self._workers.add(worker)
        return True

    def _run(self, entry: _Entry) -> Any:
        if entry.run is None or entry.started is None:
            raise ProtocolError("a ranking that has not started, or has ended")
        run, checked, link = entry.run, entry.checked, entry.started[1]
        entry.run = entry.checked = None  # the query's memory goes with the attempt
        return run(link, checked)

    def _work(self, entry: _Entry) -> None:
        """Run it in a worker thread and keep the outcome."""
        outcome: Any
        try:
            with short_turns():
                outcome = self._run(entry)
        except Exception as error:
            if not isinstance(error, MippError):
                _log.exception("server %d: unexpected %s", self._index, type(error).__name__)
            outcome = error_from_wire(*error_to_wire(error))  # a copy: the frames of the original hold scores
        self._end(entry, outcome)
        self._done(entry)
        with self._changed:
            self._workers.discard(threading.current_thread())

    def _done(self, entry: _Entry) -> None:
        if entry.started is not None:
            attempt, link = entry.started
            link.close()
            self._rendezvous.done(attempt, self._index)

    def _end(self, entry: _Entry, outcome: Any) -> None:
        with self._changed:
            entry.outcome, entry.ended, entry.run, entry.checked = outcome, self._clock(), None, None
            if entry.failed:  # they are small, but not without bound
                failed = [e.key for e in self._open.values() if e.failed and not e.attended and e is not entry]
                mine = [key for key in failed if key[0] == entry.key[0]]
                for keys, count in ((mine, self.limits.per_user), (failed, self.limits.in_all)):
                    if len(keys) >= count:
                        self._open.pop(keys[0], None)
            self._changed.notify_all()

    def _remove(self, entry: _Entry) -> None:
        with self._changed:
            if self._open.get(entry.key) is entry:
                del self._open[entry.key]
            self._changed.notify_all()

    def _pending(self) -> m.Pending:
        """How long to wait before asking again: longer when more rankings are open."""
        return m.Pending(20 + 2 * len(self._open))

    def _keep(self) -> None:
        """Drop what is out of time, until nothing is left that no request thread attends to."""
        while True:
            with self._changed:
                limit = self._clock() - self.limits.keep_seconds
                for key, entry in list(self._open.items()):
                    if entry.outcome is not None and not entry.attended and entry.ended <= limit:
                        del self._open[key]
                if self._closed.is_set() or all(entry.attended for entry in self._open.values()):
                    self._keeper = None
                    return
            self._rendezvous.sweep()
            self._closed.wait(SWEEP)


def _ended(entry: _Entry) -> bool:
    return entry.outcome is not None


def _deliver(outcome: Any) -> Any:
    if outcome is None:
        raise ProtocolError("a ranking without an outcome")
    if isinstance(outcome, MippError):
        raise outcome
    return outcome
