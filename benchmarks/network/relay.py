"""A line between machines, on one machine: relays in a process of their own, which delay bytes and limit their rate.

Kernels of test machines often lack netem. A relay stands before each server; its URL leads to the relay. All that goes
to the server, from clients and other servers, shares one line in, and all that comes back one line out: each of one
rate, and each byte is delayed by half of the round trip.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import socket
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection

__all__ = ["Lines"]

#: what is read at a time; seconds of the line that may be read ahead; bytes that the system keeps before the line
_CHUNK, _AHEAD, _BUFFER = 1 << 15, 5e-4, 1 << 15
_START = 60.0


class _Line:
    """One direction of a server's line, shared by its connections."""

    def __init__(self) -> None:
        self.delay, self.rate = 0.0, 0.0  # seconds one way; bytes a second, 0: no limit
        self._free, self._lock = 0.0, threading.Lock()

    def due(self, size: int) -> float:
        """When bytes that enter the line now have all arrived."""
        now = time.monotonic()
        with self._lock:
            self._free = max(self._free, now) + (size / self.rate if self.rate else 0.0)
            return self._free + self.delay

    def ahead(self) -> float:
        """Seconds until the line has taken all that entered it."""
        return self._free - time.monotonic()


def _carry(source: socket.socket, target: socket.socket, line: _Line) -> None:
    """Read from one side as fast as the line takes it, and write to the other side when it is due."""
    way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def write() -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = way.get()
                if (left := due - time.monotonic()) > 0:
                    time.sleep(left)
                if not data:
                    break
                target.sendall(data)
        for sock in (target, source):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=write, daemon=True).start()
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            way.put((line.due(len(data)), data))
            if (ahead := line.ahead()) > _AHEAD:  # the sender feels that the line is full
                time.sleep(ahead)
    way.put((line.due(0), b""))


def _listen(port: int, to: int, into: _Line, out: _Line) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        while True:
            near, _ = listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", to), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, target, line in ((near, far, into), (far, near, out)):
                threading.Thread(target=_carry, args=(source, target, line), daemon=True).start()


def _run(ports: Mapping[int, int], pipe: Connection) -> None:
    lines: list[_Line] = []
    for port, to in ports.items():
        into, out = _Line(), _Line()
        lines += [into, out]
        threading.Thread(target=_listen, args=(port, to, into, out), daemon=True).start()
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(True)
            delay, rate = pipe.recv()
            for line in lines:
                line.delay, line.rate = delay, rate


class Lines:
    """Relays; a context manager.

    Parameters
    ----------
    ports : mapping of int to int
        Port of each relay, and of the server behind it, both of loopback.
    """

    def __init__(self, ports: Mapping[int, int]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_run, args=(dict(ports), theirs), daemon=True)

    def __enter__(self) -> Lines:
        self._process.start()
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def set(self, round_trip: float, rate: float) -> None:
        """From now on: seconds of a round trip, and bits a second of each line, 0 for no limit."""
        self._pipe.send((round_trip / 2, rate / 8))
        self._answer()

    def _answer(self) -> None:
        if not self._pipe.poll(_START):
            raise RuntimeError("the relays did not start")
        self._pipe.recv()
