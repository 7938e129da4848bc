"""What servers need to answer some rows of a query at a time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from ..errors import ParameterError
from .plan import Plan

__all__ = ["OpenHeaders", "row_range"]


def row_range(first: int, count: int, live: int) -> range:
    """Rows that a query asks for of ``live`` ones; 0 and 0 are all. ParameterError if they are not there."""
    if first == count == 0:
        return range(live)
    if first < 0 or count < 1 or first + count > live:
        raise ParameterError(f"rows {first} to {first + count} are not among the {live} that the query covers")
    return range(first, first + count)


class OpenHeaders:
    """Headers that were counted against quotas, and the plans that they are answered by, block after block.

    A batch of queries counts once, in however many parts it comes, and all parts are of one state of the index: a
    header's plan stays valid for ``seconds`` whatever is uploaded, merged or deleted meanwhile. In memory; a header
    that is not remembered (too old, one of too many, or the server was restarted) is authorised and counted again. So
    it is never counted less than once.

    Parameters
    ----------
    size, per_user : headers remembered in all, and of one user
    seconds : for how long
    """

    def __init__(self, size: int = 256, per_user: int = 16, seconds: float = 600.0) -> None:
        self._size, self._per_user, self._seconds = size, per_user, seconds
        self._open: OrderedDict[bytes, tuple[bytes, float, Plan]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, header: bytes) -> Plan | None:
        """The plan of a header that is remembered."""
        with self._lock:
            kept = self._open.get(header)
            if kept is None or time.monotonic() > kept[1]:
                self._open.pop(header, None)
                return None
            self._open.move_to_end(header)
            return kept[2]

    def remember(self, header: bytes, user: bytes, plan: Plan) -> None:
        """Remember a header that was authorised and counted."""
        now = time.monotonic()
        with self._lock:
            self._open[header] = user, now + self._seconds, plan
            for old in [h for h, kept in self._open.items() if now > kept[1]]:
                del self._open[old]
            of_user = [h for h, kept in self._open.items() if kept[0] == user]
            for old in of_user[: max(0, len(of_user) - self._per_user)]:
                del self._open[old]
            while len(self._open) > self._size:
                self._open.popitem(last=False)

    def drop(self, owners: set[bytes]) -> None:
        """Forget headers over rows of these owners."""
        with self._lock:
            for old, (_, _, plan) in list(self._open.items()):
                if any(part.view.owner in owners for part in plan.parts):
                    del self._open[old]
