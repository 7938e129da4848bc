"""The channel of a client to servers over a network: HTTP over TLS, one request to each server at the same time."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import queue
import re
import select
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import (
    AuthenticationError,
    BusyError,
    ConflictError,
    DeploymentError,
    LimitError,
    MessageError,
    MippError,
    NotFoundError,
    ProtocolError,
    StoreError,
    UnreachableError,
)
from . import messages as m
from .address_book import AddressBook
from .address_exchange import Learner
from .bodies import (
    ADDRESSES_HEADER,
    BLOCK_BYTES,
    BODY_BYTES,
    FINISH_PATH,
    REQUEST_PATH,
    TIME_HEADER,
    UPLOAD_PATH,
    announce,
    body_parts,
    body_size,
    frames_of,
)
from .channel import accepted, kind_of_request
from .description import DeploymentConfig
from .http_pages import page
from .sockets import end
from .tls import client_context, connect
from .wire import Frames, decode, frames_size

__all__ = ["HttpChannel"]

#: seconds to connect; to send a block; to wait for the first byte of a reply; for each further part of it
CONNECT, SEND, WAIT, READ = 10.0, 60.0, 300.0, 30.0
#: seconds from the first byte of a reply's head to its last; for a public page
HEAD, PAGE = 10.0, 15.0
#: seconds for the reply to a request that the server did not want to the end
REFUSAL = 2.0
#: the whole of a reply takes at most this long, and one second more for every so many bytes
REPLY, REPLY_RATE = 300.0, 64 << 10
#: most bytes of a reply: one single image, or one batch that is given back to its owner, may be as long
MAX_REPLY = 8 << 30
#: seconds before a large request that broke goes on where it was: each time that nothing came through since the last
RESUME = (0.2, 1.0, 5.0)
#: seconds by which a server's clock may differ from this machine's; beyond, this machine's is used
MAX_AHEAD = 366 * 86400.0
#: seconds that the other servers' replies are waited for, once one server failed or refused
LEFT = 5.0
#: a server that another one can stand in for may take so much longer than the others; and so many seconds longer to
#: connect
SPARE, SPARE_CONNECT = 3.0, 1.0
#: errors by the status of a refusal
_REFUSALS: dict[int, type[MippError]] = {
    404: NotFoundError, 409: ConflictError, 413: LimitError, 429: BusyError, 503: BusyError, 507: StoreError,
}  # fmt: skip
_LOOK = 0.5  # seconds between two looks for replies that drip
_CHUNK = 1 << 20
_IDLE = 30.0  # seconds after which an idle connection is not used again
_PER_SERVER = 16  # idle connections kept


class _Connection(http.client.HTTPConnection):
    """An HTTP connection over a socket whose other end was compared with the description."""

    def __init__(self, server: int, book: AddressBook, context: ssl.SSLContext) -> None:
        address = book.address(server)
        super().__init__(address.host, address.port, blocksize=_CHUNK)
        self._who, self._server, self._book, self._tls = f"server {server} ({address.name})", server, book, context
        self._shown = b""
        self.used = 0.0
        #: when the head of the reply must be there; whoever waits for the reply ends the connection then
        self.due = math.inf

    def connect(self) -> None:
        known = self._book.certificates(self._server)
        self.sock = connect(self.host, self.port, self._tls, known, CONNECT, self._who)
        self._shown = self.sock.getpeercert(binary_form=True) or b""

    @property
    def made(self) -> bool:
        """Whether it was ever open."""
        return bool(self._shown)

    @property
    def fresh(self) -> bool:
        """Whether it can be used again: open, not idle for long, and nothing came that nobody asked for. The server may
        still show the certificate that it showed."""
        if self.sock is None or time.monotonic() - self.used > _IDLE:
            return False
        if self._shown not in self._book.certificates(self._server):
            return False
        with contextlib.suppress(OSError, ValueError):
            return not select.select([self.sock], [], [], 0)[0]
        return False


class _Call:
    """One call of :meth:`HttpChannel.gather`: its connections in use, by server, and whether it was given up."""

    def __init__(self) -> None:
        self.using: dict[int, _Connection] = {}
        self.ended = threading.Event()

    def patience(self, missing: Iterable[int], taken: float) -> float:
        """Seconds for which the last server is waited for, which another one can stand in for."""
        open_ = [c for c in map(self.using.get, missing) if c is not None and c.made]
        return max(LEFT, SPARE * taken) if open_ else SPARE_CONNECT

    def end_late(self) -> None:
        """End connections whose reply drips: each byte of it comes in time, but the whole does not."""
        for connection in list(self.using.values()):
            if connection.sock is not None and time.monotonic() > connection.due:
                end(connection.sock)

    def end(self) -> None:
        """Give it up: what it waits for fails, and nothing more is sent."""
        self.ended.set()
        for connection in list(self.using.values()):
            if connection.sock is not None:
                end(connection.sock)


class HttpChannel:
    """Requests to the servers of a deployment over a network; counts as :class:`~mipp.rpc.channel.LocalChannel` does.

    Requests of one call go out in parallel. Ctrl-C in the calling thread ends the call at once. Usable from many
    threads; connections are kept open between calls.

    Parameters
    ----------
    config : DeploymentConfig
        Public description with the servers' addresses and certificates.
    book : AddressBook, optional
        Newer addresses; default those of the description, and what is learned of later ones is kept in memory.
    """

    remote = True

    def __init__(self, config: DeploymentConfig, book: AddressBook | None = None) -> None:
        self.book = AddressBook(config) if book is None else book
        self._names = {server: address.name for server, address in config.addresses.items()}
        self._context, self._learner = client_context(), Learner(self.book)
        self._idle: dict[int, list[_Connection]] = {server: [] for server in self._names}
        self._ahead: dict[int, float] = {}
        self._lock, self._process = threading.Lock(), os.getpid()
        self._closed = False
        self.bytes_sent: Counter[str] = Counter()
        self.rounds = 0

    @property
    def servers(self) -> tuple[int, ...]:
        return tuple(sorted(self._names))

    def ahead(self, server: int) -> float:
        """Seconds by which a server's clock is ahead of this machine's, as its last reply told; 0 before the first."""
        return self._ahead.get(server, 0.0)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._closed = True
            connections = [c for some in self._idle.values() for c in some]
            self._idle = {server: [] for server in self._names}
        for connection in connections:
            connection.close()

    def require_here(self) -> None:
        """DeploymentError in a forked child: connections and locks are the parent's."""
        if os.getpid() != self._process:
            raise DeploymentError("the deployment was opened before a fork; open it again in this process")

    def gather(
        self, requests: Mapping[int, Frames], *, together: bool = False, spare: bool = False,
        refusals: tuple[type[MippError], ...] = (),
    ) -> dict[int, Any]:  # fmt: skip
        self.require_here()
        with self._lock:
            self.rounds += 1
        if not requests:
            return {}
        done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        call = _Call()

        def work(server: int, frames: Frames) -> None:
            try:
                done.put((server, self._request(server, frames, call)))
            except BaseException as error:
                done.put((server, error))

        replies: dict[int, Any] = {}
        try:
            for server, frames in requests.items():
                threading.Thread(target=work, args=(server, frames), name="mipp request", daemon=True).start()
            until, began = None, time.monotonic()
            while len(replies) < len(requests):
                try:
                    wait = _LOOK if until is None else min(_LOOK, max(until - time.monotonic(), 0))
                    server, reply = done.get(timeout=wait)
                except queue.Empty:
                    call.end_late()
                    if until is not None and time.monotonic() >= until:
                        break
                    continue
                replies[server] = reply
                now, last = time.monotonic(), spare and len(replies) == len(requests) - 1
                failed_here = isinstance(reply, BaseException) and not isinstance(reply, refusals)
                if until is None and (last or failed_here):
                    until = now + (call.patience(requests.keys() - replies.keys(), now - began) if last else LEFT)
            if len(replies) < len(requests):
                call.end()
                if not any(isinstance(r, BaseException) and not isinstance(r, refusals) for r in replies.values()):
                    silent = min(requests.keys() - replies.keys())
                    replies[silent] = UnreachableError(f"{self._name(silent)} did not answer while the others did")
                    replies[silent].server = silent
        except BaseException:  # Ctrl-C: nobody waits for the others any more
            call.end()
            raise
        failed = [r for r in replies.values() if isinstance(r, BaseException) and not isinstance(r, refusals)]
        if failed:
            # a refusal says more than what the others, waiting for that server, met
            raise min(failed, key=_says_less)
        return {server: replies[server] for server in requests}

    def get(self, server: int, path: str, most: int = 1 << 20) -> tuple[int, bytes]:
        """Status and body of a public page of one server, such as ``/readyz``."""
        for again in (False, True):
            connection = self._connection(server)
            try:
                return page(connection, path, most, PAGE, self._name(server))
            except (OSError, http.client.HTTPException) as error:
                told = _broken(connection, error)
            if again or not self._may_have_moved(server, connection, told):
                break
        raise told from None

    # --- one request --------------------------------------------------------------------------------------------

    def _request(self, server: int, frames: Frames, call: _Call) -> Any:
        try:
            if body_size([memoryview(f).nbytes for f in frames]) <= BODY_BYTES:
                reply_frames = self._exchange(server, call, REQUEST_PATH, body_parts(frames))
            else:
                reply_frames = self._announced(server, call, frames)
        except MippError as error:  # of the line, or of the HTTP server
            error.server = server
            raise
        reply: Any = decode(reply_frames)
        with self._lock:
            self.bytes_sent[kind_of_request(frames)] += frames_size(frames)
            self.bytes_sent[type(reply).__name__] += frames_size(reply_frames)
        return accepted(reply, server)

    def _announced(self, server: int, call: _Call, frames: Frames) -> Frames:
        """Announce a large request, send its data block by block, and have it answered.

        If a block breaks, the same announcement tells where to go on.
        """
        told, best, tries = announce(frames), -1, 0
        parts = [memoryview(p).cast("B") for p in body_parts(frames[1:])]
        while True:
            try:
                state = self._upload_state(server, call, UPLOAD_PATH, [told])
                at, best = state.received, max(best, 0)
                for block in _blocks(parts, at):
                    path = f"{UPLOAD_PATH}/{state.token.hex()}/{at}"
                    self._upload_state(server, call, path, list(block))
                    at += sum(p.nbytes for p in block)
                    if at > best:
                        best, tries = at, 0
                break
            except (UnreachableError, NotFoundError, ConflictError):
                if best < 0 or tries == len(RESUME) or call.ended.wait(RESUME[tries]):
                    raise
                tries += 1
        return self._exchange(server, call, f"{FINISH_PATH}/{state.token.hex()}", [])

    def _upload_state(self, server: int, call: _Call, path: str, parts: list[bytes | memoryview]) -> m.UploadState:
        """Post an announcement or a block; how far the upload is."""
        reply = accepted(decode(self._exchange(server, call, path, parts)))
        if not isinstance(reply, m.UploadState):
            raise MessageError(f"{self._name(server)} sent no reply, or one of another kind, to a part of a request")
        return reply

    def _exchange(self, server: int, call: _Call, path: str, parts: list[bytes | memoryview]) -> Frames:
        """Post one body; frames of the reply."""
        while True:
            connection = self._take(server)
            reused, response = connection.sock is not None, None
            call.using[server] = connection
            try:
                if connection.sock is None:
                    connection = call.using[server] = self._opened(server, connection)
                if call.ended.is_set():
                    raise UnreachableError("the call was given up")
                response = _post(connection, path, parts)
                self._note_clock(server, response.getheader(TIME_HEADER))
                body = self._body(server, connection, response)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                lost = isinstance(error, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError))
                if reused and response is None and lost and not call.ended.is_set():
                    continue  # the server closed it while it was idle, before this request came
                raise _broken(connection, error) from None
            except BaseException:
                connection.close()
                raise
            finally:
                call.using.pop(server, None)
            break
        if response.will_close:
            connection.close()
        else:
            self._give(server, connection)
        self._learner.told(server, response.getheader(ADDRESSES_HEADER))
        if response.getheader("content-type") == "application/json":
            raise _refusal(self._name(server), response, bytes(body))
        return frames_of(body)

    def _note_clock(self, server: int, told: str | None) -> None:
        """Note a server's clock. It is used for requests to this server alone, so it can deceive only itself."""
        if told is not None and told.isascii() and told.isdigit() and len(told) < 16:
            ahead = int(told) / 1000 - time.time()
            if abs(ahead) <= MAX_AHEAD:
                self._ahead[server] = ahead

    def _body(self, server: int, connection: _Connection, response: http.client.HTTPResponse) -> memoryview:
        size = response.length
        if size is None or response.chunked:
            raise MessageError(f"{self._name(server)} sent a reply without a length")
        if size > MAX_REPLY:
            raise LimitError(f"{self._name(server)} announced a reply of {size} bytes, more than any has")
        into = np.empty(size, np.uint8).data  # pages are taken as they are filled
        until, got = time.monotonic() + REPLY + size / REPLY_RATE, 0
        while got < size:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock = connection.sock
            if sock is not None:  # http.client gives the socket away when this is the last reply
                sock.settimeout(min(left, READ))
            count = response.readinto(into[got : got + _CHUNK])
            if not count:
                raise http.client.IncompleteRead(b"")
            got += count
        response.read()
        return into

    # --- connections --------------------------------------------------------------------------------------------

    def _name(self, server: int) -> str:
        return f"server {server} ({self._names[server]})"

    def _connection(self, server: int) -> _Connection:
        return _Connection(server, self.book, self._context)

    def _opened(self, server: int, connection: _Connection) -> _Connection:
        """Connect; once more if the server has a newer address, or another certificate, as others tell."""
        try:
            connection.connect()
            return connection
        except (AuthenticationError, UnreachableError) as error:
            if not self._may_have_moved(server, connection, error):
                raise
        again = self._connection(server)
        again.connect()
        return again

    def _may_have_moved(self, server: int, connection: _Connection, error: MippError) -> bool:
        """Whether another try may reach a server to which no connection was made."""
        refused = isinstance(error, AuthenticationError | UnreachableError) and not connection.made
        return refused and self._learner.failed(server, error)

    def _take(self, server: int) -> _Connection:
        while True:
            with self._lock:
                if self._closed:
                    raise DeploymentError("the deployment is closed")
                idle = self._idle[server]
                connection = idle.pop() if idle else None
            if connection is None:
                return self._connection(server)
            if connection.fresh:
                return connection
            connection.close()

    def _give(self, server: int, connection: _Connection) -> None:
        connection.used = time.monotonic()
        with self._lock:
            idle = self._idle[server]
            if not self._closed and len(idle) < _PER_SERVER:
                idle.append(connection)
                return
        connection.close()


