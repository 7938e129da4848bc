"""Immutable views of one owner's batches at a server; queries keep theirs while the store goes on."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..rpc.records import ORIGIN, moved_hash

__all__ = ["CERTIFICATE_BYTES", "BatchView", "OwnerView", "mask_id"]

#: of a certificate; a refusal is one byte more and a sentence
CERTIFICATE_BYTES = 32


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class BatchView:
    """One committed batch.

    At clouds ``words`` (stored, D) are rows ``offset`` on of ``home``, which neighbouring batches may share;
    ``ordinals`` if rows were compacted away. At the key centre ``home`` is None. ``problem`` says why a batch cannot be
    searched here (its file is damaged or missing), without a path; it is empty for all others. ``certificate``: the
    session in which the servers found all rows in range, or what they refused, or empty. ``rebuilt``: how often
    its file was. ``records``: origins of the rows' records, empty for a batch that came with its own.
    """

    id: bytes
    position: int
    rows: int
    dim: int
    generation: int
    tombstones: np.ndarray
    home: np.ndarray | None
    offset: int
    ordinals: np.ndarray | None
    problem: str = ""
    certificate: bytes = b""
    rebuilt: int = 0
    records: bytes = b""

    @property
    def origins(self) -> np.ndarray | None:
        """Where the records of the rows are (``ORIGIN``); None if the batch came with its own, in the order of rows."""
        return np.frombuffer(self.records, ORIGIN) if self.records else None

    @property
    def certified(self) -> bool:
        """Whether the servers found that all rows keep the encoding's bounds, so that they can rank them."""
        return len(self.certificate) == CERTIFICATE_BYTES

    @property
    def unranked(self) -> str:
        """Why the servers do not rank the batch, or nothing."""
        if self.certified:
            return ""
        if self.certificate:
            return self.certificate[CERTIFICATE_BYTES + 1 :].decode(errors="replace")
        return "the servers have not checked the range of its rows yet"

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
    """An owner's batches in row order, at one position of its chain of changes.

    ``position`` and ``hash`` name the state; servers with equal ones answer for the same rows. ``floor``: the earliest
    position that can still be served (only uploads came after it). ``base``: the view at the head that this was cut
    from, or itself. ``files``: path, size and SHA-256 of batches whose rows are those of a mapped file, by their id.
    """

    def __init__(
        self,
        owner: bytes,
        name: str,
        position: int,
        hash_: bytes,
        floor: int,
        batches: list[BatchView],
        before: OwnerView | None = None,
        files: Mapping[bytes, tuple[Path, int, bytes]] | None = None,
    ) -> None:
        """``before``: an earlier view of the owner; spares work for batches that it begins with, too."""
        self.owner, self.name, self.batches = owner, name, batches
        self.position, self.hash, self.floor = position, hash_, floor
        self.base = self
        self.files = {} if files is None else files
        self.ids = np.frombuffer(b"".join(b.id for b in batches), np.uint8).reshape(-1, 16)
        self.masks = _masks(owner, self.ids, before)
        self.rows = np.array([b.rows for b in batches], np.int64)
        self.positions = np.array([b.position for b in batches], np.int64)
        self._dead = np.array([len(b.tombstones) for b in batches], np.int64)
        self.live = int(self.rows.sum() - self._dead.sum())

    def at(self, position: int, hash_: bytes) -> OwnerView:
        """The first batches, up to ``position``, with today's tombstones."""
        if position == self.position:
            return self
        count = int(np.searchsorted(self.positions, position, side="right"))
        view = copy.copy(self)
        view.__dict__.pop("index", None)  # of the whole
        view.__dict__.pop("moved", None)
        view.position, view.hash, view.batches = position, hash_, self.batches[:count]
        view.ids, view.masks, view.rows = self.ids[:count], self.masks[:count], self.rows[:count]
        view.positions, view._dead = self.positions[:count], self._dead[:count]
        view.live = int(view.rows.sum() - view._dead.sum())
        return view

    @functools.cached_property
    def moved(self) -> bytes:
        """Hash of the origins of records of batches that did not come with their own; empty if there are none."""
        return moved_hash([(b.id, len(b.records), (b.records,)) for b in self.batches if b.records])

    @functools.cached_property
    def index(self) -> dict[bytes, int]:
        """Batch id -> place in ``batches``."""
        return {b.id: i for i, b in enumerate(self.batches)}


def mask_id(owner: bytes, batch: bytes) -> bytes:
    """Name of a batch in zero shares, 16 bytes.

    A batch id alone is chosen by its owner: two owners may have the same from before servers refused
    that, and equal names would give equal masks.
    """
    return hashlib.sha256(b"mipp v2 mask" + owner + batch).digest()[:16]


def _masks(owner: bytes, ids: np.ndarray, before: OwnerView | None) -> np.ndarray:
    """:func:`mask_id` of each batch, (S, 16)."""
    known = 0
    if before is not None:
        most = min(len(ids), len(before.ids))
        differ = (ids[:most] != before.ids[:most]).any(axis=1)
        known = int(differ.argmax()) if differ.any() else most
    raw = b"".join(mask_id(owner, i.tobytes()) for i in ids[known:])
    new = np.frombuffer(raw, np.uint8).reshape(-1, 16)
    return new if before is None or not known else np.concatenate([before.masks[:known], new])
