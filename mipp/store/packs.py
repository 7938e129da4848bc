"""Encrypted image files at one server: which rows have one, reading them, and dropping those of deleted rows.

A row's image stays encrypted under the id that it was uploaded with (its *origin*: batch and row), also when a merge
gives the row a new id. A pack holds the files of one uploaded batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IntegrityError, MippError, NotFoundError, StoreError
from ..params import Params
from .catalog import Catalog
from .files import FileInfo, ImagePack, write_images
from .ledger import Ledger

__all__ = ["Packs"]

_OPEN_PACKS = 256
_NO_ROWS = np.empty(0, np.int64)


class Packs:
    """Image packs of all owners at one cloud; everything is keyed by (owner, batch)."""

    def __init__(
        self, catalog: Catalog, ledger: Ledger, folder: Path, params: Params, params_hash: bytes, check: bool
    ) -> None:
        self.catalog, self.ledger, self.folder = catalog, ledger, folder
        self._params, self._hash, self.check = params, params_hash, check
        self._lock = threading.Lock()
        self._open: dict[str, ImagePack] = {}
        #: what could not be read, by owner and batch
        self.damaged: set[tuple[bytes, bytes]] = set()
        #: of each owner: at which revision, and which packs and rows of them its live rows need
        self._needed: dict[bytes, tuple[int, dict[bytes, np.ndarray]]] = {}
        #: of each owner: at which revision, and the live rows that merged batches have of earlier ones
        self._merged: dict[bytes, tuple[int, dict[bytes, np.ndarray]]] = {}

    def close(self) -> None:
        self._open.clear()

    def info(self, owner: bytes, batch: bytes, rows: int, generation: int) -> FileInfo:
        """Header of a pack's file: it is about images, not about features."""
        return FileInfo(self._hash, owner, batch, self._params.ring_bits, 0, 0, generation, rows, rows)

    def origins(self, owner: bytes, batch: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Image ids (rows, 16) and (rows,) that the batch's images were encrypted under."""
        row = self.catalog.one(
            "SELECT rows, origin_batch, origin_row FROM batches WHERE owner=? AND id=?", owner, batch
        )
        if row is None:
            raise NotFoundError(f"this owner has no batch {batch.hex()}")
        return _origins(batch, *row)

    def image(self, owner: bytes, origin_batch: bytes, origin_row: int) -> np.ndarray:
        """One encrypted image file; NotFoundError if the row came without an image."""
        pack = self._pack(owner, origin_batch)
        file = None if pack is None else pack.file(origin_row)
        if file is None:
            raise NotFoundError(f"no image is stored for row {origin_row} of batch {origin_batch.hex()}")
        return file

    def image_size(self, owner: bytes, origin_batch: bytes, origin_row: int) -> int:
        """Bytes of one encrypted image file, read from its pack's offsets; NotFoundError if there is none."""
        pack = self._pack(owner, origin_batch)
        size = 0 if pack is None else pack.size(origin_row)
        if not size:
            raise NotFoundError(f"no image is stored for row {origin_row} of batch {origin_batch.hex()}")
        return size

    def moved_fits(
        self, owner: bytes, replaces: list[bytes], moved: np.ndarray, origin: tuple[bytes, bytes]
    ) -> bool:  # fmt: skip
        """Whether the rows of a merge keep the images of the rows that they come from."""
        if not origin[1]:
            return False
        ids, numbers = _origins(b"", len(moved), *origin)
        for number, batch in enumerate(replaces):
            of, at = self.origins(owner, batch)
            rows = np.flatnonzero(moved[:, 0] == number)
            old = moved[rows, 1]
            if not np.array_equal(ids[rows], of[old]) or not np.array_equal(numbers[rows], at[old]):
                return False
        return True

    def imaged(
        self, owner: bytes, origin: tuple[bytes, bytes], rows: int, offsets: np.ndarray, replaces: list[bytes]
    ) -> bytes:
        """Which rows of a batch have an image, a bit each; empty if none has. For :meth:`missing`.

        Rows of a merge came with an image if they did in the batches that it replaces, also if it is lost here.
        """
        if not origin[1]:
            has = np.diff(offsets) > 0
        else:
            ids, numbers = _origins(b"", rows, *origin)
            known: set[tuple[bytes, int]] = set()
            for batch in replaces:
                row = self.catalog.one("SELECT rows, imaged FROM batches WHERE owner=? AND id=?", owner, batch)
                if row is not None and row[1]:
                    bits = np.unpackbits(np.frombuffer(row[1], np.uint8), count=row[0]).astype(bool)
                    of, at = self.origins(owner, batch)
                    known |= {(of[i].tobytes(), int(at[i])) for i in np.flatnonzero(bits)}
            has = np.array([(i.tobytes(), int(n)) in known for i, n in zip(ids, numbers, strict=True)], bool)
        return np.packbits(has).tobytes() if has.any() else b""

    def _pack(self, owner: bytes, batch: bytes) -> ImagePack | None:
        row = self.catalog.one(
            "SELECT rows, generation, file, size, digest FROM packs WHERE owner=? AND id=?", owner, batch
        )
        if row is None:
            return None
        rows, generation, name, size, digest = row
        with self._lock:
            pack = self._open.get(name)
        if pack is None:
            try:
                pack = ImagePack(
                    self.folder / name, self.info(owner, batch, rows, generation), size, digest, check=self.check
                )
            except MippError:
                self.damaged.add((owner, batch))
                raise
            with self._lock:
                while len(self._open) >= _OPEN_PACKS:
                    self._open.pop(next(iter(self._open)))
                self._open[name] = pack
        return pack

    # --- images of deleted rows ---------------------------------------------------------------------------------

    def collect(self, owner: bytes) -> None:
        """Rewrite packs without the images of deleted rows; drop packs that no live row needs."""
        with self.catalog.transaction() as db:
            wanted = self._wanted(db, owner)
            packs = db.execute(
                "SELECT id, rows, generation, file, size, digest FROM packs WHERE owner=?", (owner,)
            ).fetchall()
            # a merge that is under way shows images that no visible row needs yet: only what was deleted is in nobody's
            gone = [p for p in packs if p[0] not in wanted]
            db.executemany("DELETE FROM packs WHERE owner=? AND id=?", [(owner, p[0]) for p in gone])
        self.ledger.drop(p[3] for p in gone)
        for batch, rows, generation, name, size, digest in (p for p in packs if p[0] in wanted):
            self._shrink(owner, batch, rows, generation, name, (size, digest), wanted[batch])

    def _wanted(self, db: Any, owner: bytes) -> dict[bytes, set[int]]:
        """Origin rows of the live rows of an owner, by origin batch."""
        wanted: dict[bytes, set[int]] = {}
        for batch, rows, dead, ids, numbers in db.execute(
            "SELECT id, rows, tombstones, origin_batch, origin_row FROM batches WHERE owner=?", (owner,)
        ):
            origin_ids, origin_rows = _origins(batch, rows, ids, numbers)
            for i in np.setdiff1d(np.arange(rows), np.frombuffer(dead, "<i8")):
                wanted.setdefault(origin_ids[i].tobytes(), set()).add(int(origin_rows[i]))
        return wanted

    def _shrink(
        self, owner: bytes, batch: bytes, rows: int, generation: int, name: str, file: tuple[int, bytes], keep: set[int]
    ) -> None:
        try:
            pack = ImagePack(self.folder / name, self.info(owner, batch, rows, generation), *file, check=self.check)
        except (IntegrityError, StoreError):  # whoever fetches from it hears of it; other packs are rewritten
            self.damaged.add((owner, batch))
            return
        files = [pack.file(i) if i in keep else None for i in range(rows)]
        sizes = [0 if f is None else len(f) for f in files]
        if sum(sizes) == int(pack.offsets[-1]):
            return
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype("<i8")
        new = self.ledger.attempt_name("images", owner, f"{batch.hex()}.{generation + 1}")
        with self.ledger.attempt(owner, [new]):
            written = write_images(
                self.folder / new, self.info(owner, batch, rows, generation + 1), offsets,
                [f for f in files if f is not None],
            )  # fmt: skip
            with self.catalog.transaction() as db:
                done = db.execute(
                    "UPDATE packs SET generation=?, file=?, size=?, digest=? WHERE owner=? AND id=? AND file=?",
                    (generation + 1, new, *written, owner, batch, name),
                ).rowcount
                if not done:
                    raise StoreError("the images were rewritten meanwhile")
                self.ledger.keep(db, [new])
        self.ledger.drop([name])

    def needed(self, owner: bytes) -> dict[bytes, np.ndarray]:
        """Packs that live rows with images need, by the id of the batch that brought them: which rows of each."""
        return self._kept(self._needed, owner, lambda: ((of[r], at[r]) for _, r, of, at in self.live_images(owner)))

    def merged(self, owner: bytes, origin_batch: bytes) -> np.ndarray:
        """Rows of a batch, as it was uploaded, that are live in batches that it was merged into; in any order.

        The first call after a change of the owner goes over all merged rows, the others look one batch up.
        """
        return self._kept(self._merged, owner, lambda: self._live_merged(owner)).get(origin_batch, _NO_ROWS)

    def _live_merged(self, owner: bytes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Origins of the live rows of each batch that was made by a merge."""
        for rows, dead, ids, numbers in self.catalog.all(
            "SELECT rows, tombstones, origin_batch, origin_row FROM batches WHERE owner=? AND origin_row<>x''", owner
        ):
            of, at = _origins(b"", rows, ids, numbers)
            alive = np.ones(rows, bool)
            alive[np.frombuffer(dead, "<i8")] = False
            yield of[alive], at[alive]

    def _kept(
        self, kept: dict[bytes, tuple[int, dict[bytes, np.ndarray]]], owner: bytes,
        origins: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]],
    ) -> dict[bytes, np.ndarray]:  # fmt: skip
        """Rows by the batch that they came with, of an owner's state of now; kept until that changes."""
        revision = self.catalog.one("SELECT revision FROM owners WHERE id=? AND forget IS NULL", owner)
        if revision is None:
            return {}
        cached = kept.get(owner)
        if cached is None or cached[0] != revision[0]:
            cached = kept[owner] = revision[0], _by_batch(origins())
        return cached[1]

    def live_images(self, owner: bytes) -> Iterator[tuple[bytes, np.ndarray, np.ndarray, np.ndarray]]:
        """Batches with live rows that came with images: id, these rows, and origins of all rows (:func:`_origins`)."""
        for batch, rows, dead, imaged, ids, numbers in self.catalog.all(
            "SELECT id, rows, tombstones, imaged, origin_batch, origin_row FROM batches WHERE owner=? AND imaged<>x''",
            owner,
        ):
            has = np.unpackbits(np.frombuffer(imaged, np.uint8), count=rows).astype(bool)
            has[np.frombuffer(dead, "<i8")] = False
            if has.any():
                yield (batch, np.flatnonzero(has), *_origins(batch, rows, ids, numbers))

    def images_of(
        self, owner: bytes, batch: bytes, dead: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """Rows of a batch that came with images, but for ``dead`` ones, and origins of all rows.

        NotFoundError if the owner has no such batch any more.
        """
        row = self.catalog.one(
            "SELECT rows, imaged, origin_batch, origin_row FROM batches WHERE owner=? AND id=?", owner, batch
        )
        if row is None:
            raise NotFoundError(f"this owner has no batch {batch.hex()}")
        rows, imaged, ids, numbers = row
        has = np.unpackbits(np.frombuffer(imaged, np.uint8), count=rows if imaged else 0).astype(bool)
        if len(has):
            has[dead] = False
        return (np.flatnonzero(has), *_origins(batch, rows, ids, numbers))

    def whole(self, owner: bytes, batch: bytes) -> tuple[int, ImagePack]:
        """Rows and content of a pack; NotFoundError if it is not here."""
        row = self.catalog.one("SELECT rows FROM packs WHERE owner=? AND id=?", owner, batch)
        pack = self._pack(owner, batch)
        if row is None or pack is None:
            raise NotFoundError(f"the images of batch {batch.hex()} are not here")
        return row[0], pack

    def missing(self, owner: bytes) -> list[str]:
        """Live rows whose image is not here any more, though they came with one; a line each batch."""
        problems = []
        for batch, rows, origin_ids, origin_rows in self.live_images(owner):
            lost = 0
            for i in rows:
                try:
                    self.image(owner, origin_ids[i].tobytes(), int(origin_rows[i]))
                except NotFoundError:
                    lost += 1
                except (StoreError, ValueError):
                    pass  # a damaged pack is a problem of its own
            if lost:
                problems.append(f"batch {batch.hex()} of owner {owner.hex()}: images of {lost} rows are missing")
        return problems


def _origins(batch: bytes, rows: int, ids: bytes, numbers: bytes) -> tuple[np.ndarray, np.ndarray]:
    if numbers:
        return np.frombuffer(ids, np.uint8).reshape(-1, 16), np.frombuffer(numbers, "<i8").astype(np.int64)
    return np.broadcast_to(np.frombuffer(batch, np.uint8), (rows, 16)), np.arange(rows, dtype=np.int64)


def _by_batch(origins: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[bytes, np.ndarray]:
    """Numbers of rows by the id of their batch, from arrays of ids (n, 16) and of numbers (n,)."""
    found: dict[bytes, list[np.ndarray]] = {}
    for of, at in origins:
        if not len(of):
            continue
        if (of == of[0]).all():  # nearly always: they came with this batch. Sorting takes long
            found.setdefault(of[0].tobytes(), []).append(at)
            continue
        names, which = np.unique(np.ascontiguousarray(of).view("V16")[:, 0], return_inverse=True)
        order = np.argsort(which, kind="stable")
        for name, some in zip(names, np.split(at[order], np.cumsum(np.bincount(which))[:-1]), strict=True):
            found.setdefault(name.tobytes(), []).append(some)
    return {name: np.concatenate(parts) for name, parts in found.items()}
