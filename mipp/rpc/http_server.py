"""HTTP over TLS for servers: one blocking thread for each connection, absolute time limits, bounded memory.

Request heads are parsed by h11; bodies are read straight into the buffer that the site gives for them. No connection
can hold another one up: a handshake runs in its connection's thread, a head or body that drips is cut off at an
absolute time, and when there are too many connections the one that was idle longest gives way. Connections of other
servers come to the same port and are told apart by their application protocol.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import h11

from ..errors import MippError
from .bodies import ADDRESSES_PATH, TIME_HEADER
from .sockets import end
from .tls import MESH

__all__ = ["Connections", "Head", "HttpServer", "Refused", "Reply", "Site"]

_log = logging.getLogger("mipp.http")

HEAD_BYTES = 16 << 10
#: bytes for which a body, and a reply, may take one second more
BODY_RATE, REPLY_RATE = 32 << 10, 512 << 10
#: after a refusal, what the client is still sending is taken in for so many seconds and bytes, and dropped: else the
#: refusal would be lost with the connection
LINGER, LINGER_BYTES = 5.0, 8 << 20
_CHUNK = 1 << 20
_SMALL = 1 << 14
_REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    409: "Conflict", 411: "Length Required", 413: "Content Too Large", 429: "Too Many Requests",
    500: "Internal Server Error", 503: "Service Unavailable", 507: "Insufficient Storage",
}  # fmt: skip


@dataclass(frozen=True)
class Connections:
    """Limits of the connections of clients.

    Parameters
    ----------
    in_all, per_address : open at the same time; an address of IPv6 is a /64
    handshake_seconds : for the TLS handshake
    idle_seconds : between two requests
    head_seconds : from the first byte of a request's head to its last
    body_seconds : for a request's body, and one second more for each ``BODY_RATE`` bytes
    pause_seconds : between two parts of a body
    reply_seconds : to send a reply, and one second more for each ``REPLY_RATE`` bytes
    """

    in_all: int = 512
    per_address: int = 256
    handshake_seconds: float = 5.0
    idle_seconds: float = 75.0
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    pause_seconds: float = 15.0
    reply_seconds: float = 30.0


@dataclass(frozen=True, repr=False)
class Head:
    """Head of a request: method, path, length of its body, and whether its connection ends after the reply.

    A path may name an upload, which is secret.
    """

    method: str
    path: str
    length: int
    last: bool = False


@dataclass(frozen=True)
class Reply:
    """A reply: status, parts of the body, media type, seconds to wait before the next attempt (0: not said)."""

    status: int = 200
    parts: Sequence[bytes | memoryview] = ()
    media: str = "application/octet-stream"
    retry_after: int = 0
    after: Callable[[], None] = field(default=lambda: None)


class Refused(Exception):
    """A request is refused before its body is read: status and a sentence; the connection ends."""

    def __init__(self, status: int, text: str, retry_after: int = 0) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after

    def reply(self) -> Reply:
        text = json.dumps({"error": str(self)}).encode()
        return Reply(self.status, [text], "application/json", self.retry_after)


class Site(Protocol):
    """What a server answers."""

    def buffer(self, head: Head) -> memoryview:
        """Memory for the body of a request, exactly as long as it; raises :class:`Refused`."""

    def answer(self, head: Head, body: memoryview) -> Reply:
        """The reply. Raises :class:`Refused`."""

    def broken(self, head: Head, body: memoryview) -> None:
        """The body did not come whole."""


@dataclass(eq=False)
class _Connection:
    sock: socket.socket
    address: str
    since: float
    #: a request is here: answering it is never given up for another connection
    busy: bool = False
    #: the head of a request is here: a server that stops waits for the reply
    asked: bool = False
    #: a small reply goes out; whoever does not read it gives way like one that does not ask
    replying: bool = False
    mesh: bool = False
    dropped: bool = False

    def drop(self) -> None:
        self.dropped = True
        end(self.sock)


class HttpServer:
    """Listens on a port until :meth:`stop`.

    Parameters
    ----------
    host, port : address to listen on; port 0 takes a free one
    context : gives the TLS context for a new connection
    site : answers requests
    mesh : takes over a connection of another server: the socket and the certificate (DER) that it showed
    limits : of the connections of clients
    clock : Unix time, told in each reply
    extra : further lines of each reply's head
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: Callable[[], ssl.SSLContext],
        site: Site,
        mesh: Callable[[ssl.SSLSocket, bytes], None] | None = None,
        *,
        limits: Connections | None = None,
        clock: Callable[[], float] = time.time,
        extra: Callable[[], list[str]] = list,
    ) -> None:
        self._clock, self._extra = clock, extra
        self._context, self._site, self._mesh = context, site, mesh
        self.limits = Connections() if limits is None else limits
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._open: dict[_Connection, None] = {}
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._accept, name="mipp accept", daemon=True)

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()

    def stop(self, seconds: float = 0.0) -> bool:
        """Accept no more, drop idle connections, and wait so long for requests under way; whether all had ended."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._thread.ident is not None:  # the port is free when it has ended
            self._thread.join(1)
        until = time.monotonic() + seconds
        while True:
            with self._lock:
                busy = [c for c in self._open if c.asked and not c.mesh]
                for connection in self._open:
                    if not connection.asked:
                        connection.drop()
            if not busy or time.monotonic() >= until:
                break
            time.sleep(0.02)
        with self._lock:
            for connection in self._open:
                connection.drop()
        return not busy

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    # --- accepting ----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, address = self._listener.accept()
            except OSError:
                if self._stopping:
                    return
                time.sleep(0.05)  # no file descriptor left: one will be
                continue
            connection = _Connection(sock, _origin(str(address[0])), time.monotonic())
            if not self._admit(connection):
                sock.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), name="mipp http", daemon=True).start()
            except RuntimeError:  # no thread left
                self._leave(connection)

    def _admit(self, connection: _Connection) -> bool:
        """Note a new connection; the one that was idle longest gives way if there are too many."""
        with self._lock:
            clients = [c for c in self._open if not c.mesh]
            same = [c for c in clients if c.address == connection.address]
            for some, most in ((same, self.limits.per_address), (clients, self.limits.in_all)):
                if len(some) < most:
                    continue
                idle = [c for c in some if not c.busy or c.replying]
                if not idle:
                    return False
                oldest = min(idle, key=lambda c: c.since)
                oldest.drop()
                self._open.pop(oldest, None)
                if oldest in clients:
                    clients.remove(oldest)
            self._open[connection] = None
            return True

    def _leave(self, connection: _Connection) -> None:
        with self._lock:
            self._open.pop(connection, None)
        with contextlib.suppress(OSError):
            connection.sock.close()

    # --- one connection -----------------------------------------------------------------------------------------

    def _serve(self, connection: _Connection) -> None:
        try:
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock.settimeout(self.limits.handshake_seconds)
            # in two steps, so that the connection can be dropped during the handshake
            secured = self._context().wrap_socket(connection.sock, server_side=True, do_handshake_on_connect=False)
            connection.sock = secured
            if connection.dropped:  # between the two sockets
                return
            secured.do_handshake()
            if secured.selected_alpn_protocol() == MESH:
                connection.mesh = True
                if self._mesh is not None:
                    self._mesh(secured, secured.getpeercert(binary_form=True) or b"")
                return
            reader = _Reader(secured, self.limits)
            while not self._stopping and self._request(connection, reader):
                pass
        except (OSError, EOFError, ValueError):
            pass  # the client went away
        except MippError as error:
            _log.info("a connection was ended: %s", error)  # of a stranger who speaks as a server does
        except Exception:
            _log.exception("unexpected error on a connection")
        finally:
            self._leave(connection)

    def _request(self, connection: _Connection, reader: _Reader) -> bool:
        """Serve one request; whether another one may follow."""
        connection.busy = connection.asked = connection.replying = False
        connection.since = time.monotonic()
        try:
            head = _head(reader.head())
            connection.asked = True
            body = self._site.buffer(head)
        except _Ended:
            return False
        except Refused as error:
            self._send(reader.sock, error.reply(), last=True)
            reader.linger()
            return False
        connection.busy = head.length == 0
        try:
            reader.body(body)
        except BaseException:
            self._site.broken(head, body)
            raise
        connection.busy = True
        last = head.last
        try:
            reply = self._site.answer(head, body)
        except Refused as error:
            reply = error.reply()
        except Exception:
            _log.exception("unexpected error in a request")
            reply, last = Refused(500, "internal error of the server").reply(), True
        del body
        last = last or self._stopping
        # strangers get small replies and pages only; one that does not read gives way like one that does not ask
        small = sum(memoryview(p).nbytes for p in reply.parts) <= _SMALL
        public = head.method == "GET" or head.path == ADDRESSES_PATH
        connection.replying, connection.since = public or small, time.monotonic()
        try:
            self._send(reader.sock, reply, last=last)
        finally:
            reply.after()
        return not last

    def _send(self, sock: ssl.SSLSocket, reply: Reply, *, last: bool) -> None:
        size = sum(memoryview(p).nbytes for p in reply.parts)
        lines = [
            f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Status')}",
            f"content-type: {reply.media}",
            f"content-length: {size}",
            f"{TIME_HEADER}: {int(self._clock() * 1000)}",
            "cache-control: no-store",
            *self._extra(),
        ]
        if reply.retry_after:
            lines.append(f"retry-after: {reply.retry_after}")
        if last:
            lines.append("connection: close")
        begin = ("\r\n".join(lines) + "\r\n\r\n").encode()
        until = time.monotonic() + self.limits.reply_seconds + size / REPLY_RATE
        for part in [begin + b"".join(reply.parts)] if size <= _SMALL else (begin, *reply.parts):
            view = memoryview(part).cast("B")
            while view.nbytes:  # sendall has a time limit for each part that it sends, none for all
                sock.settimeout(max(until - time.monotonic(), 0.001))
                view = view[sock.send(view[:_CHUNK]) :]


def _origin(address: str) -> str:
    """What connections of one origin share: an IPv4 address, or a /64 of IPv6, of which one machine has all."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed.version == 4 or parsed.ipv4_mapped:
        return str(parsed if parsed.version == 4 else parsed.ipv4_mapped)
    return parsed.packed[:8].hex()


