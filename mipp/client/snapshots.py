"""Servers' snapshots reconciled: one state that all servers can answer, and the batches that are left out.

Owners, names, grants and positions from one server are checked against the others. Public facts only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..errors import MessageError, plain_text
from ..rpc import messages as m
from ..rpc.names import known_name
from .index import Index, LeftOut, cut

__all__ = ["DIFFERENT_NAMES", "Told", "common_state"]

DIFFERENT_NAMES = "the servers know it by different names"
#: a server's state hash, and its owners
Told = tuple[bytes, Sequence[m.OwnerSnapshot]]


def common_state(
    told: Mapping[int, Told], full: int, blocked: frozenset[bytes] = frozenset()
) -> tuple[Index, frozenset[bytes]]:
    """The newest state that all servers can answer.

    Parameters
    ----------
    told : mapping of int to Told
        Each server's snapshot, by its number; that of server ``full`` with lists of batches, the others without.
    full : int
        Number of the server that lists the batches.
    blocked : frozenset of bytes
        Ids of owners to ignore.

    Returns
    -------
    index : Index
        Owners on which the servers agree, without damaged batches; its ``left_out`` names the rest.
    unsettled : frozenset of bytes
        Owners on whom the servers differ in a way that may end when a change has reached all of them.

    Raises
    ------
    MessageError
        A server's snapshot does not fit together.
    """
    others = {server: {o.owner: o for o in owners} for server, (_, owners) in told.items() if server != full}
    chosen, left_out, unsettled, unranked = [], [], set(), []
    for o in told[full][1]:
        if o.owner in blocked:
            continue
        _check(o)
        of = {full: o, **{server: owners[o.owner] for server, owners in others.items() if o.owner in owners}}
        name = known_name(o.name, o.owner)
        # of batches that are listed, and each once: a server that lies names as few as there are
        listed = {b"", *(batch.tobytes() for batch in o.batches)}
        reasons = [
            LeftOut(o.owner, name, batch, server, plain_text(reason))
            for server, one in of.items()
            for batch, reason in dict(zip(one.damaged, one.reasons, strict=True)).items() if batch in listed
        ]  # fmt: skip
        # a batch without live rows is left out, too, and nobody misses anything
        live = _live_batches(o) if reasons else set()
        shown = [r for r in reasons if not r.batch or r.batch in live]
        left_out += shown
        if any(not r.batch for r in reasons):
            continue
        unranked += _unranked(o, name, of, listed - ({r.batch for r in reasons} - live))
        differ, missing = _difference(o, list(of.values()), len(told)), sorted(told.keys() - of.keys())
        if len(missing) == 1 and len(told) > 1:
            # it granted something there, and not here: on its way, or the cloud joined later
            text = "this server knows no grant of it yet, or joined later and may not store its rows"
            left_out.append(LeftOut(o.owner, name, b"", missing[0], text))
            unsettled.add(o.owner)
            continue
        if differ:
            left_out.append(LeftOut(o.owner, name, b"", 0, differ))
            if differ != DIFFERENT_NAMES:  # names stay different
                unsettled.add(o.owner)
            continue
        position, view = min((one.position, one.view) for one in of.values())
        # counted at each server that was asked: the key centre is asked every time
        left = min((one.left for one in of.values() if one.left >= 0), default=-1)
        part = cut(dataclasses.replace(o, name=name, left=left), position, view, {r.batch for r in reasons})
        if len(part.batches) or not shown:
            chosen.append(part)
    grants = m.grants_hash(o.grant for o in told[full][1])
    heads = [{o.owner: o.position for o in owners} for _, owners in told.values()]
    behind = frozenset(o.owner for o in chosen if any(o.position < at.get(o.owner, 0) for at in heads))
    hashes = {server: hash_ for server, (hash_, _) in told.items()}
    rows = {o.owner: sum(o.rows.tolist()) for o in told[full][1]}
    return Index(hashes, chosen, left_out, grants, behind, unranked, rows), frozenset(unsettled)


def _check(o: m.OwnerSnapshot) -> None:
    shapes = {len(o.rows), len(o.positions)}
    fits = o.batches.shape == (len(o.rows), 16) and shapes == {len(o.rows)} and o.dead_batch.shape == o.dead_row.shape
    if (
        not fits
        or len(o.damaged) != len(o.reasons)
        or len(o.unranked) != len(o.unranked_reasons)
        or (len(o.rows) and int(o.rows.min()) < 1)
    ):
        raise MessageError("a server sent a snapshot that does not fit together")
    if len(o.dead_batch):
        inside = int(o.dead_batch.min()) >= 0 and int(o.dead_batch.max()) < len(o.rows) and int(o.dead_row.min()) >= 0
        if not inside or (o.dead_row >= o.rows[o.dead_batch]).any():
            raise MessageError("a server sent a snapshot that does not fit together")


def _live_batches(o: m.OwnerSnapshot) -> set[bytes]:
    """Ids of an owner's batches that have a live row."""
    starts = np.cumsum(o.rows) - o.rows
    dead = np.unique(starts[o.dead_batch] + o.dead_row)
    gone = np.diff(np.searchsorted(dead, np.append(starts, o.rows.sum())))
    return {batch.tobytes() for batch in o.batches[gone < o.rows]}


def _unranked(
    o: m.OwnerSnapshot, name: str, of: Mapping[int, m.OwnerSnapshot], listed: Collection[bytes]
) -> list[LeftOut]:
    """Batches, of those listed, that some server does not rank: one entry each, from the first such server."""
    found: dict[bytes, tuple[int, str]] = {}
    for server, one in of.items():
        for batch, reason in zip(one.unranked, one.unranked_reasons, strict=True):
            if batch in listed:
                found.setdefault(batch, (server, reason))
    everywhere = [set(one.unranked) for one in of.values()]
    return [
        LeftOut(o.owner, name, batch, 0 if all(batch in some for some in everywhere) else server, plain_text(reason))
        for batch, (server, reason) in found.items()
    ]


def _difference(o: m.OwnerSnapshot, all_: list[m.OwnerSnapshot], servers: int) -> str:
    """The reason why all servers cannot search an owner at one state; empty if they can."""
    if len(all_) != servers or any(one.grant != o.grant for one in all_):
        return "its grant is not the same at all servers"
    if any(one.name != o.name for one in all_):
        return DIFFERENT_NAMES
    lowest = min(one.position for one in all_)
    if any(one.moved != o.moved for one in all_ if one.view == o.view):
        return "the servers hold different histories of it"
    if any(one.view != o.view for one in all_ if one.position == o.position):
        return "the servers hold different histories of it"
    if any(one.floor > lowest for one in all_):
        return "a change of it has not reached all servers"
    return ""
