"""A cloud: one share word per feature, encrypted image files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..backends import Rows, Segment, StoredFile
from ..errors import IntegrityError
from ..store.files import HEADER_BYTES
from ..store.views import BatchView
from .plan import Plan
from .server import Server

__all__ = ["CloudServer"]


class CloudServer(Server):
    """A cloud: stores one share word for each encoded feature, and encrypted image files.

    Made by :meth:`mipp.Deployment.open`. It is trusted to follow the protocol and not to collude with another server;
    two clouds together rebuild all features, and so do a cloud and the key centre. Alone it learns sizes, the encoding,
    deletions, which user queries over which owners and when, k, and which image files are fetched; no feature, query
    or score.

    Parameters
    ----------
    *args, **options
        Of :class:`~mipp.server.base.ServerBase`: configuration, number, folder and secret keys of this server.

    Examples
    --------
    >>> import tempfile, mipp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 8)) as deployment:
    ...         servers = deployment.servers
    >>> servers[1], servers[1].has_shares
    (CloudServer(server=1), True)
    """

    has_shares = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._loaded: WeakKeyDictionary[Plan, Rows] = WeakKeyDictionary()

    def rows(self, plan: Plan) -> Rows:
        rows = self._loaded.get(plan)
        if rows is None:
            rows = self._loaded[plan] = self.backend.load(_segments(plan), plan.total)
        return rows

    def row_words(self, owner: bytes, batch: BatchView) -> Callable[[np.ndarray], np.ndarray]:
        words, ordinals = batch.words, batch.ordinals
        if words is None:
            raise IntegrityError(f"batch {batch.id.hex()} has no rows at server {self.index}")

        def some(rows: np.ndarray) -> np.ndarray:
            places = rows if ordinals is None else np.searchsorted(ordinals, rows)
            first, last = int(places[0]), int(places[-1])
            return words[first : last + 1] if last - first + 1 == len(places) else words[places]

        return some

    def image_part(self, owner: bytes) -> bytes:
        return self.owner_secret(owner)


def _segments(plan: Plan) -> list[Segment]:
    """A plan's stored rows; batches that lie together are one segment."""
    out: list[Segment] = []
    home: np.ndarray | None = None  # of the last segment, if it may go on
    begin = end = at = 0
    for part in plan.parts:
        for batch, first in zip(part.batches, part.starts.tolist(), strict=False):
            rows = batch.home
            if rows is None:
                raise IntegrityError(f"batch {batch.id.hex()} has no rows here")
            if batch.ordinals is None and rows is home and batch.offset == end:
                out.pop()
            else:
                begin, at = batch.offset, first
            end = batch.offset + batch.stored
            file = part.view.files.get(batch.id)
            stored = None if file is None else StoredFile(*file, HEADER_BYTES)
            out.append(Segment(rows[begin:end], at, batch.ordinals, stored))
            home = rows if batch.ordinals is None else None
    return out
