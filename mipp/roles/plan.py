"""Which rows a query covers, laid out for one product per server. Public facts only."""

from __future__ import annotations

import numpy as np

from ..errors import AccessDeniedError, ParameterError
from ..sharing import Run
from ..store.views import BatchView, OwnerView

__all__ = ["Part", "Plan"]

_SMALL = 1 << 20


class Part:
    """One owner's batches in a plan: answers ``start`` to ``stop`` are its original rows in order."""

    def __init__(self, view: OwnerView, positions: np.ndarray, start: int) -> None:
        self.view = view
        self.batches = [view.batches[i] for i in positions]
        self.rows = view.rows[positions]
        self.start, self.stop = start, start + int(self.rows.sum())
        self.run = Run(np.ascontiguousarray(positions, np.int64), np.zeros(len(positions), np.int64), self.rows)


class Plan:
    """The batches of a query in canonical order: by owner id, then by the owner's row order.

    ``nonces`` (S, 16), ``rows`` (S,): original row counts; ``live``: positions of live rows among all, None if all
    are; ``live_by_owner``: their number per owner.

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
        self.live: np.ndarray | None = None
        if sum(self.live_by_owner) != self.total:
            alive = np.ones(self.total, bool)
            for batch, first in self._starts():
                alive[first + batch.tombstones] = False
            self.live = np.flatnonzero(alive)
        self._segments: list[tuple[np.ndarray, int, np.ndarray | None]] | None = None

    def _starts(self) -> list[tuple[BatchView, int]]:
        batches = [b for p in self.parts for b in p.batches]
        return (
            list(zip(batches, np.concatenate([[0], np.cumsum(self.rows)[:-1]]).tolist(), strict=True))
            if batches
            else []
        )

    def segments(self) -> list[tuple[np.ndarray, int, np.ndarray | None]]:
        """(stored words, first answer, ordinals or None) to multiply; neighbouring small batches are made one array."""
        if self._segments is None:
            out: list[tuple[np.ndarray, int, np.ndarray | None]] = []
            waiting: list[np.ndarray] = []
            first_waiting = 0

            def flush() -> None:
                if waiting:
                    out.append((waiting[0] if len(waiting) == 1 else np.concatenate(waiting), first_waiting, None))
                    waiting.clear()

            for batch, first in self._starts():
                words = batch.words
                if words is None:
                    raise ParameterError("a key server stores no rows")
                if batch.ordinals is None and words.nbytes < _SMALL:
                    if not waiting:
                        first_waiting = first
                    waiting.append(words)
                else:
                    flush()
                    out.append((words, first, batch.ordinals))
            flush()
            self._segments = out
        return self._segments


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
