"""The storage server: one share word per feature, encrypted image files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing

import numpy as np

from .. import ring
from ..errors import IntegrityError
from ..store.memory import WINDOW_BYTES, ahead
from ..store.views import BatchView
from .plan import Plan
from .server import Server

__all__ = ["CloudServer"]


def _first(segment: tuple[np.ndarray, int, np.ndarray | None]) -> int:
    return segment[1]


class CloudServer(Server):
    """A cloud. Semi-honest; not trusted with features, queries or scores, but not to collude with another server.

    Learns sizes, the encoding, deletions, which user queries over which owners and when, k, and which image files are
    fetched. Two clouds together rebuild all features; so do a cloud and the key centre.
    """

    has_shares = True

    def _product(self, plan: Plan, column: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
        segments = plan.segments()
        pieces: list[tuple[np.ndarray, int, np.ndarray | None]] = []  # rows, and their first column, or their columns
        for words, first, ordinals in segments[max(0, bisect_right(segments, start, key=_first) - 1) :]:
            if first >= stop:
                break
            if ordinals is None:
                a, b = max(start - first, 0), min(stop - first, len(words))
            else:
                a, b = np.searchsorted(ordinals, [start - first, stop - first]).tolist()
            step = max(64, WINDOW_BYTES // (words.shape[1] * words.itemsize) // 64 * 64)
            for at in range(a, b, step):
                end = min(at + step, b)
                places = None if ordinals is None else ordinals[at:end] + (first - start)
                pieces.append((words[at:end], first - start + at, places))
        with closing(ahead([words for words, _, _ in pieces])) as read:
            for words, (_, at, places) in zip(read, pieces, strict=True):
                if places is None:
                    ring.matmul(words, column, out=out[:, at : at + len(words)], threads=self.threads)
                else:
                    # rows that were compacted away have no answer; their positions are dropped with the tombstones
                    out[:, places] = ring.matmul(words, column, threads=self.threads)

    def row_words(self, owner: bytes, batch: BatchView) -> Callable[[np.ndarray], np.ndarray]:
        words, ordinals = batch.words, batch.ordinals
        if words is None:
            raise IntegrityError(f"batch {batch.id.hex()} has no rows at server {self.index}")

        def some(rows: np.ndarray) -> np.ndarray:
            places = rows if ordinals is None else np.searchsorted(ordinals, rows)
            first, last = int(places[0]), int(places[-1])
            return words[first : last + 1] if last - first + 1 == len(places) else words[places]

        return some

    def _image_part(self, owner: bytes) -> bytes:
        return self._owner_secret(owner)
