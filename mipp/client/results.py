"""What a search gives: hits, the same as arrays, fetched images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import MippError, MissingExtraError
from .index import Index, LeftOut

__all__ = ["FetchedImage", "Hit", "Hits", "LeftOut", "Nearest", "SearchResult"]


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


class Hits(list[Hit]):
    """A list of hits, best first; of a range search in row order.

    ``left_out`` says what the search went on without, ``searched`` among how many rows it was.
    """

    left_out: tuple[LeftOut, ...] = ()
    searched: int = 0

    def to_rows(self) -> list[dict[str, Any]]:
        """The hits as plain values, for a table or a file.

        Returns
        -------
        list of dict
            Of each hit ``rank`` (from 1), ``owner`` (name), ``owner_id`` (hex), ``id`` (``batchhex:row``), ``score``
            and ``value`` (None where the grants give no scores).
        """
        return [
            {
                "rank": rank,
                "owner": hit.owner_name,
                "owner_id": hit.owner.hex(),
                "id": hit.id,
                "score": hit.score,
                "value": hit.value,
            }
            for rank, hit in enumerate(self, 1)
        ]

    def to_pandas(self) -> Any:
        """:meth:`to_rows` as a pandas data frame.

        Returns
        -------
        pandas.DataFrame
            One row for each hit.

        Raises
        ------
        MissingExtraError
            pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingExtraError("a data frame needs pandas: pip install pandas") from None
        columns = ["rank", "owner", "owner_id", "id", "score", "value"]
        return pandas.DataFrame(self.to_rows(), columns=columns)


@dataclass(frozen=True)
class SearchResult:
    """Hits best first, ``seconds`` spent scoring (servers) and ranking (user), and what was left out."""

    hits: Hits
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class FetchedImage:
    """One fetched image, or why it could not be fetched.

    ``name`` is the owner's file name made safe (:func:`mipp.rpc.names.safe_name`): one path component, printable.
    ``content`` holds the file's bytes as the owner added them. With an ``error`` the content is empty.
    ``metadata`` is what the owner added with the image, or None; its texts are the owner's, so make them safe before
    you show them.
    """

    batch: bytes
    row: int
    name: str
    content: bytes
    error: MippError | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Nearest:
    """The k nearest of B queries as arrays, best first.

    ``rows`` (B, k) int64 are row numbers of ``index``; ``scores`` (B, k) int64 and ``values`` (B, k) float64 in the
    metric's unit, or None when the grants do not give them; ``seconds`` as in :class:`SearchResult`, for all queries.

    Where the user ranks and fewer than k rows have scores that the encoding allows, the last places are empty: their
    row is -1, their score one less than the encoding's least, their value that of this score.
    """

    index: Index
    rows: np.ndarray
    scores: np.ndarray | None
    values: np.ndarray | None
    seconds: dict[str, float]

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What the search went on without."""
        return self.index.left_out
