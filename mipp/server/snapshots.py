"""Handlers of what a user asks before a query: who grants it something, and the state of the index."""

from __future__ import annotations

import contextlib
import hashlib

import numpy as np

from ..errors import AccessDeniedError, IntegrityError, MessageError, NotFoundError
from ..rpc import messages as m
from ..rpc.grants import in_force, read_grant
from ..rpc.wire import encode, pack_frames
from ..store.store import ServerStore
from .base import Handlers, Request, ServerBase

__all__ = ["HANDLERS"]


def granters(server: ServerBase, request: Request[m.GrantersRequest]) -> m.Granters:
    signer = request.signer
    owners, names = [], []
    for grant in server.granted(signer).values():
        with contextlib.suppress(NotFoundError):  # forgotten at this moment
            names.append(server.store.owner(grant.owner)[0])
            owners.append(grant.owner)
    return m.Granters(owners, names)


def user_grants(server: ServerBase, request: Request[m.UserGrants]) -> m.UserGrantList:
    signer, store = request.signer, server.store
    live, expired = in_force(store.grants(user=signer), server.clock())
    told = m.UserGrantList([], [], [], [], [], [], [], store.suspended(signer))
    for grant, packed in store.grants(user=signer):
        with contextlib.suppress(NotFoundError, MessageError):  # forgotten; written by an earlier version
            content = read_grant(packed)
            name, sign_key, _ = store.owner(content.owner)
            # a revoked user learns nothing more about the owner's rows
            rows = sum(b.live for b in store.view(content.owner).batches) if grant in live else 0
            told.left.append(store.queries_left(content.owner, signer, grant, content.quota))
            told.grants.append(packed)
            told.sign_keys.append(sign_key)
            told.registrations.append(store.registration(content.owner)[0])
            told.names.append(name)
            told.expired.append(grant in expired)
            told.rows.append(rows)
    return told


def snapshot(server: ServerBase, request: Request[m.SnapshotRequest]) -> m.Snapshot:
    signer, msg = request.signer, request.content
    grants = {g.owner: (grant, g) for grant, g in server.granted(signer).items()}
    for owner in msg.owners:
        if owner not in grants:
            raise AccessDeniedError(f"an owner that was asked for grants this user nothing{server.ended(signer)}")
    found = [
        owner_snapshot(
            server.store,
            owner,
            _trouble(server, owner),
            *grants[owner],
            brief=msg.brief,
            certifies=server.config.certifies,
        )
        for owner in sorted(set(msg.owners) or grants)
    ]
    whole = hashlib.sha256(b"mipp v2 whole snapshot" + bytes([msg.brief]))
    for o in found:
        whole.update(o.owner + o.view + o.grant + o.floor.to_bytes(8, "big"))
        whole.update(repr((o.damaged, o.reasons, o.left, o.unranked, o.unranked_reasons)).encode())
    if whole.digest() == msg.known:
        return m.Snapshot(msg.known, True, [])
    return m.Snapshot(whole.digest(), False, [pack_frames(encode(o)) for o in found])


def _trouble(server: ServerBase, owner: bytes) -> str:
    """Why none of an owner's rows can be searched here, or nothing."""
    if not server.has_shares:
        try:
            server.owner_secret(owner)
        except IntegrityError as error:
            return str(error)
    return ""


def owner_snapshot(
    store: ServerStore, owner: bytes, trouble: str, grant: bytes, given: m.Grant, *, brief: bool,
    certifies: bool,
) -> m.OwnerSnapshot:  # fmt: skip
    """State of an owner for a user to whom it granted something.

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
        [b.id for b in unranked], [b.unranked for b in unranked], view.moved,
    )  # fmt: skip


HANDLERS: Handlers = {
    m.GrantersRequest: granters,
    m.UserGrants: user_grants,
    m.SnapshotRequest: snapshot,
}
