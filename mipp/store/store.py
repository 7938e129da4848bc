"""The store of one server: parties, grants, batches, images; changes in two phases.

Order of every change: files first (temporary name, sync, rename), then one catalog transaction; files that are no
longer named are removed after it. A crash in between leaves files that no catalog names; :meth:`ServerStore.sweep`
removes them when no other process is at work.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from ..errors import AccessDeniedError, NonceReuseError, NotFoundError, ParameterError, ShapeError, StoreError
from ..params import Params
from .catalog import Catalog
from .files import FileInfo, ImagePack, ShareFile, check_file, write_images, write_share
from .parties import check_free
from .rows import Place, Wanted, place_rows
from .views import BatchView, OwnerView

__all__ = ["ServerStore"]

_NO_ROWS = np.empty(0, np.int64)


class ServerStore:
    """Everything one server keeps, in ``folder``.

    Parameters
    ----------
    folder : the server's own
    server : its number
    params, params_hash : of the deployment; files and catalog carry the hash and are refused when it differs
    has_shares : storage server (True) or key server
    create : make a new store
    check : compare a share file's checksum when it is first used
    """

    def __init__(
        self, folder: Path, server: int, params: Params, params_hash: bytes, *, has_shares: bool, create: bool = False,
        check: bool = True,
    ) -> None:  # fmt: skip
        self.folder, self.params, self.has_shares = folder, params, has_shares
        self._hash, self._check = params_hash, check
        if create:
            folder.mkdir(mode=0o700)
        self.catalog = Catalog(folder, {"params": params_hash, "server": bytes([server])}, create=create)
        for name in ("shares", "images"):
            (folder / name).mkdir(exist_ok=True, mode=0o700)
        self._lock = threading.RLock()
        self._views: dict[bytes, tuple[int, OwnerView]] = {}
        self._packs: dict[tuple[bytes, int], ImagePack] = {}

    def close(self) -> None:
        self.catalog.close()
        self._views.clear()
        self._packs.clear()

    # --- parties and grants ------------------------------------------------------------------------------------

    def add_owner(self, owner: bytes, name: str, sign_key: bytes, registration: bytes, sealed: bytes) -> None:
        """Register an owner; again with the same keys is fine, after a forget never. ParameterError: name taken."""
        with self.catalog.transaction() as db:
            row = db.execute("SELECT registration, forget FROM owners WHERE id=?", (owner,)).fetchone()
            if row is not None:
                if row[1] is not None:
                    raise AccessDeniedError("this owner was forgotten; create a new owner key")
                if row[0] != registration:
                    raise ParameterError("this owner is registered with another registration nonce")
                return
            check_free(db, "owners", name)
            db.execute(
                "INSERT INTO owners (id, name, sign_key, registration, sealed) VALUES (?, ?, ?, ?, ?)",
                (owner, name, sign_key, registration, sealed),
            )

    def owner(self, owner: bytes) -> tuple[str, bytes, bytes]:
        """Name, signing key and sealed secrets of a registered owner; NotFoundError if unknown or forgotten."""
        row = self.catalog.one("SELECT name, sign_key, sealed, forget FROM owners WHERE id=?", owner)
        if row is None:
            raise NotFoundError(f"unknown owner {owner.hex()}")
        if row[3] is not None:
            raise NotFoundError(f"owner {row[0]} was forgotten")
        return row[0], row[1], row[2]

    def forget_owner(self, owner: bytes, frames: bytes) -> None:
        """Drop all that the owner has here; ids and nonces stay taken for ever."""
        with self.catalog.transaction() as db:
            db.execute(
                "UPDATE owners SET sealed=x'', forget=coalesce(forget, ?), revision=revision+1 WHERE id=?",
                (frames, owner),
            )
            paths = [
                self._share_path(*row)
                for row in db.execute("SELECT id, generation FROM batches WHERE owner=?", (owner,))
            ] + [
                self._pack_path(*row) for row in db.execute("SELECT id, generation FROM packs WHERE owner=?", (owner,))
            ]
            for op, kind, record in db.execute(
                "SELECT id, kind, record FROM ops WHERE owner=? AND committed IS NULL", (owner,)
            ):
                paths += self._prepared_files(op, kind, msgpack.unpackb(record))
            for table in ("batches", "packs", "grants", "ops"):
                db.execute(f"DELETE FROM {table} WHERE owner=?", (owner,))
        self._unlink(paths)
        self.catalog.checkpoint()

    def forgotten(self) -> list[bytes]:
        """Signed forgets, to pass on to servers that missed them."""
        return [row[0] for row in self.catalog.all("SELECT forget FROM owners WHERE forget IS NOT NULL")]

    def add_user(self, user: bytes, name: str, sign_key: bytes, box_key: bytes, paillier: bytes = b"") -> None:
        """Register a user; again is fine, but not with another Paillier key. ParameterError: name taken."""
        with self.catalog.transaction() as db:
            if not db.execute("SELECT 1 FROM users WHERE id=?", (user,)).fetchone():
                check_free(db, "users", name)
            db.execute("INSERT OR IGNORE INTO users VALUES (?, ?, ?, ?)", (user, name, sign_key, box_key))
            if paillier:  # the table is missing in deployments that were made before there was a use for it
                db.execute("INSERT OR IGNORE INTO paillier_keys VALUES (?, ?)", (user, paillier))
                kept = db.execute("SELECT key FROM paillier_keys WHERE user=?", (user,)).fetchone()
                if kept[0] != paillier:
                    raise ParameterError("this user is registered with another Paillier key")

    def paillier_key(self, user: bytes) -> bytes:
        """The Paillier public key that a user registered."""
        row = self.catalog.one("SELECT key FROM paillier_keys WHERE user=?", user)
        if row is None:
            raise NotFoundError(f"unknown user {user.hex()}, or one without a Paillier key")
        return bytes(row[0])

    def user(self, user: bytes) -> tuple[str, bytes, bytes]:
        """Name, signing key and X25519 key of a registered user."""
        row = self.catalog.one("SELECT name, sign_key, box_key FROM users WHERE id=?", user)
        if row is None:
            raise NotFoundError(f"unknown user {user.hex()}")
        return row[0], row[1], row[2]

    def put_grant(self, owner: bytes, user: bytes, version: int, grant: bytes, frames: bytes) -> None:
        """Keep a grant if it is newer than what is here; an older one is refused, the same one is fine."""
        with self.catalog.transaction() as db:
            row = db.execute("SELECT version, id FROM grants WHERE owner=? AND user=?", (owner, user)).fetchone()
            if row is not None and (version, grant) != row and version <= row[0]:
                raise AccessDeniedError(f"a grant of version {row[0]} is in force; version {version} is too old")
            if row is None or version > row[0]:
                db.execute(
                    "INSERT OR REPLACE INTO grants (owner, user, version, id, frames) VALUES (?, ?, ?, ?, ?)",
                    (owner, user, version, grant, frames),
                )

    def grants(self, *, owner: bytes | None = None, user: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """(id, signed frames) of grants in force of an owner, or to a user, sorted by owner."""
        if owner is not None:
            rows = self.catalog.all("SELECT id, frames FROM grants WHERE owner=? ORDER BY user", owner)
        else:
            rows = self.catalog.all("SELECT id, frames FROM grants WHERE user=? ORDER BY owner", user)
        return [(row[0], row[1]) for row in rows]

    def all_grants(self) -> list[bytes]:
        return [row[0] for row in self.catalog.all("SELECT frames FROM grants")]

    def count_queries(self, used: list[tuple[bytes, int]], queries: int) -> None:
        """Add ``queries`` to each (grant, quota), all or none; AccessDeniedError if one is exhausted."""
        limited = [(grant, quota) for grant, quota in used if quota]
        if not limited:
            return
        with self.catalog.transaction() as db:
            for grant, quota in limited:
                done = db.execute(
                    "UPDATE grants SET used=used+? WHERE id=? AND used+?<=?", (queries, grant, queries, quota)
                )
                if done.rowcount != 1:
                    raise AccessDeniedError("the quota of queries of a grant is used up")

    # --- changes ------------------------------------------------------------------------------------------------

    def prepare_upload(
        self, owner: bytes, op: bytes, session: bytes, digest: bytes, *, seq: int, rows: int, dim: int,
        replaces: list[bytes], share: np.ndarray | None, images: np.ndarray, offsets: np.ndarray,
        origin: tuple[bytes, bytes],
    ) -> None:  # fmt: skip
        """Write a batch's files and note it, invisible. Again with the same ``digest`` is fine while it lives."""
        seen = self.catalog.one("SELECT digest FROM nonces WHERE owner=? AND nonce=?", owner, op)
        if seen is not None:
            if seen[0] == digest and self.catalog.one("SELECT 1 FROM batches WHERE id=? AND owner=?", op, owner):
                return
            raise NonceReuseError("this batch id was used before; encrypt again under a new one")
        info = FileInfo(self._hash, owner, op, self.params.k, dim, self.params.padded(dim), 0, rows, rows)
        size, share_digest, pack = 0, b"", None
        written: list[Path] = []
        try:
            if share is not None:
                written.append(self._share_path(op, 0))
                size, share_digest = write_share(written[-1], info, share, None)
            if len(images):
                written.append(self._pack_path(op, 0))
                pack = write_images(written[-1], self._pack_info(owner, op, rows, 0), offsets, [images])
            with self.catalog.transaction() as db:
                self._begin_op(db, owner, op, "upload", session, bool(replaces), {"replaces": replaces})
                if db.execute("SELECT 1 FROM batches WHERE id=?", (op,)).fetchone():
                    raise NonceReuseError("this batch id is taken")
                db.execute("INSERT INTO nonces VALUES (?, ?, ?)", (owner, op, digest))
                db.execute(
                    "INSERT INTO batches (id, owner, seq, rows, dim, stored, committed, size, digest, origin_batch, "
                    "origin_row) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
                    (op, owner, seq, rows, dim, rows, size, share_digest, *origin),
                )
                if pack is not None:
                    db.execute("INSERT INTO packs VALUES (?, ?, ?, 0, ?, ?)", (op, owner, rows, *pack))
        except NonceReuseError:
            raise  # another upload of the same id came first; the files are its own
        except BaseException:
            self._unlink(written)
            raise

    def prepare_delete(self, owner: bytes, op: bytes, session: bytes, dead: dict[bytes, list[int]]) -> None:
        """Note tombstones to be; NotFoundError unless every row exists."""
        with self.catalog.transaction() as db:
            for batch, rows in dead.items():
                found = self._batch_of(db, owner, batch)
                if min(rows) < 0 or max(rows) >= found[0]:
                    raise NotFoundError(f"batch {batch.hex()} has rows 0 to {found[0] - 1}")
            self._begin_op(db, owner, op, "delete", session, True, {"dead": dead})

    def prepare_compact(
        self, owner: bytes, op: bytes, session: bytes, batch: bytes, generation: int, rows: np.ndarray
    ) -> None:
        """Write a batch's file anew without its tombstoned rows; all original row numbers stay."""
        with self.catalog.transaction() as db:
            total, dim, current, size, digest, tombstones, stored = self._batch_of(db, owner, batch)
            if current != generation - 1 or tombstones != rows.astype("<i8").tobytes():
                raise StoreError("the batch changed since; compact again")
            if len(rows) >= total:
                raise ParameterError("a batch without live rows is dropped, not compacted")
            self._begin_op(db, owner, op, "compact", session, True, {"batch": batch, "generation": generation})
        try:
            left = np.setdiff1d(np.arange(total, dtype="<i8"), rows)
            new_size, new_digest = 0, b""
            if self.has_shares:
                width = self.params.padded(dim)
                info = FileInfo(self._hash, owner, batch, self.params.k, dim, width, current, total, stored)
                old = ShareFile(self._share_path(batch, current), info, size, digest)
                places = left if old.ordinals is None else np.searchsorted(old.ordinals, left)
                info = FileInfo(self._hash, owner, batch, self.params.k, dim, width, generation, total, len(left))
                path = self._share_path(batch, generation)
                new_size, new_digest = write_share(path, info, old.words[places], left)
            record = {
                "batch": batch,
                "generation": generation,
                "size": new_size,
                "digest": new_digest,
                "stored": len(left),
            }
            with self.catalog.transaction() as db:
                db.execute("UPDATE ops SET record=? WHERE id=?", (msgpack.packb(record), op))
        except BaseException:
            self.abort(op)
            raise

    def _begin_op(
        self, db: Any, owner: bytes, op: bytes, kind: str, session: bytes, exclusive: bool, record: Any
    ) -> None:
        if (
            exclusive
            and db.execute("SELECT 1 FROM ops WHERE owner=? AND exclusive=1 AND committed IS NULL", (owner,)).fetchone()
        ):
            raise StoreError("another delete or compaction of this owner is under way; try again when it has ended")
        values = (op, owner, kind, session, int(exclusive), msgpack.packb(record))
        db.execute("INSERT INTO ops (id, owner, kind, session, exclusive, record) VALUES (?, ?, ?, ?, ?, ?)", values)

    def _batch_of(self, db: Any, owner: bytes, batch: bytes) -> tuple[Any, ...]:
        row = db.execute(
            "SELECT rows, dim, generation, size, digest, tombstones, stored FROM batches "
            "WHERE id=? AND owner=? AND committed=1", (batch, owner),
        ).fetchone()  # fmt: skip
        if row is None:
            raise NotFoundError(f"this owner has no batch {batch.hex()}")
        return tuple(row)

    def commit(self, owner: bytes, op: bytes, frames: bytes) -> None:
        """Make a prepared op visible; again is fine. ``frames``: the signed commit, for servers that miss it."""
        gone: list[Path] = []
        with self.catalog.transaction() as db:
            row = db.execute("SELECT kind, record, committed FROM ops WHERE id=? AND owner=?", (op, owner)).fetchone()
            if row is None or row[2] is not None:
                # committed before, and perhaps pruned; an upload that was aborted must not look done
                nonce = db.execute("SELECT 1 FROM nonces WHERE owner=? AND nonce=?", (owner, op)).fetchone()
                batch = db.execute("SELECT 1 FROM batches WHERE id=? AND committed=1", (op,)).fetchone()
                if row is None and nonce and not batch:
                    raise StoreError("this upload was rolled back; upload again")
                return
            kind, record = row[0], msgpack.unpackb(row[1], strict_map_key=False)
            if kind == "upload":
                db.execute("UPDATE batches SET committed=1 WHERE id=?", (op,))
                for batch in record["replaces"]:
                    found = self._batch_of(db, owner, batch)
                    gone.append(self._share_path(batch, found[2]))
                    db.execute("DELETE FROM batches WHERE id=?", (batch,))
            elif kind == "delete":
                for batch, rows in record["dead"].items():
                    old = np.frombuffer(self._batch_of(db, owner, batch)[5], "<i8")
                    merged = np.union1d(old, np.array(rows, "<i8")).astype("<i8")
                    db.execute("UPDATE batches SET tombstones=? WHERE id=?", (merged.tobytes(), batch))
            else:
                if "digest" not in record:
                    raise StoreError("the compaction is not prepared")
                batch, generation = record["batch"], record["generation"]
                gone.append(self._share_path(batch, generation - 1))
                db.execute(
                    "UPDATE batches SET generation=?, size=?, digest=?, stored=? WHERE id=?",
                    (generation, record["size"], record["digest"], record["stored"], batch),
                )
            db.execute("UPDATE ops SET committed=?, record=x'' WHERE id=?", (frames, op))
            db.execute("UPDATE owners SET revision=revision+1 WHERE id=?", (owner,))
        if self.has_shares:
            self._unlink(gone)
            if kind != "delete" and (kind == "compact" or record["replaces"]):
                self._collect_images(owner)

    def abort(self, op: bytes) -> None:
        """Undo a prepared op; its nonce stays taken. Nothing happens to a committed one."""
        paths: list[Path] = []
        with self.catalog.transaction() as db:
            row = db.execute("SELECT kind, record FROM ops WHERE id=? AND committed IS NULL", (op,)).fetchone()
            if row is None:
                return
            paths = self._prepared_files(op, row[0], msgpack.unpackb(row[1], strict_map_key=False))
            db.execute("DELETE FROM ops WHERE id=?", (op,))
            db.execute("DELETE FROM batches WHERE id=? AND committed=0", (op,))
            db.execute("DELETE FROM packs WHERE id=? AND NOT EXISTS (SELECT 1 FROM batches WHERE id=?)", (op, op))
        self._unlink(paths)

    def _prepared_files(self, op: bytes, kind: str, record: dict[str, Any]) -> list[Path]:
        if kind == "compact":
            return [self._share_path(record["batch"], record["generation"])]
        return [self._share_path(op, 0), self._pack_path(op, 0)] if kind == "upload" else []

    def ops(self) -> list[tuple[bytes, bytes, bytes | None]]:
        """(id, session, signed commit or None) of all ops that some server may still lack."""
        rows = self.catalog.all("SELECT id, session, committed FROM ops")
        return [(row[0], row[1], row[2]) for row in rows]

    def prune_ops(self, ops: list[bytes]) -> None:
        """Forget committed ops that every server has."""
        with self.catalog.transaction() as db:
            db.executemany("DELETE FROM ops WHERE id=? AND committed IS NOT NULL", [(op,) for op in ops])

    def sweep(self) -> int:
        """Remove files that the catalog does not name. Only while no other process uses the deployment."""
        named = {self._share_path(*row) for row in self.catalog.all("SELECT id, generation FROM batches")}
        named |= {self._pack_path(*row) for row in self.catalog.all("SELECT id, generation FROM packs")}
        for kind, op, record in self.catalog.all("SELECT kind, id, record FROM ops WHERE committed IS NULL"):
            named |= set(self._prepared_files(op, kind, msgpack.unpackb(record, strict_map_key=False)))
        found = [p for name in ("shares", "images") for p in (self.folder / name).glob("*/*") if p not in named]
        self._unlink(found)
        return len(found)

    # --- what is there ------------------------------------------------------------------------------------------

    def view(self, owner: bytes) -> OwnerView:
        """The owner's committed batches, mapped; cached until the owner's catalog rows change."""
        with self._lock:
            row = self.catalog.one("SELECT revision, name, forget FROM owners WHERE id=?", owner)
            if row is None or row[2] is not None:
                self._views.pop(owner, None)
                raise NotFoundError(f"unknown or forgotten owner {owner.hex()}")
            cached = self._views.get(owner)
            if cached is not None and cached[0] == row[0]:
                return cached[1]
            rows = self.catalog.all(
                "SELECT id, rows, dim, generation, tombstones, size, digest, stored FROM batches WHERE owner=? AND "
                "committed=1 ORDER BY seq, id", owner,
            )  # fmt: skip
            known = {(b.id, b.generation): b for b in cached[1].batches} if cached is not None else {}
            places: list[Place | tuple[None, int, None]] = [(None, 0, None)] * len(rows)
            if self.has_shares:
                places[:] = place_rows(
                    [self._wanted(owner, r, known.get((r[0], r[3]))) for r in rows], check=self._check
                )
            batches = []
            for (batch, count, dim, generation, tombstones, *_), place in zip(rows, places, strict=True):
                dead = np.frombuffer(tombstones, "<i8").astype(np.int64) if tombstones else _NO_ROWS
                batches.append(BatchView(batch, count, dim, generation, dead, *place))
            view = OwnerView(owner, row[1], batches)
            self._views[owner] = (row[0], view)
            return view

    def _wanted(self, owner: bytes, row: tuple[Any, ...], known: BatchView | None) -> Wanted:
        batch, rows, dim, generation, _, size, digest, stored = row
        width = self.params.padded(dim)
        info = FileInfo(self._hash, owner, batch, self.params.k, dim, width, generation, rows, stored)
        return Wanted(self._share_path(batch, generation), info, size, digest, known)

    def origins(self, owner: bytes, batch: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Image ids (rows, 16) and (rows,) that the batch's images were encrypted under."""
        row = self.catalog.one(
            "SELECT rows, origin_batch, origin_row FROM batches WHERE id=? AND owner=?", batch, owner
        )
        if row is None:
            raise NotFoundError(f"this owner has no batch {batch.hex()}")
        if row[1]:
            return np.frombuffer(row[1], np.uint8).reshape(-1, 16), np.frombuffer(row[2], "<i8").astype(np.int64)
        return np.tile(np.frombuffer(batch, np.uint8), (row[0], 1)), np.arange(row[0], dtype=np.int64)

    def image(self, owner: bytes, origin_batch: bytes, origin_row: int) -> np.ndarray:
        """One encrypted image file; NotFoundError if the row came without an image."""
        pack = self._pack(owner, origin_batch)
        file = None if pack is None else pack.file(origin_row)
        if file is None:
            raise NotFoundError(f"no image is stored for row {origin_row} of batch {origin_batch.hex()}")
        return file

    def image_size(self, owner: bytes, origin_batch: bytes, origin_row: int) -> int:
        """Bytes of that file; read from the pack's offsets."""
        pack = self._pack(owner, origin_batch)
        size = 0 if pack is None else pack.size(origin_row)
        if not size:
            raise NotFoundError(f"no image is stored for row {origin_row} of batch {origin_batch.hex()}")
        return size

    def _pack(self, owner: bytes, batch: bytes) -> ImagePack | None:
        row = self.catalog.one("SELECT rows, generation, size, digest FROM packs WHERE id=? AND owner=?", batch, owner)
        if row is None:
            return None
        key = (batch, row[1])
        with self._lock:
            if key not in self._packs:
                self._packs[key] = self._open_pack(owner, batch, *row)
            return self._packs[key]

    def _open_pack(self, owner: bytes, batch: bytes, rows: int, generation: int, size: int, digest: bytes) -> ImagePack:
        info = self._pack_info(owner, batch, rows, generation)
        return ImagePack(self._pack_path(batch, generation), info, size, digest, check=self._check)

    def _pack_info(self, owner: bytes, batch: bytes, rows: int, generation: int) -> FileInfo:
        # a pack is about images, not about features
        return FileInfo(self._hash, owner, batch, self.params.k, 0, 0, generation, rows, rows)

    def _collect_images(self, owner: bytes) -> None:
        """Rewrite packs without the images of deleted rows; drop packs that no live row needs."""
        wanted: dict[bytes, set[int]] = {}
        for batch, dead in self.catalog.all("SELECT id, tombstones FROM batches WHERE owner=?", owner):
            ids, rows = self.origins(owner, batch)
            alive = np.setdiff1d(np.arange(len(rows)), np.frombuffer(dead, "<i8"))
            for i in alive:
                wanted.setdefault(ids[i].tobytes(), set()).add(int(rows[i]))
        for batch, rows, generation, size, digest in self.catalog.all(
            "SELECT id, rows, generation, size, digest FROM packs WHERE owner=?", owner
        ):
            path, keep = self._pack_path(batch, generation), wanted.get(batch, set())
            if not keep:
                with self.catalog.transaction() as db:
                    db.execute("DELETE FROM packs WHERE id=?", (batch,))
                self._unlink([path])
                continue
            pack = self._open_pack(owner, batch, rows, generation, size, digest)
            files = [pack.file(i) if i in keep else None for i in range(rows)]
            sizes = [0 if f is None else len(f) for f in files]
            if sum(sizes) == int(pack.offsets[-1]):
                continue
            offsets = np.concatenate([[0], np.cumsum(sizes)]).astype("<i8")
            new = self._pack_path(batch, generation + 1)
            info = self._pack_info(owner, batch, rows, generation + 1)
            written = write_images(new, info, offsets, [f for f in files if f is not None])
            with self.catalog.transaction() as db:
                db.execute(
                    "UPDATE packs SET generation=?, size=?, digest=? WHERE id=?", (generation + 1, *written, batch)
                )
            self._unlink([path])

    def verify(self) -> tuple[int, list[str]]:
        """Read every file of the catalog; how many, and what is wrong, each line naming the file."""
        problems, count = [], 0
        rows = []
        if self.has_shares:
            rows = [(self._share_path(r[0], r[1]), r[2], r[3]) for r in
                    self.catalog.all("SELECT id, generation, size, digest FROM batches WHERE committed=1")]  # fmt: skip
        rows += [(self._pack_path(r[0], r[1]), r[2], r[3]) for r in
                 self.catalog.all("SELECT id, generation, size, digest FROM packs")]  # fmt: skip
        for path, size, digest in rows:
            count += 1
            problem = check_file(path, size, digest)
            if problem is not None:
                problems.append(problem)
        for row in self.catalog.all("PRAGMA integrity_check"):
            if row[0] != "ok":
                problems.append(f"{self.folder / 'catalog.sqlite'}: {row[0]}")
        return count, problems

    def _share_path(self, batch: bytes, generation: int) -> Path:
        name = batch.hex()
        return self.folder / "shares" / name[:2] / f"{name}.{generation}"

    def _pack_path(self, batch: bytes, generation: int) -> Path:
        name = batch.hex()
        return self.folder / "images" / name[:2] / f"{name}.{generation}"

    @staticmethod
    def _unlink(paths: list[Path]) -> None:
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def check_offsets(offsets: np.ndarray, rows: int, size: int) -> None:
    """ShapeError unless ``offsets`` cut ``size`` bytes into ``rows`` files."""
    if len(offsets) != rows + 1 or offsets[0] != 0 or offsets[-1] != size or (offsets[1:] < offsets[:-1]).any():
        raise ShapeError("image offsets do not cut the images into one file per row")
