"""A server's part in what servers ask each other, and what its operator asks: settling changes, restore, status.

Nothing here is signed by owners or users; what is passed on of theirs is, and is checked as if they had sent it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgpack

from ..errors import MessageError, MippError, ParameterError, ProtocolError
from ..protocol import messages as m
from ..protocol import peer_messages as pm
from ..protocol.wire import decode, encode, pack_frames, unpack_frames
from ..store.chains import Chain
from ..store.parties import party_keys
from .changing import noted_votes
from .reports import status

if TYPE_CHECKING:
    from .server import Server

__all__ = ["HANDLERS", "adopt"]


def settle(server: Server, msg: pm.SettleRequest) -> pm.OpenChanges:
    server.store.changes.end_leases()
    server.store.catalog.settle_checkpoint()
    found = server.store.changes.open()
    return pm.OpenChanges(
        [c.owner for c in found], [c.op for c in found], [c.state for c in found], [c.commit for c in found],
        server.store.registrations() + server.store.forgotten() + server.store.all_grants(),
    )  # fmt: skip


def passed_on(server: Server, msg: pm.PassedOn) -> Any:
    return server.pass_on(msg.frames)


def certify(server: Server, msg: m.Certify) -> m.Outcome:
    return noted_votes(server, msg)


def peer_state(server: Server, msg: pm.PeerRequest) -> pm.PeerState:
    catalog, known = server.store.catalog, server.store.changes.peers()
    numbers = sorted(known)
    return pm.PeerState(
        catalog.counter("incarnation"), catalog.counter("counter"), catalog.counter("epoch"), numbers,
        [known[i][0] for i in numbers], [known[i][1] for i in numbers],
    )  # fmt: skip


def peer_restored(server: Server, msg: pm.PeerRestored) -> pm.Handover:
    if msg.server not in server.config.servers or msg.server == server.index:
        raise ParameterError("a peer is another server of the deployment")
    store = server.store
    store.changes.meet_peer(msg.server, msg.incarnation, 0)
    with store.catalog.reading():  # one moment
        chains = [_chain_message(c) for c in store.chains.all()]
        used = store.used()
        signed = store.registrations() + store.forgotten() + store.all_grants()
    return pm.Handover(
        store.catalog.counter("epoch"), signed, [u[0] for u in used], [u[1] for u in used], [u[2] for u in used], chains
    )


def _chain_message(c: Chain) -> bytes:
    batches = list(zip(*c.batches, strict=True)) or [()] * 7
    ops = list(zip(*c.ops, strict=True)) or [()] * 4
    chain = pm.ChainState(
        c.owner, c.position, c.view, c.floor, c.floor_view, *[list(column) for column in (*batches, *ops)]
    )
    return pack_frames(encode(chain))


def _chain(packed: bytes) -> Chain:
    msg = decode(unpack_frames(packed), pm.ChainState)
    batches = list(
        zip(msg.positions, msg.rows, msg.dims, msg.batches, msg.dead, msg.origin_batch, msg.origin_row, strict=True)
    )
    ops = list(zip(msg.ops, msg.kinds, msg.op_positions, msg.views, strict=True))
    return Chain(msg.owner, msg.position, msg.view, msg.floor, msg.floor_view, batches, ops)


def adopt(server: Server, handovers: list[pm.Handover]) -> None:
    """Take over from unrestored peers what a backup lacks, then refuse what is open; ProtocolError if they differ.

    Batches whose files the backup lacks are there without rows: searches name them and go on with the others.
    """
    store = server.store
    digests = {hashlib.sha256(msgpack.packb(sorted(h.chains))).digest() for h in handovers}
    if len(digests) != 1:
        raise ProtocolError("the other servers do not hold the same batches yet; try again")
    for handover in handovers:
        for packed in handover.signed:
            with contextlib.suppress(MippError):  # what is here is newer, or the same
                server.pass_on(packed)
    for chain in (_chain(packed) for packed in handovers[0].chains):
        store.chains.adopt(chain)
    for owner, op in {(c.owner, c.op) for c in store.changes.open()}:
        store.changes.settle_restored(owner, op)
    for h in handovers:
        store.adopt_used(list(zip(h.used_owner, h.used_grant, h.used, strict=True)))


def verify(server: Server, msg: pm.VerifyRequest) -> pm.VerifyReport:
    return pm.VerifyReport(*server.store.verify())


def keys(server: Server, msg: pm.KeysRequest) -> pm.Keys:
    return pm.Keys(*party_keys(server.store.catalog, msg.party))


def told(server: Server, msg: pm.StatusRequest) -> pm.Status:
    if len(msg.owner) not in (0, 16):
        raise MessageError("an owner's id has 16 bytes")
    return status(server.store, msg.owner)


HANDLERS: dict[type, Callable[[Server, Any], Any]] = {
    pm.SettleRequest: settle,
    pm.PassedOn: passed_on,
    m.Certify: certify,
    pm.PeerRequest: peer_state,
    pm.PeerRestored: peer_restored,
    pm.KeysRequest: keys,
    pm.StatusRequest: told,
    pm.VerifyRequest: verify,
}
