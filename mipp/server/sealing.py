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
from ..store.seals import Seal
from .base import ServerBase

__all__ = ["HANDLERS", "MAX_SEALED", "OF_PEERS", "opens", "reseal", "reseal_one"]

#: most bytes of one owner's secrets, sealed
MAX_SEALED = 256


def reseal(server: ServerBase) -> list[str]:
    """Seal to this server's newest key all owners' secrets that are not, and have all servers keep that.

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
    lost = []
    for owner, name in server.store.seals.owners() if server.keys.newest.epoch else ():
        with contextlib.suppress(NotFoundError):  # forgotten meanwhile
            if not reseal_one(server, owner):
                lost.append(name)
    return lost


def reseal_one(server: ServerBase, owner: bytes) -> bool:
    """The same for one owner; whether its secrets are sealed to the newest key now.

    Also what the owner itself sealed to that key is sealed again: a registration of another time may take its place.

    Parameters
    ----------
    server : ServerBase
        This server.
    owner : bytes
        Id of the owner, 16 bytes.

    Returns
    -------
    bool
        False if no key here opens them.

    Raises
    ------
    NotFoundError
        The owner is unknown or was forgotten.
    StaleKeysError
        This server has no key that is valid.
    """
    newest, commitment = server.keys.newest, server.commitment(owner)
    if any(
        opens(server, owner, one, commitment, most="newest") for one in server.store.seals.sealed(owner, server.index)
    ):
        return True
    try:
        secret = server.owner_secret(owner)
    except IntegrityError:
        return False
    sealed = box.seal(newest.box, secret, owner_seal_info(server.config.id, owner, server.index))
    data = reseal_bytes(server.config.id, server.index, owner, newest.epoch, newest.box, sealed)
    msg = pm.Resealed(server.index, owner, newest.epoch, newest.box, sealed, server.sign(data))
    server.store.seals.put(_entry(msg), lambda old: False)
    server.pass_on_due = True
    return True


def opens(server: ServerBase, owner: bytes, sealed: bytes, commitment: bytes, *, most: str = "all") -> bool:
    """Whether a key of this server opens what was sealed to it.

    Parameters
    ----------
    server : ServerBase
        This server.
    owner, sealed, commitment, most
        As of :meth:`~mipp.server.base.ServerBase.unseal`.

    Returns
    -------
    bool
        Whether one does.
    """
    try:
        server.unseal(owner, sealed, commitment, most=most)
        return True
    except (AuthenticationError, MessageError):
        return False


def _entry(msg: pm.Resealed) -> Seal:
    return Seal(msg.owner, msg.server, msg.epoch, msg.key, msg.sealed, pack_frames(encode(msg)))


def resealed(server: ServerBase, msg: pm.Resealed) -> m.Ok:
    """Keep what a server sealed again; a worse one is left out: to a key that ended, or of an earlier epoch."""
    if msg.server not in server.config.servers or not 0 < msg.epoch < 1 << 62:
        raise ParameterError("an unknown server, or an epoch that is out of range")
    if len(msg.owner) != 16 or len(msg.key) != 32 or len(msg.sealed) > MAX_SEALED:
        raise ShapeError(
            f"an owner has an id of 16 bytes, and secrets of at most {MAX_SEALED} bytes, sealed to a key of 32"
        )
    data = reseal_bytes(server.config.id, msg.server, msg.owner, msg.epoch, msg.key, msg.sealed)
    signing.verify_raw(server.config.servers[msg.server].sign, msg.signature, data, "sealed secret")

    def stays(old: Seal) -> bool:
        if msg.server == server.index:  # whatever was signed once: what opens is worth more than what does not
            commitment = server.commitment(msg.owner)
            good, new = (opens(server, msg.owner, one, commitment) for one in (old.sealed, msg.sealed))
        else:
            good, new = (server.keys.is_valid(msg.server, one.key) for one in (old, msg))
        return (good, old.epoch, old.sealed) >= (new, msg.epoch, msg.sealed)

    if server.store.seals.put(_entry(msg), stays) and msg.server == server.index:
        server.drop_secret(msg.owner)
    return m.Ok()


HANDLERS: dict[type, Callable[[ServerBase, Any], Any]] = {pm.Resealed: resealed}
#: what other servers send
OF_PEERS = (pm.Resealed,)
