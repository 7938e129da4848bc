"""The catalog of one server: SQLite in WAL mode. One class around one connection; every change is one transaction."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DeploymentError, StoreError

__all__ = ["NAME", "Catalog"]

_log = logging.getLogger("mipp.server")

FORMAT = 2
#: of format 1: ``catalog.sqlite``, see migrate.py
NAME = "catalog-2.sqlite"
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE owners (id BLOB PRIMARY KEY, name TEXT NOT NULL, sign_key BLOB NOT NULL, registration BLOB NOT NULL,
    sealed BLOB NOT NULL, frames BLOB NOT NULL, position INTEGER NOT NULL, view BLOB NOT NULL, floor INTEGER NOT NULL,
    floor_view BLOB NOT NULL, revision INTEGER NOT NULL DEFAULT 0, forget BLOB, issued INTEGER NOT NULL DEFAULT 0,
    commitments BLOB NOT NULL DEFAULT x'');
CREATE TABLE users (id BLOB PRIMARY KEY, name TEXT NOT NULL, sign_key BLOB NOT NULL, box_key BLOB NOT NULL,
    frames BLOB NOT NULL, out_of_range INTEGER NOT NULL DEFAULT 0);
CREATE TABLE paillier_keys (user BLOB PRIMARY KEY, key BLOB NOT NULL);
CREATE TABLE grants (owner BLOB NOT NULL, user BLOB NOT NULL, version INTEGER NOT NULL, revoked INTEGER NOT NULL,
    id BLOB NOT NULL, frames BLOB NOT NULL, epoch INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0,
    fetched INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, user)) WITHOUT ROWID;
CREATE INDEX grants_by_user ON grants (user, owner);
CREATE TABLE changes (owner BLOB NOT NULL, op BLOB NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
    digest BLOB NOT NULL, record BLOB NOT NULL DEFAULT x'', holder BLOB NOT NULL DEFAULT x'',
    expires INTEGER NOT NULL DEFAULT 0, position INTEGER, view BLOB, commit_hash BLOB, commit_frames BLOB,
    votes BLOB NOT NULL DEFAULT x'', PRIMARY KEY (owner, op)) WITHOUT ROWID;
CREATE INDEX changes_by_position ON changes (owner, position);
CREATE INDEX changes_by_name ON changes (op);
CREATE INDEX open_of_owner ON changes (owner, state) WHERE state NOT IN ('committed', 'aborted');
CREATE INDEX open_changes ON changes (state) WHERE state NOT IN ('committed', 'aborted');
CREATE TABLE attempts (file TEXT PRIMARY KEY, owner BLOB NOT NULL, holder BLOB NOT NULL);
CREATE TABLE batches (owner BLOB NOT NULL, id BLOB NOT NULL, position INTEGER NOT NULL, rows INTEGER NOT NULL,
    dim INTEGER NOT NULL, stored INTEGER NOT NULL, generation INTEGER NOT NULL DEFAULT 0, file TEXT NOT NULL,
    size INTEGER NOT NULL, digest BLOB NOT NULL, share_hash BLOB NOT NULL, tombstones BLOB NOT NULL DEFAULT x'',
    imaged BLOB NOT NULL DEFAULT x'', origin_batch BLOB NOT NULL DEFAULT x'', origin_row BLOB NOT NULL DEFAULT x'',
    certificate BLOB NOT NULL DEFAULT x'', shares BLOB NOT NULL DEFAULT x'',
    rebuilt INTEGER NOT NULL DEFAULT 0, records BLOB NOT NULL DEFAULT x'', PRIMARY KEY (owner, id));
CREATE INDEX batches_by_position ON batches (owner, position);
CREATE TABLE packs (owner BLOB NOT NULL, id BLOB NOT NULL, rows INTEGER NOT NULL, generation INTEGER NOT NULL,
    file TEXT NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (owner, id));
CREATE TABLE peers (server INTEGER PRIMARY KEY, incarnation INTEGER NOT NULL, counter INTEGER NOT NULL,
    proof BLOB NOT NULL DEFAULT x'', restart BLOB NOT NULL DEFAULT x'');
CREATE TABLE ahead (signer BLOB PRIMARY KEY, issued INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS invitations (id BLOB PRIMARY KEY, party BLOB NOT NULL UNIQUE, rows INTEGER, bytes INTEGER,
    requests INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record_packs (owner BLOB NOT NULL, id BLOB NOT NULL, rows INTEGER NOT NULL,
    album BLOB NOT NULL, hash BLOB NOT NULL, generation INTEGER NOT NULL DEFAULT 0, stored INTEGER NOT NULL,
    file TEXT NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (owner, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evaluation_keys (user BLOB PRIMARY KEY, key BLOB NOT NULL, digest BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS seals (owner BLOB NOT NULL, server INTEGER NOT NULL, epoch INTEGER NOT NULL,
    key BLOB NOT NULL, sealed BLOB NOT NULL, frames BLOB NOT NULL, PRIMARY KEY (owner, server)) WITHOUT ROWID;
"""
#: columns that catalogs of this format did not have from the beginning
_ADDED = (
    ("batches", "certificate", "BLOB NOT NULL DEFAULT x''"),
    ("batches", "shares", "BLOB NOT NULL DEFAULT x''"),
    ("batches", "rebuilt", "INTEGER NOT NULL DEFAULT 0"),
    ("batches", "records", "BLOB NOT NULL DEFAULT x''"),
    ("grants", "fetched", "INTEGER NOT NULL DEFAULT 0"),
    ("users", "out_of_range", "INTEGER NOT NULL DEFAULT 0"),
    ("owners", "issued", "INTEGER NOT NULL DEFAULT 0"),
    ("owners", "commitments", "BLOB NOT NULL DEFAULT x''"),
)
#: tables that they did not have
_ADDED_TABLES = _SCHEMA[_SCHEMA.index("CREATE TABLE IF NOT EXISTS") :].rstrip(";\n").split(";\n")
#: and an index
_BY_NAME = "CREATE INDEX IF NOT EXISTS changes_by_name ON changes (op)"
_COUNTERS = ("incarnation", "counter", "epoch", "checkpoint_due", "restoring")


