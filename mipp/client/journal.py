"""Journal of an owner: which content it added and from which files, so that adding can be resumed.

The journal stays with the owner; servers never see it. A *label* names added content by its hash, a *file* is a path
that held such content. Labels and paths are stored as keyed hashes (HMAC-SHA256), paths also sealed (AES-256-GCM),
under keys that are derived from the owner's root. Without that root the journal tells the number of images and paths,
the batch and row of each image, now and at first, and when batches were sent, which the servers know too; and ids of
batches of another index that rows were copied from.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import re
import sqlite3
import stat
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..crypto.schedule import hkdf, random_bytes
from ..errors import StoreError
from ..io.durable import sync_folder
from .journal_places import (
    PLACES_SCHEMA,
    Copied,
    JournalPlaces,
    forget_places,
    note_sent,
    settle_copies,
)  # fmt: skip

__all__ = ["Journal", "image_label", "is_gone", "part_label"]

#: 2: sealed; 3: lasting ids, times and deleted rows; 4: positions
_VERSION = 4
_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS owner (one INTEGER PRIMARY KEY CHECK (one = 1), tag BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS batches (batch BLOB PRIMARY KEY, live INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (label BLOB NOT NULL, batch BLOB NOT NULL, row INTEGER NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (label, batch, row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_by_batch ON items (batch, row);
CREATE TABLE IF NOT EXISTS files (place BLOB NOT NULL, label BLOB NOT NULL, old INTEGER NOT NULL, path BLOB NOT NULL,
    PRIMARY KEY (place, label)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead (batch BLOB NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (batch, row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_label ON files (label);
"""
    + PLACES_SCHEMA
)
#: sealed paths are padded to a multiple of this, so that their lengths tell little
_PAD = 128
#: labels of the first version: a path, a hash, and for vectors which rows
_CLEAR = re.compile(r"(?s)(.*) ([0-9a-f]{64})(?: rows ([0-9]+)\+([0-9]+))?")

#: rows of a label: batch and rows
Item = tuple[bytes, np.ndarray]


def image_label(digest: str) -> str:
    """Label of an image file by the SHA-256 of its content, in hex."""
    return f"image {digest}"


def part_label(digest: str, start: int, count: int) -> str:
    """Label of some rows of a file of vectors, by the SHA-256 of all its vectors, in hex."""
    return f"vectors {digest} rows {start}+{count}"


