"""Interface of a backend: it loads rows and multiplies them by query shares."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..sharing import Run, add_zero_share

__all__ = ["Backend", "Keystream", "RecordScan", "Rows", "Segment", "Slots", "StoredFile", "ZeroShare"]


@dataclass(frozen=True)
class StoredFile:
    """A file that holds words from byte ``offset`` on, and ends with the SHA-256 of all before; public facts.

    ``digest``: that SHA-256, by which other processes of this server's operator know the file.
    """

    path: Path
    size: int
    digest: bytes
    offset: int


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Segment:
    """Stored rows that lie together in memory or in a mapped file.

    ``words`` (n, D) are secret; ``first`` is the number of the first row; ``ordinals`` are the numbers of the rows that
    are there, counted from ``first``, or None if all are. ``file``: whose words these are, all of them; None for rows
    that lie in this process's memory.
    """

    words: np.ndarray
    first: int
    ordinals: np.ndarray | None = None
    file: StoredFile | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Keystream:
    """Rows ``start`` to ``stop``, which are made from one owner's key.

    ``schedules`` gives the AES key schedules of the owner's batches, secret; it is called at each use, since an owner
    may have been forgotten. ``run`` names all rows of this part, ``cut`` those from one number to another. ``key``
    gives the owner's key itself, secret; ``batches`` the id, dimension and rows of a batch by its number in a run.
    """

    schedules: Callable[[], Any]
    start: int
    stop: int
    run: Run
    cut: Callable[[int, int], Run]
    key: Callable[[], bytes]
    batches: Callable[[int], tuple[bytes, int, int]]


def keys_of(parts: Sequence[Keystream], start: int, stop: int) -> Iterator[tuple[Keystream, int, int]]:
    """Those of ``parts``, in order, that have some of the rows ``start`` to ``stop``, and which of these each has."""
    at = bisect_right(parts, start, key=lambda part: part.stop)
    for part in itertools.takewhile(lambda part: part.start < stop, parts[at:]):
        if part.start < part.stop:
            yield part, max(start, part.start), min(stop, part.stop)


@dataclass(frozen=True, eq=False, repr=False)
class ZeroShare:
    """What masks a server's products (:func:`mipp.sharing.add_zero_share`); ``pair_keys`` are secret.

    ``batches``: nonces, rows, and first row of the first one, of original rows from one number to another.
    """

    server: int
    servers: Sequence[int]
    pair_keys: Mapping[int, bytes]
    header: bytes
    batches: Callable[[int, int], tuple[np.ndarray, np.ndarray, int]]

    def add(self, out: np.ndarray, start: int, stop: int, threads: int | None) -> None:
        """Mask the products of rows ``start`` to ``stop``, in place."""
        nonces, rows, first = self.batches(start, stop)
        add_zero_share(
            out, self.server, self.servers, self.pair_keys, self.header, nonces, rows, first=first, threads=threads
        )


@dataclass(frozen=True, eq=False, repr=False)
class Slots:
    """Slots ``first`` to ``first + count`` of a batch with clusters; public facts.

    A slot is ``size`` rows side by side, which count as one row of as many times the words. ``group`` slots after each
    other are multiplied with the same query shares, those of their group.

    ``start``: number of the first row of slot 0. ``dead``: rows that count as zeros, ascending, from the first here.
    """

    start: int
    size: int
    group: int
    first: int
    count: int
    dead: np.ndarray

    @property
    def rows(self) -> tuple[int, int]:
        """Numbers of the first row here, and of the one after the last."""
        return self.start + self.first * self.size, self.start + (self.first + self.count) * self.size

    @property
    def first_group(self) -> int:
        """Number of the first group here."""
        return self.first // self.group

    @property
    def last_group(self) -> int:
        """Number of the last group here."""
        return (self.first + self.count - 1) // self.group

    def cut(self, first: int, stop: int) -> Slots:
        """Those of slots ``first`` to ``stop`` of the batch."""
        base = (first - self.first) * self.size
        a, b = np.searchsorted(self.dead, [base, base + (stop - first) * self.size]).tolist()
        return Slots(self.start, self.size, self.group, first, stop - first, self.dead[a:b] - base)

    def groups(self) -> Iterator[tuple[int, int]]:
        """The slots of each group that are here, from 0: (first, stop)."""
        for group in range(self.first_group, self.last_group + 1):
            yield max(group * self.group - self.first, 0), min((group + 1) * self.group - self.first, self.count)

    def masked(self) -> Iterator[tuple[int, int]]:
        """Rows whose masks the slots of each group here take, (first, stop): as many, from the group's first row on."""
        for group, (a, b) in enumerate(self.groups(), self.first_group):
            at = self.start + group * self.group * (self.size - 1) + self.first
            yield at + a, at + b


