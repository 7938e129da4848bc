"""Owners' secrets sealed again, when a server took new keys: by the server itself, while it can open them.

A registration holds an owner's secrets sealed to each server's box key of that time. When a server changes that key it
opens what was sealed to the key before, seals it to the new one, signs that, and has all servers keep it: then a
server whose disk is lost finds its secrets again, though it has its newest keys only. What no key opens any more, its
owner seals anew, by registering once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ..crypto import box, signing
from ..errors import AuthenticationError, IntegrityError, MessageError, NotFoundError, ParameterError, ShapeError
from ..rpc import messages as m
from ..rpc import peer_messages as pm
from ..rpc.associated_data import owner_seal_info
from ..rpc.chain import reseal_bytes
from ..rpc.wire import encode, pack_frames
from .base import ServerBase

__all__ = ["HANDLERS", "OF_PEERS", "reseal"]

#: most bytes of one owner's secrets, sealed
_MOST = 256


def reseal(server: ServerBase) -> list[str]:
    """Seal to this server's newest key all owners' secrets that are sealed to an earlier one.

    Parameters
    ----------
    server : ServerBase
        This server.

    Returns
    -------
    list of str
        Names of owners whose secrets no key here opens: they must seal them anew.

    Raises
    ------
    StaleKeysError
        This server has no key that is valid.
    """
    newest, epoch, lost = server.keys.newest_box, server.keys.epoch, []
    if not epoch:
        return []
    for owner, name in server.store.seals.owners():
        with contextlib.suppress(NotFoundError):  # forgotten meanwhile
            if any(_opens(server, owner, one) for one in _sealed(server, owner)):
                continue
            try:
                secret = server.owner_secret(owner)
            except IntegrityError:
                lost.append(name)
                continue
            sealed = box.seal(newest, secret, owner_seal_info(server.config.id, owner, server.index))
            signature = server.sign(reseal_bytes(server.config.id, server.index, owner, epoch, sealed))
            resealed(server, pm.Resealed(server.index, owner, epoch, sealed, signature))
            server.pass_on_due = True
    return lost


def _sealed(server: ServerBase, owner: bytes) -> list[bytes]:
    return [server.store.owner(owner)[2], *server.store.seals.sealed(owner, server.index)]


def _opens(server: ServerBase, owner: bytes, sealed: bytes) -> bool:
    """Whether the newest key opens it."""
    try:
        server.unseal(owner, sealed, newest=True)
        return True
    except (AuthenticationError, MessageError):
        return False


def resealed(server: ServerBase, msg: pm.Resealed) -> m.Ok:
    """Keep what a server sealed again; an earlier one is left out."""
    if msg.server not in server.config.servers or not 0 < msg.epoch < 1 << 62:
        raise ParameterError("an unknown server, or an epoch that is out of range")
    if len(msg.owner) != 16 or len(msg.sealed) > _MOST:
        raise ShapeError(f"an owner has an id of 16 bytes, and secrets of at most {_MOST} bytes, sealed")
    data = reseal_bytes(server.config.id, msg.server, msg.owner, msg.epoch, msg.sealed)
    signing.verify_raw(server.config.servers[msg.server].sign, msg.signature, data, "sealed secret")
    frames = pack_frames(encode(msg))
    if server.store.seals.put(msg.owner, msg.server, msg.epoch, msg.sealed, frames) and msg.server == server.index:
        server.drop_secret(msg.owner)
    return m.Ok()


def report(server: ServerBase, msg: pm.ResealRequest) -> pm.ResealReport:
    return pm.ResealReport(server.keys.epoch, reseal(server))


HANDLERS: dict[type, Callable[[ServerBase, Any], Any]] = {
    pm.Resealed: resealed,
    pm.ResealRequest: report,
}
#: what other servers send
OF_PEERS = (pm.Resealed,)
