"""Results of several searches as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .frames import frame
from .index import Index, LeftOut

__all__ = ["Nearest"]


@dataclass(frozen=True, repr=False)
class Nearest:
    """The k nearest of B queries as arrays, best first.

    Where the user ranks and fewer than k rows have scores that the encoding allows, the last places are empty: their
    row is -1, their score one less than the encoding's least, their value that of this score.

    Parameters
    ----------
    index : Index
        The state that was searched; ``index.locate(rows)`` gives batches and rows in them.
    rows : ndarray of int64, (B, k)
        Row numbers of ``index``.
    scores : ndarray of int64, (B, k), or None
        Exact scores; None if the grants give none.
    values : ndarray of float64, (B, k), or None
        Scores in the metric's unit.
    seconds : dict of str to float
        As in :class:`~mipp.SearchResult`, for all queries.
    unverified : str
        Why the servers' answers were not checked; empty if they were, and passed.
    clustered : int or None
        As in :class:`~mipp.SearchResult`.
    """

    index: Index
    rows: np.ndarray
    scores: np.ndarray | None
    values: np.ndarray | None
    seconds: dict[str, float]
    unverified: str = ""
    clustered: int | None = None

    def __repr__(self) -> str:
        """Sizes alone: rows and scores are secret."""
        return f"Nearest({len(self.rows)} queries, {self.rows.shape[1]} nearest of {self.index.total} rows)"

    def to_pandas(self) -> Any:
        """Make a pandas data frame of all results (extra ``notebook``); empty places are left out.

        Returns
        -------
        pandas.DataFrame
            Columns ``query`` (from 0), ``rank`` (from 1), ``id`` (``batchhex:row``), ``owner`` (name), ``score`` and
            ``value`` (None where the grants give no scores). Secret.

        Raises
        ------
        MissingExtraError
            pandas is not installed.
        """
        query, place = np.nonzero(self.rows >= 0)
        batch, row = self.index.locate(self.rows[query, place])
        ids = [found.tobytes().hex() for found in self.index.batches]
        owners = [self.index.owners[int(number)].name for number in self.index.owner_of_batch]
        columns = {
            "query": query,
            "rank": place + 1,
            "id": [f"{ids[b]}:{r}" for b, r in zip(batch, row, strict=True)],
            "owner": [owners[b] for b in batch],
            "score": None if self.scores is None else self.scores[query, place],
            "value": None if self.values is None else self.values[query, place],
        }
        return frame(columns, tuple(columns))

    @property
    def verified(self) -> bool:
        """Whether the servers' answers were checked, and passed."""
        return not self.unverified

    @property
    def suspects(self) -> tuple[int, ...]:
        """Servers of which one answered wrongly before others' answers passed (:attr:`mipp.SearchResult.suspects`)."""
        return self.index.suspects

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Batches and owners that the search went on without, and why."""
        return self.index.left_out
