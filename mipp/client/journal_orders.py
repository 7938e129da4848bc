"""Positions of rows in an owner's journal: they follow each other, whatever order their batch is stored in.

In an index with clusters a merge lays rows out, so that rows that were added together lie apart. The journal numbers
the rows of a batch by *position*: the order that they would have if nothing was ever laid out. Rows of one content, of
one upload and of one replaced batch have positions that follow each other, so an entry holds all of them. A batch whose
positions are not its rows has one array more, 4 bytes a row: the row at each position. All tables of the journal hold
positions; its methods take and give rows.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import StoreError

__all__ = ["ORDERS_SCHEMA", "JournalOrders", "Positions", "write_order"]

#: orders: the row at each position of a batch, little-endian uint32
ORDERS_SCHEMA = "CREATE TABLE IF NOT EXISTS orders (batch BLOB PRIMARY KEY, rows BLOB NOT NULL);"
#: arrays that are held while many places are looked up
_HELD = 8


class Positions:
    """Turns rows of batches into positions and back, for one call of the journal.

    Parameters
    ----------
    order : callable
        Gives the row at each position of a batch, or None where positions are rows.
    """

    def __init__(self, order: Callable[[bytes], np.ndarray | None]) -> None:
        self._rows = functools.lru_cache(_HELD)(order)
        self._inverse = functools.lru_cache(_HELD)(self._inverted)

    def _inverted(self, batch: bytes) -> np.ndarray | None:
        rows = self._rows(batch)
        if rows is None:
            return None
        positions = np.empty(len(rows), "<u4")
        positions[rows] = np.arange(len(rows), dtype="<u4")
        return positions

    def rows(self, batch: bytes, positions: np.ndarray | Sequence[int]) -> np.ndarray:
        """Rows at positions of a batch, int64."""
        return _taken(self._rows(batch), positions)

    def positions(self, batch: bytes, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """Positions of rows of a batch, int64; a number that is none of its rows stays as it is."""
        return _taken(self._inverse(batch), rows)

    def row(self, batch: bytes, position: int) -> int:
        """Row at a position."""
        return int(self.rows(batch, [position])[0])

    def position(self, batch: bytes, row: int) -> int:
        """Position of a row."""
        return int(self.positions(batch, [row])[0])


def _taken(array: np.ndarray | None, at: np.ndarray | Sequence[int]) -> np.ndarray:
    numbers = np.array(at, np.int64)
    if array is not None:
        known = (numbers >= 0) & (numbers < len(array))
        numbers[known] = array[numbers[known]]
    return numbers


class JournalOrders:
    """The part of :class:`~mipp.client.journal.Journal` that knows where the rows of a batch are stored in it."""

    @abstractmethod
    def _all(self, sql: str, *values: object) -> list[Any]:
        """All rows of a query."""

    def looked_up(self) -> Positions:
        """Positions of all batches, as they are known now."""
        return Positions(self._order)

    def _order(self, batch: bytes) -> np.ndarray | None:
        for (data,) in self._all("SELECT rows FROM orders WHERE batch=?", batch):
            rows = np.frombuffer(data, "<u4") if isinstance(data, bytes) and len(data) % 4 == 0 else None
            if rows is None or not _permutes(rows):
                raise StoreError("the journal's order of a batch is damaged; remove the journal, and the next add "
                                 "rebuilds it from the servers")  # fmt: skip
            return rows
        return None


def _permutes(rows: np.ndarray) -> bool:
    """Whether each number below their count is there once."""
    there = np.zeros(len(rows), bool)
    there[rows[rows < len(rows)]] = True
    return bool(there.all())


def write_order(db: Any, batch: bytes, rows: np.ndarray) -> None:
    """Inside a transaction: note the row at each position of a batch, unless positions are rows."""
    db.execute("DELETE FROM orders WHERE batch=?", (batch,))
    if (rows != np.arange(len(rows))).any():
        db.execute("INSERT INTO orders VALUES (?, ?)", (batch, rows.astype("<u4").tobytes()))
