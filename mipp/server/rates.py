"""Requests a minute of each party: token buckets in memory. Turns at audits."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator

from ..errors import BusyError

__all__ = ["ReadTurns", "RequestRates"]

#: buckets from which on full ones are dropped
_MANY = 4096


class RequestRates:
    """One bucket for each party that has a limit. A full one holds a minute's requests, so bursts may be as large.

    Parameters
    ----------
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        #: tokens at a time, and the limit, of each party
        self._buckets: dict[bytes, tuple[float, float, int]] = {}
        self._limit = _MANY

    def take(self, party: bytes, per_minute: int) -> int:
        """Count a request.

        Parameters
        ----------
        party : bytes
            Id of a registered party: the number of these bounds the memory.
        per_minute : int
            Its limit.

        Returns
        -------
        int
            0, or the seconds after which the next request is allowed; then this one was not counted.
        """
        now = self._clock()
        with self._lock:
            tokens, since, _ = self._buckets.get(party, (float(per_minute), now, per_minute))
            tokens = min(float(per_minute), tokens + (now - since) * per_minute / 60)
            missing = (1 - tokens) * 60 / per_minute - 1e-6  # rounding of sums is no reason to wait
            wait = 0 if missing <= 0 else max(1, math.ceil(missing))
            self._buckets[party] = tokens if wait else tokens - 1, now, per_minute
            if len(self._buckets) > self._limit:
                self._drop_full(now)
        return wait

    def _drop_full(self, now: float) -> None:
        """Drop buckets that are full by now; a new one is full as well."""
        self._buckets = {
            party: (tokens, since, limit)
            for party, (tokens, since, limit) in self._buckets.items()
            if tokens + (now - since) * limit / 60 < limit
        }
        self._limit = max(_MANY, 2 * len(self._buckets))  # so that this takes constant time a request on average


class ReadTurns:
    """Turns at work that reads much: one runs at a time, and of each party one at most waits or runs.

    Parameters
    ----------
    patience : float
        Seconds that a request waits for its turn.
    what : str
        The work, for errors.
    """

    def __init__(self, patience: float = 10.0, what: str = "audit") -> None:
        self._what = what
        self._patience, self._turn, self._lock = patience, threading.Lock(), threading.Lock()
        self._parties: set[bytes] = set()

    @contextlib.contextmanager
    def of(self, party: bytes) -> Iterator[None]:
        """Hold the turn of a party.

        Parameters
        ----------
        party : bytes
            Its id.

        Yields
        ------
        None

        Raises
        ------
        BusyError
            The party has such a request under way, or others kept the turn for too long.
        """
        with self._lock:
            if party in self._parties:
                raise BusyError(f"this party has another {self._what} under way here; try again when it is done")
            self._parties.add(party)
        try:
            if not self._turn.acquire(timeout=self._patience):
                raise BusyError(f"it is other parties' turn at this work ({self._what}); try again later")
            try:
                yield
            finally:
                self._turn.release()
        finally:
            with self._lock:
                self._parties.discard(party)
