"""Products in this process, by the native kernels: of stored rows, and of rows that are made from keys."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing

import numpy as np

from .. import pir, ring
from ..io.memory import WINDOW_BYTES, ahead, soon
from ..params import Params
from ..sharing import Run, key_centre_product, key_centre_rows, key_centre_words
from .base import Backend, Keystream, RecordScan, Rows, Segment, ZeroShare

__all__ = ["CpuBackend"]


class CpuBackend(Backend):
    """Products in this process.

    Parameters
    ----------
    params : of the deployment
    threads : native threads for each product, None for all cores
    """

    has_slots = True

    def __init__(self, params: Params, threads: int | None) -> None:
        self._params, self._threads = params, threads

    def load(self, segments: Sequence[Segment], rows: int) -> Rows:
        return _StoredRows(segments, rows, self._params, self._threads)

    def load_keys(self, parts: Sequence[Keystream]) -> Rows:
        return _KeystreamRows(parts, self._params, self._threads)

    def select(
        self, scans: Sequence[RecordScan], keys: Sequence[bytes], rows: int, live: np.ndarray, out: np.ndarray
    ) -> None:
        if not scans:
            return
        selections = np.stack([pir.expand(key, rows=rows, threads=self._threads) for key in keys])
        selections &= live
        for scan in scans:
            pir.scan(scan.records, selections, first_row=scan.first, out=out, threads=self._threads)

    @property
    def reason(self) -> str:
        return ""

    def keep_only(self, files: Callable[[], Iterable[bytes]]) -> None:
        """Nothing is copied."""

    def gauges(self) -> dict[str, tuple[str, dict[str, float]]]:
        return {}

    def close(self) -> None:
        """Nothing runs elsewhere."""


#: deleted rows of clusters whose words are held at a time
_DEAD = 1 << 12


def _first(segment: Segment) -> int:
    return segment.first


class _CpuRows(Rows):
    """Rows whose products are computed here, and masked in place."""

    def __init__(self, params: Params, threads: int | None) -> None:
        self._params, self._threads = params, threads

    def scores(self, query_share: np.ndarray, start: int, stop: int, zero: ZeroShare, out: np.ndarray) -> None:
        self.product(query_share, start, stop, out)
        zero.add(out, start, stop, self._threads)

    def slots(
        self, query_share: np.ndarray, start: int, size: int, dead: np.ndarray, zero: ZeroShare, out: np.ndarray
    ) -> None:
        self.wide(query_share, start, size, dead, out)
        zero.add(out, start, start + out.shape[1], self._threads)

    @abstractmethod
    def wide(self, query_share: np.ndarray, start: int, size: int, dead: np.ndarray, out: np.ndarray) -> None:
        """Write the products of slots alone: they are not masked."""

    @abstractmethod
    def product(self, query_share: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
        """Write the inner products alone: they are not masked."""


def _some(dead: np.ndarray) -> Iterator[np.ndarray]:
    """Deleted rows, so many at a time that their words are little."""
    for first in range(0, len(dead), _DEAD):
        yield dead[first : first + _DEAD]


def _subtract(words: np.ndarray, rows: np.ndarray, query_share: np.ndarray, size: int, out: np.ndarray) -> None:
    """Take rows of slots, numbers ``rows`` with their words, out of products of the slots; in place."""
    slot, inside = np.divmod(rows, size)
    for query, into in zip(query_share.reshape(len(out), size, -1), out, strict=True):
        np.subtract.at(into, slot, (words * query[inside]).sum(axis=1, dtype=out.dtype))


class _StoredRows(_CpuRows):
    """Rows that a cloud stores."""

    def __init__(self, segments: Sequence[Segment], rows: int, params: Params, threads: int | None) -> None:
        super().__init__(params, threads)
        self._segments, self._rows = segments, rows

    def product(self, query_share: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
        pieces = list(self._pieces(start, stop))
        with closing(ahead([words for words, _, _ in pieces])) as read:
            for words, (_, at, places) in zip(read, pieces, strict=True):
                if places is None:
                    ring.matmul(words, query_share, out=out[:, at : at + len(words)], threads=self._threads)
                else:
                    # rows that were compacted away have no score; their places are dropped with the tombstones
                    out[:, places] = ring.matmul(words, query_share, threads=self._threads)
        # users ask for blocks of rows in turn: the disk need not wait for the next one
        soon(words for words, _, _ in self._pieces(stop, min(2 * stop - start, self._rows)))

    def wide(self, query_share: np.ndarray, start: int, size: int, dead: np.ndarray, out: np.ndarray) -> None:
        s = self._segments[bisect_right(self._segments, start, key=_first) - 1]
        stop = start + out.shape[1] * size
        if s.ordinals is None:
            words = s.words[start - s.first : stop - s.first]
            ring.matmul(words.reshape(out.shape[1], -1), query_share, out=out, threads=self._threads)
            for some in _some(dead):
                _subtract(words[some], some, query_share, size, out)
            return
        # rows that were compacted away leave gaps, and slots are whole
        width = s.words.shape[1]
        step = max(1, WINDOW_BYTES // (size * width * s.words.itemsize))
        for first in range(0, out.shape[1], step):
            last = min(first + step, out.shape[1])
            whole = np.zeros(((last - first) * size, width), s.words.dtype)
            base = start + first * size
            a, b = np.searchsorted(s.ordinals, [base - s.first, base + len(whole) - s.first]).tolist()
            whole[s.ordinals[a:b] - (base - s.first)] = s.words[a:b]
            c, d = np.searchsorted(dead, [first * size, last * size]).tolist()
            whole[dead[c:d] - first * size] = 0
            out[:, first:last] = ring.matmul(whole.reshape(last - first, -1), query_share, threads=self._threads)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, int, np.ndarray | None]]:
        """Rows from one number to another, and their first place in the result, or the places of all."""
        for s in self._segments[max(0, bisect_right(self._segments, start, key=_first) - 1) :]:
            if s.first >= stop:
                break
            if s.ordinals is None:
                a, b = max(start - s.first, 0), min(stop - s.first, len(s.words))
            else:
                a, b = np.searchsorted(s.ordinals, [start - s.first, stop - s.first]).tolist()
            step = max(64, WINDOW_BYTES // (s.words.shape[1] * s.words.itemsize) // 64 * 64)
            for at in range(a, b, step):
                end = min(at + step, b)
                places = None if s.ordinals is None else s.ordinals[at:end] + (s.first - start)
                yield s.words[at:end], s.first - start + at, places

    def words(self, dim: int) -> np.ndarray:
        rows = np.zeros((self._rows, dim), self._params.dtype)
        for s in self._segments:
            if s.ordinals is None:
                rows[s.first : s.first + len(s.words)] = s.words[:, :dim]
            else:
                rows[s.first + s.ordinals] = s.words[:, :dim]
        return rows


class _KeystreamRows(_CpuRows):
    """Rows of the key centre: keystream, made while it is multiplied and never stored."""

    def __init__(self, parts: Sequence[Keystream], params: Params, threads: int | None) -> None:
        super().__init__(params, threads)
        self._parts = parts

    def product(self, query_share: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
        for part in self._parts:
            a, b = max(start, part.start), min(stop, part.stop)
            if a < b:
                into = out[:, a - start : b - start]
                key_centre_product(part.schedules(), part.cut(a, b), query_share, into, threads=self._threads)

    def wide(self, query_share: np.ndarray, start: int, size: int, dead: np.ndarray, out: np.ndarray) -> None:
        stop = start + out.shape[1] * size
        part = next(p for p in self._parts if p.start <= start < p.stop)
        run = part.cut(start, stop)
        slots = Run(run.index, run.first_row // size, run.count // size)
        key_centre_product(part.schedules(), slots, query_share, out, threads=self._threads)
        for some in _some(dead):
            rows = Run(np.repeat(run.index, len(some)), run.first_row[0] + some, np.ones(len(some), np.int64))
            words = key_centre_words(part.schedules(), rows, self._params, query_share.shape[1] // size)
            _subtract(words, some, query_share, size, out)

    def words(self, dim: int) -> np.ndarray:
        rows = np.empty((self._parts[-1].stop if self._parts else 0, dim), self._params.dtype)
        for part in self._parts:
            if part.start < part.stop:
                rows[part.start : part.stop] = key_centre_rows(part.schedules(), part.run, self._params, dim)
        return rows
