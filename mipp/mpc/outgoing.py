"""A server's connection to one peer: dialled again and again, written to by one thread.

What is to be sent is cut into chunks, and sessions take turns, so a large message of one never holds up the small ones
of another. Nothing is read but the name of the process at the other end, once: a connection that one thread reads while
another writes stalls in OpenSSL's bindings.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..errors import LimitError, MippError, UnreachableError
from ..rpc.sockets import end, fill
from ..rpc.tls import connect
from . import chunks

__all__ = ["Outgoing", "Peer", "PeerLimits"]

_log = logging.getLogger("mipp.mesh")

#: bytes of a message that its own thread sends, if nothing waits
AT_ONCE = 8 << 10
#: seconds: between signs of life; to connect; to send one chunk
BEAT, CONNECT, SEND = 5.0, 10.0, 15.0
#: seconds before a peer is dialled again: the first time, and at most
AGAIN, AGAIN_MOST = 0.1, 3.0
_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


@dataclass(frozen=True)
class Peer:
    """Another server: its address, the certificates (DER) that it may show, its name for errors, the way to dial it."""

    host: str
    port: int
    certificates: Collection[bytes]
    name: str
    context: ssl.SSLContext


@dataclass(frozen=True)
class PeerLimits:
    """Limits of another server.

    Parameters
    ----------
    session_bytes : of the messages of one session that wait here
    calls, calls_at_once : of one server that are here (coming, waiting or served), and that are served at once
    """

    session_bytes: int = 2 << 30
    calls: int = 256
    calls_at_once: int = 8


class Outgoing(threading.Thread):
    """Dials one peer, again and again, and writes to it.

    Parameters
    ----------
    index, peer : the peer's number, and the peer
    hello : the first chunk of each connection
    opened, lost : called with the number when a connection was opened, and when one ended; must not block
    """

    def __init__(
        self, index: int, peer: Peer, hello: bytes, opened: Callable[[int], None], lost: Callable[[int], None]
    ) -> None:
        super().__init__(name=f"mipp to server {index}", daemon=True)
        self._index, self._peer, self._hello, self._opened, self._lost = index, peer, hello, opened, lost
        self._changed = threading.Condition()
        self._urgent: deque[bytes] = deque()
        self._streams: OrderedDict[tuple[int, bytes], deque[memoryview]] = OrderedDict()
        self._sock: ssl.SSLSocket | None = None
        self._stopping = self._cut = False
        self._writing = False  # a thread is sending
        self._replies = 0  # bytes of replies that wait
        self._shown = b""  # certificate of the connection that is open now
        self.up = False
        #: when the connection that is open now was opened
        self.since = 0.0
        #: name of the process at the other end
        self.boot = b""
        self.problem = f"{peer.name} is not connected yet"
        self.sent_bytes = 0

    def put(self, kind: int, stream: bytes, parts: Sequence[memoryview | bytes]) -> None:
        """Queue a message, or send it at once if it is small and nothing waits; UnreachableError: the peer is gone."""
        if sum(memoryview(p).nbytes for p in parts) <= AT_ONCE and self._sent_at_once(kind, stream, parts):
            return
        with self._changed:
            if not self.usable:
                raise UnreachableError(self.problem or f"{self._peer.name} was restarted")
            if kind in (chunks.NOTE, chunks.BEAT):
                self._urgent.append(chunks.whole(kind, stream, b"".join(parts)))
            else:
                views = [v for p in parts if (v := memoryview(p).cast("B")).nbytes]
                size = sum(v.nbytes for v in views)
                # it would end the connection at the other end
                if kind in (chunks.CALL, chunks.REPLY) and size > chunks.CALL_BYTES:
                    raise LimitError(f"a message of {size} bytes is too long for {self._peer.name}")
                if kind == chunks.REPLY:
                    if self._replies and self._replies + size > chunks.CALL_BYTES:
                        self.cut()
                        raise UnreachableError(f"{self._peer.name} does not read what it asked for")
                    self._replies += size
                self._streams.setdefault((kind, stream), deque()).extend(views)
            self._changed.notify()

    def _sent_at_once(self, kind: int, stream: bytes, parts: Sequence[memoryview | bytes]) -> bool:
        """Send a small message in the caller's thread, if nobody else writes and nothing waits: saves a change of
        threads in each round."""
        with self._changed:
            sock = self._sock
            if not self.usable or sock is None or self._writing or self._urgent or self._streams:
                return False
            self._writing = True
        data = chunks.whole(kind, stream, b"".join(parts))
        try:
            sock.sendall(data)
            self.sent_bytes += len(data)
        except OSError:
            self.cut()  # the writer notices, and ends the connection
        finally:
            with self._changed:
                if self._sock is sock:  # else the connection ended meanwhile, and another may be in use
                    self._writing = False
                    self._changed.notify_all()
        return True

    @property
    def usable(self) -> bool:
        return self.up and not self._cut

    def poke(self) -> None:
        """Find out soon whether the connection still works: writing twice to a dead one fails."""
        with contextlib.suppress(UnreachableError):
            self.put(chunks.BEAT, chunks.NO_STREAM, [])

    def replace(self, peer: Peer) -> None:
        """Dial the peer so from now on; a connection on which it showed a certificate that it may show no more ends."""
        with self._changed:
            self._peer = peer
            refused = self.up and self._shown not in peer.certificates
        if refused:
            self.cut()

    def close(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self.cut()

    def cut(self) -> None:
        """End the connection that is open now."""
        with self._changed:
            self._cut = self.up
            sock = self._sock
            self._changed.notify()
        if sock is not None:
            end(sock)

    def run(self) -> None:
        pause = AGAIN
        while not self._stopping:
            try:
                self._sock = self._dial()
                pause = AGAIN
                self._write(self._sock)
            except (OSError, MippError) as error:
                self.problem = (
                    str(error) if isinstance(error, MippError) else f"the connection to {self._peer.name} broke"
                )
            except Exception:
                _log.exception("unexpected error on the way to server %d", self._index)
                self.problem = "internal error"
            finally:
                self._end()
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, pause)
            pause = min(2 * pause, AGAIN_MOST)

    def _dial(self) -> ssl.SSLSocket:
        p = self._peer
        sock = connect(p.host, p.port, p.context, p.certificates, CONNECT, p.name)
        with contextlib.suppress(OSError):
            # what waits in the system's buffer delays small messages of other sessions
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, chunks.CHUNK // 2)
        sock.settimeout(SEND)
        boot, shown = bytearray(chunks.BOOT_BYTES), sock.getpeercert(binary_form=True) or b""
        with self._changed:  # before the peer knows: it may call at once, and the reply goes this way
            if shown not in self._peer.certificates:  # replaced meanwhile
                sock.close()
                raise UnreachableError(f"{p.name} showed a certificate that is not valid any more")
            self._shown = shown
            self.up, self.problem, self.since = True, "", time.monotonic()
        try:
            sock.sendall(self._hello)
            fill(sock, memoryview(boot))
        except BaseException as error:
            sock.close()
            if isinstance(error, EOFError):
                raise UnreachableError(f"{p.name} ended the connection at once; its log says why") from None
            raise
        self.boot = bytes(boot)
        self._opened(self._index)
        return sock

    def _end(self) -> None:
        with self._changed:
            was, self.up, self._cut, self._writing = self.up, False, False, False
            self._urgent.clear()
            self._streams.clear()
            self._replies = 0
            sock, self._sock = self._sock, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()
        if was:
            self._lost(self._index)

    def _write(self, sock: ssl.SSLSocket) -> None:
        buffer = bytearray(chunks.HEAD.size + chunks.CHUNK)
        view = memoryview(buffer)
        while True:
            with self._changed:
                self._writing = False
                ready = self._changed.wait_for(self._due, BEAT)
                if self._stopping or self._cut:
                    return
                while self._writing:  # the sign of life comes after what another thread is sending
                    self._changed.wait(BEAT)
                self._writing = True
                if not ready:
                    size = chunks.HEAD.size
                    chunks.HEAD.pack_into(buffer, 0, chunks.BEAT, 1, 0, 0, chunks.NO_STREAM)
                elif self._urgent:
                    data = self._urgent.popleft()
                    size = len(data)
                    view[:size] = data
                else:
                    size = self._next(buffer, view)
            sock.sendall(view[:size])
            self.sent_bytes += size

    def _due(self) -> bool:
        return self._stopping or self._cut or (not self._writing and bool(self._urgent or self._streams))

    def _next(self, buffer: bytearray, view: memoryview) -> int:
        """The next chunk, of the stream whose turn it is. Holds the lock."""
        (kind, stream), waiting = self._streams.popitem(last=False)
        at = chunks.HEAD.size
        while waiting and at < len(buffer):
            part = waiting[0][: len(buffer) - at]
            view[at : at + part.nbytes] = part
            at += part.nbytes
            if part.nbytes == waiting[0].nbytes:
                waiting.popleft()
            else:
                waiting[0] = waiting[0][part.nbytes :]
        if kind == chunks.REPLY:
            self._replies -= at - chunks.HEAD.size
        chunks.HEAD.pack_into(buffer, 0, kind, not waiting, 0, at - chunks.HEAD.size, stream)
        if waiting:
            self._streams[kind, stream] = waiting  # at the end: the others come first
        return at
