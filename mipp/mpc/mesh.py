"""The mesh: connections between servers over TLS, with sessions of protocols, calls and notes on them.

Each pair of servers has two connections, one in each direction, each dialled by its sender: one thread writes on it at
one end (``outgoing.py``), one reads at the other; ``chunks.py`` has the format. Nothing goes back, but for the name of
the receiving process, once, before anything else: so a server knows whether its way leads to the process that it hears,
or to one that ended. The reader never waits for anybody: what it reads goes into bounded buffers. A server that was
silent for 15 seconds, or whose connection broke, is gone: its sessions and calls end with an error at once, and begin
anew when it is back.

Leakage: to whoever watches, sizes and times; contents are TLS's.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import ssl
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..crypto.schedule import random_bytes
from ..errors import AuthenticationError, MessageError, MippError, ProtocolError, UnreachableError
from ..rpc.sockets import end, fill
from ..rpc.wire import Frames, pack_frames, unpack_frames
from . import chunks
from .assembly import Assembly, Gone, Session
from .link import FRAME_BYTES, Frame, bounded, silent
from .outgoing import Outgoing, Peer, PeerLimits

__all__ = ["EARLY_BYTES", "Mesh", "MeshLink"]

_log = logging.getLogger("mipp.mesh")

#: seconds: of silence after which a peer is gone; for a new connection to say who it is
DEAD, WHO = 15.0, 10.0
#: seconds for which a new connection is left alone when the one in the other direction is lost: it was tried just now
FRESH = 1.0
#: bytes of each peer that a session buffers while it is not open here yet, or does not know what to expect; number of
#: such sessions
EARLY_BYTES, EARLY = 8192, 256
#: bytes of a note
NOTE_BYTES = 64 << 10
#: connections of one peer that have not said who they are
GREETING = 8
CLOSED = 4096


class MeshLink:
    """One server's way to its two peers in one session; see :class:`~mipp.mpc.link.Link`."""

    def __init__(self, mesh: Mesh, name: bytes, session: Session) -> None:
        self._mesh, self._name, self._session = mesh, name, session

    def expect(self, most: int) -> None:
        self._session.limit = most

    def send(self, to: int, frame: Frame) -> None:
        self._mesh._send(to, chunks.SESSION, self._name, [memoryview(frame.head), *frame.parts])

    def receive(self, source: int, limit: int, timeout: float) -> Frame:
        try:
            got = self._session.queues[source].get(timeout=timeout)
        except queue.Empty:
            raise silent(source) from None
        if isinstance(got, Exception):
            self._session.queues[source].put(got)
            if isinstance(got, Gone):
                raise UnreachableError(f"the connection to server {source} broke")
            raise MessageError(str(got))
        self._session.give(source, got.nbytes + FRAME_BYTES)
        return bounded(got, source, limit)

    def close(self) -> None:
        self._mesh._close(self._name)


