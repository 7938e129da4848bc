"""The store of one server: parties, grants, batches, images; what is visible, and files that are not needed.

Order of every change: the name is reserved in the catalog, then files are written (temporary name, sync, rename), then
one catalog transaction names them; files that are no longer named are removed after it. A crash in between leaves files
that only an attempt's note, or nothing, names; :meth:`ServerStore.sweep` removes them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np

from ..errors import ConflictError, IntegrityError, NotFoundError, ParameterError, ShapeError, StoreError
from ..io.durable import copy_file, sync_folder
from ..params import Params
from ..rpc.chain import pack_dead, unpack_dead
from ..rpc.records import count_places, unpack_places
from .catalog import NAME, Catalog
from .certificates import Certificates
from .chains import Chains
from .files import FileInfo, ShareFile, check_file, write_images, write_share
from .ledger import Commit, Ledger, record_files
from .packs import Packs
from .parties import Parties
from .records import RecordPacks
from .repairs import Repairs
from .seals import Seals
from .viewing import ViewCache
from .views import CERTIFICATE_BYTES, OwnerView

__all__ = ["NewRecords", "ServerStore", "check_offsets"]

#: folders of files
_ROOMS = ("shares", "images", "records")
#: whether nobody needs the file of a batch any more
_ALL_DELETED = "(length(tombstones)/8 = rows)"


class NewRecords(NamedTuple):
    """Records that a change brings: the pack's album and hash, its size, and at clouds the records and their hashes."""

    album: bytes
    hash: bytes
    bytes: int
    records: np.ndarray | None
    hashes: np.ndarray | None


class Summary(NamedTuple):
    """Public facts of a store.

    owners : (id, name, whether forgotten, position, view) each; users : (id, name, queries out of range)
    batches : (owner, id, rows, deleted rows, bytes, whether without a range certificate)
    packs : bytes of image packs by owner
    """

    owners: list[tuple[Any, ...]]
    users: list[tuple[Any, ...]]
    batches: list[tuple[Any, ...]]
    packs: dict[bytes, int]


