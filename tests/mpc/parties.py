"""Three parties for tests: keys, additive shares, links that record or disturb frames."""

import dataclasses

import numpy as np

from mipp.mpc.link import Frame, local_links, parse_header
from mipp.mpc.session import Public, run_local

HEADER, SNAPSHOT = b"h" * 32, b"s" * 32
_PAIRS = {(1, 2): b"a" * 32, (1, 3): b"b" * 32, (2, 3): b"c" * 32}
KEYS = {i: {j: _PAIRS[min(i, j), max(i, j)] for j in (1, 2, 3) if j != i} for i in (1, 2, 3)}


def share(values, dtype, rng):
    """Additive shares of integers by party."""
    values = np.asarray(values)
    a, b = (rng.integers(0, 1 << 63, values.shape).astype(np.uint64) * np.uint64(2) for _ in range(2))
    b ^= rng.integers(0, 2, values.shape).astype(np.uint64)
    a ^= rng.integers(0, 2, values.shape).astype(np.uint64)
    a, b = a.astype(dtype), b.astype(dtype)
    return {1: a, 2: b, 3: (values.astype(dtype) - a - b).astype(dtype)}


def public(rows, low=-100, high=100, ring_bits=32, **changes):
    return dataclasses.replace(Public(HEADER, SNAPSHOT, rows, ring_bits, low, high), **changes)


def in_session(task):
    """A task within hello and confirm, on parameters of no meaning; returns (result, counters)."""

    def whole(party):
        with party.attempt():
            party.hello(HEADER, b"p" * 32, SNAPSHOT)
            result = task(party)
            party.confirm()
        return result, party.counters

    return whole


def run(task, **options):
    """Results by party, in party order."""
    results = run_local(task, KEYS, **options)
    return [results[i] for i in (1, 2, 3)]


class Tap:
    """A link that hands each outgoing frame to ``change(header, frame, send)`` instead of sending it."""

    def __init__(self, link, change):
        self._link, self._change = link, change

    def send(self, to, frame):
        self._change(parse_header(frame.head), frame, lambda f: self._link.send(to, f))

    def receive(self, source, limit, timeout):
        return self._link.receive(source, limit, timeout)

    def close(self):
        self._link.close()


def tapped(change, senders=(1, 2, 3)):
    return {i: Tap(link, change) if i in senders else link for i, link in local_links().items()}


def recorded(task, frames, **options):
    """As run; appends (header, payload bytes) of every frame."""

    def keep(header, frame, send):
        frames.append((header, b"".join(frame.parts)))
        send(frame)

    return run(task, links=tapped(keep), **options)


def bits_of(plane, n):
    return np.unpackbits(plane.view(np.uint8), bitorder="little", count=n).astype(bool)


def remade(frame, **changes):
    """A frame with other header fields."""
    return Frame(dataclasses.replace(parse_header(frame.head), **changes).pack(), frame.parts)
