"""Reads the batches of an owner into a view, and keeps it until the owner's catalog rows change."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import NotFoundError
from ..params import Params
from .catalog import Catalog
from .files import FileInfo
from .rows import Place, Wanted, place_rows
from .views import BatchView, OwnerView

__all__ = ["ViewCache"]

_NO_ROWS = np.empty(0, np.int64)
#: a file that could not be read: when it was last tried (modification time, size, inode; None if it is not there)
_Tried = tuple[int, int, int] | None


class ViewCache:
    """Views of all owners of one store.

    Parameters
    ----------
    catalog, folder, params, params_hash, has_shares : of the store
    check : compare a share file's checksum when it is first used
    """

    def __init__(
        self, catalog: Catalog, folder: Path, params: Params, params_hash: bytes, *, has_shares: bool, check: bool
    ) -> None:
        self._catalog, self._folder, self._params, self._hash = catalog, folder, params, params_hash
        self._has_shares, self.check = has_shares, check
        self._lock = threading.Lock()
        self._owner_locks: dict[bytes, threading.RLock] = {}
        self._views: dict[bytes, tuple[int, OwnerView, dict[str, _Tried]]] = {}

    def clear(self) -> None:
        """Drop all views; files are unmapped when nobody uses them any more."""
        self._views.clear()

    def drop(self, owner: bytes) -> None:
        """Drop an owner's view."""
        self._views.pop(owner, None)

    def damaged(self) -> list[tuple[bytes, bytes]]:
        """Owner and id of each batch whose file could not be used when it was last tried."""
        with self._lock:
            known = list(self._views.items())
        return [(owner, b.id) for owner, (_, view, _) in known for b in view.batches if b.problem]

    def view(self, owner: bytes) -> OwnerView:
        """The owner's committed batches, mapped; cached until the owner's catalog rows change.

        A batch whose file is damaged or missing has a ``problem`` and no rows; it is tried again when its file changed.
        """
        if owner not in self._owner_locks:
            self._revision(owner)  # no lock is kept for who is unknown
        with self._lock:
            lock = self._owner_locks.setdefault(owner, threading.RLock())
        with lock:  # reading an owner's files may take long; other owners do not wait
            revision = self._revision(owner)
            cached = self._views.get(owner)
            if cached is not None and cached[0] == revision and all(self._stat(n) == t for n, t in cached[2].items()):
                return cached[1]
            revision, view, tried = self._new_view(owner, cached[1] if cached is not None else None)
            self._views[owner] = revision, view, tried
            return view

    def _revision(self, owner: bytes) -> int:
        row = self._catalog.one("SELECT revision FROM owners WHERE id=? AND forget IS NULL", owner)
        if row is None:
            self._views.pop(owner, None)
            raise NotFoundError(f"unknown or forgotten owner {owner.hex()}")
        return int(row[0])

    def _new_view(self, owner: bytes, old: OwnerView | None) -> tuple[int, OwnerView, dict[str, _Tried]]:
        known: dict[tuple[bytes, int, int], BatchView] = {}
        if old is not None and self._has_shares:
            known = {(b.id, b.generation, b.rebuilt): b for b in old.batches if not b.problem}
        for attempt in range(3):  # a compaction may remove a file between the reading of its name and its use
            with self._catalog.reading() as db:  # one moment
                head = db.execute(
                    "SELECT revision, name, position, view, floor FROM owners WHERE id=? AND forget IS NULL", (owner,)
                ).fetchone()
                rows = db.execute(
                    "SELECT id, rows, dim, generation, tombstones, size, digest, stored, file, position, "
                    "certificate, rebuilt, records FROM batches "
                    "WHERE owner=? ORDER BY position", (owner,),
                ).fetchall()  # fmt: skip
            if head is None:
                raise NotFoundError(f"unknown or forgotten owner {owner.hex()}")
            places: list[Place] = [(None, 0, None, "")] * len(rows)
            files: dict[bytes, tuple[Path, int, bytes]] = {}
            if self._has_shares:
                wanted = [self._wanted(owner, r, known.get((r[0], r[3], r[11]))) for r in rows]
                places[:] = place_rows(wanted, check=self.check)
                files = {w.info.batch: (w.path, w.size, w.digest) for w in wanted if not w.small}
                del wanted
            if attempt == 2 or not any(p[3] for p in places) or self._same_files(owner, rows, places):
                break
        batches, tried = [], {}
        for row, place in zip(rows, places, strict=True):
            batch, count, dim, generation, dead, _, _, _, file, position, certificate, rebuilt, records = row
            gone = np.frombuffer(dead, "<i8").astype(np.int64) if dead else _NO_ROWS
            batches.append(
                BatchView(batch, position, count, dim, generation, gone, *place, certificate, rebuilt, records)
            )
            if place[3]:
                tried[file] = self._stat(file)
        revision, name, position, view, floor = head
        return revision, OwnerView(owner, name, position, view, floor, batches, old, files), tried

    def _same_files(self, owner: bytes, rows: list[tuple[Any, ...]], places: list[Place]) -> bool:
        """Whether files that could not be read are still those that the catalog names."""
        now = dict(self._catalog.all("SELECT id, file FROM batches WHERE owner=?", owner))
        return all(now.get(r[0]) == r[8] for r, p in zip(rows, places, strict=True) if p[3])

    def _stat(self, name: str) -> _Tried:
        try:
            found = (self._folder / name).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _wanted(self, owner: bytes, row: tuple[Any, ...], known: BatchView | None) -> Wanted:
        batch, rows, dim, generation, _, size, digest, stored, file, *_ = row
        width = self._params.padded(dim)
        info = FileInfo(self._hash, owner, batch, self._params.ring_bits, dim, width, generation, rows, stored)
        # a batch that came back without its file (after a restore) has no name
        return Wanted(self._folder / (file or "missing"), info, size, digest, known)