@dataclass(frozen=True, eq=False, repr=False)
class RecordScan:
    """Records (n, R) of the rows of a plan from row ``first`` on; ``file``: whose records these are, all of them."""

    records: np.ndarray
    first: int
    file: StoredFile | None = None


class Backend(ABC):
    """Loads the rows of a query where its products run."""

    @abstractmethod
    def load(self, segments: Sequence[Segment], rows: int) -> Rows:
        """Stored rows, in order; ``rows`` with those that are stored no more. Copies nothing."""

    @abstractmethod
    def load_keys(self, parts: Sequence[Keystream]) -> Rows:
        """Rows that are made from keys, in order. Computes nothing."""

    @abstractmethod
    def select(
        self, scans: Sequence[RecordScan], keys: Sequence[bytes], rows: int, live: np.ndarray, out: np.ndarray
    ) -> None:
        """XOR the records that each key of a private fetch selects into ``out``, (Q, R) bytes.

        Parameters
        ----------
        scans : where records lie
        keys : secret; each is checked, and over ``rows`` rows
        rows : of the plan
        live : 64 bits a word, rows that count
        out : (Q, R) bytes, changed
        """

    @property
    @abstractmethod
    def reason(self) -> str:
        """Why no product can run now, in a sentence without secrets; empty if one can."""

    @abstractmethod
    def keep_only(self, files: Callable[[], Iterable[bytes]]) -> None:
        """Remove copies of files that the server has no more; ``files`` gives the SHA-256 of those that it has."""

    @abstractmethod
    def gauges(self) -> dict[str, tuple[str, dict[str, float]]]:
        """Counts for the operator, by name: a text, and values by worker."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what runs elsewhere."""


class Rows(ABC):
    """The rows that one query covers at one server, numbered in the order of its plan; secret words.

    Row numbers are original ones: deleted rows keep theirs, and what is computed for them is dropped by the caller.
    """

    def __reduce__(self) -> str:
        raise TypeError("rows are secret and do not pickle")

    @abstractmethod
    def scores(
        self, query_share: np.ndarray, runs: Sequence[tuple[int, int]], zero: ZeroShare, out: np.ndarray
    ) -> None:
        """Masked score shares of rows: inner products with each query share, and the zero share.

        Parameters
        ----------
        query_share : (B, D) words
        runs : rows, (first, stop) of each run; their scores follow each other
        zero : masks them
        out : (B, rows of all runs) words, written; values of rows that are stored no more are not defined
        """

    @abstractmethod
    def slots(self, query_shares: np.ndarray, given: Sequence[Slots], zero: ZeroShare, out: np.ndarray) -> None:
        """Masked score shares of slots.

        Parameters
        ----------
        query_shares : (B, groups, size * D) words, one of each group
        given : slots of several batches, which have the same groups; their scores follow each other
        zero : masks them, as rows (:meth:`Slots.masked`)
        out : (B, slots of all) words, written
        """

    @abstractmethod
    def words(self, dim: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The first ``dim`` words of rows ``start`` to ``stop``, by default of all, (rows, dim).

        Rows that are stored no more are zeros.
        """
