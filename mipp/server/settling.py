"""Settles open matters between servers: changes that are not decided, restored backups, messages that some miss.

:func:`settle` needs no trust: servers decide by signed votes, and it only carries them. It is safe at any time, also
while owners make changes and other processes run it. :func:`rejoin` is for servers of one process; over a network each
server calls :func:`join` for itself.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import MippError, UnreachableError
from ..rpc import messages as m
from ..rpc import peer_messages as pm
from ..rpc.channel import Channel, request
from ..rpc.wire import decode, pack_frames, unpack_frames
from ..rpc.wire import encode as to_frames
from .peers import adopt, peer_state, proven, restart, standing
from .server import Server

__all__ = ["join", "rejoin", "settle"]

_log = logging.getLogger("mipp.server")


def settle(channel: Channel) -> None:
    """Carry votes between servers until every accepted change is decided; pass on messages that a server misses.

    Servers that cannot be reached are left out: what needs their votes stays open.

    Parameters
    ----------
    channel : Channel
        To the servers' side for operators and peers.
    """
    here = _Reached(channel)
    told: dict[int, pm.OpenChanges] = {}
    for i in channel.servers:
        with contextlib.suppress(UnreachableError):
            told[i] = here.request(i, pm.SettleRequest())
    signed: dict[bytes, None] = dict.fromkeys(packed for reply in told.values() for packed in reply.signed)
    for i, reply in told.items():
        have = set(reply.signed)
        missing = [p for p in signed if p not in have]
        # twice: a forget frees a name for a registration, and another forget may need its owner's registration first
        for packed in (*missing, *missing):
            with contextlib.suppress(MippError):  # the server has a newer one, or the owner was forgotten
                here.request(i, pm.PassedOn(packed))
    sealed: dict[bytes, None] = dict.fromkeys(packed for reply in told.values() for packed in reply.seals)
    for i, reply in told.items():
        for packed in sealed.keys() - set(reply.seals):
            with contextlib.suppress(MippError):  # the owner was forgotten there, or it is no such message
                here.request(i, decode(unpack_frames(packed), pm.Resealed))
    commits: dict[tuple[bytes, bytes], bytes] = {}
    for reply in told.values():
        for owner, op, commit in zip(reply.owners, reply.ops, reply.commits, strict=True):
            if commit:
                commits[owner, op] = commit
    for (owner, op), commit in commits.items():
        _decide(here, owner, op, commit)


class _Reached:
    """A channel on which a server that did not answer once is not asked again: each time takes a minute."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self.servers = channel, list(channel.servers)

    def request(self, server: int, msg: Any) -> Any:
        if server not in self.servers:
            raise UnreachableError(f"server {server} did not answer before")
        try:
            return request(self._channel, server, msg)
        except UnreachableError:
            self.servers.remove(server)
            raise


def _decide(here: _Reached, owner: bytes, op: bytes, commit: bytes) -> None:
    """Bring one COMMIT message to all servers, and their votes to all servers."""
    votes = []
    for i in list(here.servers):
        with contextlib.suppress(MippError):  # the server has no vote for this commit now; it may have one later
            votes.append(pack_frames(to_frames(here.request(i, pm.PassedOn(commit)))))
    for i in list(here.servers):
        with contextlib.suppress(MippError):
            here.request(i, m.Certify(owner, op, votes))


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


def join(server: Server, channel: Channel, peers: Iterable[int]) -> None:
    """One server's part after its start: learn from the others whether it was restored from a backup, and catch up.

    With one peer it begins to answer queries, with all it votes on changes, too, at a new incarnation: what it voted
    before this start counts no more where it is open, so a backup that nobody can recognise does no harm. Call it again
    until ``server.voting``. A server that was restored (a peer saw a later state of it) waits for all peers first. It
    takes over from those that were not restored, or, if all were, all take over from each other.

    Parameters
    ----------
    server : Server
        This server; ``ready`` is false and ``phase`` ``new`` when it starts.
    channel : Channel
        To the other servers' side for peers, and this one's.
    peers : iterable of int
        Other servers to ask now. One that comes while this runs is asked the next time: it may know of newer keys.
    """
    states: dict[int, pm.PeerState] = {}
    for i in peers:
        with contextlib.suppress(UnreachableError):
            states[i] = request(channel, i, pm.PeerRequest())
    if not states:
        return
    mine = peer_state(server, pm.PeerRequest())
    seen = [mine.incarnation, 0]
    for state in states.values():
        for packed in state.proofs:  # a statement about this server counts if it signed it
            with contextlib.suppress(MippError):
                about, incarnation, counter = proven(server.config, packed)
                if about == server.index:
                    seen = [max(seen[0], incarnation), max(seen[1], counter)]
    whole = len(states) == len(channel.servers) - 1
    # what clients and others brought since the start counts, too, and would hide that
    found = server.store.catalog.counter_at_opening
    restored = seen[1] > found or seen[0] > mine.incarnation or server.store.catalog.counter("restoring")
    if not restored:
        server.ready = True
        if whole:
            server.store.changes.started()
            told = standing(server)
            for i in states:
                request(channel, i, told)
            server.phase = "whole"
        return
    server.ready, server.phase = False, "restored"
    if not whole or any(state.phase == "new" for state in states.values()):
        return  # until all are there, and each knows whether it was restored itself
    _log.warning("server %d was restored from a backup", server.index)
    safe = [i for i, state in states.items() if state.phase == "whole"]
    settle_among(channel, safe)
    epoch = max(mine.epoch, *(state.epoch for state in states.values()))
    again = restart(server, seen[0] + 1)
    server.store.take_epoch(epoch)
    notes = [request(channel, i, again) for i in safe or states]
    adopt(server, notes, refuse=bool(safe))
    if safe:
        for i in states.keys() - set(safe):
            request(channel, i, again)
    server.store.begin_epoch(epoch if safe else epoch + 1, seen[1])
    server.phase, server.ready = "whole", True
