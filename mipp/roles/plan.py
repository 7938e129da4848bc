"""Which rows a query covers, laid out for one product per server. Public facts only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..errors import AccessDeniedError, ParameterError
from ..sharing import Run
from ..store.views import BatchView, OwnerView

__all__ = ["Part", "Plan"]


class Part:
    """One owner's batches in a plan: answers ``start`` to ``stop`` are its original rows in order."""

    def __init__(self, view: OwnerView, positions: np.ndarray, start: int) -> None:
        self.view = view
        self.batches = [view.batches[i] for i in positions]
        self.rows = view.rows[positions]
        self.starts = np.concatenate([[start], start + np.cumsum(self.rows)])
        self.start, self.stop = start, int(self.starts[-1])
        self._positions = np.ascontiguousarray(positions, np.int64)

    @property
    def run(self) -> Run:
        """All rows, for the key server's product."""
        return Run(self._positions, np.zeros(len(self._positions), np.int64), self.rows)

    def cut(self, start: int, stop: int) -> Run:
        """Those rows whose answers are ``start`` to ``stop``."""
        batches, first, rows = _cut(self.starts, start, stop)
        skip = np.zeros(len(rows), np.int64)
        skip[0] = first
        return Run(self._positions[batches], skip, rows)


class Plan:
    """The batches of a query in canonical order: by owner id, then by the owner's row order.

    ``nonces`` (S, 16), ``rows`` (S,): original row counts; ``live``: positions of live rows among all ``total``, None
    if all are; ``live_total``, ``live_by_owner``: their number.

    Raises
    ------
    AccessDeniedError
        A batch of an owner that is not among ``views``.
    ParameterError
        Batches repeated or out of order.
    """

    def __init__(self, views: list[OwnerView], batches: np.ndarray) -> None:
        everything = np.concatenate([v.ids for v in views])
        if batches.shape == everything.shape and np.array_equal(batches, everything):
            chosen = [np.arange(len(v.ids)) for v in views]
        else:
            chosen = _positions(views, batches)
        self.parts: list[Part] = []
        self.live_by_owner: list[int] = []
        start = 0
        for view, positions in zip(views, chosen, strict=True):
            part = Part(view, positions, start)
            self.parts.append(part)
            self.live_by_owner.append(sum(b.live for b in part.batches))
            start = part.stop
        self.total = start
        self.nonces = np.ascontiguousarray(batches)
        self.rows = np.concatenate([p.rows for p in self.parts])
        self.starts = np.concatenate([[0], np.cumsum(self.rows)])
        self.live: np.ndarray | None = None
        self.live_total = sum(self.live_by_owner)
        if self.live_total != self.total:
            alive = np.ones(self.total, bool)
            for batch, first in self._starts():
                alive[first + batch.tombstones] = False
            self.live = np.flatnonzero(alive)
        self._segments: list[tuple[np.ndarray, int, np.ndarray | None]] | None = None

    def _starts(self) -> list[tuple[BatchView, int]]:
        batches = [b for p in self.parts for b in p.batches]
        return list(zip(batches, self.starts[:-1].tolist(), strict=True))

    def spans(self, rows: range) -> Iterator[tuple[slice, int, int, np.ndarray | None]]:
        """Original rows to multiply for live rows ``rows``, in runs no longer than those.

        (which of ``rows``, first, stop, which of the run's rows are live or None if all are)
        """
        if not rows:
            return
        if self.live is None:
            yield slice(0, len(rows)), rows.start, rows.stop, None
            return
        wanted = self.live[rows.start : rows.stop]
        done = 0
        while done < len(wanted):
            start = int(wanted[done])
            end = int(np.searchsorted(wanted, start + len(rows)))
            some = wanted[done:end] - start
            length = int(some[-1]) + 1
            yield slice(done, end), start, start + length, None if length == len(some) else some
            done = end

    def masks(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Batches of original rows ``start`` to ``stop``: nonces, rows in the range, first row in the first batch."""
        batches, first, rows = _cut(self.starts, start, stop)
        return self.nonces[batches], rows, first

    def segments(self) -> list[tuple[np.ndarray, int, np.ndarray | None]]:
        """(stored words, first answer, ordinals or None) to multiply; batches that lie together are one segment."""
        if self._segments is None:
            out: list[tuple[np.ndarray, int, np.ndarray | None]] = []
            home: np.ndarray | None = None  # of the last segment, if it may go on
            begin = end = at = 0
            for batch, first in self._starts():
                if batch.home is None:
                    raise ParameterError("a key server stores no rows")
                if batch.ordinals is None and batch.home is home and batch.offset == end:
                    out.pop()
                else:
                    begin, at = batch.offset, first
                end = batch.offset + batch.stored
                out.append((batch.home[begin:end], at, batch.ordinals))
                home = batch.home if batch.ordinals is None else None
            self._segments = out
        return self._segments


def _cut(starts: np.ndarray, start: int, stop: int) -> tuple[slice, int, np.ndarray]:
    """Which batches hold rows ``start`` to ``stop``, the first row in the first of them, and how many rows of each."""
    a, b = int(np.searchsorted(starts, start, side="right")) - 1, int(np.searchsorted(starts, stop))
    edges = starts[a : b + 1].copy()
    first = start - int(edges[0])
    edges[0], edges[-1] = start, stop
    return slice(a, b), first, np.diff(edges)


def _positions(views: list[OwnerView], batches: np.ndarray) -> list[np.ndarray]:
    chosen: list[list[int]] = [[] for _ in views]
    current = 0
    for row in batches:
        name = row.tobytes()
        owner = next((i for i, v in enumerate(views) if name in v.index), None)
        if owner is None:
            raise AccessDeniedError("a batch of the query is covered by none of its grants")
        position = views[owner].index[name]
        if owner < current or (chosen[owner] and position <= chosen[owner][-1]):
            raise ParameterError("the query's batches are repeated or not in the order of the index")
        current = owner
        chosen[owner].append(position)
    return [np.array(c, np.int64) for c in chosen]
