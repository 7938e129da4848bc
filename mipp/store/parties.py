"""Registered parties in a server's catalog: unique names, public keys."""

from __future__ import annotations

import sqlite3

from ..errors import NotFoundError, ParameterError
from .catalog import Catalog

__all__ = ["check_free", "is_registered", "party_keys"]


def check_free(db: sqlite3.Connection, table: str, name: str) -> None:
    """ParameterError if a registered party of ``table`` has this name, upper and lower case taken as one.

    The name of a forgotten owner is free again.
    """
    where = " WHERE forget IS NULL" if table == "owners" else ""
    if name.casefold() in {row[0].casefold() for row in db.execute(f"SELECT name FROM {table}{where}")}:
        raise ParameterError(f"the name {name!r} is taken; choose another")


def is_registered(catalog: Catalog, party: bytes) -> bool:
    """Whether an owner (also a forgotten one) or a user has this id."""
    return catalog.one("SELECT 1 FROM owners WHERE id=? UNION SELECT 1 FROM users WHERE id=?", party, party) is not None


def party_keys(catalog: Catalog, party: bytes) -> tuple[str, bytes, bytes]:
    """Name, signing key, and an owner's registration or a user's X25519 key; NotFoundError if there is no such party.

    The id of a party is the hash of the latter two.
    """
    row = catalog.one("SELECT name, sign_key, registration FROM owners WHERE id=?", party)
    row = row or catalog.one("SELECT name, sign_key, box_key FROM users WHERE id=?", party)
    if row is None:
        raise NotFoundError(f"unknown party {party.hex()}")
    return row[0], row[1], row[2]