class Journal(JournalPlaces):
    """Added content by label: its batch and rows, and the paths that held it.

    An entry is written before its batch is sent; :meth:`settle` drops entries whose batch never became visible.

    Parameters
    ----------
    path : Path
        The file, made if missing, mode 0600. A journal of the first version, in the clear, is replaced by a sealed one.
    key : bytes
        32 bytes, of this owner alone. Secret.

    Raises
    ------
    StoreError
        Not a journal, damaged, or another owner's. Remove the file: the next add rebuilds it from the servers.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._mac, self._seal = hkdf(key, b"labels"), AESGCM(hkdf(key, b"paths"))
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        try:
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                path.chmod(0o600)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._new_path)  # of a migration that was interrupted
            self._db = self._connect(path)
            version = self._one("PRAGMA user_version")[0]
            if version > _VERSION:
                raise StoreError(f"journal {path} has the later format {version}")
            if version < _VERSION and self._is_clear():
                self._migrate()
            elif version < _VERSION:
                self._make()
            tag = self._hash(b"owner")
            row = self._one("SELECT tag FROM owner")
            if row is None or not isinstance(row[0], bytes):
                raise sqlite3.DatabaseError("it names no owner")
            if not hmac.compare_digest(row[0], tag):
                raise StoreError(f"journal {path} is not this owner's; remove it, and the next add makes a new one")
        except (sqlite3.Error, OSError) as error:
            self.close()
            if isinstance(error, StoreError):
                raise
            raise self._failed("open", error) from None

    @property
    def _new_path(self) -> Path:
        return self._path.with_name(f"{self._path.name}.new")

    def _connect(self, path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=60, check_same_thread=False)

    def _make(self) -> None:
        """Make the tables of an empty file, with the owner's tag."""
        self._database.executescript(_SCHEMA)
        with self._change() as db:
            db.execute("INSERT OR IGNORE INTO owner VALUES (1, ?)", (self._hash(b"owner"),))
            db.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        if self._db is not None:
            self._db.close()

    # --- statements ---------------------------------------------------------------------------------------------

    def _all(self, sql: str, *values: object) -> list[Any]:
        try:
            with self._lock:
                return self._database.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed("read", error) from None

    def _one(self, sql: str, *values: object) -> Any:
        return next(iter(self._all(sql, *values)), None)

    @contextlib.contextmanager
    def _change(self) -> Any:
        """One transaction."""
        try:
            with self._lock, self._database as db:
                db.execute("BEGIN IMMEDIATE")
                yield db
        except sqlite3.Error as error:
            raise self._failed("write", error) from None

    def _failed(self, verb: str, error: Exception) -> StoreError:
        text = f"cannot {verb} journal {self._path}: {error}"
        busy = isinstance(error, sqlite3.OperationalError) and not str(error).startswith("no such")
        if isinstance(error, sqlite3.DatabaseError) and not busy:
            text += "; remove the file, and the next add rebuilds it from the servers"
        return StoreError(text)

    @property
    def _database(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError(f"journal {self._path} is closed")
        return self._db

    # --- names --------------------------------------------------------------------------------------------------

    def _hash(self, data: bytes) -> bytes:
        return hmac.digest(self._mac, data, "sha256")

    def _label(self, label: str) -> bytes:
        return self._hash(b"label " + label.encode("utf-8", "surrogatepass"))

    def _place(self, path: Path) -> tuple[bytes, bytes]:
        """Keyed hash of a path, and the path sealed."""
        raw = os.fsencode(path)
        place = self._hash(b"place " + raw)
        nonce = random_bytes(12)
        plain = len(raw).to_bytes(4, "big") + raw
        return place, nonce + self._seal.encrypt(nonce, plain + bytes(-len(plain) % _PAD), place)

    def _opened(self, place: bytes, sealed: bytes) -> Path:
        try:
            plain = self._seal.decrypt(sealed[:12], sealed[12:], place)
        except (InvalidTag, ValueError, TypeError):
            raise self._failed("read", sqlite3.DatabaseError("a path in it does not open")) from None
        return Path(os.fsdecode(plain[4 : 4 + int.from_bytes(plain[:4], "big")]))

    # --- added content ------------------------------------------------------------------------------------------

    def begin(
        self, batch: bytes, labels: Sequence[str], rows: int, copied: Copied | None = None, file: Path | None = None
    ) -> None:
        """Note a batch that is about to be sent: one label for each row, or one for all ``rows``; ``file`` holds it."""
        count = rows if len(labels) == 1 else 1
        items = [(self._label(text), batch, row, count) for row, text in enumerate(labels)]
        with self._change() as db:
            db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?)", (batch, rows))
            db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", items)
            note_sent(db, batch, rows)
            if copied is not None:
                self._note_copies(db, batch, copied)
                self._hold(db, copied.paths)
            if file is not None:
                self._hold(db, {label: [file] for label in labels})

    def hold(self, file: Path, label: str) -> None:
        """Note that a file holds content that is there already, whatever else it holds."""
        with self._change() as db:
            self._hold(db, {label: [file]})

    def there_already(self, copied: Copied) -> None:
        """Note that rows of another index need no copy: their content is here, under labels of ``copied``."""
        with self._change() as db:
            # a name of its own, as there is no batch: it counts as one copy of this content
            self._note_copies(db, random_bytes(16), copied, done=True)
            self._hold(db, copied.paths)

    def _hold(self, db: Any, holders: Mapping[str, Sequence[Path]]) -> None:
        """Inside a transaction: files hold labels, whatever else they hold."""
        for label, paths in holders.items():
            rows = [(place, self._label(label), sealed) for place, sealed in map(self._place, paths)]
            db.executemany("INSERT INTO files VALUES (?, ?, 0, ?) ON CONFLICT (place, label) DO UPDATE SET old=0", rows)

    def unlisted(self, listed: Collection[bytes]) -> set[bytes]:
        """Batches of this journal that the servers may not have got: not ``listed``, and not known as merged."""
        known = self._all(
            "SELECT batch FROM batches UNION SELECT batch FROM items UNION SELECT batch FROM origins "
            "EXCEPT SELECT old FROM moves WHERE batch IN (SELECT batch FROM batches)"
        )
        return {row[0] for row in known} - set(listed)

    def settle(self, live: Mapping[bytes, int], waiting: Collection[bytes] = ()) -> None:
        """Drop entries of batches without a live row at the servers.

        ``live``: live rows of each of their batches; ``waiting``: batches that may come yet, whose entries stay.
        """
        known = {row[0] for row in self._all("SELECT batch FROM batches UNION SELECT batch FROM items")}
        placed = {row[0] for row in self._all("SELECT DISTINCT batch FROM origins")}
        gone = [(b,) for b in known if not live.get(b) and b not in waiting]
        kept = {*live, *waiting}
        if self._one("SELECT 1 FROM copies WHERE done=0") is not None:
            with self._change() as db:
                settle_copies(db, live, waiting)
        if gone or not placed <= kept:
            with self._change() as db:
                labels = {r for b in gone for r in db.execute("SELECT DISTINCT label FROM items WHERE batch=?", b)}
                db.executemany("DELETE FROM items WHERE batch=?", gone)
                db.executemany("DELETE FROM batches WHERE batch=?", gone)
                db.executemany("DELETE FROM dead WHERE batch=?", gone)
                _forget_files(db, labels)
                forget_places(db, kept)

    def differing(self, live: Mapping[bytes, int]) -> dict[bytes, bool]:
        """Batches whose live rows at the servers differ from this journal's; whether it knows the rows' labels."""
        known = dict(self._all("SELECT batch, live FROM batches"))
        return {batch: batch in known for batch, rows in live.items() if rows and known.get(batch) != rows}

    def found(
        self, batch: bytes, rows: Collection[int], uploaded: int, labels: Iterable[tuple[str, int, int]] = ()
    ) -> None:
        """Note a batch as the servers have it: its live rows, of so many, and new labels with first row and rows."""
        look = self.looked_up()
        alive = set(look.positions(batch, list(rows)).tolist())
        items = [
            # several rows are all of the batch
            (self._label(text), batch, look.position(batch, row) if count == 1 else row, count)
            for text, row, count in labels
        ]
        missing = [(batch, row) for row in range(uploaded) if row not in alive]
        with self._change() as db:
            dead = [
                r for r in db.execute("SELECT label, row, count FROM items WHERE batch=?", (batch,))
                if alive.isdisjoint(range(r[1], r[1] + r[2]))
            ]  # fmt: skip
            db.executemany("DELETE FROM items WHERE label=? AND batch=? AND row=?", [(r[0], batch, r[1]) for r in dead])
            db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", items)
            db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?)", (batch, len(alive)))
            db.execute("DELETE FROM dead WHERE batch=?", (batch,))
            db.executemany("INSERT INTO dead VALUES (?, ?)", missing)
            _forget_files(db, {(r[0],) for r in dead})

    def has(self, label: str) -> bool:
        """Whether the content of a label was added and not deleted since."""
        return self._one("SELECT 1 FROM items WHERE label=?", self._label(label)) is not None

    def rename(self, label: str, new: str) -> None:
        """Give content another label, which no content has yet; files that hold it hold it under the new one."""
        with self._change() as db:
            for table in ("items", "files"):
                db.execute(
                    f"UPDATE OR REPLACE {table} SET label=? WHERE label=?", (self._label(new), self._label(label))
                )

    def has_untimed(self) -> bool:
        """Whether rows under one label were added by the first version, or read back from the servers."""
        found = self._one("SELECT 1 FROM items WHERE count>1 AND batch NOT IN (SELECT batch FROM times) LIMIT 1")
        return found is not None

    def deleted(self, ids: Iterable[tuple[bytes, int]]) -> None:
        """Note that rows were deleted."""
        gone: dict[bytes, set[int]] = {}
        look = self.looked_up()
        for batch, row in ids:
            gone.setdefault(batch, set()).add(row)
        gone = {batch: set(look.positions(batch, list(rows)).tolist()) for batch, rows in gone.items()}
        with self._change() as db:
            labels = set()
            for batch, rows in gone.items():
                # each row counts once, and a label of several rows goes with the last of them
                before = {row for (row,) in db.execute("SELECT row FROM dead WHERE batch=?", (batch,))}
                new = rows - before
                db.executemany("INSERT INTO dead VALUES (?, ?)", [(batch, row) for row in new])
                dead = before | new
                for label, row, count in db.execute(
                    "SELECT label, row, count FROM items WHERE batch=?", (batch,)
                ).fetchall():
                    if dead.issuperset(range(row, row + count)):
                        db.execute("DELETE FROM items WHERE label=? AND batch=? AND row=?", (label, batch, row))
                        labels.add((label,))
                db.execute("UPDATE batches SET live=live-? WHERE batch=?", (len(new), batch))
            _forget_files(db, labels)

    # --- files --------------------------------------------------------------------------------------------------

    def claim(self, files: Mapping[Path, Sequence[str]]) -> None:
        """Note the labels of the content that files hold now; content that they held before is :meth:`replaced`.

        A missing file whose content another file holds now counts as moved, and is dropped.
        """
        now = [(*self._place(path), {self._label(text) for text in texts}) for path, texts in files.items()]
        places = {place for place, _, _ in now}
        new: set[bytes] = set()
        with self._change() as db:
            for place, sealed, labels in now:
                known = dict(db.execute("SELECT label, old FROM files WHERE place=?", (place,)).fetchall())
                new |= labels - known.keys()
                rows = [(place, label, sealed) for label in labels - known.keys()]
                db.executemany("INSERT INTO files VALUES (?, ?, 0, ?)", rows)
                turned = [(int(label not in labels), place, label) for label in known]
                db.executemany("UPDATE files SET old=? WHERE place=? AND label=?", turned)
            for label in new:
                for other, sealed in db.execute("SELECT place, path FROM files WHERE label=?", (label,)).fetchall():
                    if other not in places and is_gone(self._opened(other, sealed)):
                        db.execute("DELETE FROM files WHERE place=? AND label=?", (other, label))

    def release(self, paths: Iterable[Path]) -> int:
        """Note that files hold nothing any more; content that no other file holds is :meth:`replaced` from then on.

        Returns the number of these files whose content another file holds, all of it or some.
        """
        places = [(self._place(path)[0],) for path in paths]
        with self._change() as db:
            db.executemany("UPDATE files SET old=1 WHERE place=?", places)
            dropped = "DELETE FROM files WHERE place=? AND label IN (SELECT label FROM files WHERE old=0)"
            return sum(bool(db.execute(dropped, place).rowcount) for place in places)

    def paths(self) -> list[Path]:
        """Paths of files that hold content which was added, or held some that is still to be deleted; sorted."""
        known = dict(self._all("SELECT place, path FROM files"))
        return sorted(self._opened(place, sealed) for place, sealed in known.items())

    def all_held(self, paths: Iterable[Path], texts: Iterable[str]) -> bool:
        """Whether all content of these files is held by other files, or is that of the labels ``texts``."""
        mine = {self._place(path)[0] for path in paths}
        held, needed = {self._label(text) for text in texts}, set[bytes]()
        for place, label in self._all("SELECT place, label FROM files WHERE old=0"):
            (needed if place in mine else held).add(label)
        return needed <= held

    def replaced(self) -> list[Item]:
        """Rows of content that files held before they were changed, and that no other file holds."""
        look = self.looked_up()
        return [
            (batch, look.rows(batch, np.arange(first, first + count)))
            for batch, first, count in self._all(
                "SELECT batch, row, count FROM items WHERE label IN (SELECT label FROM files WHERE old=1) "
                "AND label NOT IN (SELECT label FROM files WHERE old=0) ORDER BY batch, row"
            )
        ]

    def images(self) -> list[tuple[Path | None, bytes, int]]:
        """Path, batch and row of each image (content of a single row); the path is None if it is not known."""
        look = self.looked_up()
        return [(path, batch, look.row(batch, first)) for path, batch, first, count in self.content() if count == 1]

    def places(self, label: str) -> list[tuple[bytes, int]]:
        """Batch and first row of the content of a label."""
        look = self.looked_up()
        found = self._all("SELECT batch, row FROM items WHERE label=? ORDER BY batch, row", self._label(label))
        return [(batch, look.row(batch, first)) for batch, first in found]

    def source_of(self, text: bytes) -> bytes:
        """Name of another index and its owner in this journal: a keyed hash."""
        return self._hash(b"source " + text)

    def content(self, *of: bytes) -> Iterator[tuple[Path | None, bytes, int, int]]:
        """Path, batch, first position and rows of all content, or of a batch's, with each path that holds it."""
        for place, sealed, batch, row, count in self._all(
            "SELECT f.place, f.path, i.batch, i.row, i.count FROM items i "
            "LEFT JOIN files f ON f.label=i.label AND f.old=0 "
            + ("WHERE i.batch=? " if of else "") + "ORDER BY i.batch, i.row", *of,
        ):  # fmt: skip
            yield None if place is None else self._opened(place, sealed), batch, row, count

    def dead(self, batch: bytes) -> np.ndarray:
        """Positions of a batch whose rows are deleted, ascending, as far as the journal knows; int64."""
        return np.array([row for (row,) in self._all("SELECT row FROM dead WHERE batch=? ORDER BY row", batch)], "<i8")

    # --- the first version --------------------------------------------------------------------------------------

    def _is_clear(self) -> bool:
        columns = [row[1] for row in self._all("PRAGMA table_info(items)")]
        return "whole" in columns

    def _migrate(self) -> None:
        """Replace a journal in the clear by a sealed one, and overwrite the old bytes."""
        rows = self._all("SELECT label, batch, row FROM items ORDER BY batch, row")
        self._database.close()
        old = os.open(self._path, os.O_RDWR)
        try:
            os.close(os.open(self._new_path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._db = self._connect(self._new_path)
            self._make()
            items, files = [], []
            size: dict[bytes, int] = {}
            for label, batch, row in rows:
                text, count, path = _read_clear(label)
                items.append((self._label(text), batch, row, count))
                size[batch] = size.get(batch, 0) + count
                if path is not None:
                    place, sealed = self._place(Path(path))
                    files.append((place, self._label(text), 0, sealed))
            with self._change() as db:
                db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", items)
                db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", files)
                # batches with other numbers of live rows, or that were not noted, are read back from the servers
                db.executemany("INSERT OR REPLACE INTO batches VALUES (?, ?)", list(size.items()))
            self._db.close()
            with open(self._new_path, "rb") as written:
                os.fsync(written.fileno())
            os.replace(self._new_path, self._path)
            sync_folder(self._path.parent)
            _overwrite(old)
        finally:
            os.close(old)
        self._db = self._connect(self._path)


def _read_clear(label: str) -> tuple[str, int, str | None]:
    """Convert a label of the first version: the label now, its number of rows, and the path of an image."""
    found = _CLEAR.fullmatch(label)
    if found is None:
        return label, 1, None
    path, digest, start, count = found.groups()
    if start is None:
        return image_label(digest), 1, str(path)
    return part_label(digest, int(start), int(count)), int(count), None


def _forget_files(db: sqlite3.Connection, labels: Iterable[tuple[bytes]]) -> None:
    """Drop the files of labels without rows."""
    db.executemany("DELETE FROM files WHERE label=?1 AND NOT EXISTS (SELECT 1 FROM items WHERE label=?1)", list(labels))


def is_gone(path: Path) -> bool:
    """Whether a path leads to no regular file, also through links; one that cannot be examined counts as present."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def _overwrite(fd: int) -> None:
    """Overwrite an open, unlinked file with zeros; copies that the file system keeps elsewhere stay."""
    with contextlib.suppress(OSError):
        size = os.fstat(fd).st_size
        for start in range(0, size, 1 << 20):
            os.pwrite(fd, bytes(min(1 << 20, size - start)), start)
        os.fsync(fd)
        os.ftruncate(fd, 0)
