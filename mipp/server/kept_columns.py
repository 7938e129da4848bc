"""Check columns that a server keeps until their user has them folded (:mod:`mipp.sharing.checks`)."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..errors import BusyError, MessageError, NotFoundError, ShapeError
from ..params import Params
from ..rpc import messages as m
from ..rpc.limits import MAX_KEPT_BYTES
from ..sharing.checks import SEED_BYTES, fold_columns

__all__ = ["KeptColumns", "folded"]

#: what a block counts as, at least: small ones take more than their words
_LEAST_BYTES = 4096
#: seconds without a block after which a user's columns give way to its newer ones
_IDLE = 5.0


@dataclass(eq=False)
class _Kept:
    """Check columns of one query: blocks by their first row, and of how many rows there are some."""

    header: m.QueryHeader
    owners: frozenset[bytes]
    rows: int
    used: float
    size: int = 0
    blocks: dict[int, np.ndarray] = field(default_factory=dict)


class KeptColumns:
    """The check columns of open queries, by the hash of the header. In memory.

    They are given up ``seconds`` after the last block, when somebody asks something next; and earlier where others need
    the room.

    Parameters
    ----------
    in_all : int
        Bytes of all users; one user has at most :data:`~mipp.rpc.limits.MAX_KEPT_BYTES`.
    seconds : float
        For how long after the last block.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self, in_all: int = 4 * MAX_KEPT_BYTES, seconds: float = 120.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._in_all, self._seconds, self._clock = in_all, seconds, clock
        self._kept: dict[bytes, _Kept] = {}
        self._held: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def keep(
        self, name: bytes, header: m.QueryHeader, owners: frozenset[bytes], rows: int, first: int, columns: np.ndarray,
        is_open: Callable[[], bool],
    ) -> None:  # fmt: skip
        """Keep the check columns of some rows.

        Parameters
        ----------
        name : bytes
            Hash of the header.
        header : QueryHeader
            Of the query.
        owners : frozenset of bytes
            Whose rows it covers.
        rows : int
            Live rows that it covers.
        first : int
            The first of these rows; a block that is there already is replaced.
        columns : ndarray, shape (c, n)
            Their words; nobody writes there any more.
        is_open : callable
            Whether the header is still open: it was counted, and its columns were not folded since.

        Raises
        ------
        BusyError
            This user, or all users together, have too many check columns that were not folded.
        NotFoundError
            The header is open no more.
        """
        with self._lock:
            if not is_open():
                raise NotFoundError("the check columns of this query were folded meanwhile")
            kept = self._kept.get(name)
            old = None if kept is None else kept.blocks.get(first)
            more = _size(columns) - (0 if old is None else _size(old))
            self._make_room(header.user, more, name)
            if kept is None:
                kept = self._kept[name] = _Kept(header, owners, rows, 0.0)
            # where they are most of what was computed, without a copy
            whole = columns.base is not None and 2 * columns.base.nbytes <= 3 * columns.nbytes
            kept.blocks[first], kept.used = columns if whole else np.array(columns), self._clock()
            kept.size += more
            self._held[header.user] += more

    def require_room(self, user: bytes, size: int) -> None:
        """BusyError, before anything is computed, if so many bytes of check columns would be too many."""
        with self._lock:
            self._make_room(user, size, b"")

    def take(self, name: bytes, user: bytes, closed: Callable[[], None]) -> _Kept:
        """Take out the check columns of a query, whatever becomes of them: they are folded once.

        Parameters
        ----------
        name : bytes
            Hash of the header.
        user : bytes
            Who asks.
        closed : callable
            Called, before anybody can keep further ones, to have the header be open no more.

        Raises
        ------
        NotFoundError
            Nothing is kept for this user under that header: never asked, folded already, or given up.
        """
        with self._lock:
            self._prune()
            kept = self._kept.get(name)
            if kept is None or kept.header.user != user:
                raise NotFoundError("no check columns of this query are here: unknown, folded already, or given up")
            closed()
            self._forget(name)
            return kept

    def drop(self, owners: set[bytes]) -> None:
        """Forget check columns over rows of these owners."""
        with self._lock:
            for name in [name for name, kept in self._kept.items() if kept.owners & owners]:
                self._forget(name)

    def prune(self) -> None:
        """Give up what is too old."""
        with self._lock:
            self._prune()

    def close(self) -> None:
        """Drop all."""
        with self._lock:
            self._kept.clear()
            self._held.clear()

    def _make_room(self, user: bytes, more: int, name: bytes) -> None:
        """Have room for further bytes, or BusyError. Holds the lock.

        A user's own columns give way if nothing came for some seconds, and those of whoever has most to one who has
        less.
        """
        self._prune()
        idle = self._clock() - _IDLE
        mine = [n for n, kept in self._kept.items() if kept.header.user == user and kept.used <= idle and n != name]
        for old in mine:
            if self._held[user] + more > MAX_KEPT_BYTES:
                self._forget(old)
        if self._held[user] + more > MAX_KEPT_BYTES:
            raise BusyError("this user has too many check columns that were not folded; try again later")
        while self._held.total() + more > self._in_all:
            most, held = self._held.most_common(1)[0] if self._held else (user, 0)
            if most == user or held <= self._held[user] + more:
                raise BusyError("too many check columns wait to be folded; try again later")
            self._forget(next(n for n, kept in self._kept.items() if kept.header.user == most))

    def _prune(self) -> None:
        """Holds the lock."""
        until = self._clock() - self._seconds
        for name in [name for name, kept in self._kept.items() if kept.used < until]:
            self._forget(name)

    def _forget(self, name: bytes) -> None:
        """Holds the lock."""
        kept = self._kept.pop(name)
        self._held[kept.header.user] -= kept.size
        self._held += Counter()  # without those who have none


def _size(columns: np.ndarray) -> int:
    return max(columns.nbytes, _LEAST_BYTES)


def folded(kept: _Kept, seed: bytes, params: Params, threads: int | None) -> np.ndarray:
    """Fold the check columns of a query.

    Parameters
    ----------
    kept : of :meth:`KeptColumns.take`
    seed : bytes
        Of the weights, 32 bytes.
    params : Params
        Of the deployment.
    threads : int or None
        Native threads.

    Returns
    -------
    ndarray, shape (c,), dtype of the ring
        This server's part of each column's weighted sum; uniformly random without the other servers'.

    Raises
    ------
    ShapeError, MessageError
        Not all rows of the query were asked for; the seed has another length.
    """
    if len(seed) != SEED_BYTES:
        raise MessageError(f"weights come from a seed of {SEED_BYTES} bytes")
    at, sums = 0, np.zeros(kept.header.checks, params.dtype)
    for first, columns in sorted(kept.blocks.items()):
        if first != at:
            break
        rows = range(first, first + columns.shape[1])
        sums += fold_columns([columns], seed, rows, params, threads=threads)
        at = rows.stop
    if at != kept.rows:
        raise ShapeError("check columns are folded when all rows of the query were asked for, each once")
    return sums
