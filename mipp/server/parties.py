"""Handlers of registrations, grants and forgets."""

from __future__ import annotations

import contextlib
from typing import Any

from ..crypto import box
from ..errors import AccessDeniedError, AuthenticationError, MessageError, ParameterError, ShapeError, StaleKeysError
from ..rpc import messages as m
from ..rpc.grants import check_grant, in_force, read_grant
from ..rpc.invitations import Invitation, check_invitation
from ..rpc.names import check_name
from ..store.parties import is_registered
from .base import Handlers, Request, ServerBase
from .sealing import MAX_SEALED, opens, reseal_one

__all__ = ["HANDLERS"]


def register_owner(server: ServerBase, request: Request[m.RegisterOwner]) -> m.Ok:
    signer, msg, count = request.signer, request.content, len(server.config.servers)
    # of an owner that has not heard of a cloud that joined, or has not consented: that cloud takes no part
    count -= server.config.joined not in (None, server.index) and len(msg.sealed) == count - 1
    if len(msg.registration) != 16 or len(msg.sealed) != count:
        raise ShapeError(
            f"a registration has a nonce of 16 bytes, and sealed secrets for each of the {count} servers that server "
            f"{server.index} knows, not {len(msg.sealed)}: it or the owner has an earlier version of the description"
        )
    if any(len(s) > MAX_SEALED for s in msg.sealed):  # the others' are kept, too, to be passed on
        raise ShapeError(f"sealed secrets of an owner have at most {MAX_SEALED} bytes for each server")
    if len(msg.commitments) not in (0, count) or any(len(c) != 32 for c in msg.commitments):
        raise ShapeError("a registration commits to the secrets of every server, with 32 bytes each")
    _check_name(server, signer, msg.name)
    invitation = _invitation(server, request, "owner")
    at = sorted(server.config.servers).index(server.index)
    commitment = msg.commitments[at] if msg.commitments else b""
    opened = _opened(server, request, msg.sealed[at], commitment)
    server.store.add_owner(
        signer, msg.name, msg.sign_key, msg.registration, msg.sealed[at], request.packed, request.envelope.issued,
        b"".join(msg.commitments), lambda here: not opened or opens(server, signer, here, commitment, most="newest"),
        invitation,
    )  # fmt: skip
    server.drop_secret(signer)
    if opened and server.keys.epoch:
        reseal_one(server, signer)
    return m.Ok()


def _opened(server: ServerBase, request: Request[m.RegisterOwner], sealed: bytes, commitment: bytes) -> bool:
    """Whether this server opens what an owner sealed to it, and it is what the owner commits to.

    An owner that registers here is refused otherwise. What another server passes on may be sealed to keys that ended.
    What this server sealed again, or the owner anew, comes by another way; until then the owner's rows are left out.
    """
    try:
        server.unseal(request.signer, sealed, commitment, most="all" if request.by_peer else "valid")
        return True
    except (AuthenticationError, MessageError):
        if request.by_peer:
            return False
        if server.keys.epoch:
            raise StaleKeysError(f"the secrets are sealed to keys that server {server.index} has no more") from None
        raise


def register_user(server: ServerBase, request: Request[m.RegisterUser]) -> m.Ok:
    signer, msg = request.signer, request.content
    _check_name(server, signer, msg.name)
    invitation = _invitation(server, request, "user")
    box.seal(msg.box_key, b"", b"")  # refuses keys that nothing can be sealed to
    server.scheme.check_user_key(msg.scheme_key)
    server.store.add_user(signer, msg.name, msg.sign_key, msg.box_key, msg.scheme_key, request.packed, invitation)
    return m.Ok()


def evaluation_key_state(server: ServerBase, request: Request[m.EvaluationKeyRequest]) -> m.EvaluationKeyState:
    needed = server.scheme.evaluation_key_bytes and not server.store.has_evaluation_key(request.signer)
    return m.EvaluationKeyState(server.scheme.evaluation_key_bytes if needed else 0)