class Catalog:
    """Connection to a server's catalog (``folder`` / :data:`NAME`); safe to share between threads.

    ``counters``: ``incarnation``, one higher after each restore from a backup, and over a network after each start;
    ``counter``, one higher with every change that a restored backup must not undo unnoticed (grants, counted queries,
    votes, forgets); ``epoch`` of grants; ``restoring``, 1 from the start of a restore to its end.

    Parameters
    ----------
    folder : the server's
    meta : what the catalog belongs to; must be the same when it is opened
    create : make a new one
    witness : called with the new ``counter`` after each transaction that raised it

    Raises
    ------
    DeploymentError
        The folder has no catalog, or one of another format or deployment.
    StoreError
        SQLite cannot read or write (disk full, damaged file).
    """

    def __init__(
        self, folder: Path, meta: dict[str, bytes], *, create: bool = False,
        witness: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        if sqlite3.sqlite_version_info < (3, 35):
            raise StoreError(f"SQLite 3.35 or newer is needed, this Python has {sqlite3.sqlite_version}")
        path = folder / NAME
        if not create and not path.is_file():
            raise DeploymentError(f"{folder} holds no {NAME}; is this a mipp server's folder?")
        self._witness, self._raised = witness, 0
        self._lock = threading.RLock()
        self._path = path
        self._version: int | None = None
        if create:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA secure_delete=ON")
            if create:
                with self.transaction() as db:
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    db.execute("INSERT INTO meta VALUES ('format', ?)", (bytes([FORMAT]),))
                    db.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
                    db.executemany("INSERT INTO counters VALUES (?, 0)", [(name,) for name in _COUNTERS])
            stored = dict(self._db.execute("SELECT name, value FROM meta"))
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {path}: {error}") from None
        if stored != {"format": bytes([FORMAT]), **meta}:
            raise DeploymentError(f"{path} belongs to another deployment, or is of another format version")
        if not all(self._columns(table) for table in ("invitations", "record_packs", "evaluation_keys", "seals")):
            with self.transaction() as db:
                for statement in _ADDED_TABLES:
                    db.execute(statement)
        if not self.all("SELECT 1 FROM sqlite_master WHERE name='changes_by_name'"):
            with self.transaction() as db:
                db.execute(_BY_NAME)
        for table, column, kind in _ADDED:
            if column not in self._columns(table):
                with self.transaction() as db:
                    if column not in self._columns(table):  # not by another process meanwhile
                        db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
        #: ``counter`` as it was found
        self.counter_at_opening = self.counter("counter")

    def _columns(self, table: str) -> list[str]:
        return [row[1] for row in self.all(f"PRAGMA table_info({table})")]

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def transaction(self, *, sync: bool = True) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE .. COMMIT; rolled back when the body raises.

        ``sync=False`` leaves the disk's own time to the commit: it survives a killed process, and a power failure from
        the next synced transaction on. For what promises nothing to anybody yet.
        """
        with self._lock:
            try:
                if not sync:
                    self._db.execute("PRAGMA synchronous=NORMAL")
                self._raised = 0
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"catalog {self._path}: {error}") from None
            finally:
                if not sync:
                    with contextlib.suppress(sqlite3.Error):  # closed meanwhile
                        self._db.execute("PRAGMA synchronous=FULL")
            if self._raised and self._witness is not None:
                self._witness(self._raised)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Several reads of one moment: nothing that others commit shows in between. Inside a transaction, of that."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            try:
                self._db.execute("BEGIN")
                try:
                    yield self._db
                finally:
                    if self._db.in_transaction:
                        self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreError(f"catalog {self._path}: {error}") from None

    def raise_counter(self, db: sqlite3.Connection) -> int:
        """Inside a transaction: note that something happened which a restored backup must not undo unnoticed."""
        (self._raised,) = db.execute(
            "UPDATE counters SET value=value+1 WHERE name='counter' RETURNING value"
        ).fetchone()
        return self._raised

    def counter(self, name: str) -> int:
        """Value of one of the counters."""
        row = self.one("SELECT value FROM counters WHERE name=?", name)
        if row is None:
            raise StoreError(f"catalog {self._path} has no counter {name}")
        return int(row[0])

    def set_counter(self, db: sqlite3.Connection, name: str, value: int) -> None:
        """Inside a transaction: set a counter."""
        db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))

    def copy_to(self, path: Path) -> None:
        """Write the catalog of one moment to a new file, mode 0600, while others go on; StoreError."""
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            with contextlib.closing(sqlite3.connect(self._path, timeout=60, isolation_level=None)) as db:
                db.execute("VACUUM INTO ?", (os.fspath(path),))
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None

    def changed_elsewhere(self) -> bool:
        """Whether another process wrote to the catalog since the last call of this."""
        version = int(self.all("PRAGMA data_version")[0][0])
        with self._lock:
            before, self._version = self._version, version
        return before is not None and before != version

    def all(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with self._lock:
            try:
                return self._db.execute(sql, args).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"catalog {self._path}: {error}") from None

    def one(self, sql: str, *args: Any) -> tuple[Any, ...] | None:
        """First row of a query, or None."""
        rows = self.all(sql, *args)
        return rows[0] if rows else None

    def checkpoint(self, patience: float = 5.0) -> bool:
        """Move the write-ahead log into the database and empty it, so that deleted secrets leave the disk's files.

        Another process that reads at this moment keeps the log in use: tried again for ``patience`` seconds. Whoever
        deletes secrets sets ``checkpoint_due`` with it: what fails, also on a full disk or by a crash,
        :meth:`settle_checkpoint` does later. Whether the log is empty now.
        """
        until = time.monotonic() + patience
        try:
            while self._checkpoint():
                if time.monotonic() > until:
                    return False
                time.sleep(0.01)
            if self.counter("checkpoint_due"):
                with self.transaction() as db:
                    self.set_counter(db, "checkpoint_due", 0)
        except StoreError as error:
            _log.warning("forgotten secrets stay in the write-ahead log for now: %s", error)
            return False
        return True

    def _checkpoint(self) -> bool:
        """Try it once; whether somebody was in the way."""
        with self._lock:
            self.all("PRAGMA busy_timeout=100")
            try:
                return bool(self.all("PRAGMA wal_checkpoint(TRUNCATE)")[0][0])
            finally:
                self.all("PRAGMA busy_timeout=60000")

    def settle_checkpoint(self) -> None:
        """Do a checkpoint that was due, if nobody is in the way now."""
        if self.counter("checkpoint_due"):
            self.checkpoint(0)
