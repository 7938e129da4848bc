"""Where records are, as a hostile cloud tells it: a small reply takes no large memory before its hash is compared."""

import tracemalloc
import zlib

import numpy as np
import pytest

from mipp.client import retrieval
from mipp.errors import MessageError, StaleSnapshotError
from mipp.rpc import messages as m
from mipp.rpc.records import ORIGIN, moved_hash

RNG = np.random.default_rng(0)
PARTS = [np.frombuffer(RNG.bytes(rows * ORIGIN.itemsize), ORIGIN) for rows in (3, 100_000, 1)]
BATCHES = np.arange(48, dtype=np.uint8).reshape(3, 16)


def told(parts=PARTS, packed=None, rows=None):
    packed = zlib.compress(b"".join(p.tobytes() for p in parts), 1) if packed is None else packed
    rows = [len(p) for p in parts] if rows is None else rows
    return m.Origins(BATCHES[: len(rows)], np.array(rows, "<i8"), np.frombuffer(packed, np.uint8))


def right():
    return moved_hash(
        (b.tobytes(), p.nbytes, (p.tobytes(),)) for b, p in zip(BATCHES, PARTS, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize("piece", [97, 1000, 1 << 20])
def test_what_has_the_hash_is_read(piece, monkeypatch):
    monkeypatch.setattr(retrieval, "_PIECE", piece)
    found = retrieval._unpacked(told(), right(), 100_004)
    assert list(found) == [b.tobytes() for b in BATCHES]
    assert all(np.array_equal(a, b) for a, b in zip(found.values(), PARTS, strict=True))


@pytest.mark.parametrize("rows", [[1 << 21], [1 << 40], [1 << 62, 1 << 62]])
@pytest.mark.parametrize("most", [100, 1 << 62])
def test_a_small_reply_takes_little_memory(rows, most):
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(48)) + packer.flush()
    reply = told(packed=packed, rows=rows)
    tracemalloc.start()
    try:
        with pytest.raises((MessageError, StaleSnapshotError)):
            retrieval._unpacked(reply, right(), most)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "reply",
    [told(packed=b""), told(packed=b"no zlib"), told(packed=zlib.compress(b"x")), told(rows=[0, 1, 2]),
     told(rows=[-1, 1, 2]), m.Origins(BATCHES[:2], np.array([1, 2, 3], "<i8"), np.zeros(9, np.uint8)),
     m.Origins(BATCHES[:, :5], np.array([1, 2, 3], "<i8"), np.zeros(9, np.uint8))],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(reply):
    with pytest.raises(MessageError, match="fit together"):
        retrieval._unpacked(reply, right(), 1 << 40)


def test_more_rows_than_the_snapshot_lists_and_another_hash_are_stale():
    for hash_, most in ((right(), 100_003), (bytes(32), 100_004), (b"", 100_004)):
        with pytest.raises(StaleSnapshotError):
            retrieval._unpacked(told(), hash_, most)
