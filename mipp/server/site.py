"""What a server answers over HTTP: requests of owners and users, and pages on how it stands.

==========================================  ======================================================================
``POST /v1/request``                        one signed request; frames in, frames out
``POST /v1/upload``                         announces a request that is larger than one body; gives a token
``POST /v1/upload/TOKEN/OFFSET``            the next block of its data
``POST /v1/finish/TOKEN``                   all data have come: the reply to the request
``GET /v1/description``                     the deployment's public description
``GET /v1/addresses``                       signed updates of servers' addresses, the newest of each
``POST /v1/addresses``                      the same, after newer ones were taken over from the body
``GET /healthz``, ``/readyz``, ``/metrics``  the process runs; it can serve, or why not; counts for Prometheus
==========================================  ======================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Iterator

import numpy as np

from ..errors import BusyError, LimitError, MippError, NotFoundError, ParameterError, StoreError
from ..rpc import messages as m
from ..rpc.address_book import AddressBook
from ..rpc.address_updates import read_updates
from ..rpc.bodies import (
    ADDRESSES_PATH,
    BLOCK_BYTES,
    BODY_BYTES,
    DESCRIPTION_PATH,
    FINISH_PATH,
    REQUEST_PATH,
    UPLOAD_PATH,
    announcement,
    body_parts,
    frames_of,
)
from ..rpc.http_server import Head, Refused, Reply
from ..rpc.wire import Frames, decode, encode, kind_of
from .server import Server
from .upload_data import Arrived
from .uploads import Uploads

__all__ = ["ServerSite"]

_log = logging.getLogger("mipp.http")

_NONE = memoryview(b"")


#: of a list of addresses: two certificates with their proofs of each of some servers
_ADDRESSES_BYTES = 160 << 10


class ServerSite:
    """The site of one server.

    Parameters
    ----------
    server : Server
        Answers the requests.
    uploads : Uploads
        Takes in the data of large ones.
    description : bytes
        The deployment's public description, JSON.
    reasons : callable
        Why this server is not ready, a sentence each; empty if it is.
    metrics : callable
        The page for Prometheus.
    lost : callable
        Number of batches with live rows whose files this server lacks.
    book : AddressBook, optional
        Servers' addresses. Anybody may ask for them and bring newer ones, which their signatures prove.
    """

    def __init__(
        self,
        server: Server,
        uploads: Uploads,
        description: bytes,
        reasons: Callable[[], list[str]],
        metrics: Callable[[], bytes] = lambda: b"",
        book: AddressBook | None = None,
        lost: Callable[[], int] = int,
    ) -> None:
        self._lost = lost
        self._book, self._reading = book, threading.Lock()
        self._server, self._uploads, self._description = server, uploads, description
        self._reasons, self._metrics = reasons, metrics
        #: no new requests any more: the server stops soon
        self.draining = False

    # --- bodies -------------------------------------------------------------------------------------------------

    def buffer(self, head: Head) -> memoryview:
        if head.method == "GET":
            if head.length:
                raise Refused(400, "a GET request has no body")
            return _NONE
        if head.method != "POST":
            raise Refused(405, "only GET and POST are served here")
        token, at = _upload(head.path)
        most = BLOCK_BYTES if token is not None else BODY_BYTES
        if head.path == ADDRESSES_PATH:  # strangers send it, and what is parsed takes many times its bytes
            most = _ADDRESSES_BYTES
        if head.length > most:
            raise Refused(413, f"a body here has at most {most} bytes; larger requests are announced")
        if token is not None:
            with _refusing():
                return self._uploads.block(token, at, head.length)
        # the number of connections bounds them; a body that does not come takes no memory
        return np.empty(head.length, np.uint8).data

    def broken(self, head: Head, body: memoryview) -> None:
        token, _ = _upload(head.path)
        if token is not None:
            self._uploads.broken(token)

    # --- answers ------------------------------------------------------------------------------------------------

    def answer(self, head: Head, body: memoryview) -> Reply:
        if head.method == "GET":
            return self._page(head.path)
        token, _ = _upload(head.path)
        if token is not None:
            with _refusing():
                return _message(m.UploadState(token, self._uploads.written(token, body)))
        return self._posted(head.path, body)

    def _posted(self, path: str, body: memoryview) -> Reply:
        if path == ADDRESSES_PATH and self._book is not None:
            return self._addresses(self._book, body)
        if path not in (REQUEST_PATH, UPLOAD_PATH) and not path.startswith(FINISH_PATH + "/"):
            raise Refused(404, "nothing is served at this path")
        if self.draining and path == UPLOAD_PATH:
            raise Refused(503, "this server stops soon", 30)
        try:
            if path == REQUEST_PATH:
                return self._answered(frames_of(body))
            if path == UPLOAD_PATH:
                told = announcement(body, self._uploads.limits.largest)
                return _message(m.UploadState(*self._uploads.begin(self._server.announced(told), told)))
            token = _token(path[len(FINISH_PATH) + 1 :])
            arrived = self._uploads.finish(token)
            try:
                return self._answered(arrived.frames, arrived)
            finally:
                arrived.close()
        except MippError as error:
            return _message(self._server.failure(error))

    def _answered(self, frames: Frames, arrived: Arrived | None = None) -> Reply:
        """A request's reply, which gives its room back when it was sent."""
        server, replies = self._server, self._server.replies
        if replies is None:
            return _frames(server.handle(frames, arrived=arrived))
        try:
            reply = _frames(server.handle(frames, arrived=arrived))
        except BaseException:
            replies.taken()()
            raise
        return dataclasses.replace(reply, after=replies.taken())

    def _page(self, path: str) -> Reply:
        if path == "/healthz":
            return Reply(200, [b"ok\n"], "text/plain")
        if path == "/readyz":
            reasons = self._reasons() + (["it stops soon"] if self.draining else [])
            state = {
                "ready": not reasons, "takes_changes": self._server.voting, "reasons": reasons,
                "lost_batches": self._lost(),
            }  # fmt: skip
            text = json.dumps(state).encode() + b"\n"
            return Reply(503 if reasons else 200, [text], "application/json")
        if path == "/metrics":
            return Reply(200, [self._metrics()], "text/plain; version=0.0.4")
        if path == DESCRIPTION_PATH:
            return Reply(200, [self._description], "application/json")
        if path == ADDRESSES_PATH and self._book is not None:
            return Reply(200, [self._book.to_json()], "application/json")
        raise Refused(404, "nothing is served at this path")

    def _addresses(self, book: AddressBook, body: memoryview) -> Reply:
        """Take over newer addresses, and tell all that are known here."""
        with self._reading:
            try:
                updates, _ = read_updates(bytes(body))
                refused = book.take(updates).refused
            except MippError as error:
                raise Refused(400, str(error)) from None
        if refused:
            _log.debug("%d addresses were not taken; the first: %s", len(refused), refused[0])
        return Reply(200, [book.to_json()], "application/json")


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Refuses a block that cannot be taken in."""
    try:
        yield
    except BusyError as error:
        raise Refused(503, str(error), 30) from None
    except StoreError as error:
        raise Refused(507, str(error)) from None
    except MippError as error:
        raise Refused(404 if isinstance(error, NotFoundError) else 409, str(error)) from None


def _upload(path: str) -> tuple[bytes | None, int]:
    """Token and offset in the path of a block; None if it is another path."""
    if not path.startswith(UPLOAD_PATH + "/"):
        return None, 0
    name, _, at = path[len(UPLOAD_PATH) + 1 :].partition("/")
    if not at.isascii() or not at.isdigit() or len(at) > 15:
        raise Refused(404, "nothing is served at this path")
    try:
        return _token(name), int(at)
    except ParameterError:
        raise Refused(404, "nothing is served at this path") from None


def _token(text: str) -> bytes:
    try:
        token = bytes.fromhex(text)
    except ValueError:
        token = b""
    if len(token) != 16:
        raise ParameterError("malformed name of an announced request")
    return token


def _message(msg: object) -> Reply:
    return _frames(encode(msg))


def _frames(frames: Frames) -> Reply:
    status, wait = 200, 0
    if kind_of(frames) == m.Failure.__name__:
        name = decode(frames, m.Failure).name
        if name == BusyError.__name__:
            status, wait = 429, 1
        elif name == LimitError.__name__:
            status = 413
    return Reply(status, body_parts(frames), retry_after=wait)
