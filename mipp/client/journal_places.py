"""Where images are now: the part of an owner's journal that makes ids last.

The *lasting id* of an image is the batch and row that it was first uploaded under. Servers keep it for each row through
every merge, since image files are encrypted under it. The journal keeps it as *runs*: so many rows of a batch, from one
row on, came from so many rows of another. Batch ids are random and never used again, so a pair (batch, row) names one
image or none, whether it is a lasting id or a place of now or of some time before. Rows of a batch are numbered by
position (``journal_orders.py``), so that a merge that lays rows out has as few runs as another.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .journal_orders import ORDERS_SCHEMA, JournalOrders, write_order

__all__ = ["PLACES_SCHEMA", "Copied", "JournalPlaces", "Moving", "Run", "by_origin", "runs_of"]

#: origins: lasting ids of a batch's rows; moves: rows of a batch that a merge replaced, and where they went;
#: times: when a batch was sent, in Unix seconds; copies: rows of another index that a batch was made from. Rows are
#: positions, but for lasting ids and rows of another index
PLACES_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS origins (batch BLOB NOT NULL, first INTEGER NOT NULL, origin BLOB NOT NULL,
    start INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (batch, first)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS origins_by_origin ON origins (origin, batch, start);
CREATE TABLE IF NOT EXISTS moves (old BLOB NOT NULL, batch BLOB NOT NULL, start INTEGER NOT NULL,
    first INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (old, batch, start, first)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS times (batch BLOB PRIMARY KEY, added INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS copies (source BLOB NOT NULL, origin BLOB NOT NULL, start INTEGER NOT NULL,
    count INTEGER NOT NULL, digest BLOB NOT NULL, batch BLOB NOT NULL, done INTEGER NOT NULL,
    PRIMARY KEY (source, origin, start, batch)) WITHOUT ROWID;
"""
    + ORDERS_SCHEMA
)

#: batch and row
Pair = tuple[bytes, int]


class Run(NamedTuple):
    """``rows`` rows of a batch from ``first`` on, which came from ``start`` on of the batch ``origin``."""

    first: int
    origin: bytes
    start: int
    rows: int


def runs_of(rows: np.ndarray, batches: np.ndarray, numbers: np.ndarray) -> list[Run]:
    """Runs of rows that follow each other in their batch and in the batch that they came from.

    Parameters
    ----------
    rows : ndarray of int, (n,)
        Numbers of the rows in their batch, ascending.
    batches : ndarray of uint8, (n, 16)
        Batch that each came from.
    numbers : ndarray of int, (n,)
        Its row there.

    Returns
    -------
    list of Run
        In the order of ``rows``.

    Examples
    --------
    >>> import numpy as np
    >>> old = np.array([[7] * 16] * 3 + [[9] * 16], np.uint8)
    >>> [(run.first, run.start, run.rows) for run in runs_of(np.arange(4), old, np.array([4, 5, 8, 0]))]
    [(0, 4, 2), (2, 8, 1), (3, 0, 1)]
    """
    rows, numbers = np.asarray(rows, np.int64), np.asarray(numbers, np.int64)
    if not len(rows):
        return []
    breaks = (np.diff(rows) != 1) | (np.diff(numbers) != 1) | (batches[1:] != batches[:-1]).any(axis=1)
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    counts = np.diff(np.append(starts, len(rows)))
    return [
        Run(int(rows[at]), batches[at].tobytes(), int(numbers[at]), int(count))
        for at, count in zip(starts, counts, strict=True)
    ]