class Mesh:
    """One server's connections with the others.

    Parameters
    ----------
    index : this server
    deployment : id of the deployment, 16 bytes
    peers : the other servers, by number
    serve : answers a peer's call: its number and the frames of the request; frames of the reply
    note : takes a peer's note: its number and the bytes; must not block
    changed : called with a peer's number and whether it is there now, when that changes, and whenever one of its
        connections ends; must not block
    limits : of what a peer may have here
    """

    def __init__(
        self,
        index: int,
        deployment: bytes,
        peers: Mapping[int, Peer],
        serve: Callable[[int, Frames], Frames],
        note: Callable[[int, bytes], None] = lambda peer, data: None,
        changed: Callable[[int, bool], None] = lambda peer, there: None,
        limits: PeerLimits | None = None,
    ) -> None:
        self.limits = PeerLimits() if limits is None else limits
        self.index, self.deployment, self.boot = index, deployment, random_bytes(chunks.BOOT_BYTES)
        self._peers, self._serve, self._note, self._changed = dict(peers), serve, note, changed
        self._out = {
            i: Outgoing(i, peer, chunks.hello(deployment, index, i, self.boot), self._opened, self._lost)
            for i, peer in peers.items()
        }
        self._in: dict[int, tuple[ssl.SSLSocket, bytes]] = {}  # with the certificate that was shown
        self._lock = threading.Lock()
        self._there: dict[int, bool] = dict.fromkeys(peers, False)
        self._sessions: dict[bytes, Session] = {}
        self._early: OrderedDict[bytes, Session] = OrderedDict()
        self._closed: OrderedDict[bytes, None] = OrderedDict()
        self._calls: dict[bytes, tuple[int, queue.SimpleQueue[Any]]] = {}
        self._pools = {i: ThreadPoolExecutor(self.limits.calls_at_once, "mipp peer call") for i in peers}
        self._greeting: Counter[int] = Counter()
        #: calls of each peer that wait or are served, and their bytes
        self._serving: Counter[int] = Counter()
        self._serving_bytes: Counter[int] = Counter()
        self._stopping = False

    def start(self) -> None:
        """Begin to dial the peers."""
        for outgoing in self._out.values():
            outgoing.start()

    def close(self) -> None:
        """End all connections, sessions and calls."""
        self._stopping = True
        for outgoing in self._out.values():
            outgoing.close()
        with self._lock:
            incoming = list(self._in.values())
        for sock, _ in incoming:
            end(sock)
        for peer in self._peers:
            self._fail(peer)
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def servers(self) -> tuple[int, ...]:
        """Numbers of all servers, this one too."""
        return tuple(sorted((self.index, *self._peers)))

    def there(self, peer: int) -> bool:
        """Whether a peer is connected, both ways."""
        return self._there[peer]

    def problem(self, peer: int) -> str:
        """Why a peer is not there; empty if it is."""
        if self._there[peer]:
            return ""
        return self._out[peer].problem or f"{self._peers[peer].name} has not connected to this server yet"

    @property
    def sent_bytes(self) -> dict[int, int]:
        """Bytes sent to each peer so far."""
        return {i: out.sent_bytes for i, out in self._out.items()}

    def replace(self, index: int, peer: Peer) -> None:
        """Know a peer so from now on; connections with a certificate that it may show no more end."""
        with self._lock:
            self._peers[index] = peer
            sock, shown = self._in.get(index, (None, b""))
        self._out[index].replace(peer)
        if sock is not None and shown not in peer.certificates:
            end(sock)

    # --- sessions -----------------------------------------------------------------------------------------------

    def open(self, name: bytes, limit: int | None = None) -> MeshLink:
        """Open a session.

        Parameters
        ----------
        name : 16 bytes, the same at all servers, never used before
        limit : bytes of each peer's frames that wait here at most, until :meth:`MeshLink.expect` says how many may;
            default, and at most for both peers together, ``session_bytes`` of the limits
        """
        with self._lock:
            session = self._early.pop(name, None) or self._new_session()
            if name in self._sessions or name in self._closed:
                raise ProtocolError("a session's name was used before")
            session.limit = self.limits.session_bytes if limit is None else limit
            self._sessions[name] = session
            gone = [peer for peer, there in self._there.items() if not there]
        for peer in gone:
            session.queues[peer].put(Gone())
        return MeshLink(self, name, session)

    def _close(self, name: bytes) -> None:
        with self._lock:
            self._sessions.pop(name, None)
            self._closed[name] = None
            while len(self._closed) > CLOSED:
                self._closed.popitem(last=False)

    def _session(self, name: bytes) -> Session | None:
        """A session that is open, or about to be (the oldest of too many is dropped); None if it ended."""
        with self._lock:
            session = self._sessions.get(name) or self._early.get(name)
            if session is None and name not in self._closed:
                session = self._early[name] = self._new_session()
                if len(self._early) > EARLY:
                    self._early.popitem(last=False)
            return session

    def _new_session(self) -> Session:
        return Session(self._peers, EARLY_BYTES, self.limits.session_bytes)

    def _send(self, to: int, kind: int, stream: bytes, parts: Sequence[memoryview | bytes]) -> None:
        self._out[to].put(kind, stream, parts)

    # --- calls and notes ----------------------------------------------------------------------------------------

    def call(self, peer: int, frames: Frames, seconds: float = 60.0) -> Frames:
        """Ask a peer; frames of its reply.

        Raises
        ------
        UnreachableError
            It is not there, was lost, or did not answer in time.
        """
        name, reply = random_bytes(16), queue.SimpleQueue[Any]()
        with self._lock:  # both at once: a peer that is lost from now on ends this call
            there = self._there[peer]
            if there:
                self._calls[name] = peer, reply
        if not there:  # its reply could not come
            raise UnreachableError(self.problem(peer))
        try:
            self._send(peer, chunks.CALL, name, [pack_frames(frames)])
            got = reply.get(timeout=seconds)
        except queue.Empty:
            raise UnreachableError(f"{self._peers[peer].name} did not answer within {seconds:g} s") from None
        finally:
            with self._lock:
                self._calls.pop(name, None)
        if isinstance(got, Exception):
            raise UnreachableError(f"the connection to {self._peers[peer].name} broke")
        return unpack_frames(got)

    def note(self, peer: int, data: bytes) -> None:
        """Send a peer a note; notes arrive in order, or not at all. UnreachableError if it is not there."""
        self._send(peer, chunks.NOTE, chunks.NO_STREAM, [data])

    def waiting_calls(self, peer: int) -> int:
        """Calls of a peer that wait or are served."""
        return self._serving[peer]

    def _take_call(self, peer: int, name: bytes, data: bytes) -> None:
        """Have a call served; MessageError if the peer has too many of them here."""
        with self._lock:
            if self._serving[peer] >= self.limits.calls or self._serving_bytes[peer] + len(data) > chunks.CALL_BYTES:
                raise MessageError("too many calls at once")
            self._serving[peer] += 1
            self._serving_bytes[peer] += len(data)
        with contextlib.suppress(RuntimeError):  # the server stops
            self._pools[peer].submit(self._answer, peer, name, data)

    def _answer(self, peer: int, name: bytes, data: bytes) -> None:
        try:
            reply = self._serve(peer, unpack_frames(data))
            self._send(peer, chunks.REPLY, name, [pack_frames(reply)])
        except MippError as error:
            _log.info("a call of server %d was not answered: %s", peer, error)
        except Exception:
            _log.exception("unexpected error in a call of server %d", peer)
        finally:
            with self._lock:
                self._serving[peer] -= 1
                self._serving_bytes[peer] -= len(data)

    # --- connections --------------------------------------------------------------------------------------------

    def accept(self, sock: ssl.SSLSocket, certificate: bytes) -> None:
        """Read from a connection that a peer made, until it ends. In the connection's own thread."""
        found = [i for i, p in self._peers.items() if certificate in p.certificates]
        if len(found) != 1:
            raise AuthenticationError("a stranger's certificate")
        (peer,) = found
        with self._lock:
            if self._greeting[peer] >= GREETING:
                return
            self._greeting[peer] += 1
        try:
            hello = self._greeted(sock)
        finally:
            with self._lock:
                self._greeting[peer] -= 1
        if hello is None:
            _log.warning("server %d connected, but did not say who it is", peer)
            return
        magic, least, newest, *whose, boot = hello
        if (magic, *whose) != (chunks.MAGIC, self.deployment, peer, self.index):
            _log.warning("server %d is of another deployment, or takes this server for another one", peer)
            return
        if not chunks.common_version(least, newest):
            _log.warning(
                "server %d speaks versions %d to %d of the protocol between servers, this one %d to %d: upgrade one",
                peer, least, newest, *chunks.VERSIONS,
            )  # fmt: skip
            return
        with self._lock:
            if self._stopping or certificate not in self._peers[peer].certificates:
                return
            older, self._in[peer] = self._in.get(peer), (sock, certificate)
            restarted = self._out[peer].boot not in (b"", boot)
        if older is not None:
            end(older[0])
            self._lost(peer)
        if restarted:  # the way to it, if it is open, leads to the process that ended
            self._out[peer].cut()
        try:
            sock.sendall(self.boot)
            self._opened(peer)
            _Incoming(self, peer, sock).run()
        except (OSError, EOFError):
            pass
        except MippError as error:
            _log.warning("the connection of server %d was ended: %s", peer, error)
        finally:
            with self._lock:
                current = self._in.get(peer, (None,))[0] is sock
                if current:
                    del self._in[peer]
            if current:
                self._lost(peer)
                # the way back may be dead, too, and nothing but this tells the peer that it is not heard here
                if time.monotonic() - self._out[peer].since > FRESH:
                    self._out[peer].cut()

    def _greeted(self, sock: ssl.SSLSocket) -> tuple[Any, ...] | None:
        """What a new connection says first; None if it is something else."""
        sock.settimeout(WHO)
        head, who = bytearray(chunks.HEAD.size), bytearray(chunks.WHO.size)
        fill(sock, memoryview(head))
        kind, _, _, length, _ = chunks.HEAD.unpack(head)
        if kind != chunks.HELLO or length != len(who):
            return None
        fill(sock, memoryview(who))
        return chunks.WHO.unpack(who)

    def _opened(self, peer: int) -> None:
        with self._lock:
            there = self._out[peer].usable and peer in self._in
            changed, self._there[peer] = there != self._there[peer], there
        if changed and there:
            _log.info("server %d is there", peer)
            self._changed(peer, True)

    def _lost(self, peer: int) -> None:
        with self._lock:
            was, self._there[peer] = self._there[peer], False
        self._fail(peer)
        if was and not self._stopping:
            _log.warning("server %d is gone: %s", peer, self._out[peer].problem or "its connection broke")
        self._changed(peer, False)  # also if it was here one way only: what it was told, or said, may be lost
        self._out[peer].poke()

    def _fail(self, peer: int) -> None:
        """End all sessions and calls with a peer."""
        with self._lock:
            sessions = [*self._sessions.values(), *self._early.values()]
            calls = [reply for to, reply in self._calls.values() if to == peer]
        for session in sessions:
            session.queues[peer].put(Gone())
        for reply in calls:
            reply.put(Gone())


