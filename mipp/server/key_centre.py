"""The key server: 32 bytes per owner, and the same product from keys alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..sharing import Run, batch_schedules, key_server_product, key_server_words
from ..store.views import BatchView, OwnerView
from .plan import Plan
from .server import Server

__all__ = ["KeyCentre"]


class KeyCentre(Server):
    """The key management centre. Stores no share; learns what a cloud learns, and which image keys are asked for.

    Semi-honest; together with one cloud it rebuilds all features of all owners.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._schedules: dict[bytes, tuple[OwnerView, Any]] = {}

    def close(self) -> None:
        super().close()
        self._schedules.clear()

    def _product(self, plan: Plan, column: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
        for part in plan.parts:
            a, b = max(start, part.start), min(stop, part.stop)
            if a < b:
                secret = self._owner_secret(part.view.owner)  # not kept beyond a forget: asks the catalog
                schedules = self._keyed(part, secret[:32])
                into = out[:, a - start : b - start]
                key_server_product(schedules, part.cut(a, b), column, into, threads=self.threads)

    def _keyed(self, part: Any, key: bytes) -> Any:
        """AES schedules of all the owner's batches, cached until these change; a view is a beginning of its base."""
        base = part.view.base
        cached = self._schedules.get(base.owner)
        if cached is None or cached[0] is not base:
            cached = (base, batch_schedules(
                key, [b.id for b in base.batches], [b.dim for b in base.batches], [b.rows for b in base.batches],
                self.config.params.k, threads=self.threads,
            ))  # fmt: skip
            self._schedules[base.owner] = cached
        return cached[1]

    def _drop_caches(self, owners: set[bytes]) -> None:
        for owner in owners:
            self._schedules.pop(owner, None)
        super()._drop_caches(owners)

    def row_words(self, owner: bytes, batch: BatchView) -> Callable[[np.ndarray], np.ndarray]:
        p, key = self.config.params, self._owner_secret(owner)[:32]
        schedules = batch_schedules(key, [batch.id], [batch.dim], [batch.rows], p.k, threads=self.threads)

        def some(rows: np.ndarray) -> np.ndarray:
            first, last = int(rows[0]), int(rows[-1])
            run = Run(np.zeros(1, np.int64), np.array([first]), np.array([last + 1 - first]))
            words = key_server_words(schedules, run, p, batch.dim)
            return words if len(words) == len(rows) else np.ascontiguousarray(words[rows - first])

        return some

    def _image_part(self, owner: bytes) -> bytes:
        return self._owner_secret(owner)[32:]
