"""Links between parties: the frame format and its parser, and queues in one process; ``mesh.py`` links processes.

A frame is a header of 36 bytes (little-endian: magic ``MIP3``, version, kind, sender, receiver, step u32, session 16
bytes, payload length u64) and its payload. A link carries frames of one session between one party and its two peers,
in order; it knows nothing of what they mean. Payload parts are not copied in one process, so a sender never writes to
what it has sent. Leakage: lengths, kinds and order, which are public.
"""

from __future__ import annotations

import dataclasses
import queue
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ..errors import MessageError, UnreachableError

__all__ = [
    "FRAME_BYTES",
    "HEADER_BYTES",
    "KINDS",
    "Frame",
    "Header",
    "Link",
    "LocalLink",
    "PlacedLink",
    "bounded",
    "local_links",
    "parse_header",
    "silent",
]

PARTIES = (1, 2, 3)
VERSION = 1
_MAGIC = b"MIP3"
_LAYOUT = struct.Struct("<4sBBBBI16sQ")
HEADER_BYTES = _LAYOUT.size
#: bytes that a frame takes besides its payload where it waits: its header, and objects around both
FRAME_BYTES = 512
#: message kinds by number, from 1
KINDS = (
    "", "hello", "reshare", "shuffle", "split", "generate", "and", "open", "confirm", "done", "abort", "check", "lift",
    "probe",
)  # fmt: skip
MAX_PAYLOAD = 1 << 40


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

    def expect(self, most: int) -> None:
        """From now on so many bytes of each peer may wait here, payloads and FRAME_BYTES for each frame; one that sends
        more ends the session."""

    def send(self, to: int, frame: Frame) -> None:
        """Queue a frame; returns before it has arrived. The parts must not change afterwards."""

    def receive(self, source: int, limit: int, timeout: float) -> Frame:
        """The next frame of ``source``; UnreachableError after ``timeout`` seconds or when the peer is gone,
        MessageError for what is no frame or carries more than ``limit`` payload bytes."""

    def close(self) -> None:
        """No more frames in either direction; frames already sent still arrive."""


def silent(source: int) -> UnreachableError:
    """Of a party that sent nothing in time."""
    return UnreachableError(f"party {source} was silent for too long")


def bounded(frame: Frame, source: int, limit: int) -> Frame:
    """The frame, unless it carries more than ``limit`` payload bytes: MessageError."""
    if frame.nbytes > limit:
        raise MessageError(f"party {source} sent more than this message holds")
    return frame


class LocalLink:
    """Party ``index``'s end of the queues of :func:`local_links`. Parts are handed over without a copy."""

    def __init__(self, index: int, queues: Mapping[tuple[int, int], queue.SimpleQueue[Frame]]) -> None:
        self._index, self._queues = index, queues

    def expect(self, most: int) -> None:
        """Nothing to do: the peers are this process."""

    def send(self, to: int, frame: Frame) -> None:
        self._queues[self._index, to].put(frame)

    def receive(self, source: int, limit: int, timeout: float) -> Frame:
        try:
            frame = self._queues[source, self._index].get(timeout=timeout)
        except queue.Empty:
            raise silent(source) from None
        return bounded(frame, source, limit)

    def close(self) -> None:
        """Nothing to do: the queues go with the session."""


class PlacedLink:
    """A link of servers as one of parties 1, 2 and 3.

    Parameters
    ----------
    link : names peers by the numbers of their servers
    servers : the server of each party, in order
    """

    def __init__(self, link: Link, servers: Sequence[int]) -> None:
        self._link, self._server = link, dict(enumerate(servers, 1))

    def expect(self, most: int) -> None:
        self._link.expect(most)

    def send(self, to: int, frame: Frame) -> None:
        self._link.send(self._server[to], frame)

    def receive(self, source: int, limit: int, timeout: float) -> Frame:
        return self._link.receive(self._server[source], limit, timeout)

    def close(self) -> None:
        self._link.close()


def local_links(ends: Iterable[int] = PARTIES) -> dict[int, LocalLink]:
    """Links in one process between three parties, or these servers."""
    ends = tuple(ends)
    pairs = [(a, b) for a in ends for b in ends if a != b]
    queues: dict[tuple[int, int], queue.SimpleQueue[Frame]] = {pair: queue.SimpleQueue() for pair in pairs}
    return {a: LocalLink(a, queues) for a in ends}