class _Incoming:
    """Reads chunks of one connection of a peer."""

    def __init__(self, mesh: Mesh, peer: int, sock: ssl.SSLSocket) -> None:
        self._mesh, self._peer, self._sock = mesh, peer, sock
        self._assemblies: dict[bytes, Assembly] = {}
        self._messages: dict[tuple[int, bytes], bytearray] = {}
        self._scratch = memoryview(bytearray(chunks.CHUNK))

    def run(self) -> None:
        head = memoryview(bytearray(chunks.HEAD.size))
        self._sock.settimeout(DEAD)
        while True:
            fill(self._sock, head)
            kind, last, _, length, stream = chunks.HEAD.unpack(head)
            if length > chunks.CHUNK:
                raise MessageError("a chunk that is too long")
            if kind == chunks.SESSION:
                self._session(stream, length)
            elif kind in (chunks.CALL, chunks.REPLY):
                self._message(kind, stream, length, bool(last))
            elif kind == chunks.NOTE:
                if length > NOTE_BYTES:
                    raise MessageError("a note that is too long")
                fill(self._sock, self._scratch[:length])
                self._noted(bytes(self._scratch[:length]))
            elif kind == chunks.BEAT and not length:
                continue
            else:
                raise MessageError("a chunk of an unknown kind")

    def _noted(self, data: bytes) -> None:
        try:
            self._mesh._note(self._peer, data)
        except MippError as error:
            _log.warning("a note of server %d was not understood: %s", self._peer, error)
        except Exception:
            _log.exception("unexpected error at a note of server %d", self._peer)

    def _session(self, name: bytes, length: int) -> None:
        session = self._mesh._session(name)
        assembly = self._assemblies.get(name)
        if session is None:
            self._assemblies.pop(name, None)
            fill(self._sock, self._scratch[:length])
            return
        if assembly is None or assembly.session is not session:
            if len(self._assemblies) > 2 * EARLY:
                self._forget()
            assembly = self._assemblies[name] = Assembly(session, self._peer)
        while length and not assembly.broken:
            room = assembly.room(length)
            fill(self._sock, room)
            length -= room.nbytes
            try:
                assembly.filled(room.nbytes)
            except MessageError as error:  # ends this session, not the connection
                assembly.broken = True
                session.queues[self._peer].put(error)
        fill(self._sock, self._scratch[:length])

    def _forget(self) -> None:
        """Drop what belongs to sessions that ended."""
        with self._mesh._lock:
            kept = self._mesh._sessions.keys() | self._mesh._early.keys()
        self._assemblies = {name: a for name, a in self._assemblies.items() if name in kept}

    def _message(self, kind: int, name: bytes, length: int, last: bool) -> None:
        data = self._messages.setdefault((kind, name), bytearray())
        coming = sum(map(len, self._messages.values()))
        if len(self._messages) > self._mesh.limits.calls or coming + length > chunks.CALL_BYTES:
            raise MessageError("calls that are too long")
        fill(self._sock, self._scratch[:length])
        data += self._scratch[:length]
        if not last:
            return
        del self._messages[kind, name]
        if kind == chunks.CALL:
            self._mesh._take_call(self._peer, name, bytes(data))
        else:
            with self._mesh._lock:
                _, reply = self._mesh._calls.get(name, (0, None))
            if reply is not None:
                reply.put(bytes(data))
