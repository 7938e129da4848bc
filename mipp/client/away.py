"""Which clouds were silent lately, where another one can stand in for them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from ..errors import MippError, UnreachableError
from ..params import Params

__all__ = ["Away"]

_log = logging.getLogger("mipp.client")
#: seconds for which a cloud that was silent is left out
SILENT = 60.0


class Away:
    """The clouds that were silent lately, as one client met them.

    Parameters
    ----------
    params : Params
        Of the deployment.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, params: Params, clock: Callable[[], float] = time.monotonic) -> None:
        self._params, self._clock = params, clock
        self._until: dict[int, float] = {}
        self._never: frozenset[int] = frozenset()
        self._lock = threading.Lock()

    def now(self) -> frozenset[int]:
        """Numbers of the clouds that are left out now: no more than others can stand in for, the last one silent."""
        with self._lock:
            now, never = self._clock(), self._never
            silent = sorted((until, server) for server, until in self._until.items() if until > now)
        spare = max(0, self._params.spare_clouds - len(never))
        return never.union(server for _, server in silent[len(silent) - min(spare, len(silent)) :])

    @property
    def left_out(self) -> frozenset[int]:
        """The clouds that are left out until told otherwise."""
        return self._never

    def leave_out(self, clouds: Iterable[int]) -> None:
        """Leave these clouds out until told otherwise, and no others."""
        with self._lock:
            self._never = frozenset(clouds)

    def note(self, error: MippError) -> bool:
        """Note who could not be reached, or refused; whether others can stand in for it."""
        server = error.server
        if server not in self._params.clouds or self._params.spare_clouds <= len(self._never - {server}):
            return False
        how = "is silent" if isinstance(error, UnreachableError) else f"refuses ({error})"
        _log.warning("server %d %s and is left out for %g s", server, how, SILENT)
        with self._lock:
            self._until[server] = self._clock() + SILENT
        return True
