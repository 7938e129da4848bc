"""Owners' secrets that servers sealed again, when they took new box keys; all servers keep all of them."""

from __future__ import annotations

from typing import Any

from .catalog import Catalog

__all__ = ["Seals"]


class Seals:
    """The table of an owner's secrets sealed again, one entry for each owner and server.

    Of two entries the one of the later epoch stays, of the same epoch the greater one: all servers end with the same,
    in whatever order they meet them.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def put(self, owner: bytes, server: int, epoch: int, sealed: bytes, frames: bytes) -> bool:
        """Keep an entry, unless a later one is here or the owner is unknown or forgotten; whether it was kept.

        ``frames``: the server's signed message, for servers that miss it.
        """
        with self._catalog.transaction() as db:
            if db.execute("SELECT 1 FROM owners WHERE id=? AND forget IS NULL", (owner,)).fetchone() is None:
                return False
            row = db.execute("SELECT epoch, sealed FROM seals WHERE owner=? AND server=?", (owner, server)).fetchone()
            if row is not None and tuple(row) >= (epoch, sealed):
                return False
            db.execute("INSERT OR REPLACE INTO seals VALUES (?, ?, ?, ?, ?)", (owner, server, epoch, sealed, frames))
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
