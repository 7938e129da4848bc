"""The storage server: one share word per feature, encrypted image files."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from .. import ring
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
        for words, first, ordinals in segments[max(0, bisect_right(segments, start, key=_first) - 1) :]:
            if first >= stop:
                break
            if ordinals is None:
                a, b = max(start - first, 0), min(stop - first, len(words))
                if a < b:
                    at = first - start
                    ring.matmul(words[a:b], column, out=out[:, at + a : at + b], threads=self.threads)
            else:
                # rows that were compacted away have no answer; their positions are dropped with the tombstones
                a, b = np.searchsorted(ordinals, [start - first, stop - first])
                if a < b:
                    out[:, first - start + ordinals[a:b]] = ring.matmul(words[a:b], column, threads=self.threads)

    def _image_part(self, owner: bytes) -> bytes:
        return self._owner_secret(owner)
