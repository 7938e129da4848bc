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
from ..sharing import key_centre_product, key_centre_rows
from .base import Backend, Keystream, RecordScan, Rows, Segment, Slots, ZeroShare, keys_of
from .slots import key_centre_slots, stored_slots

__all__ = ["CpuBackend"]


class CpuBackend(Backend):
    """Products in this process.

    Parameters
    ----------
    params : of the deployment
    threads : native threads for each product, None for all cores
    """

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


def _first(segment: Segment) -> int:
    return segment.first


class _CpuRows(Rows):
    """Rows whose products are computed here, and masked in place."""

    def __init__(self, params: Params, threads: int | None) -> None:
        self._params, self._threads = params, threads

    def scores(
        self, query_share: np.ndarray, runs: Sequence[tuple[int, int]], zero: ZeroShare, out: np.ndarray
    ) -> None:
        at = 0
        for start, stop in runs:
            into = out[:, at : at + stop - start]
            self.product(query_share, start, stop, into)
            zero.add(into, start, stop, self._threads)
            at += stop - start

    def slots(self, query_shares: np.ndarray, given: Sequence[Slots], zero: ZeroShare, out: np.ndarray) -> None:
        shares, at = query_shares.transpose(1, 0, 2), 0
        for some in given:
            into = out[:, at : at + some.count]
            self.wide(some, shares[some.first_group :], into)
            for (first, stop), (row, end) in zip(some.groups(), some.masked(), strict=True):
                zero.add(into[:, first:stop], row, end, self._threads)
            at += some.count

    @abstractmethod
    def product(self, query_share: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
        """Write the inner products alone: they are not masked."""

    @abstractmethod
    def wide(self, slots: Slots, shares: np.ndarray, out: np.ndarray) -> None:
        """Write the products of slots alone: they are not masked. ``shares``: from their first group on."""


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

    def wide(self, slots: Slots, shares: np.ndarray, out: np.ndarray) -> None:
        start, stop = slots.rows
        s = self._segments[bisect_right(self._segments, start, key=_first) - 1]
        a, b = start - s.first, stop - s.first
        ordinals = None
        if s.ordinals is not None:
            c, d = np.searchsorted(s.ordinals, [a, b]).tolist()
            ordinals, a, b = s.ordinals[c:d] - a, c, d
        stored_slots(slots, s.words[a:b], ordinals, shares, out, self._threads)

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

    def words(self, dim: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        stop = self._rows if stop is None else stop
        rows, pieces = np.zeros((stop - start, dim), self._params.dtype), list(self._pieces(start, stop))
        with closing(ahead([words for words, _, _ in pieces])) as read:
            for words, (_, at, places) in zip(read, pieces, strict=True):
                if places is None:
                    rows[at : at + len(words)] = words[:, :dim]
                else:
                    rows[places] = words[:, :dim]
        return rows


class _KeystreamRows(_CpuRows):
    """Rows of the key centre: keystream, made while it is multiplied and never stored."""

    def __init__(self, parts: Sequence[Keystream], params: Params, threads: int | None) -> None:
        super().__init__(params, threads)
        self._parts = parts

    def product(self, query_share: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
        for part, a, b in keys_of(self._parts, start, stop):
            into = out[:, a - start : b - start]
            key_centre_product(part.schedules(), part.cut(a, b), query_share, into, threads=self._threads)

    def wide(self, slots: Slots, shares: np.ndarray, out: np.ndarray) -> None:
        start, stop = slots.rows
        for part, a, b in keys_of(self._parts, start, stop):  # a batch has one owner
            key_centre_slots(slots, part.schedules(), part.cut(a, b), shares, out, self._threads)

    def words(self, dim: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        if stop is None:
            stop = self._parts[-1].stop if self._parts else 0
        rows = np.empty((stop - start, dim), self._params.dtype)
        for part, a, b in keys_of(self._parts, start, stop):
            rows[a - start : b - start] = key_centre_rows(part.schedules(), part.cut(a, b), self._params, dim)
        return rows
