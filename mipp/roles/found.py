"""What a user finds: the index it searched, hits, images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import MippError
from ..protocol import messages as m
from ..store.views import snapshot_hash

__all__ = ["FetchedImage", "Hit", "Index", "Nearest", "SearchResult"]


@dataclass(frozen=True)
class Hit:
    """One image found: its id (batch, row), owner, exact integer score, and the score in the metric's unit.

    Score and value are None when the grants do not give them, and for matches of a threshold.
    """

    batch: bytes
    row: int
    owner: bytes
    owner_name: str
    score: int | None
    value: float | None

    @property
    def id(self) -> str:
        """``batchhex:row``"""
        return f"{self.batch.hex()}:{self.row}"


@dataclass(frozen=True)
class SearchResult:
    """Hits best first, and ``seconds`` spent scoring (servers) and ranking (user)."""

    hits: list[Hit]
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FetchedImage:
    """One fetched image, or why it could not be fetched.

    ``name`` is the owner's file name made safe (:func:`mipp.roles.names.safe_name`): one path component, printable.
    ``content`` holds the file's bytes as the owner added them. With an ``error`` the content is empty.
    """

    batch: bytes
    row: int
    name: str
    content: bytes
    error: MippError | None = None


class Index:
    """What a user may search at one moment: owners and batches in row order. Public facts.

    ``total`` live rows are numbered 0 .. total-1: owners by id, an owner's batches by upload, rows by number.
    """

    def __init__(self, hash_: bytes, owners: Sequence[m.OwnerSnapshot]) -> None:
        self.hash = hash_
        self.owners = list(owners)
        self.snapshot = snapshot_hash([(o.owner, o.hash) for o in owners])
        self.batches = np.concatenate([o.batches for o in owners])
        #: whether all grants let server-side ranking give scores
        self.gives_scores = all(o.scores for o in owners)
        self.owner_of_batch = np.repeat(np.arange(len(owners)), [len(o.batches) for o in owners])
        rows = np.concatenate([o.rows for o in owners])
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        alive = None
        batch_base = 0
        for o in owners:
            if len(o.dead_row):
                alive = np.ones(int(self._starts[-1]), bool) if alive is None else alive
                alive[self._starts[batch_base + o.dead_batch] + o.dead_row] = False
            batch_base += len(o.batches)
        self._live = None if alive is None else np.flatnonzero(alive)
        self.total = int(self._starts[-1]) if self._live is None else len(self._live)

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Batch numbers (into ``batches``) and rows of live row numbers."""
        original = positions if self._live is None else self._live[positions]
        batch = np.searchsorted(self._starts, original, side="right") - 1
        return batch, original - self._starts[batch]

    def ids(self) -> list[tuple[bytes, int]]:
        """Ids of all live rows in row order."""
        batch, row = self.locate(np.arange(self.total))
        names = [b.tobytes() for b in self.batches]
        return [(names[b], int(r)) for b, r in zip(batch, row, strict=True)]


@dataclass(frozen=True)
class Nearest:
    """The k nearest of B queries as arrays, best first.

    ``rows`` (B, k) int64 are row numbers of ``index``; ``scores`` (B, k) int64 and ``values`` (B, k) float64 in the
    metric's unit, or None when the grants do not give them; ``seconds`` as in :class:`SearchResult`, for all queries.
    """

    index: Index
    rows: np.ndarray
    scores: np.ndarray | None
    values: np.ndarray | None
    seconds: dict[str, float]
