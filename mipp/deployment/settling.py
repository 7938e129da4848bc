"""Settles what is open between the servers of an embedded deployment: changes, restores, messages that some miss.

Whoever runs this is trusted with nothing: servers decide by signed votes, and it only carries them. Safe at any time,
also while owners work and others run it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Mapping
from typing import Any

from ..errors import MippError
from ..rpc import messages as m
from ..rpc import peer_messages as pm
from ..rpc.channel import Channel, request
from ..rpc.wire import encode as to_frames
from ..rpc.wire import pack_frames
from ..server.peers import adopt, proven, restart
from ..server.server import Server

__all__ = ["rejoin", "settle"]

_log = logging.getLogger("mipp.deployment")


def settle(channel: Channel) -> None:
    """Carry votes between servers until every change that some accepted is decided; pass on what some server misses.

    Parameters
    ----------
    channel : to the servers' side for operators and peers
    """
    told: dict[int, pm.OpenChanges] = {i: request(channel, i, pm.SettleRequest()) for i in channel.servers}
    signed: dict[bytes, None] = dict.fromkeys(packed for reply in told.values() for packed in reply.signed)
    for i, reply in told.items():
        have = set(reply.signed)
        missing = [p for p in signed if p not in have]
        # twice: a forget frees a name for a registration, and another forget may need its owner's registration first
        for packed in (*missing, *missing):
            with contextlib.suppress(MippError):  # older than what the server has, or of an owner that was forgotten
                request(channel, i, pm.PassedOn(packed))
    commits: dict[tuple[bytes, bytes], bytes] = {}
    for reply in told.values():
        for owner, op, commit in zip(reply.owners, reply.ops, reply.commits, strict=True):
            if commit:
                commits[owner, op] = commit
    for (owner, op), commit in commits.items():
        _decide(channel, owner, op, commit)


def _decide(channel: Channel, owner: bytes, op: bytes, commit: bytes) -> None:
    """Bring one COMMIT to all servers, and all their votes to all."""
    votes = []
    for i in channel.servers:
        with contextlib.suppress(MippError):  # it has no vote for this commit now; it may have one later
            votes.append(pack_frames(to_frames(request(channel, i, pm.PassedOn(commit)))))
    for i in channel.servers:
        with contextlib.suppress(MippError):
            request(channel, i, m.Certify(owner, op, votes))


def rejoin(channel: Channel, servers: Mapping[int, Server], witnessed: Mapping[int, int]) -> list[int]:
    """Find servers whose catalog is older than what others saw of them, and bring them back; their numbers.

    A restored server gets a new incarnation, so that what it promised after the backup counts no more, and takes over
    from the others what it lacks. If all were restored, perhaps to different moments, each takes over from each: the
    longest history of every owner holds. But nobody knows what was revoked or counted since: grants are suspended until
    their owners sign them anew (a new epoch).

    Parameters
    ----------
    witnessed : the highest counter that was noted of each server, outside of its folder
    """
    states: dict[int, Any] = {i: request(channel, i, pm.PeerRequest()) for i in servers}
    seen = {i: (0, witnessed.get(i, 0)) for i in servers}
    for i, state in states.items():
        for packed in state.proofs:  # what others say of a server counts if that server signed it
            with contextlib.suppress(MippError):
                peer, incarnation, counter = proven(servers[i].config, packed)
                seen[peer] = max(seen[peer][0], incarnation), max(seen[peer][1], counter)
        seen[i] = max(seen[i][0], state.incarnation), seen[i][1]
    restored = [
        i for i, server in servers.items()
        if seen[i][1] > states[i].counter or seen[i][0] > states[i].incarnation
        or server.store.catalog.counter("restoring")
    ]  # fmt: skip
    if not restored:
        return []
    _log.info("servers %s were restored from a backup", restored)
    whole = [i for i in servers if i not in restored]
    restarts: dict[int, pm.PeerRestored] = {}
    for i in restored:
        servers[i].ready = False
        restarts[i] = restart(servers[i], seen[i][0] + 1)
    epoch = max(state.epoch for state in states.values())
    if whole:
        settle_among(channel, whole)
    for i in restored:
        servers[i].store.take_epoch(epoch)  # else grants of it, and what was counted for them, are refused
    for i in restored:
        notes = [request(channel, j, restarts[i]) for j in whole or servers if j != i]
        adopt(servers[i], notes, refuse=bool(whole))
    if whole:
        for i, j in itertools.permutations(restored, 2):  # they know each other's new incarnations, too
            request(channel, j, restarts[i])
    else:
        epoch += 1
    for i, server in servers.items():
        server.store.begin_epoch(epoch, seen[i][1])
    for i in restored:
        servers[i].ready = True
    return restored


def settle_among(channel: Channel, servers: list[int]) -> None:
    """Let servers that were not restored decide by the votes that they have."""
    for i in servers:
        request(channel, i, pm.SettleRequest())
