"""Which servers a user's queries go to, where several sets of them can answer: two of three clouds, and the key centre.

Queries go round the sets. A cloud that is silent is passed over at once and left out for a while. Where answers are
verified, a query that was answered wrongly is asked again at the other sets, under a fresh header: fresh shares are
uniformly random to every server, so none learns more than from another query. Whoever lied belongs to every set that
failed; a set that passes acquits nobody, as a server may lie at times.

A server could make use of seeing a query asked again only if its lie depended on what the query is; it does not: see
:mod:`mipp.sharing.checks`. Silence says nothing about scores at all, so it is passed over also where nothing is
verified.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ..crypto.schedule import random_bytes
from ..errors import (
    AccessDeniedError,
    BusyError,
    IntegrityError,
    LimitError,
    MessageError,
    NotFoundError,
    ProtocolError,
    StoreError,
    UnreachableError,
    VerificationError,
)
from ..params import Params
from .away import Away

__all__ = ["ServerSets"]

_log = logging.getLogger("mipp.client")
#: seconds for which a set that answered wrongly is asked last
WRONG = 600.0
#: refusals of one cloud that another one may not share: it is restored and waits, its disk is full, it lacks a grant
_REFUSED = (BusyError, StoreError, LimitError, AccessDeniedError, NotFoundError, IntegrityError)
T = TypeVar("T")


class ServerSets:
    """The sets of servers that a user's queries may go to.

    Parameters
    ----------
    params : Params
        Of the deployment.
    away : Away
        Clouds that were silent lately.
    servers : sequence of int, optional
        The only set that is used; default all.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self, params: Params, away: Away, servers: Sequence[int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.sets = params.server_sets if servers is None else (params.check_servers(servers),)
        self._away, self._clock, self._clouds = away, clock, params.clouds
        self._lock = threading.Lock()
        #: called with the sets that failed, when another one answered or none did
        self.report: Callable[[list[tuple[int, ...]]], None] = lambda failing: None
        # a new program each time, as on a command line, begins at another set
        self._turn = random_bytes(1)[0] % len(self.sets)
        #: until when a set is asked last
        self._wrong: dict[tuple[int, ...], float] = {}

    @property
    def several(self) -> bool:
        """Whether another set can answer in a set's place."""
        return len(self.sets) > 1

    def order(self) -> list[tuple[int, ...]]:
        """The sets in the order in which they are tried: the next one in turn first, those with trouble last."""
        with self._lock:
            turn, now = self._turn, self._clock()
            self._turn = (turn + 1) % len(self.sets)
            wrong = {servers for servers, until in self._wrong.items() if until > now}
        silent = self._away.now()
        turned = self.sets[turn:] + self.sets[:turn]
        return sorted(turned, key=lambda servers: (len(silent & set(servers)), servers in wrong))

    def run(
        self, attempt: Callable[[tuple[int, ...]], T], *, verified: bool = False,
        order: Sequence[tuple[int, ...]] | None = None,
    ) -> Outcome[T]:  # fmt: skip
        """Run ``attempt`` with one set after the other until one succeeds.

        Parameters
        ----------
        attempt : callable
            Gets a set of servers.
        verified : bool
            Whether it fails with VerificationError, MessageError or ProtocolError if a server answered wrongly. Without
            that, only silence has it tried with another set.
        order : sequence of tuple of int, optional
            The sets; default as of :meth:`order`.

        Returns
        -------
        Outcome
            What ``attempt`` returned, at which servers, and who is suspected.

        Raises
        ------
        VerificationError
            Every set that could be asked answered wrongly; its ``suspects`` are in all of them.
        UnreachableError
            No set has all its servers, or the key centre is away.
        MippError
            What ``attempt`` raised otherwise.
        """
        failing: list[tuple[int, ...]] = []
        last: Exception | None = None
        for servers in order or self.order():
            try:
                result = attempt(servers)
            except UnreachableError as error:
                if not self._away.note(error) and (error.server or not self.several):
                    raise
                last = last or error
                continue
            except (VerificationError, MessageError, ProtocolError) as error:
                if not verified or not self.several:
                    raise
                failing.append(servers)
                self._was_wrong(servers)
                last = error
                continue
            except _REFUSED as error:
                # of one cloud, and others may not share it; or of any server, once one lied
                if not self.several or (error.server not in self._clouds and not failing):
                    raise
                last = last or error
                continue
            suspects = _common(failing)
            if failing:
                names = ", ".join(map(str, suspects))
                _log.warning("servers answered wrongly; servers %s answered then. Suspects: %s", servers, names)
                self.report(failing)
            with self._lock:
                self._wrong.pop(servers, None)
            return Outcome(result, servers, suspects)
        assert last is not None
        if failing:
            suspects = _common(failing)
            names = ", ".join(map(str, suspects))
            wrong = VerificationError(
                f"every set of servers that could be asked answered wrongly, which those have in common that are "
                f"suspected: {names}. Nothing was used"
            )
            wrong.suspects = suspects
            _log.warning("every set of servers answered wrongly. Suspects: %s", names)
            self.report(failing)
            raise wrong from last
        raise last

    def _was_wrong(self, servers: tuple[int, ...]) -> None:
        with self._lock:
            self._wrong[servers] = self._clock() + WRONG


class Outcome(Generic[T]):
    """What came of :meth:`ServerSets.run`: the result, the servers that gave it, those that are suspected."""

    def __init__(self, result: T, servers: tuple[int, ...], suspects: tuple[int, ...]) -> None:
        self.result, self.servers, self.suspects = result, servers, suspects


def _common(failing: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The servers that belong to all sets that failed; none if none failed."""
    return tuple(sorted(set[int].intersection(*map(set, failing)))) if failing else ()
