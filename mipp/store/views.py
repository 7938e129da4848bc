"""Immutable views of what a server holds of one owner; queries keep theirs while the store goes on."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

__all__ = ["BatchView", "OwnerView", "snapshot_hash"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class BatchView:
    """One committed batch.

    On storage servers ``words`` (stored, D) are rows ``offset`` on of ``home``, which neighbouring batches may share;
    ``ordinals`` if rows were compacted away. On key servers ``home`` is None.
    """

    id: bytes
    rows: int
    dim: int
    generation: int
    tombstones: np.ndarray
    home: np.ndarray | None
    offset: int
    ordinals: np.ndarray | None

    @property
    def stored(self) -> int:
        """Rows that are stored: those that were not compacted away."""
        return self.rows if self.ordinals is None else len(self.ordinals)

    @property
    def words(self) -> np.ndarray | None:
        return None if self.home is None else self.home[self.offset : self.offset + self.stored]

    @property
    def live(self) -> int:
        return self.rows - len(self.tombstones)


class OwnerView:
    """An owner's batches in row order.

    ``hash`` covers batch ids, original row counts, generations and tombstones, so servers with equal hashes answer
    for the same rows.
    """

    def __init__(self, owner: bytes, name: str, batches: list[BatchView]) -> None:
        self.owner, self.name, self.batches = owner, name, batches
        self.ids = np.frombuffer(b"".join(b.id for b in batches), np.uint8).reshape(-1, 16)
        self.rows = np.array([b.rows for b in batches], np.int64)
        self.live = int(self.rows.sum()) - sum(len(b.tombstones) for b in batches)
        digest = hashlib.sha256(b"mipp v1 owner snapshot" + owner)
        for b in batches:
            dead = hashlib.sha256(b.tombstones.tobytes()).digest() if len(b.tombstones) else b""
            digest.update(b.id + b.rows.to_bytes(8, "big") + b.generation.to_bytes(4, "big") + dead.ljust(32, b"\0"))
        self.hash = digest.digest()

    @functools.cached_property
    def index(self) -> dict[bytes, int]:
        """Batch id -> position."""
        return {b.id: i for i, b in enumerate(self.batches)}


def snapshot_hash(owners: list[tuple[bytes, bytes]]) -> bytes:
    """Hash of a snapshot over several owners: their ids and view hashes, sorted by id."""
    return hashlib.sha256(b"mipp v1 snapshot" + b"".join(o + h for o, h in sorted(owners))).digest()
