"""Shares of other clouds that a server helps to rebuild: what it promised whom."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np

from ..crypto.schedule import random_bytes
from ..store.views import BatchView

__all__ = ["NONCE_BYTES", "Session", "Sessions"]

#: sessions that a server keeps for one that asks; the oldest gives way
OPEN = 2
NONCE_BYTES = 16
#: that a session lasts
SECONDS = 3600.0


@dataclass(frozen=True, repr=False)
class Session:
    """What a holder promised one asker: parts of this batch's rows, under its own nonce.

    ``ordinals``: original numbers of the rows, or empty for all. ``holders``: all servers that are asked, in order.
    """

    target: int
    owner: bytes
    batch: BatchView
    ordinals: np.ndarray
    #: id of the key set of the masks
    keys: bytes
    holders: tuple[int, ...]
    until: float = field(default_factory=lambda: time.monotonic() + SECONDS)

    @property
    def stored(self) -> int:
        return len(self.ordinals) or self.batch.rows

    def rows(self, first: int, count: int) -> np.ndarray:
        """Original numbers of some of the rows."""
        if not len(self.ordinals):
            return np.arange(first, first + count)
        return self.ordinals[first : first + count].astype(np.int64)


class Sessions:
    """Sessions that a server holds its share for, by its own nonce."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[bytes, Session] = {}

    def begin(self, session: Session) -> bytes:
        """Keep a session; its new nonce."""
        nonce, now = random_bytes(NONCE_BYTES), time.monotonic()
        with self._lock:
            self._open = {n: s for n, s in self._open.items() if s.until > now}
            mine = [n for n, s in self._open.items() if s.target == session.target]
            for old in mine[: len(mine) + 1 - OPEN]:
                del self._open[old]
            self._open[nonce] = session
        return nonce

    def get(self, nonce: bytes) -> Session | None:
        """The session of a nonce, unless it ended."""
        session = self._open.get(nonce)
        return session if session is not None and session.until > time.monotonic() else None

    def drop(self, owners: set[bytes]) -> None:
        """Drop what is about owners that were forgotten."""
        with self._lock:
            self._open = {n: s for n, s in self._open.items() if s.owner not in owners}