def _post(connection: _Connection, path: str, parts: list[bytes | memoryview]) -> http.client.HTTPResponse:
    size = sum(memoryview(p).nbytes for p in parts)
    wait = WAIT
    try:
        connection.sock.settimeout(SEND)
        connection.putrequest("POST", path, skip_accept_encoding=True)
        connection.putheader("content-type", "application/octet-stream")
        connection.putheader("content-length", str(size))
        if size <= _CHUNK:
            connection.endheaders(b"".join(parts))
        else:
            connection.endheaders()
            for part in parts:
                view = memoryview(part).cast("B")
                for at in range(0, view.nbytes, _CHUNK):
                    connection.sock.settimeout(SEND)
                    connection.sock.sendall(view[at : at + _CHUNK])
    except (ConnectionError, ssl.SSLEOFError):
        wait = REFUSAL  # the server may have refused it before it was all there
    connection.sock.settimeout(wait)
    connection.due = time.monotonic() + wait + HEAD
    try:
        return connection.getresponse()
    finally:
        connection.due = math.inf


def _says_less(error: BaseException) -> int:
    """Rank of an error among those of one call: which of them the caller hears."""
    if isinstance(error, BusyError):
        return 2  # another try is of no use while a server is away
    return 1 if isinstance(error, UnreachableError) else 3 if isinstance(error, ProtocolError) else 0


