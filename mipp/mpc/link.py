"""Links between parties: the frame format and its parser, queues in one process, sealed TCP between processes.

A frame is a header of 36 bytes (little-endian: magic ``MIP3``, version, kind, sender, receiver, step u32, session 16
bytes, payload length u64) and its payload. A link carries frames of one session between one party and its two peers,
in order; it knows nothing of what they mean. Payload parts are not copied in one process, so a sender never writes to
what it has sent. Leakage: lengths, kinds and order, which are public; :class:`TcpLink` seals contents.
"""

from __future__ import annotations

import dataclasses
import queue
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..crypto import schedule
from ..errors import MessageError, ProtocolError

__all__ = ["HEADER_BYTES", "KINDS", "Frame", "Header", "Link", "LocalLink", "TcpLink", "local_links", "parse_header"]

PARTIES = (1, 2, 3)
VERSION = 1
_MAGIC = b"MIP3"
_LAYOUT = struct.Struct("<4sBBBBI16sQ")
HEADER_BYTES = _LAYOUT.size
#: message kinds by number, from 1
KINDS = (
    "", "hello", "reshare", "shuffle", "split", "generate", "and", "open", "confirm", "done", "abort", "check", "lift",
)  # fmt: skip
MAX_PAYLOAD = 1 << 40
_CHUNK = 1 << 26  # payload bytes under one tag
_TAG = 16
_GREETING = struct.Struct("<4sBB32s")


@dataclasses.dataclass(frozen=True)
class Header:
    """Header of a payload: ``kind`` (one of KINDS), sender, receiver, step, session (16 bytes), payload length."""

    kind: str
    sender: int
    receiver: int
    step: int
    session: bytes
    length: int

    def pack(self) -> bytes:
        """The 36 bytes."""
        number = KINDS.index(self.kind)
        return _LAYOUT.pack(_MAGIC, VERSION, number, self.sender, self.receiver, self.step, self.session, self.length)


def parse_header(data: bytes | memoryview) -> Header:
    """The header in exactly 36 bytes; MessageError for any other size, magic, version, kind, party or length."""
    if len(data) != HEADER_BYTES:
        raise MessageError(f"a frame header has {HEADER_BYTES} bytes, not {len(data)}")
    magic, version, kind, sender, receiver, step, session, length = _LAYOUT.unpack(data)
    if magic != _MAGIC or version != VERSION:
        raise MessageError("not a frame of this protocol version")
    if not 1 <= kind < len(KINDS) or sender not in PARTIES or receiver not in PARTIES or sender == receiver:
        raise MessageError("a frame of unknown kind or party")
    if length > MAX_PAYLOAD:
        raise MessageError("a frame longer than any message")
    return Header(KINDS[kind], sender, receiver, step, session, length)


@dataclasses.dataclass(frozen=True, repr=False)
class Frame:
    """Header bytes as they came, not yet parsed, and the payload in one or more parts; contents are secret."""

    head: bytes
    parts: Sequence[memoryview]

    def __repr__(self) -> str:
        return f"Frame({self.nbytes} payload bytes)"

    @property
    def nbytes(self) -> int:
        return sum(p.nbytes for p in self.parts)


class Link(Protocol):
    """One party's way to its two peers, for one session."""

    def send(self, to: int, frame: Frame) -> None:
        """Queue a frame; returns before it has arrived. The parts must not change afterwards."""

    def receive(self, source: int, limit: int, timeout: float) -> Frame:
        """The next frame of ``source``; ProtocolError after ``timeout`` seconds or when the peer is gone, MessageError
        for what is no frame or carries more than ``limit`` payload bytes."""

    def close(self) -> None:
        """No more frames in either direction; frames already sent still arrive."""


def _silent(source: int) -> ProtocolError:
    return ProtocolError(f"party {source} was silent for too long")


class LocalLink:
    """Party ``index``'s end of the queues of :func:`local_links`. Parts are handed over without a copy."""

    def __init__(self, index: int, queues: Mapping[tuple[int, int], queue.SimpleQueue[Frame]]) -> None:
        self._index, self._queues = index, queues

    def send(self, to: int, frame: Frame) -> None:
        self._queues[self._index, to].put(frame)

    def receive(self, source: int, limit: int, timeout: float) -> Frame:
        try:
            frame = self._queues[source, self._index].get(timeout=timeout)
        except queue.Empty:
            raise _silent(source) from None
        if frame.nbytes > limit:
            raise MessageError(f"party {source} sent more than this message holds")
        return frame

    def close(self) -> None:
        """Nothing to do: the queues go with the session."""


def local_links() -> dict[int, LocalLink]:
    """Links of three parties in one process."""
    pairs = [(a, b) for a in PARTIES for b in PARTIES if a != b]
    queues: dict[tuple[int, int], queue.SimpleQueue[Frame]] = {pair: queue.SimpleQueue() for pair in pairs}
    return {a: LocalLink(a, queues) for a in PARTIES}


class _Stream:
    """One direction of a sealed connection: AES-256-GCM under a key of this connection, nonces counted."""

    def __init__(self, pair_key: bytes, randoms: bytes, sender: int, receiver: int) -> None:
        self._aead = AESGCM(schedule.hkdf(pair_key, b"mipp v1 link" + randoms + bytes([sender, receiver])))
        self._count = 0

    def _nonce(self) -> bytes:
        self._count += 1
        return self._count.to_bytes(12, "big")

    def seal(self, data: memoryview, head: bytes) -> bytes:
        return self._aead.encrypt(self._nonce(), data, head)

    def open(self, data: memoryview, head: bytes) -> bytes:
        try:
            return self._aead.decrypt(self._nonce(), data, head)
        except InvalidTag:
            raise MessageError("a frame was changed on its way") from None


