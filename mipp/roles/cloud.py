"""The storage server: one share word per feature, encrypted image files."""

from __future__ import annotations

import numpy as np

from .. import ring
from .plan import Plan
from .server import Server

__all__ = ["CloudServer"]


class CloudServer(Server):
    """A cloud. Semi-honest; not trusted with features, queries or scores, but not to collude with another server.

    Learns sizes, the encoding, deletions, which user queries over which owners and when, k, and which image files are
    fetched. Two clouds together rebuild all features; so do a cloud and the key centre.
    """

    has_shares = True

    def _product(self, plan: Plan, column: np.ndarray) -> np.ndarray:
        out = np.empty((len(column), plan.total), column.dtype)
        for words, first, ordinals in plan.segments():
            if ordinals is None:
                ring.matmul(words, column, out=out[:, first : first + len(words)], threads=self.threads)
            else:
                # rows that were compacted away have no answer; their positions are dropped with the tombstones
                out[:, first + ordinals] = ring.matmul(words, column, threads=self.threads)
        return out

    def _image_part(self, owner: bytes) -> bytes:
        return self._owner_secret(owner)
