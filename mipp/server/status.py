"""Status messages of a server: public facts, for its operator and the deployment."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..rpc import peer_messages as pm
from ..store.store import ServerStore

__all__ = ["status"]


def status(store: ServerStore, owner: bytes) -> pm.Status:
    """Owners, users and batches, of one owner only if ``owner`` is not empty."""
    s = store.summary(owner)
    number = {row[0]: i for i, row in enumerate(s.owners)}
    batches = [b for b in s.batches if b[0] in number]  # an owner may have come between the two
    columns: list[Any] = [np.array(c, "<i8") for c in zip(*[(number[b[0]], *b[2:]) for b in batches], strict=True)]
    if not batches:
        columns = [np.empty(0, "<i8")] * 5
    missing = set[tuple[bytes, bytes]]()
    if store.has_shares:
        missing = {(b.owner, b.id) for b in store.repairs.lost_batches(store.views.damaged(), owner=owner)}
    ids = np.frombuffer(b"".join(b[1] for b in batches), np.uint8).reshape(-1, 16)
    return pm.Status(
        [o[0] for o in s.owners], [o[1] for o in s.owners], [bool(o[2]) for o in s.owners], [o[3] for o in s.owners],
        [o[4] for o in s.owners], [u[0] for u in s.users], [u[1] for u in s.users], columns[0], ids, columns[1],
        columns[1] - columns[2], columns[3], np.array([s.packs.get(o[0], 0) for o in s.owners], "<i8"),
        np.array([u[2] for u in s.users], "<i8"), columns[4],
        np.array([(b[0], b[1]) in missing for b in batches], "<i8"),
    )  # fmt: skip
