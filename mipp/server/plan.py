"""Which rows a query covers, laid out for one product per server. Public facts only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..encoding.clusters import Clusters
from ..errors import AccessDeniedError, IntegrityError, ParameterError
from ..mpc.probed import ProbedRows
from ..sharing import Run
from ..store.views import BatchView, OwnerView

__all__ = ["Part", "Plan"]

#: live rows whose scores are computed together and copied, where there are deleted ones among them
_COPIED_ROWS = 1 << 22


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
        """All rows, for the key centre's product."""
        return Run(self._positions, np.zeros(len(self._positions), np.int64), self.rows)

    def cut(self, start: int, stop: int) -> Run:
        """Those rows whose answers are ``start`` to ``stop``."""
        batches, first, rows = _cut(self.starts, start, stop)
        skip = np.zeros(len(rows), np.int64)
        skip[0] = first
        return Run(self._positions[batches], skip, rows)


class Plan:
    """The batches of a query in canonical order: by owner id, then by the owner's row order.

    ``nonces`` (S, 16): what zero shares name the batches by. ``rows`` (S,): original row counts, ``total`` of them;
    ``live_total``, ``live_by_owner``: how many are live. Memory grows with the number of batches and deletions, not
    with rows.

    Parameters
    ----------
    views : of the owners, in order
    batches, counts : (S, 16) batch ids, the first ``counts[0]`` of the first owner, and so on; default all of one owner
    server : number of this server, for errors

    Raises
    ------
    AccessDeniedError
        A batch that its owner does not have.
    ParameterError
        Batches repeated or out of order.
    IntegrityError
        A batch that is damaged at this server; it is named, and its owner.
    """

    def __init__(
        self, views: list[OwnerView], batches: np.ndarray, counts: list[int] | None = None, server: int = 0
    ) -> None:
        chosen, at = [], 0
        for view, count in zip(views, counts if counts is not None else [len(batches)], strict=True):
            some = batches[at : at + count]
            whole = some.shape == view.ids.shape and np.array_equal(some, view.ids)
            chosen.append(np.arange(count) if whole else _positions(view, some))
            at += count
        self.parts: list[Part] = []
        self.live_by_owner: list[int] = []
        start = 0
        for view, positions in zip(views, chosen, strict=True):
            part = Part(view, positions, start)
            for batch in part.batches:
                if batch.problem:
                    raise IntegrityError(
                        f"batch {batch.id.hex()} of owner {view.name} is damaged at server {server}: {batch.problem}"
                    )
            self.parts.append(part)
            self.live_by_owner.append(sum(b.live for b in part.batches))
            start = part.stop
        self.total = start
        self.nonces = np.concatenate([v.masks[p] for v, p in zip(views, chosen, strict=True)])
        self.rows = np.concatenate([p.rows for p in self.parts])
        self.starts = np.concatenate([[0], np.cumsum(self.rows)])
        self.live_total = sum(self.live_by_owner)
        dead = [first + batch.tombstones for batch, first in self.placed() if len(batch.tombstones)]
        #: original positions of deleted rows, in order, and how many live rows are before each
        self._dead = np.concatenate(dead) if dead else np.empty(0, np.int64)
        self._live_before = self._dead - np.arange(len(self._dead))
        self._certified = False
        self._probed: ProbedRows | None = None
        self._sure: dict[int, int] = {}

    def probed(self, clusters: Clusters) -> ProbedRows:
        """The scores of a query that chooses clusters of this server's index; kept for the next one."""
        if self._probed is None:
            self._probed = ProbedRows(clusters, self.rows.tolist(), self._dead)
        return self._probed

    def sure_rows(self, clusters: Clusters, owner: int) -> int:
        """Live rows of the owner of this number that a query of chosen clusters covers, whatever it chooses."""
        if owner not in self._sure:
            part = self.parts[owner]
            a, b = np.searchsorted(self._dead, [part.start, part.stop])
            dead = self._dead[a:b] - part.start
            self._sure[owner] = ProbedRows(clusters, part.rows.tolist(), dead).least_live
        return self._sure[owner]

    def certified(self) -> bool:
        """Whether the servers have found all rows in range. They stay so, and blocks of a query ask one by one."""
        self._certified = self._certified or all(batch.certified for part in self.parts for batch in part.batches)
        return self._certified

    def require_certified(self, server: int) -> None:
        """IntegrityError, which names it, for a batch whose rows the servers have not found in range."""
        for part in self.parts:
            for batch in part.batches:
                if not batch.certified:
                    raise IntegrityError(
                        f"batch {batch.id.hex()} of owner {part.view.name} cannot be ranked at server {server}: "
                        f"{batch.unranked}"
                    )

    def placed(self) -> list[tuple[BatchView, int]]:
        """The batches in order, and the number of the first row of each."""
        batches = [b for p in self.parts for b in p.batches]
        return list(zip(batches, self.starts[:-1].tolist(), strict=True))

    def spans(self, rows: range) -> Iterator[tuple[slice, int, int, np.ndarray | None]]:
        """Original rows to multiply for live rows ``rows``, in runs no longer than those.

        Where rows are deleted, a run has a limit, too: its scores are copied.

        (which of ``rows``, first, stop, which of the run's rows are live or None if all are)
        """
        if not rows:
            return
        if not len(self._dead):
            yield slice(0, len(rows)), rows.start, rows.stop, None
            return
        for first in range(rows.start, rows.stop, _COPIED_ROWS):
            part = range(first, min(first + _COPIED_ROWS, rows.stop))
            wanted, before, done = self._originals(part), first - rows.start, 0
            while done < len(wanted):
                start = int(wanted[done])
                end = int(np.searchsorted(wanted, start + len(part)))
                some = wanted[done:end] - start
                length = int(some[-1]) + 1
                yield slice(before + done, before + end), start, start + length, None if length == len(some) else some
                done = end

    @property
    def live(self) -> np.ndarray | None:
        """Original positions of all live rows, None if all are."""
        return self._originals(range(self.live_total)) if len(self._dead) else None

    def _originals(self, rows: range) -> np.ndarray:
        """Original positions of live rows ``rows``. Made when they are needed: a word a row is much to keep."""
        if not rows:
            return np.empty(0, np.int64)
        ends = np.array([rows.start, rows.stop - 1])
        start, last = (ends + np.searchsorted(self._live_before, ends, side="right")).tolist()
        a, b = np.searchsorted(self._dead, [start, last])
        alive = np.ones(last + 1 - start, bool)
        alive[self._dead[a:b] - start] = False
        return start + np.flatnonzero(alive)

    def masks(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Batches of original rows ``start`` to ``stop``: nonces, rows in the range, first row in the first batch."""
        batches, first, rows = _cut(self.starts, start, stop)
        return self.nonces[batches], rows, first


def _cut(starts: np.ndarray, start: int, stop: int) -> tuple[slice, int, np.ndarray]:
    """Which batches hold rows ``start`` to ``stop``, the first row in the first of them, and how many rows of each."""
    a, b = int(np.searchsorted(starts, start, side="right")) - 1, int(np.searchsorted(starts, stop))
    edges = starts[a : b + 1].copy()
    first = start - int(edges[0])
    edges[0], edges[-1] = start, stop
    return slice(a, b), first, np.diff(edges)


def _positions(view: OwnerView, batches: np.ndarray) -> np.ndarray:
    """Places of some of an owner's batches."""
    chosen: list[int] = []
    for row in batches:
        position = view.index.get(row.tobytes())
        if position is None:
            raise AccessDeniedError("a batch of the query is covered by none of its grants")
        if chosen and position <= chosen[-1]:
            raise ParameterError("the query's batches are repeated or not in the order of the index")
        chosen.append(position)
    return np.array(chosen, np.int64)
