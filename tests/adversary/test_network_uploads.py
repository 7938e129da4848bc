"""Registered parties that announce large requests and do not keep to what they announced."""

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import msgpack
import pytest

from mipp.crypto import signing
from mipp.errors import BusyError, NotFoundError, ParameterError, StoreError
from mipp.rpc.bodies import Announcement, body_parts, body_size
from mipp.server.uploads import Uploads
from tests.network import Network

pytestmark = pytest.mark.slow

GIB = 1 << 30


def announced(name, size=1000):
    return Announcement(name, "Query", [size], [bytes(32)])


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def made(tmp_path, clock):
    return Uploads(tmp_path, clock)


def send(made, token, data, at=0):
    block = made.block(token, at, len(data))
    block[:] = data
    return made.written(token, block)


def test_a_block_has_its_place_on_the_disk_before_it_is_written(made, monkeypatch):
    """Written to a mapped file on a full disk, it would end the server by a signal."""
    token, _ = made.begin(b"p" * 16, announced(b"h", 8 << 20))

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="disk"):
        made.block(token, 0, 4 << 20)
    monkeypatch.undo()
    made.block(token, 0, 4 << 20)  # nothing is lost when there is room again
    made.broken(token)


def test_announcements_without_data_take_no_disk_from_others(made, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10 * GIB))
    made.begin(b"a" * 16, announced(b"1", 7 * GIB))
    made.begin(b"b" * 16, announced(b"2", 7 * GIB))


def test_announcements_without_data_take_no_share_of_the_limits(made, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000 * GIB))
    for party in range(8):
        for n in range(2):
            made.begin(bytes([party]) * 16, announced(bytes([n]), 7 * GIB))
    made.begin(b"z" * 16, announced(b"z", 7 * GIB))


def test_announcements_without_data_give_way(made, clock):
    for party in range(made.limits.in_all // made.limits.per_party):
        for n in range(made.limits.per_party):
            made.begin(party.to_bytes(16, "big"), announced(bytes([n])))
    with pytest.raises(BusyError):
        made.begin(b"z" * 16, announced(b"z"))
    clock.now += 61
    token, _ = made.begin(b"z" * 16, announced(b"z"))
    assert send(made, token, b"data") == 4


def test_data_never_change_after_they_were_handed_over(made):
    """No token, no block: the frames that a signature is checked on are nobody's to write any more."""
    size = body_size([1000])
    token, _ = made.begin(b"p" * 16, announced(b"h"))
    data = b"".join(body_parts([bytes(1000)]))
    view = made.block(token, 0, size)
    view[:] = data
    for call in (lambda: made.finish(token), lambda: made.block(token, 0, 1), lambda: made.block(token, size, 1)):
        with pytest.raises(ParameterError):  # a block is on its way
            call()
    made.written(token, view)
    arrived = made.finish(token)
    frames = arrived.frames
    assert bytes(frames[1]) == bytes(1000) and memoryview(frames[1]).readonly
    for call in (lambda: made.finish(token), lambda: made.block(token, 0, 1), lambda: made.written(token, view)):
        with pytest.raises(NotFoundError):
            call()


def test_announced_lengths_set_no_memory_aside(tmp_path, encoding, monkeypatch):
    """A stranger's announcement is decoded before its signature can be checked."""

    def size():
        (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmData")]
        return int(line.split()[1]) << 10

    network = Network(tmp_path, encoding).start(1)
    server, sizes = network.processes[1].server, []
    monkeypatch.setattr(signing, "verify", lambda *_: sizes.append(size()))
    monkeypatch.setattr(server, "_identity", lambda *_: (b"", b""))
    try:
        length = 7 * GIB
        told = [100, length]
        places = [msgpack.ExtType(1, msgpack.packb(["|u1", [size], n])) for n, size in enumerate(told, 1)]
        head = b"MIPP\x01" + msgpack.packb(
            ["Signed", [server.config.id, bytes(16), 1, int(time.time() * 1000), bytes(16), bytes(64), places]]
        )
        server.ready, before = True, size()
        server.announced(Announcement(head, "UploadOp", told, [bytes(32)] * 2))
        assert sizes[0] - before < GIB
    finally:
        network.stop()
