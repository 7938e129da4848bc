"""Status messages of a server, and what a user sees of an owner: public facts."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import NotFoundError
from ..rpc import messages as m
from ..rpc import peer_messages as pm
from ..store.store import ServerStore
from ..store.views import CERTIFICATE_BYTES

__all__ = ["owner_snapshot", "status"]


def status(store: ServerStore, owner: bytes) -> pm.Status:
    """Owners, users and batches, of one owner only if ``owner`` is not empty."""
    where, args = (" WHERE id=?", (owner,)) if owner else ("", ())
    owners = store.catalog.all(
        f"SELECT id, name, forget IS NOT NULL, position, view FROM owners{where} ORDER BY id", *args
    )
    users = store.catalog.all("SELECT id, name, out_of_range FROM users ORDER BY id")
    number = {row[0]: i for i, row in enumerate(owners)}
    where = " WHERE owner=?" if owner else ""
    batches = store.catalog.all(
        f"SELECT owner, id, rows, length(tombstones)/8, size, length(certificate)<>{CERTIFICATE_BYTES} "
        f"FROM batches{where} ORDER BY owner, position", *args,
    )  # fmt: skip
    batches = [b for b in batches if b[0] in number]  # an owner may have come between the two
    packs = dict(store.catalog.all("SELECT owner, sum(size) FROM packs GROUP BY owner"))
    columns: list[Any] = [np.array(c, "<i8") for c in zip(*[(number[b[0]], *b[2:]) for b in batches], strict=True)]
    if not batches:
        columns = [np.empty(0, "<i8")] * 5
    ids = np.frombuffer(b"".join(b[1] for b in batches), np.uint8).reshape(-1, 16)
    return pm.Status(
        [o[0] for o in owners], [o[1] for o in owners], [bool(o[2]) for o in owners], [o[3] for o in owners],
        [o[4] for o in owners], [u[0] for u in users], [u[1] for u in users], columns[0], ids, columns[1],
        columns[1] - columns[2], columns[3], np.array([packs.get(o[0], 0) for o in owners], "<i8"),
        np.array([u[2] for u in users], "<i8"), columns[4],
    )  # fmt: skip


def owner_snapshot(
    store: ServerStore, owner: bytes, trouble: str, grant: bytes, given: m.Grant, *, brief: bool,
    certifies: bool,
) -> m.OwnerSnapshot:  # fmt: skip
    """What a user sees of an owner that granted it something.

    ``trouble``: why nothing of it can be searched; ``certifies``: whether servers rank certified batches only.
    """
    nothing = np.empty(0, "<i8")
    none = nothing, nothing, nothing, nothing, np.empty((0, 16), np.uint8)
    try:
        view = store.view(owner)
    except NotFoundError:  # forgotten at this moment
        return m.OwnerSnapshot(
            owner, "", grant, 0, b"", 0, given.rankings, given.scores, given.min_rows, given.max_k, -1,
            [b""], ["the owner was forgotten"], *none,
        )  # fmt: skip
    bad = [b for b in view.batches if b.problem]
    damaged, reasons = [b.id for b in bad], [b.problem for b in bad]
    unranked = [b for b in view.batches if certifies and not b.certified and not b.problem]
    if trouble:
        damaged, reasons = [b"", *damaged], [trouble, *reasons]
    if brief:
        arrays = none
    else:
        dead = np.concatenate([nothing, *(b.tombstones for b in view.batches if len(b.tombstones))]).astype("<i8")
        of = np.repeat(np.arange(len(view.batches)), [len(b.tombstones) for b in view.batches]).astype("<i8")
        arrays = view.rows.astype("<i8"), view.positions.astype("<i8"), of, dead, view.ids
    return m.OwnerSnapshot(
        owner, view.name, grant, view.position, view.hash, view.floor, given.rankings, given.scores, given.min_rows,
        given.max_k, store.queries_left(owner, given.user, grant, given.quota), damaged, reasons, *arrays,
        [b.id for b in unranked], [b.unranked for b in unranked],
    )  # fmt: skip
