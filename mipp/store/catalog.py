"""The catalog of one server: SQLite in WAL mode. One class around one connection; every change is one transaction."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DeploymentError, StoreError

__all__ = ["Catalog"]

FORMAT = 1
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE owners (id BLOB PRIMARY KEY, name TEXT NOT NULL, sign_key BLOB NOT NULL, registration BLOB NOT NULL,
    sealed BLOB NOT NULL, revision INTEGER NOT NULL DEFAULT 0, forget BLOB);
CREATE TABLE users (id BLOB PRIMARY KEY, name TEXT NOT NULL, sign_key BLOB NOT NULL, box_key BLOB NOT NULL);
CREATE TABLE paillier_keys (user BLOB PRIMARY KEY, key BLOB NOT NULL);
CREATE TABLE grants (owner BLOB NOT NULL, user BLOB NOT NULL, version INTEGER NOT NULL, id BLOB NOT NULL,
    frames BLOB NOT NULL, used INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (owner, user));
CREATE TABLE nonces (owner BLOB NOT NULL, nonce BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (owner, nonce))
    WITHOUT ROWID;
CREATE TABLE batches (id BLOB PRIMARY KEY, owner BLOB NOT NULL, seq INTEGER NOT NULL, rows INTEGER NOT NULL,
    dim INTEGER NOT NULL, stored INTEGER NOT NULL, generation INTEGER NOT NULL DEFAULT 0, committed INTEGER NOT NULL,
    size INTEGER NOT NULL, digest BLOB NOT NULL, tombstones BLOB NOT NULL DEFAULT x'',
    origin_batch BLOB NOT NULL DEFAULT x'', origin_row BLOB NOT NULL DEFAULT x'');
CREATE INDEX batches_by_owner ON batches (owner, seq, id);
CREATE TABLE packs (id BLOB PRIMARY KEY, owner BLOB NOT NULL, rows INTEGER NOT NULL, generation INTEGER NOT NULL,
    size INTEGER NOT NULL, digest BLOB NOT NULL);
CREATE INDEX packs_by_owner ON packs (owner);
CREATE TABLE ops (id BLOB PRIMARY KEY, owner BLOB NOT NULL, kind TEXT NOT NULL, session BLOB NOT NULL,
    exclusive INTEGER NOT NULL, record BLOB NOT NULL, committed BLOB);
"""


class Catalog:
    """Connection to ``folder/catalog.sqlite``; safe to share between threads.

    Raises
    ------
    DeploymentError
        The folder has no catalog, or one of another format or deployment.
    StoreError
        SQLite cannot read or write (disk full, damaged file).
    """

    def __init__(self, folder: Path, meta: dict[str, bytes], *, create: bool = False) -> None:
        path = folder / "catalog.sqlite"
        if not create and not path.is_file():
            raise DeploymentError(f"{folder} holds no catalog.sqlite; is this a mipp server's folder?")
        self._lock = threading.RLock()
        self._path = path
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
            stored = dict(self._db.execute("SELECT name, value FROM meta"))
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {path}: {error}") from None
        if stored != {"format": bytes([FORMAT]), **meta}:
            raise DeploymentError(f"{path} belongs to another deployment, or is of another format version")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE .. COMMIT; rolled back when the body raises."""
        with self._lock:
            try:
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

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database and empty it, so that deleted secrets leave the disk's files."""
        self.all("PRAGMA wal_checkpoint(TRUNCATE)")
