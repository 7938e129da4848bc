"""Frames of sessions on their way in: put together from a connection's bytes, waiting to be received, bounded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection

import numpy as np

from ..errors import MessageError
from .link import FRAME_BYTES, HEADER_BYTES, Frame, parse_header

__all__ = ["Assembly", "Gone", "Session"]


class Gone(Exception):
    """In a session's queue: the peer is gone."""


class Session:
    """Frames of one session from each peer, and how many bytes wait: at most ``limit`` of each peer, ``cap`` of all."""

    def __init__(self, peers: Collection[int], limit: int, cap: int) -> None:
        self.limit, self.cap = limit, cap
        self.queues: dict[int, queue.SimpleQueue[Frame | Exception]] = {p: queue.SimpleQueue() for p in peers}
        self.waiting = dict.fromkeys(peers, 0)
        self.lock = threading.Lock()

    def take(self, peer: int, size: int) -> bool:
        """Whether so many bytes more of a peer may wait."""
        with self.lock:
            if self.waiting[peer] + size > self.limit or sum(self.waiting.values()) + size > self.cap:
                return False
            self.waiting[peer] += size
            return True

    def give(self, peer: int, size: int) -> None:
        with self.lock:
            self.waiting[peer] -= size


class Assembly:
    """A session's bytes from one peer, put together to frames."""

    def __init__(self, session: Session, peer: int) -> None:
        self.session, self._peer = session, peer
        self._head = bytearray(HEADER_BYTES)
        self._payload: memoryview | None = None
        self._got = 0
        self.broken = False

    def room(self, most: int) -> memoryview:
        """Where the next bytes go."""
        target = memoryview(self._head) if self._payload is None else self._payload
        return target[self._got : self._got + most]

    def filled(self, count: int) -> None:
        """So many bytes came; passes on a frame that is whole."""
        self._got += count
        if self._payload is None:
            if self._got < HEADER_BYTES:
                return
            length = parse_header(bytes(self._head)).length
            if not self.session.take(self._peer, length + FRAME_BYTES):
                raise MessageError(f"server {self._peer} sent more than a session may hold")
            self._payload, self._got = np.empty(length, np.uint8).data, 0
        if self._got == self._payload.nbytes:
            frame = Frame(bytes(self._head), [self._payload] if self._payload.nbytes else [])
            self._payload, self._got = None, 0
            self.session.queues[self._peer].put(frame)