def _read(sock: socket.socket, size: int, deadline: float, source: int) -> bytearray:
    """Exactly ``size`` bytes before the deadline."""
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _silent(source)
        sock.settimeout(left)
        try:
            count = sock.recv_into(view[got:])
        except TimeoutError:
            raise _silent(source) from None
        except OSError:
            count = 0
        if count == 0:
            raise ProtocolError(f"party {source} closed the connection")
        got += count
    return data


class _Peer:
    """A connection to one peer: a thread that seals and sends, and reading in the caller's thread."""

    def __init__(self, sock: socket.socket, out: _Stream, into: _Stream, timeout: float) -> None:
        self._sock, self._out, self._into = sock, out, into
        self._outgoing = sock.dup()  # a time limit of its own
        self._outgoing.settimeout(timeout)
        self._queue: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="mipp link", daemon=True)
        self._thread.start()

    def _send_all(self) -> None:
        # a peer that does not read, or is gone, shows as silence or a closed connection to whoever waits for it
        try:
            while (frame := self._queue.get()) is not None:
                data = frame.parts[0] if len(frame.parts) == 1 else memoryview(b"".join(frame.parts))
                self._outgoing.sendall(frame.head)
                for begin in range(0, max(len(data), 1), _CHUNK):
                    self._outgoing.sendall(self._out.seal(data[begin : begin + _CHUNK], frame.head))
            self._outgoing.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            self._outgoing.close()

    def send(self, frame: Frame) -> None:
        self._queue.put(frame)

    def receive(self, source: int, limit: int, timeout: float) -> Frame:
        deadline = time.monotonic() + timeout
        head = bytes(_read(self._sock, HEADER_BYTES, deadline, source))
        length = parse_header(head).length
        if length > limit:
            raise MessageError(f"party {source} sent more than this message holds")
        parts = []
        for begin in range(0, max(length, 1), _CHUNK):
            sealed = _read(self._sock, min(_CHUNK, length - begin) + _TAG, deadline, source)
            parts.append(self._into.open(memoryview(sealed), head))
        return Frame(head, [memoryview(parts[0] if len(parts) == 1 else b"".join(parts))])

    def close(self, timeout: float) -> None:
        self._queue.put(None)
        self._thread.join(timeout)
        self._sock.close()


def _dial(address: tuple[str, int], deadline: float, peer: int) -> socket.socket:
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProtocolError(f"party {peer} cannot be reached")
        try:
            return socket.create_connection(address, timeout=left)
        except OSError:
            time.sleep(min(0.02, left))  # it may not listen yet


def _greet(
    sock: socket.socket,
    index: int,
    expected: Sequence[int],
    pair_keys: Mapping[int, bytes],
    deadline: float,
    timeout: float,
) -> tuple[int, _Peer]:
    """Exchange fresh randomness with one of the expected peers; its first frame proves that it holds the key."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mine = schedule.random_bytes(32)
        sock.sendall(_GREETING.pack(_MAGIC, VERSION, index, mine))
        magic, version, peer, theirs = _GREETING.unpack(_read(sock, _GREETING.size, deadline, expected[0]))
        if magic != _MAGIC or version != VERSION or peer not in expected:
            raise MessageError("not a peer that is expected here")
        randoms = mine + theirs if index < peer else theirs + mine
        key = pair_keys[peer]
        return peer, _Peer(sock, _Stream(key, randoms, index, peer), _Stream(key, randoms, peer, index), timeout)
    except OSError:
        sock.close()
        raise ProtocolError("a peer closed the connection") from None
    except BaseException:
        sock.close()
        raise


class TcpLink:
    """Party ``index``'s sealed connections to its peers; :meth:`connect` makes them.

    Every frame is encrypted and authenticated with AES-256-GCM under keys of the pair and of this connection, so that
    a third party on the way, a repeated or changed frame is of no use. Adds 16 bytes per frame, and per 64 MiB.
    """

    def __init__(self, index: int, peers: Mapping[int, _Peer], timeout: float) -> None:
        self._index, self._peers, self._timeout = index, peers, timeout

    @classmethod
    def connect(
        cls,
        index: int,
        listener: socket.socket,
        addresses: Mapping[int, tuple[str, int]],
        pair_keys: Mapping[int, bytes],
        timeout: float,
    ) -> TcpLink:
        """Connect to peers of smaller index and accept those of larger index.

        Parameters
        ----------
        index : of this party
        listener : listening TCP socket of this party
        addresses : peer -> (host, port)
        pair_keys : peer -> 32 secret bytes
        timeout : seconds, for connecting and for each send

        Raises
        ------
        MessageError, ProtocolError
            Something that is no peer answered; a peer did not come in time.
        """
        deadline = time.monotonic() + timeout
        peers: dict[int, _Peer] = {}
        try:
            for peer in range(1, index):
                sock = _dial(addresses[peer], deadline, peer)
                peers[peer] = _greet(sock, index, [peer], pair_keys, deadline, timeout)[1]
            while missing := [p for p in PARTIES if p > index and p not in peers]:
                listener.settimeout(max(deadline - time.monotonic(), 1e-3))
                try:
                    sock, _ = listener.accept()
                except TimeoutError:
                    raise ProtocolError("a peer did not connect in time") from None
                peer, made = _greet(sock, index, missing, pair_keys, deadline, timeout)
                peers[peer] = made
        except BaseException:
            for open_peer in peers.values():
                open_peer.close(0.1)
            raise
        return cls(index, peers, timeout)

    def send(self, to: int, frame: Frame) -> None:
        self._peers[to].send(frame)

    def receive(self, source: int, limit: int, timeout: float) -> Frame:
        return self._peers[source].receive(source, limit, timeout)

    def close(self) -> None:
        for peer in self._peers.values():
            peer.close(self._timeout)
