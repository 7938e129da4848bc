"""The key centre: 32 bytes per owner, and the same product from keys alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import Keystream, Rows
from ..sharing import Run, batch_schedules, key_centre_words
from ..store.views import BatchView, OwnerView
from .plan import Plan
from .server import Server

__all__ = ["KeyCentre"]

#: rows between two that are asked for, up to which those in between are made, too: a range of its own costs more
_GAP = 16


class KeyCentre(Server):
    """The key centre: holds 64 secret bytes for each owner, makes its share words from them, and stores no rows.

    Made by :meth:`mipp.Deployment.open`. It is trusted to follow the protocol and not to collude with a cloud; together
    with one cloud it rebuilds all features of all owners. Alone it learns the same facts as a cloud, and which image
    keys are asked for; no feature, query or score.

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
    >>> servers[3], servers[3].has_shares
    (KeyCentre(server=3), False)
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._schedules: dict[bytes, tuple[OwnerView, Any]] = {}

    def close(self) -> None:
        super().close()
        self._schedules.clear()

    def rows(self, plan: Plan) -> Rows:
        return self.backend.load_keys([
            Keystream(
                functools.partial(self._keyed, part.view), part.start, part.stop, part.run, part.cut,
                functools.partial(self._key, part.view.owner), functools.partial(_facts, part.view),
            )
            for part in plan.parts if part.batches
        ])  # fmt: skip

    def _key(self, owner: bytes) -> bytes:
        """The key of an owner's keystream; not kept beyond a forget: asks the catalog."""
        return self.owner_secret(owner)[:32]

    def _keyed(self, view: OwnerView) -> Any:
        """AES schedules of all the owner's batches, cached until these change; a view is a beginning of its base."""
        key = self._key(view.owner)
        base = view.base
        cached = self._schedules.get(base.owner)
        if cached is None or cached[0] is not base:
            cached = (base, batch_schedules(
                key, [b.id for b in base.batches], [b.dim for b in base.batches], [b.rows for b in base.batches],
                self.config.params.ring_bits, threads=self.threads,
            ))  # fmt: skip
            self._schedules[base.owner] = cached
        return cached[1]

    def drop_caches(self, owners: set[bytes]) -> None:
        for owner in owners:
            self._schedules.pop(owner, None)
        super().drop_caches(owners)

    def row_words(self, owner: bytes, batch: BatchView) -> Callable[[np.ndarray], np.ndarray]:
        p, key = self.config.params, self.owner_secret(owner)[:32]
        schedules = batch_schedules(key, [batch.id], [batch.dim], [batch.rows], p.ring_bits, threads=self.threads)

        def some(rows: np.ndarray) -> np.ndarray:
            # ranges of rows; those between two that are near are made, too
            starts = np.concatenate([[0], np.flatnonzero(np.diff(rows) > _GAP) + 1])
            first, last = rows[starts], rows[np.append(starts[1:], len(rows)) - 1]
            counts = last - first + 1
            words = key_centre_words(schedules, Run(np.zeros(len(first), np.int64), first, counts), p, batch.dim)
            if len(words) == len(rows):
                return words
            before = np.repeat(np.cumsum(counts) - counts - first, np.diff(np.append(starts, len(rows))))
            return np.ascontiguousarray(words[rows + before])

        return some

    def image_part(self, owner: bytes) -> bytes:
        return self.owner_secret(owner)[32:]


def _facts(view: OwnerView, number: int) -> tuple[bytes, int, int]:
    """Id, dimension and rows of a batch of an owner."""
    batch = view.batches[number]
    return batch.id, batch.dim, batch.rows
