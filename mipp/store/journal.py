"""An owner's own record of what it added: makes adding resumable. Stays with the owner; servers never see it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import StoreError

__all__ = ["Journal"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (label TEXT NOT NULL, batch BLOB NOT NULL, row INTEGER NOT NULL,
    whole INTEGER NOT NULL, PRIMARY KEY (label, batch, row));
CREATE INDEX IF NOT EXISTS items_by_batch ON items (batch, row);
"""


class Journal:
    """Labels (path and content hash of a file, or a part of a vector file) and where they went.

    An entry is written before its batch is sent; :meth:`settle` drops those whose batch never became visible.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, timeout=60, check_same_thread=False)
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot open journal {path}: {error}") from None

    def close(self) -> None:
        self._db.close()

    def _write(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        try:
            with self._lock, self._db:
                self._db.executemany(sql, rows)
        except sqlite3.Error as error:
            raise StoreError(f"cannot write journal {self._path}: {error}") from None

    def begin(self, batch: bytes, labels: Sequence[str]) -> None:
        """One label per row of a batch that is about to be sent, or one for all rows."""
        whole = int(len(labels) == 1)
        self._write(
            "INSERT INTO items VALUES (?, ?, ?, ?)", [(text, batch, row, whole) for row, text in enumerate(labels)]
        )

    def settle(self, batches: Iterable[bytes]) -> None:
        """Drop entries of batches that are not among ``batches``, those that the servers have."""
        have = set(batches)
        known = [row[0] for row in self._db.execute("SELECT DISTINCT batch FROM items")]
        self._write("DELETE FROM items WHERE batch=?", [(b,) for b in known if b not in have])

    def has(self, label: str) -> bool:
        """Whether this was added and not deleted since."""
        return self._db.execute("SELECT 1 FROM items WHERE label=?", (label,)).fetchone() is not None

    def deleted(self, ids: Iterable[tuple[bytes, int]]) -> None:
        self._write("DELETE FROM items WHERE batch=? AND row=? AND whole=0", list(ids))

    def moved(self, places: Mapping[tuple[bytes, int], tuple[bytes, int]]) -> None:
        """Rows that a merge gave new ids."""
        rows = self._db.execute("SELECT label, batch, row, whole FROM items").fetchall()
        first: dict[bytes, tuple[bytes, int]] = {}
        for (batch, _), new in places.items():
            first.setdefault(batch, new)
        changes = []
        for label, batch, row, whole in rows:
            place = first.get(batch) if whole else places.get((batch, row))
            if place is not None:
                changes.append((*place, label, batch, row))
        self._write("UPDATE items SET batch=?, row=? WHERE label=? AND batch=? AND row=?", changes)
