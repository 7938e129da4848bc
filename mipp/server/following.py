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
    done = 0
    while adopted := _some(server, channel):
        done += adopted
    return done


def _some(server: ServerBase, channel: Channel) -> int:
    heads = server.store.chains.heads()
    asked = pm.FollowRequest(list(heads), [position for position, _ in heads.values()])
    told: dict[int, dict[bytes, Chain]] = {}
    for peer in channel.servers:
        if peer != server.index:
            with contextlib.suppress(MippError):
                chains = [read_chain(packed) for packed in request(channel, peer, asked).chains]
                told[peer] = {chain.owner: chain for chain in chains}
    adopted = 0
    (key_centre,) = server.config.params.key_centres
    for owner, chain in told.pop(key_centre, {}).items():
        agreed = _agreed(chain, [chains[owner] for chains in told.values() if owner in chains])
        position, view = heads.get(owner, (-1, b""))
        if agreed is None or not 0 <= position < chain.position or server.store.chains.undecided(owner):
            continue
        if position and (position, view) not in {(op[2], op[3]) for op in chain.ops}:
            _log.warning("server %d: the others have another history of owner %s", server.index, owner.hex())
            continue
        with contextlib.suppress(NotFoundError):  # forgotten at this moment
            server.store.chains.adopt(agreed)
            adopted += 1
            _log.info("server %d took over changes of owner %s", server.index, owner.hex())
    return adopted


def _agreed(chain: Chain, others: list[Chain]) -> Chain | None:
    """The key centre's chain of an owner as a cloud shows it, too; None if none does now."""
    for other in others:
        if (other.position, other.view, chain_facts(other)) == (chain.position, chain.view, chain_facts(chain)):
            with contextlib.suppress(ProtocolError, MessageError):
                # a cloud knows which rows have images
                return dataclasses.replace(other, batches=agreed_batches(other, chain))
    return None