def keep_evaluation_key(server: ServerBase, request: Request[m.KeepEvaluationKey]) -> m.Ok:
    key, size = request.content.key, server.scheme.evaluation_key_bytes
    if key.nbytes != size:
        raise ParameterError(f"evaluation keys of this deployment have {size} bytes, not {key.nbytes}")
    server.granted(request.signer)  # who may search nothing takes no room
    # the first one stays: another program of the user may have brought it meanwhile, and searches with it
    if not server.store.has_evaluation_key(request.signer):
        packed = key.tobytes()
        server.scheme.check_evaluation_key(packed)
        server.store.add_evaluation_key(request.signer, packed, lambda user: _has_grant(server, user))
        server.scheme.drop_user(request.signer)
    return m.Ok()


def _has_grant(server: ServerBase, user: bytes) -> bool:
    """Whether a grant to a user is in force now: neither revoked, nor suspended, nor expired."""
    return bool(in_force(server.store.grants(user=user), server.clock())[0])


def _check_name(server: ServerBase, party: bytes, name: str) -> None:
    """ParameterError for a bad name; parties that were registered under older rules keep theirs."""
    if not is_registered(server.store.catalog, party) and check_name(name) != name:
        raise ParameterError("a name is NFC-normalised")


def _invitation(server: ServerBase, request: Request[Any], kind: str) -> Invitation | None:
    """The valid invitation of a new party; None where there is no registrar, and for parties that are registered.

    A registration that another server passes on was accepted there in time, or comes from a backup: its invitation may
    have ended. A hostile server can so let somebody in whose invitation ended unused, with the name and limits that the
    registrar signed; it cannot make an invitation, nor have one used twice at this server. An owner or user that gives
    one invitation to two servers under two keys is registered nowhere whole: the third server refuses one of them, and
    each of the two refuses the other's key.
    """
    msg = request.content
    if server.config.registrar and is_registered(server.store.catalog, request.signer):
        return None
    invitation = Invitation.from_bytes(msg.invitation) if msg.invitation else None
    check_invitation(server.config, invitation, kind, msg.name, None if request.by_peer else server.clock())
    return invitation


def grant(server: ServerBase, request: Request[m.Grant]) -> m.Ok:
    signer, msg = request.signer, request.content
    if msg.owner != signer:
        raise AccessDeniedError("only the owner grants access to its images")
    check_grant(msg, server.config.grantable)
    server.store.user(msg.user)
    epoch = server.store.catalog.counter("epoch")
    if msg.epoch != epoch:
        raise AccessDeniedError(f"the grant is of epoch {msg.epoch}, the servers' is {epoch}; sign it again")
    order = (msg.epoch, msg.version, msg.revoked)
    server.store.put_grant(signer, msg.user, order, m.grant_id(request.hash), request.packed)
    return m.Ok()


def list_grants(server: ServerBase, request: Request[m.ListGrants]) -> m.GrantList:
    signer = request.signer
    grants = [frames for _, frames in server.store.grants(owner=signer)]
    return m.GrantList(server.store.catalog.counter("epoch"), grants)


def grant_use(server: ServerBase, request: Request[m.GrantUse]) -> m.GrantUseList:
    signer, told = request.signer, m.GrantUseList([], [])
    for grant, packed in server.store.grants(owner=signer):
        with contextlib.suppress(MessageError):  # written by an earlier version
            content = read_grant(packed)
            if content.quota:
                told.users.append(content.user)
                told.left.append(server.store.queries_left(signer, content.user, grant, content.quota))
    return told


def forget(server: ServerBase, request: Request[m.ForgetOwner]) -> m.Ok:
    signer, msg = request.signer, request.content
    if msg.owner != signer or msg.registration != server.store.registration(signer)[0]:
        raise AccessDeniedError("only the owner forgets its images, in the registration that it names")
    server.store.forget_owner(signer, request.packed)
    server.drop_caches({signer})
    return m.Ok()


HANDLERS: Handlers = {
    m.RegisterOwner: register_owner,
    m.RegisterUser: register_user,
    m.EvaluationKeyRequest: evaluation_key_state,
    m.KeepEvaluationKey: keep_evaluation_key,
    m.Grant: grant,
    m.ListGrants: list_grants,
    m.GrantUse: grant_use,
    m.ForgetOwner: forget,
}
