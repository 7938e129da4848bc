"""What servers need to answer some rows of a query at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from ..errors import ParameterError

__all__ = ["CountedHeaders", "row_range"]


def row_range(first: int, count: int, live: int) -> range:
    """Rows that a query asks for of ``live`` ones; 0 and 0 are all. ParameterError if they are not there."""
    if first == count == 0:
        return range(live)
    if first < 0 or count < 1 or first + count > live:
        raise ParameterError(f"rows {first} to {first + count} are not among the {live} that the query covers")
    return range(first, first + count)


class CountedHeaders:
    """Which headers have been counted against quotas: a batch of queries counts once, in however many parts it comes.

    In memory, the last ``size`` of them; one that is not remembered (dropped, or the server was restarted) is counted
    again. So a header is never counted less than once.
    """

    def __init__(self, size: int = 4096) -> None:
        self._size = size
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def once(self, header: bytes, count: Callable[[], None]) -> None:
        """Call ``count`` unless the header is remembered; remember it when ``count`` did not raise."""
        with self._lock:
            if header not in self._seen:
                count()
                self._seen[header] = None
                if len(self._seen) > self._size:
                    self._seen.popitem(last=False)
            self._seen.move_to_end(header)
