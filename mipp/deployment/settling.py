"""Settles open matters between servers: changes that are not decided, restored backups, messages that some miss.

This code needs no trust: servers decide by signed votes, and it only carries them. It is safe at any time, also while
owners make changes and other processes run it.
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
    """Carry votes between servers until every accepted change is decided; pass on messages that a server misses.

    Parameters
    ----------
    channel : Channel
        To the servers' side for operators and peers.
    """
    told: dict[int, pm.OpenChanges] = {i: request(channel, i, pm.SettleRequest()) for i in channel.servers}
    signed: dict[bytes, None] = dict.fromkeys(packed for reply in told.values() for packed in reply.signed)
    for i, reply in told.items():
        have = set(reply.signed)
        missing = [p for p in signed if p not in have]
        # twice: a forget frees a name for a registration, and another forget may need its owner's registration first
        for packed in (*missing, *missing):
            with contextlib.suppress(MippError):  # the server has a newer one, or the owner was forgotten
                request(channel, i, pm.PassedOn(packed))
    commits: dict[tuple[bytes, bytes], bytes] = {}
    for reply in told.values():
        for owner, op, commit in zip(reply.owners, reply.ops, reply.commits, strict=True):
            if commit:
                commits[owner, op] = commit
    for (owner, op), commit in commits.items():
        _decide(channel, owner, op, commit)


def _decide(channel: Channel, owner: bytes, op: bytes, commit: bytes) -> None:
    """Bring one COMMIT message to all servers, and their votes to all servers."""
    votes = []
    for i in channel.servers:
        with contextlib.suppress(MippError):  # the server has no vote for this commit now; it may have one later
            votes.append(pack_frames(to_frames(request(channel, i, pm.PassedOn(commit)))))
    for i in channel.servers:
        with contextlib.suppress(MippError):
            request(channel, i, m.Certify(owner, op, votes))


def rejoin(channel: Channel, servers: Mapping[int, Server], witnessed: Mapping[int, int]) -> list[int]:
    """Find servers whose catalogs were restored from a backup, and bring them up to date.

    A catalog is an old one if other servers, or the witness, saw a later state of it. A restored server gets a new
    incarnation, which voids its promises from after the backup, and takes over from the others the changes that it
    lacks. If all servers were restored, perhaps to different moments, each takes over from each: the longest history of
    every owner holds. Later revocations and counts of queries are lost then, so grants are suspended (a new epoch)
    until their owners grant again.

    Parameters
    ----------
    channel : Channel
        To the servers' side for operators and peers.
    servers : mapping of int to Server
        The servers by number.
    witnessed : mapping of int to int
        The highest counter of each server that was noted outside of its folder.

    Returns
    -------
    list of int
        Numbers of the restored servers.
    """
    states: dict[int, Any] = {i: request(channel, i, pm.PeerRequest()) for i in servers}
    seen = {i: (0, witnessed.get(i, 0)) for i in servers}
    for i, state in states.items():
        for packed in state.proofs:  # a statement about a server counts if that server signed it
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
        servers[i].store.take_epoch(epoch)  # else grants of this epoch, and their counts, are refused
    for i in restored:
        notes = [request(channel, j, restarts[i]) for j in whole or servers if j != i]
        adopt(servers[i], notes, refuse=bool(whole))
    if whole:
        for i, j in itertools.permutations(restored, 2):  # so that they know each other's new incarnations
            request(channel, j, restarts[i])
    else:
        epoch += 1
    for i, server in servers.items():
        server.store.begin_epoch(epoch, seen[i][1])
    for i in restored:
        servers[i].ready = True
    return restored


def settle_among(channel: Channel, servers: list[int]) -> None:
    """Have servers that were not restored decide by the votes that they have."""
    for i in servers:
        request(channel, i, pm.SettleRequest())