def by_origin(origins: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Order of rows by the batch (n, 16) that each came from, and by its number (n,) there: int64, (n,)."""
    halves = np.ascontiguousarray(origins).view(">u8").reshape(-1, 2)
    return np.lexsort((numbers, halves[:, 1], halves[:, 0]))


class Moving(NamedTuple):
    """Where the rows of a merge come from: row n is row ``rows[n]`` of the batch ``batches[which[n]]``.

    ``which`` and ``rows`` are int64, (n,).
    """

    batches: Sequence[bytes]
    which: np.ndarray
    rows: np.ndarray


class Copied(NamedTuple):
    """Rows of another index that a batch is made from.

    ``source`` names the index and its owner, ``digest`` the content of the rows together, or is empty. ``paths``: files
    that hold labels of the batch.
    """

    source: bytes
    runs: Sequence[Run]
    digest: bytes = b""
    paths: Mapping[str, Sequence[Path]] = {}


class JournalPlaces(JournalOrders):
    """The part of :class:`~mipp.client.journal.Journal` that knows lasting ids, present places and times."""

    @abstractmethod
    def _hash(self, data: bytes) -> bytes:
        """Keyed hash, 32 bytes."""

    @abstractmethod
    def _label(self, label: str) -> bytes:
        """Keyed hash of a label."""

    @abstractmethod
    def _change(self) -> AbstractContextManager[Any]:
        """One transaction."""

    # --- writing ------------------------------------------------------------------------------------------------

    def came_from(
        self, batch: bytes, rows: np.ndarray, origins: np.ndarray, numbers: np.ndarray, uploaded: int
    ) -> None:
        """Note the lasting ids of a batch's rows, as a server told them. What is known of a batch stays as it is.

        A batch never changes, and its order must not either: content and places of its rows are numbered by it.

        Parameters
        ----------
        batch : bytes
            Id of the batch.
        rows : ndarray of int, (n,)
            Its live rows, ascending.
        origins : ndarray of uint8, (n, 16)
            Batch that each was first uploaded in.
        numbers : ndarray of int, (n,)
            Its row there.
        uploaded : int
            Rows of the batch as it was uploaded.
        """
        order = np.arange(uploaded)
        runs = runs_of(rows, origins, numbers)
        lasting = by_origin(origins, numbers)
        sorted_runs = runs_of(np.arange(len(rows)), origins[lasting], numbers[lasting])
        with self._change() as db:
            if any(db.execute(f"SELECT 1 FROM {table} WHERE batch=? LIMIT 1", (batch,)).fetchone()
                   for table in ("origins", "orders")):  # fmt: skip
                return
            known = db.execute("SELECT 1 FROM items WHERE batch=? LIMIT 1", (batch,)).fetchone()
            if known is None and len(sorted_runs) < len(runs):
                # it was laid out; rows that are deleted come last
                order = np.concatenate([rows[lasting], np.setdiff1d(order, rows)])
                runs = sorted_runs
            _write_origins(db, batch, runs)
            write_order(db, batch, order)

    def own_ids(self, batch: bytes, rows: int) -> None:
        """Note that the rows of a batch have ids of their own."""
        with self._change() as db:
            _write_origins(db, batch, [Run(0, batch, 0, rows)])

    def merging(self, batch: bytes, origins: np.ndarray, numbers: np.ndarray, moving: Moving) -> None:
        """Note a merge before it happens: lasting ids, content and places of its rows; ``settle`` drops old or new.

        Parameters
        ----------
        batch : bytes
            Id of the merged batch.
        origins : ndarray of uint8, (n, 16)
            Batch that each row was first uploaded in.
        numbers : ndarray of int, (n,)
            Its row there.
        moving : Moving
            Where the rows come from.
        """
        look = self.looked_up()
        former = np.empty(len(moving.rows), np.int64)
        for n, old in enumerate(moving.batches):
            former[moving.which == n] = look.positions(old, moving.rows[moving.which == n])
        # positions: batch after batch, each in its own positions, whatever order they are stored in
        order = np.lexsort((former, moving.which))
        which, former = moving.which[order], former[order]
        ids = np.frombuffer(b"".join(moving.batches), np.uint8).reshape(-1, 16)
        new = np.arange(len(order))
        bounds = np.searchsorted(which, np.arange(len(moving.batches) + 1))
        with self._change() as db:
            _write_origins(db, batch, runs_of(new, origins[order], np.asarray(numbers)[order]))
            _note_time(db, batch)
            write_order(db, batch, order)
            moves = runs_of(new, ids[which], former)
            rows = [(run.origin, batch, run.start, run.first, run.rows) for run in moves]
            db.executemany("INSERT OR REPLACE INTO moves VALUES (?, ?, ?, ?, ?)", rows)
            items: list[tuple[bytes, bytes, int, int]] = []
            for n, old in enumerate(moving.batches):
                first, live = int(bounds[n]), former[bounds[n] : bounds[n + 1]]
                known = db.execute("SELECT label, row, count FROM items WHERE batch=?", (old,)).fetchall()
                edges = np.array([(row, row + count) for _, row, count in known], np.int64).reshape(-1, 2)
                for (label, _, _), (low, high) in zip(known, np.searchsorted(live, edges).tolist(), strict=True):
                    if low < high:
                        items.append((label, batch, first + low, high - low))
            db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", items)
            noted = {row[0] for row in db.execute("SELECT batch FROM batches")}
            if noted.issuperset(moving.batches[n] for n in np.unique(which)):  # else it is read back from the servers
                db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?)", (batch, len(order)))

    # --- asking -------------------------------------------------------------------------------------------------

    def unread(self, live: Collection[bytes]) -> list[bytes]:
        """Batches among ``live`` whose rows' lasting ids are not known here."""
        known = {row[0] for row in self._all("SELECT DISTINCT batch FROM origins")}
        return [batch for batch in live if batch not in known]

    def present(self, pairs: Iterable[Pair], live: Collection[bytes]) -> dict[Pair, Pair]:
        """Find where images are now.

        Parameters
        ----------
        pairs : iterable of (bytes, int)
            Lasting ids, or places of images now or earlier.
        live : collection of bytes
            Ids of the batches that the servers have.

        Returns
        -------
        dict
            The place of each that is known.
        """
        found, look = {}, self.looked_up()
        into: dict[bytes, list[bytes]] = {}
        for batch, row in dict.fromkeys(pairs):
            if batch in live:
                found[batch, row] = batch, row
                continue
            if batch not in into:
                into[batch] = [b for (b,) in self._all("SELECT DISTINCT batch FROM origins WHERE origin=?", batch)]
            place = self._by_origin(batch, row, [b for b in into[batch] if b in live])
            place = place or self._moved_to(batch, look.position(batch, row), live)
            if place is not None:
                found[batch, row] = place[0], look.row(*place)
        return found

    def _by_origin(self, origin: bytes, row: int, batches: Iterable[bytes]) -> Pair | None:
        for batch in batches:
            for first, start, count in self._all(
                "SELECT first, start, count FROM origins WHERE origin=? AND batch=? AND start<=? "
                "ORDER BY start DESC LIMIT 1", origin, batch, row,
            ):  # fmt: skip
                if row < start + count:
                    return batch, first + row - start
        return None

    def _moved_to(self, batch: bytes, position: int, live: Collection[bytes]) -> Pair | None:
        """Follow merges from a place that there was; those that never happened end nowhere."""
        waiting, seen = [(batch, position)], set[Pair]()
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            if place[0] in live:
                return place
            waiting += self._all(
                "SELECT batch, first + ? - start FROM moves WHERE old=? AND start<=? AND ?<start+count",
                place[1], place[0], place[1], place[1],
            )  # fmt: skip
        return None

    def lasting(self, pairs: Iterable[Pair]) -> dict[Pair, Pair]:
        """Lasting ids of images by their places now; those that are not known are left out."""
        found, look = {}, self.looked_up()
        for batch, row in pairs:
            position = look.position(batch, row)
            for first, origin, start, count in self._all(
                "SELECT first, origin, start, count FROM origins WHERE batch=? AND first<=? "
                "ORDER BY first DESC LIMIT 1", batch, position,
            ):  # fmt: skip
                if position < first + count:
                    found[batch, row] = origin, start + position - first
        return found

    def rows_of_label(self, label: str) -> tuple[list[Run], int, list[int]]:
        """Lasting ids of the rows of a label, by how many rows behind its first one they are.

        Returns the runs, the number of its rows, and which of these were deleted. A row whose lasting id is not known
        has the id of its place.
        """
        for batch, row, count in self._all(
            "SELECT batch, row, count FROM items WHERE label=? ORDER BY batch, row LIMIT 1", self._label(label)
        ):
            runs = []
            for first, origin, start, rows in self._all(
                "SELECT first, origin, start, count FROM origins WHERE batch=? AND first<? AND first+count>? "
                "ORDER BY first", batch, row + count, row,
            ):  # fmt: skip
                low, high = max(first, row), min(first + rows, row + count)
                runs.append(Run(low - row, origin, start + low - first, high - low))
            if not runs:
                places = self.looked_up().rows(batch, np.arange(row, row + count))
                ids = np.frombuffer(batch * count, np.uint8).reshape(-1, 16)
                runs = runs_of(np.arange(count), ids, places)
            dead = self._all(
                "SELECT row - ? FROM dead WHERE batch=? AND row>=? AND row<?", row, batch, row, row + count
            )
            return runs, count, [n for (n,) in dead]
        return [], 0, []

    def copied(self, source: bytes) -> dict[bytes, list[tuple[int, int]]]:
        """Rows of another index that were copied from there: by lasting batch, number of the first and how many."""
        found: dict[bytes, list[tuple[int, int]]] = {}
        for origin, start, count in self._all(
            "SELECT origin, start, count FROM copies WHERE source=? AND done=1", source
        ):
            found.setdefault(origin, []).append((start, count))
        return found

    def copies_of(self, source: bytes, digest: bytes) -> int:
        """How many copies of rows with this content, together, were made of another index."""
        rows = self._all(
            "SELECT DISTINCT batch FROM copies WHERE source=? AND digest=? AND done=1",
            source, self._copied(source, digest),
        )  # fmt: skip
        return len(rows)

    def _copied(self, source: bytes, digest: bytes) -> bytes:
        """The content of copied rows as it is kept: keyed, as rows of few values could be guessed by a plain hash."""
        return self._hash(b"copied " + source + digest) if digest else b""

    def _note_copies(self, db: Any, batch: bytes, copied: Copied, *, done: bool = False) -> None:
        """Inside a transaction: a batch is about to be sent that is made from rows of another index."""
        digest = self._copied(copied.source, copied.digest)
        rows = [(copied.source, r.origin, r.start, r.rows, digest, batch, int(done)) for r in copied.runs]
        db.executemany("INSERT OR REPLACE INTO copies VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def copies_done(self, batch: bytes) -> None:
        """Note that a batch of copies is at the servers."""
        with self._change() as db:
            db.execute("UPDATE copies SET done=1 WHERE batch=?", (batch,))

    def times(self) -> dict[bytes, int]:
        """When each batch was sent, as far as it is known here, in Unix seconds; also of batches that were merged."""
        return dict(self._all("SELECT batch, added FROM times"))


def note_sent(db: Any, batch: bytes, rows: int) -> None:
    """Inside a transaction: a batch is about to be sent, under ids of its own."""
    _write_origins(db, batch, [Run(0, batch, 0, rows)])
    _note_time(db, batch)


def _note_time(db: Any, batch: bytes) -> None:
    db.execute("INSERT OR REPLACE INTO times VALUES (?, ?)", (batch, int(time.time())))


def settle_copies(db: Any, live: Collection[bytes], waiting: Collection[bytes] = ()) -> None:
    """Inside a transaction: copies whose batches the servers have are done; others are not, and may be ``waiting``."""
    for (batch,) in db.execute("SELECT DISTINCT batch FROM copies WHERE done=0").fetchall():
        if batch in waiting:
            continue
        happened = batch in live
        db.execute(
            "UPDATE copies SET done=1 WHERE batch=?" if happened else "DELETE FROM copies WHERE batch=?", (batch,)
        )


def forget_places(db: Any, live: Collection[bytes]) -> None:
    """Inside a transaction: drop what leads to no batch that the servers have."""
    db.execute("CREATE TEMP TABLE IF NOT EXISTS there (batch BLOB PRIMARY KEY)")
    db.execute("DELETE FROM there")
    db.executemany("INSERT OR IGNORE INTO there VALUES (?)", [(batch,) for batch in live])
    db.execute("DELETE FROM origins WHERE batch NOT IN (SELECT batch FROM there)")
    db.execute("DELETE FROM times WHERE batch NOT IN (SELECT origin FROM origins UNION SELECT batch FROM there)")
    while db.execute(
        "DELETE FROM moves WHERE batch NOT IN (SELECT batch FROM there) AND batch NOT IN (SELECT old FROM moves)"
    ).rowcount:
        pass
    db.execute("DELETE FROM orders WHERE batch NOT IN (SELECT batch FROM there UNION SELECT old FROM moves)")


def _write_origins(db: Any, batch: bytes, runs: Iterable[Run]) -> None:
    db.execute("DELETE FROM origins WHERE batch=?", (batch,))
    rows: Sequence[Any] = [(batch, *run) for run in runs]
    db.executemany("INSERT INTO origins VALUES (?, ?, ?, ?, ?)", rows)
