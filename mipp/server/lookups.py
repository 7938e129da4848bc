"""Handlers of what owners ask about users, and of an owner's wish to have its changes settled."""

from __future__ import annotations

from ..errors import AccessDeniedError, ParameterError
from ..rpc import messages as m
from .base import Handlers, Request, ServerBase, log

__all__ = ["HANDLERS"]


def user_request(server: ServerBase, request: Request[m.UserRequest]) -> m.PartyKeys:
    return m.PartyKeys(*server.store.user_named(request.content.name))


def settle_own(server: ServerBase, request: Request[m.SettleOwn]) -> m.Ok:
    if request.content.owner != request.signer:
        raise AccessDeniedError("an owner has its own changes settled")
    if server.settle is not None:
        server.settle()
    return m.Ok()


def wrong_answers(server: ServerBase, request: Request[m.WrongAnswers]) -> m.Ok:
    """Count what a user says of servers, for whoever operates this one; nothing else comes of it."""
    known = {bytes(servers) for servers in server.config.params.server_sets}
    told = set(request.content.sets)
    if not told or not told.issubset(known) or len(request.content.sets) > len(known):
        raise ParameterError("a report names sets of servers that answer queries, each once")
    suspects = sorted(set[int].intersection(*map(set, told)))
    log.warning(
        "server %d: user %s got wrong answers; suspects: %s", server.index, request.signer.hex(),
        ", ".join(map(str, suspects)),
    )  # fmt: skip
    if server.metrics is not None:
        server.metrics.suspected(suspects)
    return m.Ok()


HANDLERS: Handlers = {
    m.UserRequest: user_request,
    m.WrongAnswers: wrong_answers,
    m.SettleOwn: settle_own,
}
