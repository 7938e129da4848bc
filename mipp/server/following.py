"""A cloud that was away takes over what was changed meanwhile, where changes go on without one.

Such a change is written to the key centre and the other clouds, and has their certificate. This cloud adopts it when
the key centre and another cloud show the same history, which goes on from its own: one of them alone can make it
believe nothing. It votes on nothing by that. The files of new batches are missing here at first; they are rebuilt from
the other servers (:mod:`mipp.server.repair`) and compared with the hash of this cloud's share in the owner's COMMIT.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import Any

from ..errors import MessageError, MippError, NotFoundError, ProtocolError
from ..rpc import peer_messages as pm
from ..rpc.channel import Channel, request
from ..store.chains import Chain
from .base import ServerBase
from .handed_chains import agreed_batches, chain_facts, read_chain

__all__ = ["follow"]

_log = logging.getLogger("mipp.server")


def follow(server: ServerBase, channel: Channel) -> int:
    """Take over the changes that this cloud missed.

    Parameters
    ----------
    server : ServerBase
        This server.
    channel : Channel
        To the other servers' side for peers.

    Returns
    -------
    int
        Number of owners whose history went on here.
    """
    params = server.config.params
    if not params.spare_clouds or server.index not in params.clouds:
        return 0
    done, seen = 0, set[bytes]()
    while told := _told(server, channel, seen):
        # each owner once: one whose history cannot be taken over now holds up no other
        seen |= {owner for chains in told.values() for owner in chains}
        done += _adopted(server, told)
    return done


def _told(server: ServerBase, channel: Channel, seen: set[bytes]) -> dict[int, dict[bytes, Chain]]:
    """Histories that went on, as other servers tell them, by server and owner; none if there are no others."""
    heads = {owner: head for owner, head in server.store.chains.heads().items() if owner not in seen}
    asked = pm.FollowRequest(list(heads), [position for position, _ in heads.values()])
    told: dict[int, dict[bytes, Chain]] = {}
    for peer in channel.servers if heads else ():
        if peer == server.index:
            continue
        try:
            reply = request(channel, peer, asked)
            if not isinstance(reply, pm.Followed):
                raise MessageError("a reply of another kind")
            chains = [read_chain(packed) for packed in reply.chains]
        except MippError as error:
            _log.info("server %d: server %d told no histories: %s", server.index, peer, error)
            continue
        told[peer] = {c.owner: c for c in chains if c.owner in heads and c.position > heads[c.owner][0]}
    return told if any(told.values()) else {}


def _adopted(server: ServerBase, told: dict[int, dict[bytes, Chain]]) -> int:
    (key_centre,) = server.config.params.key_centres
    heads, chains, adopted = server.store.chains.heads(), server.store.chains, 0
    for owner, chain in told.pop(key_centre, {}).items():
        agreed = _agreed(chain, [one[owner] for one in told.values() if owner in one])
        position, view = heads.get(owner, (-1, b""))
        accepted, places = chains.accepted(owner), {op[2]: (op[3], op[4]) for op in chain.ops if op[2]}
        if agreed is None or not 0 <= position < chain.position:
            continue
        # what this server promised waits for the others' votes, but not when they gave its place to another COMMIT
        beaten = accepted is not None and accepted[0] in places and places[accepted[0]][1] != accepted[1]
        if accepted is not None and not beaten:
            continue
        if position and places.get(position, (b"", b""))[0] != view:
            _log.warning("server %d: the others have another history of owner %s", server.index, owner.hex())
            continue
        with contextlib.suppress(NotFoundError):  # forgotten at this moment
            chains.adopt(agreed, beaten=beaten)
            adopted += 1
            _log.info("server %d took over changes of owner %s", server.index, owner.hex())
    return adopted


def _agreed(chain: Chain, others: list[Chain]) -> Chain | None:
    """The key centre's chain of an owner, if a cloud shows all that both know alike; None if none does now."""
    same = [other for other in others if _known(other) == _known(chain)]
    for other in same:
        with contextlib.suppress(ProtocolError, MessageError):
            batches = agreed_batches(chain, other)
            # a cloud alone knows which rows have images: of two that differ, the one that knows of more
            imaged = [max((one.batches[n][-1] for one in same), key=_ones) for n in range(len(batches))]
            batches = [(*batch[:-1], has) for batch, has in zip(batches, imaged, strict=True)]
            return dataclasses.replace(chain, batches=batches, refused=[], accepted=b"")
    return None


def _known(chain: Chain) -> tuple[Any, ...]:
    """What all servers know of an owner's history."""
    return (
        chain.position, chain.view, chain.floor, chain.floor_view, chain_facts(chain), chain.packs,
        sorted(op for op in chain.ops if op[2]),
    )  # fmt: skip


def _ones(bits: bytes) -> int:
    return int.from_bytes(bits, "big").bit_count()
