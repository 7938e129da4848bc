"""Interface of a backend: it loads rows and multiplies them by query shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..sharing import Run

__all__ = ["Backend", "Keystream", "Rows", "Segment"]


@dataclass(frozen=True, eq=False, repr=False)
class Segment:
    """Stored rows that lie together in memory or in a mapped file.

    ``words`` (n, D) are secret; ``first`` is the number of the first row; ``ordinals`` are the numbers of the rows that
    are there, counted from ``first``, or None if all are.
    """

    words: np.ndarray
    first: int
    ordinals: np.ndarray | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Keystream:
    """Rows ``start`` to ``stop``, which are made from one owner's key.

    ``schedules`` gives the AES key schedules of the owner's batches, secret; it is called at each use, since an owner
    may have been forgotten. ``run`` names all rows of this part, ``cut`` those from one number to another.
    """

    schedules: Callable[[], Any]
    start: int
    stop: int
    run: Run
    cut: Callable[[int, int], Run]


class Backend(ABC):
    """Loads the rows of a query where its products run."""

    @abstractmethod
    def load(self, segments: Sequence[Segment], rows: int) -> Rows:
        """Stored rows, in order; ``rows`` with those that are stored no more. Copies nothing."""

    @abstractmethod
    def load_keys(self, parts: Sequence[Keystream]) -> Rows:
        """Rows that are made from keys, in order. Computes nothing."""


class Rows(ABC):
    """The rows that one query covers at one server, numbered in the order of its plan; secret words.

    Row numbers are original ones: deleted rows keep theirs, and what is computed for them is dropped by the caller.
    """

    def __reduce__(self) -> str:
        raise TypeError("rows are secret and do not pickle")

    @abstractmethod
    def product(self, query_share: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
        """Inner products of rows ``start`` to ``stop`` with every query share, modulo the ring.

        Parameters
        ----------
        query_share : (B, D) words
        start, stop : rows
        out : (B, stop - start) words, written; values of rows that are stored no more are not defined
        """

    @abstractmethod
    def words(self, dim: int) -> np.ndarray:
        """The first ``dim`` words of all rows, (rows, dim); rows that are stored no more are zeros."""
