"""Records of rows at one server: where each row's is, packs of them, and dropping those that no live row needs.

A row's record has an *origin*: a pack and a place in it. A batch that came with records is its own pack; a merge keeps
the origins of its rows, so that no record is sent again; an annotation writes a new pack and points its rows there. The
key centre has the same origins, and of packs their albums and hashes, but no records.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConflictError, IntegrityError, LimitError, MippError, NotFoundError, StoreError
from ..params import Params
from ..rpc.limits import MAX_ALBUMS
from ..rpc.records import ALBUM_BYTES, ORIGIN, record_hashes, record_pack_hash, unpack_places
from .catalog import Catalog
from .files import FileInfo, RecordPack, write_records
from .ledger import Ledger

__all__ = ["RecordPacks"]

_OPEN_PACKS = 64
_NONE = bytes(16)


class RecordPacks:
    """Record packs of all owners at one server; everything is keyed by (owner, pack).

    Parameters
    ----------
    catalog, ledger, folder, params, params_hash, check : of the store
    has_files : cloud (True) or key centre
    record_bytes : size of a record in this deployment
    """

    def __init__(
        self, catalog: Catalog, ledger: Ledger, folder: Path, params: Params, params_hash: bytes, check: bool, *,
        has_files: bool, record_bytes: int,
    ) -> None:  # fmt: skip
        self._catalog, self._ledger, self._folder = catalog, ledger, folder
        self._params, self._hash, self._check = params, params_hash, check
        self._has_files, self.record_bytes = has_files, record_bytes
        self._lock = threading.Lock()
        self._open: dict[str, RecordPack] = {}
        #: of each owner: at which revision, and :meth:`needed`
        self._kept: dict[bytes, tuple[Any, dict[bytes, np.ndarray]]] = {}
        #: what could not be read, by owner and pack
        self.damaged: set[tuple[bytes, bytes]] = set()

    def close(self) -> None:
        self._open.clear()

    def drop(self, names: Iterable[str]) -> None:
        """Remove files of packs that are no longer named; open ones, too, would keep their room on the disk."""
        gone = [name for name in names if name]
        with self._lock:
            for name in gone:
                self._open.pop(name, None)
        self._ledger.drop(gone)

    def info(self, owner: bytes, pack: bytes, rows: int, generation: int, stored: int) -> FileInfo:
        """Header of a pack's file."""
        k, size = self._params.ring_bits, self.record_bytes
        return FileInfo(self._hash, owner, pack, k, 0, size, generation, rows, stored)

    # --- changes ------------------------------------------------------------------------------------------------

    def writer(
        self, owner: bytes, pack: bytes, records: np.ndarray, hashes: np.ndarray
    ) -> Callable[[Path], tuple[int, bytes]]:
        """Function that writes the file of a new pack."""
        info = self.info(owner, pack, len(records), 0, len(records))
        return lambda path: write_records(path, info, [records, hashes])

    def add(self, db: Any, owner: bytes, op: bytes, rows: int, record: dict[str, Any]) -> None:
        """Inside the transaction that shows a change: its pack is there."""
        if not record.get("record_hash"):
            return
        file = record.get("records") or {"file": "", "size": 0, "digest": b""}
        db.execute(
            "INSERT OR IGNORE INTO record_packs VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
            (owner, op, rows, record["album"], record["record_hash"], rows, file["file"], file["size"], file["digest"]),
        )

    def merged(self, db: Any, owner: bytes, replaces: list[bytes], moved: bytes) -> bytes:
        """Inside a transaction: origins of the records of a merge's rows, which come from the batches it replaces."""
        pairs = np.frombuffer(moved, "<i8").reshape(-1, 2)
        found = np.zeros(len(pairs), ORIGIN)
        for number, batch in enumerate(replaces):
            of = self._origins(db, owner, batch)
            rows = np.flatnonzero(pairs[:, 0] == number)
            found[rows] = of[pairs[rows, 1]]
        return found.tobytes() if found["pack"].any() else b""

    def annotate(self, db: Any, owner: bytes, op: bytes, places: bytes) -> None:
        """Inside the transaction that shows an annotation: its rows have their records in its pack."""
        at = 0
        for batch, rows in unpack_places(places).items():
            found = self._origins(db, owner, batch)
            found["pack"][rows] = np.frombuffer(op, np.uint8)
            found["place"][rows] = np.arange(at, at + len(rows))
            at += len(rows)
            db.execute("UPDATE batches SET records=? WHERE owner=? AND id=?", (found.tobytes(), owner, batch))

    def _origins(self, db: Any, owner: bytes, batch: bytes) -> np.ndarray:
        """Origins of the records of a batch's rows; NotFoundError if there is no such batch."""
        row = db.execute(
            "SELECT b.rows, b.records, p.id FROM batches b "
            "LEFT JOIN record_packs p ON p.owner = b.owner AND p.id = b.id WHERE b.owner=? AND b.id=?", (owner, batch),
        ).fetchone()  # fmt: skip
        if row is None:
            raise NotFoundError(f"this owner has no batch {batch.hex()}")
        return _unpacked(batch, row[0], row[1], own=row[2] is not None)

    # --- reading ------------------------------------------------------------------------------------------------

    def places(self, owner: bytes, batch: bytes, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Packs (n, 16), places (n,) and albums (n, 32) of rows' records; zeros for rows without one."""
        with self._catalog.reading() as db:  # one moment
            origins = self._origins(db, owner, batch)
            if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(origins):
                raise NotFoundError(f"batch {batch.hex()} has rows 0 to {len(origins) - 1}")
            row = db.execute("SELECT tombstones FROM batches WHERE owner=? AND id=?", (owner, batch)).fetchone()
            if np.isin(rows, np.frombuffer(row[0], "<i8")).any():
                raise NotFoundError(f"a row of batch {batch.hex()} was deleted")
            found = origins[rows]
            packs = [name.tobytes() for name in found["pack"]]
            none = bytes(ALBUM_BYTES)
            albums = {_NONE: none}
            for name in set(packs) - {_NONE}:
                row = db.execute("SELECT album FROM record_packs WHERE owner=? AND id=?", (owner, name)).fetchone()
                albums[name] = row[0] if row else none
        raw = b"".join(packs), b"".join(albums[name] for name in packs)
        ids = np.frombuffer(raw[0], np.uint8).reshape(-1, 16)
        of = np.frombuffer(raw[1], np.uint8).reshape(-1, ALBUM_BYTES)
        return ids, found["place"].astype("<i8"), of

    def read(self, owner: bytes, packs: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Records (n, record_bytes) by pack (n, 16) and place; NotFoundError for one that is not here."""
        out = np.empty((len(places), self.record_bytes), np.uint8)
        names = [name.tobytes() for name in packs]
        for name in set(names):
            rows = np.array([i for i, other in enumerate(names) if other == name])
            pack = self.pack(owner, name)
            at = pack.stored_at(places[rows])
            if (at < 0).any():
                raise NotFoundError(f"a record of pack {name.hex()} is not here; rows that are deleted have none")
            out[rows] = pack.records[at]
        return out

    def pack(self, owner: bytes, pack: bytes) -> RecordPack:
        """An open pack; NotFoundError, or IntegrityError if its file is damaged or missing."""
        row = self._catalog.one(
            "SELECT rows, generation, stored, file, size, digest FROM record_packs WHERE owner=? AND id=?", owner, pack
        )
        if row is None or not self._has_files:
            raise NotFoundError(f"this owner has no records of change {pack.hex()} here")
        rows, generation, stored, name, size, digest = row
        with self._lock:
            known = self._open.get(name)
        if known is not None:
            return known
        try:
            if not name:
                raise IntegrityError(f"the records of change {pack.hex()} are not here; they come from another cloud")
            info = self.info(owner, pack, rows, generation, stored)
            opened = RecordPack(self._folder / name, info, size, digest, check=self._check)
        except MippError:
            self.damaged.add((owner, pack))
            raise
        with self._lock:
            while len(self._open) >= _OPEN_PACKS:
                self._open.pop(next(iter(self._open)))
            self._open[name] = opened
        return opened

    def read_ahead(self) -> None:
        """Open, and check, the packs that live rows need, as far as they stay open; damaged ones are noted."""
        for (owner,) in self._catalog.all("SELECT id FROM owners WHERE forget IS NULL ORDER BY id"):
            for name in self.needed(owner):
                if len(self._open) >= _OPEN_PACKS:
                    return
                with contextlib.suppress(MippError):
                    self.pack(owner, name)

    def albums(self, owner: bytes) -> list[bytes]:
        """Ids of the albums that the records of an owner's live rows are of, in order."""
        needed = self.needed(owner)
        rows = self._catalog.all("SELECT id, album FROM record_packs WHERE owner=?", owner)
        return sorted({album for pack, album in rows if pack in needed})

    def room_for(self, db: Any, owner: bytes, album: bytes) -> None:
        """Inside a transaction: LimitError if an owner's records would be of too many albums."""
        known = {row[0] for row in db.execute("SELECT DISTINCT album FROM record_packs WHERE owner=?", (owner,))}
        if album in known or len(known) < MAX_ALBUMS:
            return
        if len({fact[2] for fact in self.facts(db, owner)}) >= MAX_ALBUMS:
            raise LimitError(f"the records of an owner's rows are of at most {MAX_ALBUMS} albums; annotate older ones")

    def needed(self, owner: bytes) -> dict[bytes, np.ndarray]:
        """Packs whose records live rows have, and the places in each, ascending; kept until the owner's rows change."""
        with self._catalog.reading() as db:  # one moment
            revision = db.execute("SELECT revision FROM owners WHERE id=?", (owner,)).fetchone()
            known = self._kept.get(owner)
            if known is None or known[0] != revision:
                self._kept[owner] = known = revision, self._needed(db, owner)
        return known[1]

    def _needed(self, db: Any, owner: bytes) -> dict[bytes, np.ndarray]:
        found: dict[bytes, list[np.ndarray]] = {}
        if not self.record_bytes:
            return {}
        for batch, rows, dead, records, own in db.execute(
            "SELECT b.id, b.rows, b.tombstones, b.records, p.id FROM batches b LEFT JOIN record_packs p "
            "ON p.owner = b.owner AND p.id = b.id WHERE b.owner=?", (owner,),
        ):  # fmt: skip
            if not records and own is None:
                continue
            live = np.ones(rows, bool)
            live[np.frombuffer(dead, "<i8")] = False
            if not records:
                if live.any():
                    found.setdefault(batch, []).append(np.flatnonzero(live))
                continue
            some = np.frombuffer(records, ORIGIN)[live]
            ids = np.ascontiguousarray(some["pack"]).view("V16")[:, 0]
            for name in np.unique(ids):
                if name.tobytes() != _NONE:
                    found.setdefault(name.tobytes(), []).append(some["place"][ids == name])
        return {name: np.unique(np.concatenate(parts)) for name, parts in found.items()}

    def facts(self, db: Any, owner: bytes) -> list[tuple[Any, ...]]:
        """(id, rows, album, hash) of each pack that live rows need, in order: what all servers know alike."""
        found = []
        for name in sorted(self._needed(db, owner)):
            row = db.execute(
                "SELECT rows, album, hash FROM record_packs WHERE owner=? AND id=?", (owner, name)
            ).fetchone()
            if row is not None:
                found.append((name, *row))
        return found

    # --- records of deleted rows --------------------------------------------------------------------------------

    def collect(self, owner: bytes) -> None:
        """Rewrite packs without the records that no live row has; drop packs without any."""
        with self._catalog.transaction() as db:
            needed = self._needed(db, owner)
            packs = db.execute(
                "SELECT id, rows, generation, stored, file, size, digest FROM record_packs WHERE owner=?", (owner,)
            ).fetchall()
            # a change that is under way may move records that visible rows have: none of those is dropped
            gone = [p for p in packs if p[0] not in needed]
            db.executemany("DELETE FROM record_packs WHERE owner=? AND id=?", [(owner, p[0]) for p in gone])
        self.drop(p[4] for p in gone)
        for name, rows, generation, stored, file, *written in packs:
            if file and name in needed and len(needed[name]) < stored:
                self._shrink(owner, name, rows, (generation, stored, file, *written), needed[name])

    def _shrink(self, owner: bytes, pack: bytes, rows: int, known: tuple[Any, ...], keep: np.ndarray) -> None:
        generation, stored, file, size, digest = known
        info = self.info(owner, pack, rows, generation, stored)
        try:
            old = RecordPack(self._folder / file, info, size, digest, check=self._check)
        except (IntegrityError, StoreError):  # whoever fetches from it hears of it; other packs are rewritten
            self.damaged.add((owner, pack))
            return
        at = old.stored_at(keep)
        if (at < 0).any():
            raise StoreError(f"records of change {pack.hex()} that live rows have are not here")
        new = self._ledger.attempt_name("records", owner, f"{pack.hex()}.{generation + 1}")
        info = self.info(owner, pack, rows, generation + 1, len(keep))
        step = max(1, (1 << 22) // self.record_bytes)

        def pieces() -> Iterator[np.ndarray]:
            for first in range(0, len(at), step):
                yield old.records[at[first : first + step]]
            yield old.hashes
            yield keep.astype("<i8")

        with self._ledger.attempt(owner, [new]):
            written = write_records(self._folder / new, info, pieces())
            with self._catalog.transaction() as db:
                done = db.execute(
                    "UPDATE record_packs SET generation=?, stored=?, file=?, size=?, digest=? "
                    "WHERE owner=? AND id=? AND file=?",
                    (generation + 1, len(keep), new, *written, owner, pack, file),
                ).rowcount
                if not done:
                    raise ConflictError("the records were rewritten meanwhile")
                db.execute("UPDATE owners SET revision=revision+1 WHERE id=?", (owner,))
                self._ledger.keep(db, [new])
        self.drop([file])

    # --- repair -------------------------------------------------------------------------------------------------

    def lost(self, *, read: bool = False) -> list[tuple[bytes, bytes]]:
        """Owner and id of each pack that live rows need and that is not here whole; if all are ``read``, or damaged."""
        found = []
        for (owner,) in self._catalog.all("SELECT id FROM owners WHERE forget IS NULL ORDER BY id"):
            for name, places in self.needed(owner).items():
                row = self._catalog.one("SELECT file, size FROM record_packs WHERE owner=? AND id=?", owner, name)
                if row is None:
                    continue
                path = self._folder / row[0]
                gone = not row[0] or not path.is_file() or path.stat().st_size != row[1]
                bad = gone or (owner, name) in self.damaged or (read and self._wrong(owner, name, places) is not None)
                if bad:
                    found.append((owner, name))
        return found

    def _wrong(self, owner: bytes, pack: bytes, places: np.ndarray, *, check: bool = True) -> str | None:
        """What is wrong with a pack's file, read anew; without ``check`` its checksum is not compared."""
        row = self._catalog.one(
            "SELECT rows, generation, stored, file, size, digest FROM record_packs WHERE owner=? AND id=?", owner, pack
        )
        if row is None:
            return None
        rows, generation, stored, name, size, digest = row
        try:
            info = self.info(owner, pack, rows, generation, stored)
            at = RecordPack(self._folder / (name or "missing"), info, size, digest, check=check).stored_at(places)
        except MippError as error:
            return str(error)
        return "records of live rows are missing" if (at < 0).any() else None

    def missing(self, owner: bytes, damaged: Container[tuple[bytes, bytes]]) -> list[str]:
        """A line for each pack that live rows need and that lacks records, but for ``damaged`` ones."""
        needed = ((name, places) for name, places in self.needed(owner).items() if (owner, name) not in damaged)
        found = ((name, self._wrong(owner, name, places, check=False)) for name, places in needed)
        return [f"records of change {name.hex()} of owner {owner.hex()}: {why}" for name, why in found if why]

    def put(self, owner: bytes, pack: bytes, stored: int, size: int, pieces: Iterator[np.ndarray]) -> None:
        """Write a pack from another cloud's body, ``size`` bytes with ``stored`` records, and use it from now on.

        Raises
        ------
        IntegrityError
            They are not the records that the owner uploaded, or some that live rows have are missing.
        ConflictError
            No live row needs it any more.
        """
        row = self._catalog.one(
            "SELECT rows, hash, generation, file FROM record_packs WHERE owner=? AND id=?", owner, pack
        )
        if row is None:
            raise ConflictError("no row needs these records any more")
        rows, expected, generation, old = row
        body = stored * self.record_bytes + 32 * rows + (8 * stored if stored < rows else 0)
        if not 0 <= stored <= rows or size != body:
            raise IntegrityError("what the other cloud has is not the record pack of this change")
        generation = 0 if stored == rows else generation + 1
        info = self.info(owner, pack, rows, generation, stored)
        name = self._ledger.attempt_name("records", owner, f"{pack.hex()}.{generation}")
        with self._ledger.attempt(owner, [name]):
            written = write_records(self._folder / name, info, pieces)
            got = RecordPack(self._folder / name, info, *written, check=False)
            if record_pack_hash(got.hashes, self.record_bytes) != expected or not _as_hashed(got):
                raise IntegrityError("the other cloud's records are not those that the owner uploaded")
            with self._catalog.transaction() as db:
                places = self._needed(db, owner).get(pack)
                if places is None:
                    raise ConflictError("no row needs these records any more")
                if (got.stored_at(places) < 0).any():
                    raise IntegrityError("the other cloud lacks records of some rows, too")
                db.execute(
                    "UPDATE record_packs SET generation=?, stored=?, file=?, size=?, digest=? WHERE owner=? AND id=?",
                    (generation, stored, name, *written, owner, pack),
                )
                db.execute("UPDATE owners SET revision=revision+1 WHERE id=?", (owner,))
                self._ledger.keep(db, [name])
            self.damaged.discard((owner, pack))
        self.drop([old])


def _as_hashed(pack: RecordPack) -> bool:
    """Whether the stored records have the hashes that the pack names, at places that ascend."""
    if pack.ordinals is None:
        return np.array_equal(record_hashes(pack.records), pack.hashes)
    at = pack.ordinals
    fits = not len(at) or (int(at[0]) >= 0 and int(at[-1]) < len(pack.hashes) and bool((at[1:] > at[:-1]).all()))
    return fits and np.array_equal(record_hashes(pack.records), pack.hashes[at])


def _unpacked(batch: bytes, rows: int, records: bytes, *, own: bool) -> np.ndarray:
    """Origins of a batch's rows, a new array; ``own``: whether the batch came with records."""
    if records:
        return np.frombuffer(records, ORIGIN).copy()
    found = np.zeros(rows, ORIGIN)
    if own:
        found["pack"] = np.frombuffer(batch, np.uint8)
        found["place"] = np.arange(rows)
    return found
