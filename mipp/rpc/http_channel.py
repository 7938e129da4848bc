"""The channel of a client to servers over a network: HTTP over TLS, one request to each server at the same time."""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import select
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import BusyError, DeploymentError, LimitError, MessageError, MippError, ProtocolError, UnreachableError
from . import messages as m
from .addresses import Address
from .bodies import (
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
from .channel import kind_of_request
from .description import DeploymentConfig
from .failures import error_from_wire
from .tls import client_context, connect
from .wire import Frames, decode, frames_size

__all__ = ["HttpChannel"]

#: seconds to connect; to send a block; to wait for the first byte of a reply; for each further part of it
CONNECT, SEND, WAIT, READ = 10.0, 60.0, 300.0, 30.0
#: the whole of a reply takes at most this long, and one second more for every so many bytes
REPLY, REPLY_RATE = 300.0, 64 << 10
#: most bytes of a reply: one single image, or one batch that is given back to its owner, may be as long
MAX_REPLY = 8 << 30
#: seconds by which a server's clock may differ from this machine's; beyond, this machine's is used
MAX_AHEAD = 366 * 86400.0
#: seconds that the other servers' replies are waited for, once one server failed or refused
LEFT = 5.0
_CHUNK = 1 << 20
_IDLE = 30.0  # seconds after which an idle connection is not used again
_PER_SERVER = 16  # idle connections kept


class _Connection(http.client.HTTPConnection):
    """An HTTP connection over a socket whose other end was compared with the description."""

    def __init__(self, server: int, address: Address, context: ssl.SSLContext) -> None:
        super().__init__(address.host, address.port, blocksize=_CHUNK)
        self._who, self._address, self._tls = f"server {server} ({address.name})", address, context
        self.used = 0.0

    def connect(self) -> None:
        a = self._address
        self.sock = connect(a.host, a.port, self._tls, [a.certificate], CONNECT, self._who)

    @property
    def fresh(self) -> bool:
        """Whether it can be used again: open, not idle for long, and nothing came that nobody asked for."""
        if self.sock is None or time.monotonic() - self.used > _IDLE:
            return False
        with contextlib.suppress(OSError, ValueError):
            return not select.select([self.sock], [], [], 0)[0]
        return False


class HttpChannel:
    """Requests to the servers of a deployment over a network; counts as :class:`~mipp.rpc.channel.LocalChannel` does.

    Requests of one call go out in parallel. Ctrl-C in the calling thread ends the call at once. Usable from many
    threads; connections are kept open between calls.

    Parameters
    ----------
    config : DeploymentConfig
        Public description with the servers' addresses and certificates.
    """

    def __init__(self, config: DeploymentConfig) -> None:
        self._addresses = dict(config.addresses)
        self._context = client_context()
        self._idle: dict[int, list[_Connection]] = {server: [] for server in self._addresses}
        self._ahead: dict[int, float] = {}
        self._lock, self._process = threading.Lock(), os.getpid()
        self._closed = False
        self.bytes_sent: Counter[str] = Counter()
        self.rounds = 0

    @property
    def servers(self) -> tuple[int, ...]:
        return tuple(sorted(self._addresses))

    def ahead(self, server: int) -> float:
        """Seconds by which a server's clock is ahead of this machine's, as its last reply told; 0 before the first."""
        return self._ahead.get(server, 0.0)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._closed = True
            connections = [c for some in self._idle.values() for c in some]
            self._idle = {server: [] for server in self._addresses}
        for connection in connections:
            connection.close()

    def gather(self, requests: Mapping[int, Frames], *, together: bool = False) -> dict[int, Any]:
        if os.getpid() != self._process:  # connections are the parent's
            raise DeploymentError("the deployment was opened before a fork; open it again in this process")
        with self._lock:
            self.rounds += 1
        if not requests:
            return {}
        done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        using: dict[int, _Connection] = {}

        def work(server: int, frames: Frames) -> None:
            try:
                done.put((server, self._request(server, frames, using)))
            except BaseException as error:
                done.put((server, error))

        for server, frames in requests.items():
            threading.Thread(target=work, args=(server, frames), name="mipp request", daemon=True).start()
        replies: dict[int, Any] = {}
        try:
            until = None
            while len(replies) < len(requests):
                try:
                    server, reply = done.get(timeout=None if until is None else max(until - time.monotonic(), 0))
                except queue.Empty:
                    break
                replies[server] = reply
                if until is None and isinstance(reply, BaseException):
                    until = time.monotonic() + LEFT
            self._leave(using)
        except BaseException:  # Ctrl-C: nobody waits for the others any more
            self._leave(using)
            raise
        failed = [r for r in replies.values() if isinstance(r, BaseException)]
        if failed:
            # a refusal says more than what the others, waiting for that server, met
            raise min(failed, key=lambda e: (isinstance(e, ProtocolError), isinstance(e, UnreachableError)))
        return {server: replies[server] for server in requests}

    def _leave(self, using: dict[int, _Connection]) -> None:
        """End the connections whose replies nobody waits for any more."""
        for connection in list(using.values()):
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def get(self, server: int, path: str, most: int = 1 << 20) -> tuple[int, bytes]:
        """Status and body of a public page of one server, such as ``/readyz``."""
        connection = self._connection(server)
        try:
            connection.connect()
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read(most + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _broken(connection, error) from None
        finally:
            connection.close()
        if len(body) > most:
            raise LimitError(f"a page of {self._name(server)} is longer than {most} bytes")
        return response.status, body

    # --- one request --------------------------------------------------------------------------------------------

    def _request(self, server: int, frames: Frames, using: dict[int, _Connection]) -> Any:
        if body_size([memoryview(f).nbytes for f in frames]) <= BODY_BYTES:
            reply_frames = self._exchange(server, using, REQUEST_PATH, body_parts(frames))
        else:
            reply_frames = self._announced(server, using, frames)
        reply: Any = decode(reply_frames)
        with self._lock:
            self.bytes_sent[kind_of_request(frames)] += frames_size(frames)
            self.bytes_sent[type(reply).__name__] += frames_size(reply_frames)
        if isinstance(reply, m.Failure):
            raise error_from_wire(reply.name, reply.text)
        return reply

    def _announced(self, server: int, using: dict[int, _Connection], frames: Frames) -> Frames:
        """Announce a large request, send its data block by block, and have it answered."""
        told: Any = decode(self._exchange(server, using, UPLOAD_PATH, [announce(frames)]))
        if isinstance(told, m.Failure):
            raise error_from_wire(told.name, told.text)
        if not isinstance(told, m.UploadState):
            raise MessageError(f"{self._name(server)} sent no reply, or one of another kind, to an announcement")
        at = told.received
        for block in _blocks([memoryview(p).cast("B") for p in body_parts(frames[1:])], at):
            size = sum(p.nbytes for p in block)
            path = f"{UPLOAD_PATH}/{told.token.hex()}/{at}"
            got: Any = decode(self._exchange(server, using, path, list(block)))
            if isinstance(got, m.Failure):
                raise error_from_wire(got.name, got.text)
            at += size
        return self._exchange(server, using, f"{FINISH_PATH}/{told.token.hex()}", [])

    def _exchange(
        self, server: int, using: dict[int, _Connection], path: str, parts: list[bytes | memoryview]
    ) -> Frames:
        """Post one body; frames of the reply."""
        size = sum(memoryview(p).nbytes for p in parts)
        connection = self._take(server)
        using[server] = connection
        try:
            if connection.sock is None:
                connection.connect()
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
            connection.sock.settimeout(WAIT)
            response = connection.getresponse()
            self._note_clock(server, response.getheader(TIME_HEADER))
            body = self._body(server, connection, response)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _broken(connection, error) from None
        except BaseException:
            connection.close()
            raise
        finally:
            using.pop(server, None)
        if response.will_close:
            connection.close()
        else:
            self._give(server, connection)
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
        return f"server {server} ({self._addresses[server].name})"

    def _connection(self, server: int) -> _Connection:
        return _Connection(server, self._addresses[server], self._context)

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


def _broken(connection: _Connection, error: Exception) -> MippError:
    if isinstance(error, MippError):
        return error
    text = "it was silent for too long" if isinstance(error, TimeoutError) else "the connection broke"
    return UnreachableError(f"{connection._who} did not answer: {text}")


def _refusal(name: str, response: http.client.HTTPResponse, body: bytes) -> MippError:
    """The error of a refusal that is no message: of the HTTP server itself."""
    import json

    try:
        text = str(json.loads(body)["error"])[:500]
    except (ValueError, KeyError, TypeError):
        text = "no reason given"
    text = "".join(c if c.isprintable() else "?" for c in text)
    kind = {413: LimitError, 429: BusyError, 503: BusyError}.get(response.status, MessageError)
    wait = response.getheader("retry-after")
    later = f"; try again in {int(wait)} s" if wait is not None and wait.isdigit() else ""
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
