"""The channel between a client (owner, user, coordinator) and the servers.

A role sees only this interface; a network channel needs no change in a role.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from ..errors import DeploymentError, MessageError, MippError, ProtocolError, UnreachableError
from . import messages as m
from .failures import error_from_wire
from .turns import short_turns
from .wire import Frames, decode, encode, frames_size

__all__ = ["Channel", "LocalChannel", "accepted", "kind_of_request", "reply_or", "request"]

Handler = Callable[[Frames], Frames]
#: bytes of requests that are handed to servers side by side: each hashes its own, and writes it
_LARGE = 1 << 20


class Channel(Protocol):
    """Carries requests to servers and counts what was sent.

    ``remote``: whether bytes travel, so that it is worth some work that they are few.
    """

    remote: bool

    def gather(
        self, requests: Mapping[int, Frames], *, together: bool = False, spare: bool = False,
        refusals: tuple[type[MippError], ...] = (),
    ) -> dict[int, Any]:  # fmt: skip
        """Send one request to each named server, one round; replies by server. The first refusal is raised.

        ``together``: the servers talk to each other to answer, so all must have their request before one replies.
        ``spare``: another server can take the place of one, so the last one is not waited for as long as otherwise.
        ``refusals``: these are given in place of replies: the others have done what they were asked, and it counts.
        """

    @property
    def servers(self) -> tuple[int, ...]:
        """Servers that can be reached."""


class LocalChannel:
    """All servers in this process. Messages are encoded and decoded as on a wire, so no object is shared.

    DeploymentError in a forked child: servers, their databases and locks belong to the process that opened them.
    ``bytes_sent`` counts by message kind (``Query``, ``Answer``, ...), ``rounds`` the calls of :meth:`gather`.
    """

    remote = False

    def __init__(self, handlers: Mapping[int, Handler]) -> None:
        self._handlers = dict(handlers)
        self._lock, self._process = threading.Lock(), os.getpid()
        self.bytes_sent: Counter[str] = Counter()
        self.rounds = 0

    @property
    def servers(self) -> tuple[int, ...]:
        return tuple(sorted(self._handlers))

    def gather(
        self, requests: Mapping[int, Frames], *, together: bool = False, spare: bool = False,
        refusals: tuple[type[MippError], ...] = (),
    ) -> dict[int, Any]:  # fmt: skip
        if os.getpid() != self._process:  # databases and locks of the servers are the parent's
            raise DeploymentError("the deployment was opened before a fork; open it again in this process")
        with self._lock:
            self.rounds += 1
        if not together and sum(map(frames_size, requests.values())) < _LARGE:
            return {server: reply_or(refusals, self._request, server, frames) for server, frames in requests.items()}
        with short_turns() if together else contextlib.nullcontext(), ThreadPoolExecutor(len(requests)) as pool:
            waiting = {
                server: pool.submit(reply_or, refusals, self._request, server, frames)
                for server, frames in requests.items()
            }
        failed = [e for e in (job.exception() for job in waiting.values()) if e is not None]
        if failed and not together:
            raise failed[0]
        if failed:
            # a refusal says more than what the others, waiting for that server, met; who was silent, more than that a
            # peer stopped
            raise min(failed, key=lambda e: isinstance(e, ProtocolError) + (type(e) is ProtocolError))
        return {server: job.result() for server, job in waiting.items()}

    def _request(self, server: int, frames: Frames) -> Any:
        try:
            reply_frames = self._handlers[server](frames)
        except UnreachableError as error:
            error.server = server
            raise
        reply: Any = decode(reply_frames)
        with self._lock:
            self.bytes_sent[kind_of_request(frames)] += frames_size(frames)
            self.bytes_sent[type(reply).__name__] += frames_size(reply_frames)
        return accepted(reply, server)


def accepted(reply: Any, server: int = 0) -> Any:
    """A server's reply, or the error that it refused with.

    What a server says of a server that it cannot reach is not known of that one here.
    """
    if isinstance(reply, m.Failure):
        error = error_from_wire(reply.name, reply.text)
        error.server = 0 if isinstance(error, UnreachableError) else server
        raise error
    return reply


def reply_or(refusals: tuple[type[MippError], ...], ask: Callable[..., Any], *request: Any) -> Any:
    """A server's reply, or its refusal if that is one of ``refusals``."""
    try:
        return ask(*request)
    except refusals as refusal:
        return refusal


def kind_of_request(frames: Frames) -> str:
    """Kind of a request, by the content of the envelope if it is signed."""
    msg: Any = decode(frames)
    if isinstance(msg, m.Signed):
        msg = decode([f.data for f in msg.frames])
    return type(msg).__name__


def request(channel: Channel, server: int, msg: Any) -> Any:
    """One unsigned request to one server."""
    replies = channel.gather({server: encode(msg)})
    if server not in replies:
        raise MessageError(f"server {server} did not answer")
    return replies[server]
