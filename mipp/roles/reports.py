"""What a server tells of what it holds: public facts."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..protocol import messages as m
from ..store.store import ServerStore
from ..store.views import OwnerView

__all__ = ["owner_snapshot", "status"]


def status(store: ServerStore, owner: bytes) -> m.Status:
    """Owners, users and batches, of one owner only if ``owner`` is not empty."""
    where, args = (" WHERE id=?", (owner,)) if owner else ("", ())
    owners = store.catalog.all(f"SELECT id, name, forget IS NOT NULL FROM owners{where} ORDER BY id", *args)
    users = store.catalog.all("SELECT id, name FROM users ORDER BY id")
    number = {row[0]: i for i, row in enumerate(owners)}
    where = " AND b.owner=?" if owner else ""
    batches = store.catalog.all(
        "SELECT b.owner, b.id, b.rows, length(b.tombstones)/8, b.generation, b.size "
        f"FROM batches b WHERE b.committed=1{where} ORDER BY b.owner, b.seq, b.id", *args
    )  # fmt: skip
    packs = dict(store.catalog.all("SELECT owner, sum(size) FROM packs GROUP BY owner"))
    columns: list[Any] = [np.array(c, "<i8") for c in zip(*[(number[b[0]], *b[2:]) for b in batches], strict=True)]
    if not batches:
        columns = [np.empty(0, "<i8")] * 5
    ids = np.frombuffer(b"".join(b[1] for b in batches), np.uint8).reshape(-1, 16)
    return m.Status(
        [o[0] for o in owners], [o[1] for o in owners], [bool(o[2]) for o in owners], [u[0] for u in users],
        [u[1] for u in users], columns[0], ids, columns[1], columns[1] - columns[2], columns[3], columns[4],
        np.array([packs.get(o[0], 0) for o in owners], "<i8"),
    )  # fmt: skip


def owner_snapshot(view: OwnerView, grant: bytes, given: m.Grant) -> m.OwnerSnapshot:
    """What a user sees of an owner that granted it something."""
    dead = [(i, row) for i, b in enumerate(view.batches) for row in b.tombstones]
    pairs = np.array(dead, "<i8").reshape(-1, 2)
    return m.OwnerSnapshot(
        view.owner,
        view.name,
        grant,
        view.hash,
        given.rankings,
        given.scores,
        view.rows.astype("<i8"),
        pairs[:, 0].copy(),
        pairs[:, 1].copy(),
        view.ids,
    )
