"""Ids of many rows in little memory: runs of rows that follow each other in a batch, not an object a row."""

from __future__ import annotations

import bisect
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from ..rpc.description import DeploymentConfig

__all__ = ["AddedRun", "FileRows", "Places", "RowIds", "batch_rows", "stored_places"]

#: bytes of a batch of vectors for each cloud, about
BATCH_BYTES = 1 << 26
#: the same, at most, where the clusters of an index need larger batches
_CLUSTERED_BYTES = 1 << 28
_MOST_ROWS = 1 << 18
Pair = tuple[bytes, int]


class Places(Sequence[int]):
    """Places of rows that lie in another order, 4 bytes each; equal to others with the same numbers, and hashable.

    Parameters
    ----------
    array : ndarray of uint32, (N,)
        The places; not copied, and never changed from here on. Public.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.client.row_ids import Places
    >>> places = Places(np.array([2, 0, 1], np.uint32))
    >>> places[0], places[1:] == Places(np.array([0, 1], np.uint32)), 3 in places
    (2, True, False)
    """

    __slots__ = ("_array",)

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[int]:
        return iter(self._array.tolist())

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Places: ...
    def __getitem__(self, index: int | slice) -> int | Places:
        return Places(self._array[index]) if isinstance(index, slice) else int(self._array[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._array, dtype)

    def __contains__(self, place: object) -> bool:
        return bool((self._array == place).any())

    def __eq__(self, other: object) -> bool:
        return np.array_equal(self._array, other._array) if isinstance(other, Places) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._array.tobytes())

    def __repr__(self) -> str:
        return f"Places({len(self)} rows)"


Run = tuple[bytes, int, int, Places | None]


def batch_rows(config: DeploymentConfig) -> int:
    """Rows of a batch of many vectors: about 64 MiB of shares and records for each cloud.

    In an index with clusters at least as many as a batch with clusters needs, if that is at most 256 MiB.
    """
    width = config.params.padded(config.encoding.encoded_dim) * config.params.ring_bits // 8 + config.record_bytes
    rows = max(1, min(BATCH_BYTES // width, _MOST_ROWS))
    fewest = 0 if config.clusters is None else config.clusters.fewest_rows
    return max(rows, fewest) if fewest * width <= _CLUSTERED_BYTES else rows


def stored_places(order: np.ndarray) -> Places:
    """Where each row went in a batch that is stored in ``order``."""
    places = np.empty(len(order), np.uint32)
    places[order] = np.arange(len(order), dtype=np.uint32)
    return Places(places)


class RowIds(Sequence[Pair]):
    """Ids of rows, in order: a sequence of (batch id, row) that is made of runs. Public.

    It compares equal to a list of the same pairs. Memory grows with the number of runs, and with rows that lie in
    another order: those of a batch with clusters.

    Parameters
    ----------
    runs : iterable of (bytes, int, int) or (bytes, int, int, Places)
        Batch id of 16 bytes, first row, number of rows from 1; with places, the rows that follow the first one do not
        follow it in the batch: each lies so many rows behind ``first``.

    Examples
    --------
    >>> from mipp.client.row_ids import RowIds
    >>> ids = RowIds([(b"a" * 16, 0, 10**8)]) + RowIds([(b"b" * 16, 5, 2)])
    >>> len(ids), ids[-1][1], [row for batch, row in ids[10**8 - 1 :]]
    (100000002, 6, [99999999, 5, 6])
    """

    def __init__(self, runs: Iterable[tuple[bytes, int, int] | Run] = ()) -> None:
        self._runs: tuple[Run, ...] = tuple(run if len(run) == 4 else (*run, None) for run in runs)
        self._stops: list[int] = []
        for _, _, count, _ in self._runs:
            self._stops.append((self._stops[-1] if self._stops else 0) + count)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs: batch id, first row, number of rows, and the places of rows that lie in another order, or None."""
        return self._runs

    def __len__(self) -> int:
        return self._stops[-1] if self._stops else 0

    def __iter__(self) -> Iterator[Pair]:
        for batch, first, count, places in self._runs:
            for row in range(count) if places is None else places:
                yield batch, first + row

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> RowIds: ...
    def __getitem__(self, index: int | slice) -> Pair | RowIds:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._between(start, stop)
            return RowIds((*self[at], 1) for at in range(start, stop, step))
        at = operator.index(index)
        at += len(self) if at < 0 else 0
        if not 0 <= at < len(self):
            raise IndexError("row of no number here")
        number = bisect.bisect_right(self._stops, at)
        batch, first, count, places = self._runs[number]
        at -= self._stops[number] - count
        return batch, first + (at if places is None else places[at])

    def _between(self, start: int, stop: int) -> RowIds:
        found: list[Run] = []
        for (batch, first, count, places), end in zip(self._runs, self._stops, strict=True):
            low, high = max(start, end - count) - (end - count), min(stop, end) - (end - count)
            if low < high:
                found.append((batch, first + low, high - low, None) if places is None else
                             (batch, first, high - low, places[low:high]))  # fmt: skip
        return RowIds(found)

    def __contains__(self, pair: object) -> bool:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], (int, float, np.integer)):
            return False
        return any(
            batch == pair[0] and (first <= pair[1] < first + count if places is None else pair[1] - first in places)
            for batch, first, count, places in self._runs
        )

    def __add__(self, other: Any) -> Any:
        if isinstance(other, RowIds):
            return RowIds(self._runs + other._runs)
        return [*self, *other] if isinstance(other, list) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return [*other, *self] if isinstance(other, list) else NotImplemented

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, (RowIds, list)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RowIds({len(self)} rows of {len({run[0] for run in self._runs})} batches)"


class AddedRun(NamedTuple):
    """Rows of a file that became rows of a batch.

    ``start``: number of the first in the file. ``batch``, ``first``: id of the batch, and row of the first in it.
    ``rows``: how many. ``places``: how many rows behind ``first`` each lies, where they lie in another order; or None.
    """

    start: int
    batch: bytes
    first: int
    rows: int
    places: Places | None = None

    def id(self, n: int) -> Pair:
        """Id of the n-th row."""
        return self.batch, self.first + (n if self.places is None else self.places[n])


class FileRows(Sequence[tuple[str, Pair]]):
    """Rows of a file that were added: a sequence of (``file:row``, (batch id, row)) that is made of runs.

    Parameters
    ----------
    name : str
        The file. Secret.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        #: what was added, in the order of the file
        self.runs: list[AddedRun] = []

    @property
    def ids(self) -> RowIds:
        """Ids of the rows."""
        return RowIds(run[1:] for run in self.runs)

    def __len__(self) -> int:
        return sum(run.rows for run in self.runs)

    def __iter__(self) -> Iterator[tuple[str, Pair]]:
        for run in self.runs:
            for n in range(run.rows):
                yield f"{self.name}:{run.start + n}", run.id(n)

    @overload
    def __getitem__(self, index: int) -> tuple[str, Pair]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, Pair]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, Pair] | list[tuple[str, Pair]]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = operator.index(index)
        at += len(self) if at < 0 else 0
        for run in self.runs if at >= 0 else ():
            if at < run.rows:
                return f"{self.name}:{run.start + at}", run.id(at)
            at -= run.rows
        raise IndexError("row of no number here")

    def __repr__(self) -> str:
        return f"FileRows({len(self)} rows in {len(self.runs)} runs)"
