"""Handlers of what owners ask about users, and of an owner's wish to have its changes settled."""

from __future__ import annotations

from ..errors import AccessDeniedError
from ..rpc import messages as m
from .base import Handlers, Request, ServerBase

__all__ = ["HANDLERS"]


def user_request(server: ServerBase, request: Request[m.UserRequest]) -> m.PartyKeys:
    return m.PartyKeys(*server.store.user_named(request.content.name))


def settle_own(server: ServerBase, request: Request[m.SettleOwn]) -> m.Ok:
    if request.content.owner != request.signer:
        raise AccessDeniedError("an owner has its own changes settled")
    if server.settle is not None:
        server.settle()
    return m.Ok()


HANDLERS: Handlers = {
    m.UserRequest: user_request,
    m.SettleOwn: settle_own,
}
