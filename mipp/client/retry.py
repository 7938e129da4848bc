"""Retries of clients: while servers are busy, while replies are not ready, after changes that came first."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import BusyError, ConflictError, ProtocolError
from ..rpc import messages as m

__all__ = ["ATTEMPTS", "collect_pending", "retry_busy", "retry_conflicts"]

#: seconds that a client waits for a result that the servers are computing
PATIENCE = 900.0
#: milliseconds between two requests for it, at most
MAX_PAUSE = 2000
#: seconds that a client retries while servers are busy
BUSY_PATIENCE = 15.0
#: the same where another cloud can be asked instead
SPARE_PATIENCE = 2.0
#: attempts at an owner's change while other changes of this owner come first
ATTEMPTS = 6
T = TypeVar("T")


def retry_busy(attempt: Callable[[], T], *, spare: bool = False) -> T:
    """Run ``attempt``; retries with growing pauses, for some seconds, while servers have too many requests.

    ``spare``: another cloud can be asked instead, so that it is given up sooner.
    """
    until, pause = time.monotonic() + (SPARE_PATIENCE if spare else BUSY_PATIENCE), 0.05
    while True:
        try:
            return attempt()
        except BusyError:
            if time.monotonic() > until:
                raise
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, 1.0)


def retry_conflicts(attempt: Callable[[], T]) -> T:
    """Run ``attempt``; retries a few times, on the new state, while another change of the owner comes first."""
    for number in range(ATTEMPTS - 1):
        try:
            return attempt()
        except ConflictError:
            time.sleep(0.01 * 2**number)
    return attempt()


def collect_pending(
    replies: dict[int, Any],
    ask: Callable[[list[int]], dict[int, Any]],
    doing: str,
    *,
    patience: float | None = None,
    progress: Callable[[m.Pending], None] | None = None,
) -> dict[int, Any]:
    """Ask servers that replied ``Pending`` again, after the pause that they ask for, until all have replied.

    Parameters
    ----------
    replies : dict of int to message
        First replies by server.
    ask : callable
        Asks the servers with these numbers again; returns their replies by server.
    doing : str
        The servers' task, for the error.
    patience : float, optional
        Seconds until it is an error; default ``PATIENCE``.
    progress : callable, optional
        Called with a server's reply before each pause.

    Returns
    -------
    dict of int to message
        Final replies by server.

    Raises
    ------
    ProtocolError
        A server did not finish in time.
    """
    patience = PATIENCE if patience is None else patience
    until = time.monotonic() + patience
    while pending := {server: r for server, r in replies.items() if isinstance(r, m.Pending)}:
        first = min(pending)
        if time.monotonic() > until:
            raise ProtocolError(f"server {first} did not {doing} in {patience:g} s")
        if progress is not None:
            progress(pending[first])
        time.sleep(min(max(1, *(r.retry_after for r in pending.values())), MAX_PAUSE) / 1000)
        replies = replies | ask(sorted(pending))
    return replies
