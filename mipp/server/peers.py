"""A server's part in what servers ask each other, and what its operator asks: settling changes, restore, status.

Nothing here is signed by owners or users; what is passed on of theirs is, and is checked as if they had sent it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..crypto import signing
from ..crypto.signing import party_id
from ..errors import MessageError, MippError, NotFoundError, ParameterError
from ..rpc import messages as m
from ..rpc import peer_messages as pm
from ..rpc.chain import restart_bytes, standing_bytes
from ..rpc.description import DeploymentConfig
from ..rpc.wire import decode, encode, pack_frames, unpack_frames
from ..store.parties import party_keys
from . import certifying, completions, sealing
from .base import ServerBase
from .changes import noted_votes
from .commits import verified_vote
from .handed_chains import chain_message, longest, read_chain
from .status import status

__all__ = ["HANDLERS", "OF_PEERS", "adopt", "proven", "restart", "standing"]

_log = logging.getLogger("mipp.server")
#: owners whose chains are told at a time, and bytes after which no further one is begun
FOLLOWED, FOLLOWED_BYTES = 16, 64 << 20


def settle(server: ServerBase, msg: pm.SettleRequest) -> pm.OpenChanges:
    if server.voting:
        server.store.changes.end_leases()
    server.store.catalog.settle_checkpoint()
    found, store = server.store.changes.open(), server.store
    return pm.OpenChanges(
        [c.owner for c in found], [c.op for c in found], [c.state for c in found], [c.commit for c in found],
        store.forgotten() + store.registrations() + store.all_grants(), store.seals.frames(),
    )  # fmt: skip


def passed_on(server: ServerBase, msg: pm.PassedOn) -> Any:
    return server.pass_on(msg.frames)


def certify(server: ServerBase, msg: m.Certify) -> m.Outcome:
    return noted_votes(server, msg)


def peer_state(server: ServerBase, msg: pm.PeerRequest) -> pm.PeerState:
    catalog, proofs = server.store.catalog, server.store.changes.proofs()
    return pm.PeerState(
        catalog.counter("incarnation"), catalog.counter("counter"), catalog.counter("epoch"), proofs, server.phase
    )


def restart(server: ServerBase, incarnation: int) -> pm.PeerRestored:
    """Begin a new incarnation: what this server says of it to the others."""
    if not 0 < incarnation < 1 << 62:
        raise ParameterError("an incarnation is out of range")
    server.store.changes.restored(incarnation)
    signature = server.sign(restart_bytes(server.config.id, server.index, incarnation))
    return pm.PeerRestored(server.index, incarnation, signature)


def standing(server: ServerBase) -> pm.Standing:
    """How far this server has come: what it says of itself to the others."""
    with server.store.catalog.reading():
        incarnation, counter = server.store.catalog.counter("incarnation"), server.store.catalog.counter("counter")
    signature = server.sign(standing_bytes(server.config.id, server.index, incarnation, counter))
    return pm.Standing(server.index, incarnation, counter, signature)


def proven(config: DeploymentConfig, packed: bytes) -> tuple[int, int, int]:
    """Server, incarnation and counter (or 0) that a server said of itself; AuthenticationError if it did not."""
    msg: Any = decode(unpack_frames(packed))
    if isinstance(msg, pm.PeerRestored):
        _check_restart(config, msg)
        return msg.server, msg.incarnation, 0
    if isinstance(msg, pm.Standing):
        _check_standing(config, msg)
        return msg.server, msg.incarnation, msg.counter
    vote = verified_vote(config, packed)
    return vote.server, vote.incarnation, vote.counter


def _check_standing(config: DeploymentConfig, msg: pm.Standing) -> None:
    if msg.server not in config.servers or not (0 <= msg.incarnation < 1 << 62 and 0 <= msg.counter < 1 << 62):
        raise ParameterError("an unknown server, or numbers that are out of range")
    data = standing_bytes(config.id, msg.server, msg.incarnation, msg.counter)
    signing.verify_raw(config.servers[msg.server].sign, msg.signature, data, "standing")


def _check_restart(config: DeploymentConfig, msg: pm.PeerRestored) -> None:
    if msg.server not in config.servers or not 0 < msg.incarnation < 1 << 62:
        raise ParameterError("an unknown server, or an incarnation that is out of range")
    data = restart_bytes(config.id, msg.server, msg.incarnation)
    signing.verify_raw(config.servers[msg.server].sign, msg.signature, data, "restart")


def peer_stands(server: ServerBase, msg: pm.Standing) -> m.Ok:
    if msg.server == server.index:
        raise ParameterError("a peer is another server of the deployment")
    _check_standing(server.config, msg)
    server.store.changes.meet_peer(msg.server, msg.incarnation, msg.counter, proof=pack_frames(encode(msg)))
    return m.Ok()


def peer_restored(server: ServerBase, msg: pm.PeerRestored) -> pm.Handover:
    if msg.server == server.index:
        raise ParameterError("a peer is another server of the deployment")
    _check_restart(server.config, msg)
    store = server.store
    store.changes.meet_peer(msg.server, msg.incarnation, restart=pack_frames(encode(msg)))
    with store.catalog.reading():  # one moment
        chains = [chain_message(c) for c in store.chains.all()]
        used, fetched = store.used(), store.fetched()
        # forgets first: the name of a forgotten owner may be another's now
        signed = store.forgotten() + store.registrations() + store.all_grants()
        gone = [pack_frames(encode(m.PartyKeys(*known[1:]))) for known in store.gone_owners()]
        ended, seals = store.gone_invitations(), store.seals.frames()
    owners, grants, counts = [u[0] for u in used], [u[1] for u in used], [u[2] for u in used]
    return pm.Handover(
        store.catalog.counter("epoch"), gone, signed, owners, grants, counts, chains, [e[0] for e in ended],
        [e[1] for e in ended], seals, [f[0] for f in fetched], [f[1] for f in fetched], [f[2] for f in fetched],
    )  # fmt: skip


def adopt(server: ServerBase, handovers: list[pm.Handover], *, refuse: bool = True) -> None:
    """Take over from peers what a backup lacks; ProtocolError if they differ.

    ``refuse``: then refuse what is open. If all were restored that is not needed: none remembers a vote that another
    one forgot, and what all accepted can be committed.

    A peer may show a change that another one only accepted yet: the longest history counts, and this server confirms it
    to the others. Batches whose files the backup lacks are there without rows: searches name them and go on with the
    others.
    """
    store = server.store
    for handover in handovers:
        for known in (decode(unpack_frames(packed), m.PartyKeys) for packed in handover.gone):
            store.add_gone_owner(party_id(known.sign_key, known.second), known.name, known.sign_key, known.second)
        for packed in handover.signed:
            with contextlib.suppress(MippError):  # what is here is newer, or the same
                server.pass_on(packed)
        for packed in handover.seals:
            with contextlib.suppress(MippError):  # of an owner that was forgotten here
                sealing.resealed(server, decode(unpack_frames(packed), pm.Resealed))
        store.add_gone_invitations(
            (i, o) for i, o in zip(handover.invitations, handover.invited, strict=False) if len(i) == 16
        )
    for chain in longest([[read_chain(packed) for packed in h.chains] for h in handovers], whole=refuse):
        try:
            store.chains.adopt(chain)
        except NotFoundError:  # one peer knows of a forget that another missed
            _log.warning("server %d: owner %s is not registered here", server.index, chain.owner.hex())
    for owner, op in {(c.owner, c.op) for c in store.changes.open() if refuse}:
        store.changes.settle_restored(owner, op)
    counts = [list(zip(h.used_owner, h.used_grant, h.used, strict=True)) for h in handovers]
    for used in (*counts, _by_all(server, counts)):
        store.adopt_used(used, [])
    for h in handovers:  # counted at the clouds that were asked: the most that one of them counted
        store.adopt_used([], list(zip(h.fetched_owner, h.fetched_grant, h.fetched, strict=False)))


def _by_all(server: ServerBase, counts: list[list[tuple[bytes, bytes, int]]]) -> list[tuple[bytes, bytes, int]]:
    """Counts of queries that a restored key centre lacks, where a query goes to some clouds: at least their mean."""
    p, total = server.config.params, Counter[tuple[bytes, bytes]]()
    if server.has_shares or not p.spare_clouds:
        return []
    for some in counts:
        total.update({(owner, grant): used for owner, grant, used in some})
    return [(owner, grant, -(-used // (p.t + 1))) for (owner, grant), used in total.items()]


def followed(server: ServerBase, msg: pm.FollowRequest) -> pm.Followed:
    if len(msg.owners) != len(msg.positions):
        raise MessageError("a request with another number of owners than of positions")
    known, chains = dict(zip(msg.owners, msg.positions, strict=True)), server.store.chains
    with server.store.catalog.reading():
        later = [o for o, (position, _) in chains.heads().items() if o in known and position > known[o]]
        told: list[bytes] = []
        for owner in later[:FOLLOWED]:
            # what was refused is of no use to a server that takes part in nothing that is open
            told += [chain_message(dataclasses.replace(c, refused=[])) for c in chains.all({owner})]
            if sum(map(len, told)) > FOLLOWED_BYTES:
                break
        return pm.Followed(told)


def verify(server: ServerBase, msg: pm.VerifyRequest) -> pm.VerifyReport:
    return pm.VerifyReport(*server.store.verify())


def back_up(server: ServerBase, msg: pm.BackupRequest) -> pm.BackupReport:
    return pm.BackupReport(*server.store.back_up(Path(msg.folder)))


def keys(server: ServerBase, msg: pm.KeysRequest) -> m.PartyKeys:
    return m.PartyKeys(*party_keys(server.store.catalog, msg.party))


def told(server: ServerBase, msg: pm.StatusRequest) -> pm.Status:
    if len(msg.owner) not in (0, 16):
        raise MessageError("an owner's id has 16 bytes")
    return status(server.store, msg.owner)


HANDLERS: dict[type, Callable[[ServerBase, Any], Any]] = {
    pm.SettleRequest: settle,
    pm.PassedOn: passed_on,
    m.Certify: certify,
    pm.PeerRequest: peer_state,
    pm.PeerRestored: peer_restored,
    pm.Standing: peer_stands,
    pm.FollowRequest: followed,
    pm.KeysRequest: keys,
    pm.StatusRequest: told,
    pm.VerifyRequest: verify,
    pm.BackupRequest: back_up,
    **certifying.PEER_HANDLERS,
    **completions.HANDLERS,
    **sealing.HANDLERS,
}
#: what other servers ask; the rest is for a server's own operator
OF_PEERS = (
    pm.SettleRequest, pm.PassedOn, m.Certify, pm.PeerRequest, pm.PeerRestored, pm.Standing, pm.FollowRequest,
    *completions.HANDLERS,
    *sealing.OF_PEERS,
)  # fmt: skip
