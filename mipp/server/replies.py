"""Bytes of replies that a server has in memory for each party: while they are made, and until they are sent.

A reply can be a hundred times its request, and whoever asked may read it as slowly as time limits allow.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from ..errors import BusyError

__all__ = ["ReplyRoom"]


class ReplyRoom:
    """Room for replies. Handlers take it before they make a reply; who sends the reply gives it back.

    Parameters
    ----------
    most : int
        Bytes of replies to one party; a single one may have more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held: Counter[bytes] = Counter()
        self._here = threading.local()

    def take(self, party: bytes, size: int) -> None:
        """Take room for a reply, in the thread that makes it.

        Parameters
        ----------
        party : bytes
            Id of who gets it, 16 bytes.
        size : int
            Its bytes.

        Raises
        ------
        BusyError
            The party has too much unread.
        """
        with self._lock:
            if self._held[party] and self._held[party] + size > self._most:
                raise BusyError("this party has too many replies on their way; read them, or try again later")
            self._held[party] += size
        taken: list[tuple[bytes, int]] = self._here.__dict__.setdefault("taken", [])
        taken.append((party, size))

    def taken(self) -> Callable[[], None]:
        """What gives back all that was taken in this thread since the last call."""
        taken: list[tuple[bytes, int]] = self._here.__dict__.pop("taken", [])

        def give() -> None:
            with self._lock:
                for party, size in taken:
                    self._held[party] -= size
                    if not self._held[party]:
                        del self._held[party]
            taken.clear()

        return give