def _broken(connection: _Connection, error: Exception) -> MippError:
    if isinstance(error, MippError):
        return error
    text = "it was silent for too long" if isinstance(error, TimeoutError) else "the connection broke"
    return UnreachableError(f"{connection._who} did not answer: {text}")


def _refusal(name: str, response: http.client.HTTPResponse, body: bytes) -> MippError:
    """The error of a refusal that is no message: of the HTTP server itself."""
    try:
        text = str(json.loads(body)["error"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        text = "no reason given"
    text = "".join(c if c.isprintable() else "?" for c in text)
    kind = _REFUSALS.get(response.status, MessageError)
    wait = response.getheader("retry-after") or ""
    later = f"; try again in {wait} s" if re.fullmatch("[0-9]{1,6}", wait) else ""
    return kind(f"{name} refused: {text}{later}")


def _blocks(parts: list[memoryview], start: int) -> Any:
    """Cut parts, from byte ``start`` of all, into blocks: lists of views."""
    block: list[memoryview] = []
    size = at = 0
    for part in parts:
        begin = max(0, min(part.nbytes, start - at))
        at += part.nbytes
        while begin < part.nbytes:
            view = part[begin : begin + BLOCK_BYTES - size]
            block.append(view)
            size += view.nbytes
            begin += view.nbytes
            if size == BLOCK_BYTES:
                yield block
                block, size = [], 0
    if block:
        yield block
