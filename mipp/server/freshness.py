"""A signed request is served once, soon after it was signed: stops requests that are sent again by somebody else."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from ..crypto.signing import Statement
from ..errors import AuthenticationError

__all__ = ["WINDOW_SECONDS", "RequestLog"]

#: a request is served so long before and after the time that it was signed at, by the server's clock
WINDOW_SECONDS = 300
#: a clock that is ahead is noted so far ahead that it need not be noted again soon
_AHEAD_SECONDS = 10
#: random values kept for each signer; with more in one window, the oldest are refused by their time instead
PER_SIGNER = 1 << 16


class RequestLog:
    """Random values of the requests of the last minutes, in memory.

    What was signed before this server started is refused, so nothing has to survive a restart. Memory: at most
    ``per_signer`` entries for each registered party.

    Parameters
    ----------
    clock : Unix time
    per_signer : entries kept for each signer
    served, keep : for signers whose clocks were ahead, the latest time of issue (milliseconds) that was served before
        the last restart, and a function that notes a later one durably. Requests of other clocks are older than the
        start, after a restart
    """

    def __init__(
        self,
        clock: Callable[[], float],
        per_signer: int = PER_SIGNER,
        *,
        served: Mapping[bytes, int] | None = None,
        keep: Callable[[bytes, int], None] = lambda signer, issued: None,
    ) -> None:
        self._clock, self._most, self._keep = clock, per_signer, keep
        self._started = int(clock() * 1000)
        self._kept = dict(served or {})
        self._lock = threading.Lock()
        self._seen: dict[bytes, OrderedDict[bytes, tuple[int, bytes]]] = {}
        self._floor: dict[bytes, int] = {signer: issued + 1 for signer, issued in self._kept.items()}

    def check(self, signer: bytes, statement: Statement, *, repeatable: bool) -> None:
        """Accept a request whose signature was verified.

        Parameters
        ----------
        repeatable : whether the same request may be served again, byte for byte (it changes nothing, or nothing more)

        Raises
        ------
        AuthenticationError
            Signed too long ago, or in the future; before this server started; sent before.
        """
        now, issued = int(self._clock() * 1000), statement.issued
        if abs(now - issued) > 1000 * WINDOW_SECONDS:
            late = "before" if issued < now else "after"
            raise AuthenticationError(
                f"the request was signed {abs(now - issued) // 1000} s {late} this server's time, "
                f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now // 1000))} UTC; at most {WINDOW_SECONDS} s are "
                "accepted: compare the clocks"
            )
        if issued > now and issued > self._kept.get(signer, 0):
            kept = issued + 1000 * _AHEAD_SECONDS  # not at every request of such a clock
            self._keep(signer, kept)
            self._kept[signer] = kept
        digest = hashlib.sha256(statement.to_bytes()).digest()[:16]
        with self._lock:
            if issued < max(self._started, self._floor.get(signer, 0)):
                raise AuthenticationError("the request was signed before this server started; sign it again")
            seen = self._seen.setdefault(signer, OrderedDict())
            known = seen.get(statement.random)
            if known is not None:
                if repeatable and known[1] == digest:
                    return
                raise AuthenticationError("this request was sent before; sign it again")
            seen[statement.random] = issued, digest
            while seen:
                oldest = next(iter(seen.values()))[0]
                if len(seen) > self._most:
                    self._floor[signer] = max(self._floor.get(signer, 0), oldest + 1)
                elif oldest + 1000 * WINDOW_SECONDS >= now:
                    break
                seen.popitem(last=False)