class _Ended(Exception):
    """The client has no more requests."""


class _Reader:
    """Reads heads and bodies from a connection."""

    def __init__(self, sock: ssl.SSLSocket, limits: Connections) -> None:
        self.sock, self._limits = sock, limits
        self._have = bytearray()

    def head(self) -> bytes:
        """Bytes of the next head, with its empty line."""
        limits = self._limits
        until = time.monotonic() + (limits.head_seconds if self._have else limits.idle_seconds)
        began = bool(self._have)
        buffer = bytearray(4096)
        while (end := self._have.find(b"\r\n\r\n")) < 0:
            if len(self._have) > HEAD_BYTES:
                raise Refused(400, f"a request's head has at most {HEAD_BYTES} bytes")
            left = until - time.monotonic()
            if left <= 0:
                raise Refused(408, "the request's head did not come in time") if began else _Ended
            self.sock.settimeout(left)
            try:
                count = self.sock.recv_into(buffer)
            except TimeoutError:
                continue
            if not count:
                raise _Ended
            if not began:
                began, until = True, time.monotonic() + limits.head_seconds
            self._have += memoryview(buffer)[:count]
        if end > HEAD_BYTES:
            raise Refused(400, f"a request's head has at most {HEAD_BYTES} bytes")
        found = bytes(self._have[: end + 4])
        del self._have[: end + 4]
        return found

    def body(self, into: memoryview) -> None:
        """Fill a buffer with the body."""
        if not into.nbytes:
            return
        got = min(len(self._have), into.nbytes)
        into[:got] = self._have[:got]
        del self._have[:got]
        until = time.monotonic() + self._limits.body_seconds + into.nbytes / BODY_RATE
        while got < into.nbytes:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(min(left, self._limits.pause_seconds))
            count = self.sock.recv_into(into[got : got + _CHUNK])
            if not count:
                raise ConnectionError
            got += count

    def linger(self) -> None:
        """After the last reply: take in what still comes, for a moment, so that the client gets to read the reply."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)
        buffer, until, left = bytearray(_SMALL), time.monotonic() + LINGER, LINGER_BYTES
        while left > 0 and (seconds := until - time.monotonic()) > 0:
            self.sock.settimeout(seconds)
            count = self.sock.recv_into(buffer)
            if not count:
                return
            left -= count


def _head(data: bytes) -> Head:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(data)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError:
        event = None
    # more after the head: its lines end otherwise than here, and others would see another request
    if not isinstance(event, h11.Request) or parser.trailing_data[0]:
        raise Refused(400, "malformed request")
    length, last = 0, event.http_version != b"1.1"
    for name, value in event.headers:
        if name in (b"transfer-encoding", b"expect", b"upgrade"):
            raise Refused(411, "a request's body has a length, and no coding")
        if name == b"content-length":  # h11 lets one through, of at most 20 digits
            length = int(value)
        last = last or (name == b"connection" and value.lower() == b"close")
    return Head(event.method.decode("ascii"), event.target.decode("ascii", "replace"), length, last)
