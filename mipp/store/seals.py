"""Owners' secrets that servers sealed again, when they took new box keys; all servers keep all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .catalog import Catalog

__all__ = ["Seal", "Seals"]


class Seal(NamedTuple):
    """An owner's secrets, sealed again by a server to its box key of an epoch; ``frames``: its signed message."""

    owner: bytes
    server: int
    epoch: int
    key: bytes
    sealed: bytes
    frames: bytes


class Seals:
    """The table of owners' secrets sealed again, one entry for each owner and server."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def put(self, seal: Seal, stays: Callable[[Seal], bool]) -> bool:
        """Keep an entry, unless ``stays`` says that the one here is better, or the owner is unknown or forgotten.

        Whether it was kept.
        """
        with self._catalog.transaction() as db:
            if db.execute("SELECT 1 FROM owners WHERE id=? AND forget IS NULL", (seal.owner,)).fetchone() is None:
                return False
            row = db.execute("SELECT * FROM seals WHERE owner=? AND server=?", (seal.owner, seal.server)).fetchone()
            if row is not None and (tuple(row) == seal or stays(Seal(*row))):
                return False
            db.execute("INSERT OR REPLACE INTO seals VALUES (?, ?, ?, ?, ?, ?)", seal)
            self._catalog.raise_counter(db)
            return True

    def sealed(self, owner: bytes, server: int) -> list[bytes]:
        """What a server sealed again of an owner: one entry or none."""
        return [r[0] for r in self._catalog.all("SELECT sealed FROM seals WHERE owner=? AND server=?", owner, server)]

    def frames(self) -> list[bytes]:
        """All signed messages, to pass on to servers that missed them."""
        return [r[0] for r in self._catalog.all("SELECT frames FROM seals ORDER BY owner, server")]

    def owners(self) -> list[tuple[bytes, str]]:
        """Ids and names of all owners that are registered."""
        return self._catalog.all("SELECT id, name FROM owners WHERE forget IS NULL ORDER BY id")

    @staticmethod
    def drop(db: Any, owner: bytes) -> None:
        """Inside a transaction: forget an owner's."""
        db.execute("DELETE FROM seals WHERE owner=?", (owner,))