class ServerStore(Parties):
    """Everything one server keeps, in ``folder``.

    Parameters
    ----------
    folder : the server's own
    server : its number
    params, params_hash : of the deployment; files and catalog carry the hash and are refused when it differs
    has_shares : cloud (True) or key centre
    create : make a new store
    check : compare a share file's checksum when it is first used
    holder, alive : see :class:`~mipp.store.ledger.Ledger`
    witness : see :class:`~mipp.store.catalog.Catalog`
    record_bytes : size of each row's record, 0 for none
    """

    def __init__(
        self, folder: Path, server: int, params: Params, params_hash: bytes, *, has_shares: bool, create: bool = False,
        check: bool = True, holder: bytes = b"", alive: Callable[[bytes], bool] = lambda holder: True,
        witness: Callable[[int], None] | None = None, record_bytes: int = 0,
    ) -> None:  # fmt: skip
        self.folder, self.params, self.has_shares = folder, params, has_shares
        self.params_hash, self._check = params_hash, check
        if create:
            folder.mkdir(mode=0o700)
        meta = {"params": params_hash, "server": bytes([server])}
        super().__init__(Catalog(folder, meta, create=create, witness=witness))
        for name in _ROOMS if record_bytes else _ROOMS[:2]:
            (folder / name).mkdir(exist_ok=True, mode=0o700)
        self.views = ViewCache(self.catalog, folder, params, params_hash, has_shares=has_shares, check=check)
        self._alive = alive
        self.changes = Ledger(self.catalog, folder, server, self._apply, holder=holder, alive=alive)
        self.packs = Packs(self.catalog, self.changes, folder, params, params_hash, check)
        self.records = RecordPacks(
            self.catalog, self.changes, folder, params, params_hash, check, has_files=has_shares,
            record_bytes=record_bytes,
        )  # fmt: skip
        self.chains = Chains(
            self.catalog,
            self.changes,
            self.records,
            has_shares=has_shares,
            spare=has_shares and params.spare_clouds > 0,
        )
        self.seals = Seals(self.catalog)
        self.certificates = Certificates(self.catalog, folder, params, params_hash)
        self.repairs = Repairs(self.catalog, self.changes, self.packs, folder, params, params_hash)
        #: owner and id of batches that a compaction could not read
        self._passed_over: set[tuple[bytes, bytes]] = set()

    def close(self) -> None:
        self.catalog.close()
        self.views.clear()
        self.packs.close()
        self.records.close()

    # --- changes ------------------------------------------------------------------------------------------------

    def prepare_upload(
        self, owner: bytes, op: bytes, digest: bytes, *, rows: int, dim: int, replaces: list[bytes],
        share: np.ndarray | None, share_hash: bytes, images: np.ndarray, offsets: np.ndarray,
        origin: tuple[bytes, bytes], admit: Callable[[int, int], None] | None = None,
        held: int | None = None, records: NewRecords | None = None, moved: bytes = b"",
        image_hash: bytes = b"",
    ) -> None:  # fmt: skip
        """Write a batch's files and note it, invisible. Again with the same ``digest`` is fine while it lives.

        ``admit``: called with the rows and bytes that the owner has here; raises if no more may come. ``held``: see
        :func:`~mipp.store.files.write_share`. ``records``: those that it brings. ``moved``: where the rows of a merge
        come from, and ``image_hash``: as of :class:`~mipp.rpc.messages.UploadOp`.
        """
        info = FileInfo(self.params_hash, owner, op, self.params.ring_bits, dim, self.params.padded(dim), 0, rows, rows)
        files: dict[str, Any] = {}
        if share is not None:
            files["share"] = "shares", lambda path: write_share(path, info, share, None, held, share_hash)
        if len(images):
            pack = self.packs.info(owner, op, rows, 0)
            files["pack"] = "images", lambda path: write_images(path, pack, offsets, [images])
        imaged = self.packs.imaged(owner, origin, rows, offsets, replaces) if share is not None else b""
        record = {
            "rows": rows, "dim": dim, "replaces": replaces, "origin": list(origin), "imaged": imaged,
            "share_hash": share_hash, "bytes": len(images) + (0 if share is None else share.nbytes), "moved": moved,
            "image_hash": image_hash,
        }  # fmt: skip
        self._bring(owner, op, records, record, files)

        def check(db: Any) -> None:
            if admit is not None:
                admit(*self.owner_size(db, owner))
            if records is not None:
                self.records.room_for(db, owner, records.album)
            sizes = np.array([self._batch_of(db, owner, batch)[0] for batch in replaces], np.int64)
            pairs = np.frombuffer(moved, "<i8").reshape(-1, 2)
            if len(pairs) and not (pairs[:, 1] < sizes[pairs[:, 0]]).all():
                raise NotFoundError("a merge takes a row that its batch does not have")
            if len(pairs) and not self.packs.moved_fits(owner, replaces, pairs, origin):
                raise ParameterError("the images of a merge's rows are those that these rows had")

        self.changes.prepare(owner, op, "merge" if replaces else "upload", digest, record, check, files)

    def _bring(
        self, owner: bytes, op: bytes, records: NewRecords | None, record: dict[str, Any], files: dict[str, Any]
    ) -> None:  # fmt: skip
        """Note records of a change, and write their file with the others."""
        if records is None:
            return
        record |= {
            "album": records.album, "record_hash": records.hash, "bytes": record.get("bytes", 0) + records.bytes
        }  # fmt: skip
        if records.records is not None and records.hashes is not None:
            files["records"] = "records", self.records.writer(owner, op, records.records, records.hashes)

    def prepare_annotate(
        self, owner: bytes, op: bytes, digest: bytes, places: bytes, records: NewRecords,
        admit: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        """Write new records of rows, and note them; NotFoundError unless every row exists.

        ``places``: the rows, as of :func:`mipp.rpc.records.pack_places`. ``admit``: as of :meth:`prepare_upload`.
        """
        files: dict[str, Any] = {}
        record: dict[str, Any] = {"places": places}
        self._bring(owner, op, records, record, files)

        def check(db: Any) -> None:
            if admit is not None:
                admit(*self.owner_size(db, owner))
            self.records.room_for(db, owner, records.album)
            for batch, rows in unpack_places(places).items():
                total = self._batch_of(db, owner, batch)[0]
                if not 0 <= int(rows.min()) <= int(rows.max()) < total:
                    raise NotFoundError(f"batch {batch.hex()} has rows 0 to {total - 1}")

        self.changes.prepare(owner, op, "annotate", digest, record, check, files)

    def prepare_delete(self, owner: bytes, op: bytes, digest: bytes, dead: dict[bytes, list[int]]) -> None:
        """Note tombstones to be; NotFoundError unless every row exists."""

        def check(db: Any) -> None:
            for batch, rows in dead.items():
                total = self._batch_of(db, owner, batch)[0]
                if min(rows) < 0 or max(rows) >= total:
                    raise NotFoundError(f"batch {batch.hex()} has rows 0 to {total - 1}")

        self.changes.prepare(owner, op, "delete", digest, {"dead": pack_dead(dead)}, check)

    def _apply(self, db: Any, commit: Commit, record: dict[str, Any]) -> list[str]:
        """Inside the transaction of a certificate: make a change visible; files to remove."""
        owner, gone = commit.owner, []
        if commit.kind == "annotate":
            places = record["places"]
            self.records.add(db, owner, commit.op, count_places(places), record)
            self.records.annotate(db, owner, commit.op, places)
        elif commit.kind == "delete":
            for batch, rows in unpack_dead(record["dead"]).items():
                old = np.frombuffer(self._batch_of(db, owner, batch)[1], "<i8")
                merged = np.union1d(old, rows).astype("<i8")
                # a refusal was about the rows that were there; a certificate stays
                db.execute(
                    "UPDATE batches SET tombstones=?, certificate=iif(length(certificate)=?, certificate, x'') "
                    "WHERE owner=? AND id=?", (merged.tobytes(), CERTIFICATE_BYTES, owner, batch),
                )  # fmt: skip
        else:
            origins = self.records.merged(db, owner, record["replaces"], record.get("moved", b""))
            for batch in record["replaces"]:
                gone.append(self._batch_of(db, owner, batch)[2])
                db.execute("DELETE FROM batches WHERE owner=? AND id=?", (owner, batch))
            self._add_batch(db, commit, record, origins)
        db.execute(
            "UPDATE owners SET position=?, view=?, revision=revision+1 WHERE id=?",
            (commit.position, commit.view, owner),
        )
        if commit.kind != "upload":  # what was before it can be answered no more
            db.execute("UPDATE owners SET floor=position, floor_view=view WHERE id=?", (owner,))
        return [name for name in gone if name]

    def _add_batch(self, db: Any, commit: Commit, record: dict[str, Any], origins: bytes) -> None:
        share = record.get("share") or {"file": "", "size": 0, "digest": b""}
        db.execute(
            "INSERT INTO batches (owner, id, position, rows, dim, stored, file, size, digest, share_hash, imaged, "
            "origin_batch, origin_row, certificate, shares, records) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (commit.owner, commit.op, commit.position, record["rows"], record["dim"], record["rows"], share["file"],
             share["size"], share["digest"], record["share_hash"], record["imaged"], *record["origin"],
             record.get("certificate", b""), b"".join(commit.shares), origins),
        )  # fmt: skip
        self.records.add(db, commit.owner, commit.op, record["rows"], record)
        pack = record.get("pack")
        if pack:
            db.execute(
                "INSERT INTO packs VALUES (?, ?, ?, 0, ?, ?, ?)",
                (commit.owner, commit.op, record["rows"], pack["file"], pack["size"], pack["digest"]),
            )

    def _batch_of(self, db: Any, owner: bytes, batch: bytes) -> tuple[int, bytes, str]:
        """Rows, tombstones and file of a batch."""
        row = db.execute("SELECT rows, tombstones, file FROM batches WHERE owner=? AND id=?", (owner, batch)).fetchone()
        if row is None:
            raise NotFoundError(f"this owner has no batch {batch.hex()}")
        return row[0], row[1], row[2]

    # --- this server's own room ---------------------------------------------------------------------------------

    def compact(self, owner: bytes) -> int:
        """Rewrite an owner's files without deleted rows and their images; all row numbers stay. How many files.

        It concerns this server alone: other servers' answers do not depend on it. A file that cannot be read stays as
        it is.
        """
        if not self.has_shares:
            return 0
        count = 0
        for batch, rows, dead, stored in self.catalog.all(
            "SELECT id, rows, length(tombstones)/8, stored FROM batches WHERE owner=?", owner
        ):
            if dead < rows and rows - dead < stored:
                count += self._rewrite(owner, batch)
        self.packs.collect(owner)
        self.records.collect(owner)
        return count

    def gone_batches(self, owner: bytes, *, read: bool = False) -> list[bytes]:
        """Ids of an owner's batches with live rows whose file is certainly lost here, in row order.

        Files that a search, a fetch or a compaction could not use are read again, and with ``read`` all of them.
        """
        if not self.has_shares:
            return []
        known = {*self.views.damaged(), *self._passed_over}
        gone = self.repairs.gone_batches(owner, {batch for of, batch in known if of == owner}, read=read)
        self._passed_over &= {(of, batch) for of, batch in known if of != owner or batch in gone}
        return gone

    def _rewrite(self, owner: bytes, batch: bytes) -> bool:
        """Rewrite a batch's file without deleted rows; whether it could be read."""
        row = self.catalog.one(
            "SELECT rows, dim, generation, file, size, digest, tombstones, stored FROM batches WHERE owner=? AND id=?",
            owner, batch,
        )  # fmt: skip
        if row is None:
            return False
        total, dim, generation, name, size, digest, tombstones, stored = row
        if not name:  # a restored backup lacks the file
            return False
        left = np.setdiff1d(np.arange(total, dtype="<i8"), np.frombuffer(tombstones, "<i8"))
        width, k = self.params.padded(dim), self.params.ring_bits
        info = FileInfo(self.params_hash, owner, batch, k, dim, width, generation, total, stored)
        try:
            old = ShareFile(self.folder / name, info, size, digest, check=self._check)
        except (IntegrityError, StoreError):  # it is left out of searches; what is whole is rewritten all the same
            self._passed_over.add((owner, batch))
            return False
        places = left if old.ordinals is None else np.searchsorted(old.ordinals, left)
        info = FileInfo(self.params_hash, owner, batch, k, dim, width, generation + 1, total, len(left))
        new = self.changes.attempt_name("shares", owner, f"{batch.hex()}.{generation + 1}")
        with self.changes.attempt(owner, [new]):
            written = write_share(self.folder / new, info, old.words[places], left)
            with self.catalog.transaction() as db:
                done = db.execute(
                    "UPDATE batches SET generation=?, file=?, size=?, digest=?, stored=? WHERE owner=? AND id=? "
                    "AND file=?", (generation + 1, new, *written, len(left), owner, batch, name),
                ).rowcount  # fmt: skip
                if not done:
                    raise ConflictError("the batch was rewritten or replaced meanwhile")
                db.execute("UPDATE owners SET revision=revision+1 WHERE id=?", (owner,))
                self.changes.keep(db, [new])
        self.changes.drop([name])
        return True

    def forget_owner(self, owner: bytes, frames: bytes) -> None:
        """Drop all that the owner has here; ids stay taken for ever."""
        with self.catalog.transaction() as db:
            files = self._files(db, owner)
            self._drop_owner(db, owner, frames)
            self.seals.drop(db, owner)
            db.execute("DELETE FROM batches WHERE owner=?", (owner,))
            db.execute("DELETE FROM packs WHERE owner=?", (owner,))
            db.execute("DELETE FROM record_packs WHERE owner=?", (owner,))
            db.execute(
                "UPDATE changes SET state=iif(state='committed', state, 'aborted'), record=x'', commit_frames=NULL, "
                "votes=x'' WHERE owner=?", (owner,),
            )  # fmt: skip
            self.catalog.set_counter(db, "checkpoint_due", 1)
        self.records.drop(files)
        self.views.drop(owner)
        self.catalog.checkpoint()

    def _files(self, db: Any, owner: bytes | None = None) -> list[str]:
        """Files that a catalog names, of one owner or of all; without those of attempts."""
        where, args = ("", ()) if owner is None else (" WHERE owner=?", (owner,))
        names = [r[0] for r in db.execute(f"SELECT file FROM batches{where}", args)]
        names += [r[0] for r in db.execute(f"SELECT file FROM packs{where}", args)]
        names += [r[0] for r in db.execute(f"SELECT file FROM record_packs{where}", args)]
        for (record,) in db.execute(f"SELECT record FROM changes{where}", args):
            names += record_files(msgpack.unpackb(record, strict_map_key=False)) if record else []
        return [name for name in names if name]

    def back_up(self, target: Path) -> tuple[int, list[str]]:
        """Copy the store of one moment into an existing folder, while changes and queries go on.

        Files are linked where the file system can do that: they never change.

        Returns
        -------
        files : how many
        missing : a line for each that is not here

        Raises
        ------
        StoreError
            It cannot be written, as on a full disk.
        """
        try:
            return self._back_up(target)
        except StoreError:
            raise
        except (OSError, sqlite3.Error) as error:  # also if who asked for it gave up, and removed what was there
            raise StoreError(f"cannot write the backup: {getattr(error, 'strerror', None) or error}") from None

    def _back_up(self, target: Path) -> tuple[int, list[str]]:
        missing, count = [], 0
        for room in _ROOMS:
            (target / room).mkdir(mode=0o700)
        with self.changes.holding():  # what the copied catalog names stays until it is linked
            self.catalog.copy_to(target / NAME)
            with contextlib.closing(sqlite3.connect(target / NAME)) as db:
                names = self._files(db)
                unneeded = {file for (file,) in db.execute(f"SELECT file FROM batches WHERE {_ALL_DELETED}")}
            for name in names:
                if not (self.folder / name).exists():
                    if name in unneeded:
                        continue
                    missing.append(f"{name} is not here; mipp server repair rebuilds it where other servers can")
                    continue
                (target / name).parent.mkdir(exist_ok=True, mode=0o700)
                _link(self.folder / name, target / name)
                count += 1
        for room in _ROOMS:
            for folder in (*(target / room).iterdir(), target / room):
                sync_folder(folder)
        return count, missing

    def sweep(self) -> int:
        """Remove files that the catalog does not name; safe while other processes write: they note files first."""
        with self.catalog.transaction() as db:
            named = set(self._files(db))
            named |= {r[0] for r in db.execute("SELECT file, holder FROM attempts") if self._alive(r[1])}
            found = [
                p for room in _ROOMS for p in (self.folder / room).glob("*/*")
                if str(p.relative_to(self.folder)) not in named and not _temporary_of(p, named, self.folder)
            ]  # fmt: skip
            dead = [r[0] for r in db.execute("SELECT DISTINCT holder FROM attempts") if not self._alive(r[0])]
            db.executemany("DELETE FROM attempts WHERE holder=?", [(h,) for h in dead])
            self.changes.unlink(str(p.relative_to(self.folder)) for p in found)
        return len(found)

    # --- what is there ------------------------------------------------------------------------------------------

    def view(self, owner: bytes) -> OwnerView:
        """The owner's committed batches, mapped: see :meth:`mipp.store.viewing.ViewCache.view`."""
        return self.views.view(owner)

    def view_at(self, owner: bytes, position: int) -> OwnerView | None:
        """The owner's batches up to a position of its chain; None if that can be answered no more, or not yet."""
        view = self.view(owner)
        if position == view.position:
            return view
        if not view.floor <= position < view.position:
            return None
        row = self.catalog.one(
            "SELECT view FROM changes WHERE owner=? AND position=? AND state='committed' "
            "UNION ALL SELECT floor_view FROM owners WHERE id=? AND floor=?", owner, position, owner, position,
        )  # fmt: skip
        return None if row is None else view.at(position, row[0])

    def batch(self, owner: bytes, batch: bytes) -> tuple[int, np.ndarray] | None:
        """Rows of a visible batch, and which of them are deleted; opens no file. None if there is none."""
        row = self.catalog.one("SELECT rows, tombstones FROM batches WHERE owner=? AND id=?", owner, batch)
        return None if row is None else (row[0], np.frombuffer(row[1], "<i8"))

    def batch_list(self, owner: bytes) -> tuple[int, bytes, list[tuple[Any, ...]]]:
        """Position and view of an owner's chain, and of its batches, in order: id, rows, deleted rows, generation, and
        what was refused of the range of its rows."""
        with self.catalog.reading() as db:  # one moment
            head = db.execute("SELECT position, view FROM owners WHERE id=? AND forget IS NULL", (owner,)).fetchone()
            rows = db.execute(
                "SELECT id, rows, length(tombstones)/8, generation, coalesce(substr(certificate, ?), x'') FROM batches "
                "WHERE owner=? ORDER BY position", (CERTIFICATE_BYTES + 2, owner),
            ).fetchall()  # fmt: skip
        if head is None:
            raise NotFoundError(f"unknown or forgotten owner {owner.hex()}")
        return head[0], head[1], rows

    def digests(self) -> list[bytes]:
        """SHA-256 of all files of rows and of records that the catalog names."""
        found = self.catalog.all("SELECT digest FROM batches UNION SELECT digest FROM record_packs")
        return [digest for (digest,) in found if len(digest) == 32]

    def summary(self, owner: bytes) -> Summary:
        """Owners, users and batches, of one owner only if ``owner`` is not empty."""
        where, args = (" WHERE id=?", (owner,)) if owner else ("", ())
        owners = self.catalog.all(
            f"SELECT id, name, forget IS NOT NULL, position, view FROM owners{where} ORDER BY id", *args
        )
        users = self.catalog.all("SELECT id, name, out_of_range FROM users ORDER BY id")
        where = " WHERE owner=?" if owner else ""
        batches = self.catalog.all(
            f"SELECT owner, id, rows, length(tombstones)/8, size, length(certificate)<>{CERTIFICATE_BYTES} "
            f"FROM batches{where} ORDER BY owner, position", *args,
        )  # fmt: skip
        packs = dict(self.catalog.all("SELECT owner, sum(size) FROM packs GROUP BY owner"))
        return Summary(owners, users, batches, packs)

    def size_of(self, owner: bytes) -> int:
        """Bytes that an owner has here, also in changes that are under way."""
        with self.catalog.reading() as db:
            return self.owner_size(db, owner)[1]

    def owner_size(self, db: Any, owner: bytes) -> tuple[int, int]:
        """Rows and bytes that an owner has here, also in changes that are under way; inside a transaction."""
        rows, size = db.execute(
            "SELECT coalesce(sum(rows), 0), coalesce(sum(size), 0) FROM batches WHERE owner=?", (owner,)
        ).fetchone()
        for table in ("packs", "record_packs"):
            size += db.execute(f"SELECT coalesce(sum(size), 0) FROM {table} WHERE owner=?", (owner,)).fetchone()[0]
        for (record,) in db.execute(
            "SELECT record FROM changes WHERE owner=? AND state IN ('reserved', 'prepared', 'accepted') "
            "AND record<>x''", (owner,),
        ):  # fmt: skip
            known = msgpack.unpackb(record, strict_map_key=False)
            rows, size = rows + known.get("rows", 0), size + known.get("bytes", 0)
        return rows, size

    def verify(self) -> tuple[int, list[str]]:
        """Read every file of the catalog; how many, and what is wrong, each line naming the file."""
        problems, count, damaged = [], 0, set[tuple[bytes, bytes]]()
        with self.catalog.reading() as db:  # one moment
            rows = db.execute(
                f"SELECT 'batches', owner, id, file, size, digest FROM batches WHERE NOT {_ALL_DELETED}"
            ).fetchall()
            rows += db.execute("SELECT 'packs', owner, id, file, size, digest FROM packs").fetchall()
            rows += db.execute(
                "SELECT 'record_packs', owner, id, file, size, digest FROM record_packs WHERE file<>''"
            ).fetchall()
            owners = [r[0] for r in db.execute("SELECT id FROM owners WHERE forget IS NULL")]
        for table, owner, batch, name, size, digest in rows:
            if not self.has_shares:
                continue
            count += 1
            problem = check_file(self.folder / name, size, digest) if name else f"batch {batch.hex()}: no file is here"
            # a compaction or a merge may have replaced it meanwhile
            if problem is not None and (name,) == self.catalog.one(
                f"SELECT file FROM {table} WHERE owner=? AND id=?", owner, batch
            ):
                problems.append(problem)
                damaged |= {(owner, batch)} if table == "record_packs" else set()
        if self.has_shares:
            problems += [f"{self.folder}: {line}" for owner in owners for line in self.packs.missing(owner)]
            problems += [f"{self.folder}: {line}" for owner in owners for line in self.records.missing(owner, damaged)]
        problems += [
            f"{self.folder}: the evaluation key of user {user.hex()} is damaged; its next search brings another one"
            for user in self.damaged_evaluation_keys()
        ]
        for row in self.catalog.all("PRAGMA integrity_check"):
            if row[0] != "ok":
                problems.append(f"{self.folder}: {row[0]}")
        if self.catalog.counter("checkpoint_due"):
            problems.append(f"{self.folder}: forgotten secrets are still in the catalog's write-ahead log")
        return count, problems


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where it cannot be linked."""
    try:
        os.link(source, target)
    except FileNotFoundError:  # the folder that is filled went
        raise
    except OSError:  # another file system, or one without links
        copy_file(source, target)


def _temporary_of(path: Path, named: set[str], folder: Path) -> bool:
    """Whether a file is the temporary one of a file that is being written."""
    name, mark, _ = path.name.partition(".tmp")
    return bool(mark) and str(path.with_name(name).relative_to(folder)) in named


def check_offsets(offsets: np.ndarray, rows: int, size: int) -> None:
    """ShapeError unless ``offsets`` cut ``size`` bytes into ``rows`` files."""
    if len(offsets) != rows + 1 or offsets[0] != 0 or offsets[-1] != size or (offsets[1:] < offsets[:-1]).any():
        raise ShapeError("image offsets do not cut the images into one file per row")
