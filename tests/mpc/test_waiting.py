"""What may wait of an honest peer: never more than its bound, however slow a server is and whatever the order."""

import contextlib
import threading
import time
from collections import Counter

import numpy as np
import pytest

from mipp.errors import OutOfRangeError
from mipp.mpc import comparison
from mipp.mpc.comparison import threshold
from mipp.mpc.cost import expected_calls
from mipp.mpc.link import FRAME_BYTES, local_links
from mipp.mpc.topk import top_k
from mipp.mpc.waiting import certificate_room, most_compared, threshold_room, top_k_room
from tests.mpc.parties import public, run, share
from tests.mpc.ranged import ENCODINGS, Ranged
from tests.mpc.test_certificate import crafted, rows_of
from tests.mpc.test_topk import select

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(21)


class Slow:
    """Links of one process that count what waits; one party receives late, so the others are as far as they get."""

    def __init__(self, slow, pause):
        self._links, self._slow, self._pause = local_links(), slow, pause
        self._lock, self.waiting, self.most = threading.Lock(), Counter(), Counter()

    def links(self):
        return {i: _SlowLink(self, i) for i in (1, 2, 3)}

    def count(self, pair, size):
        with self._lock:
            self.waiting[pair] += size
            self.most[pair] = max(self.most[pair], self.waiting[pair])


class _SlowLink:
    def __init__(self, slow, index):
        self._slow, self._index = slow, index

    def send(self, to, frame):
        self._slow.count((self._index, to), frame.nbytes + FRAME_BYTES)
        self._slow._links[self._index].send(to, frame)

    def receive(self, source, limit, timeout):
        if self._index == self._slow._slow:
            time.sleep(self._slow._pause)
        frame = self._slow._links[self._index].receive(source, limit, timeout)
        self._slow.count((source, self._index), -frame.nbytes - FRAME_BYTES)
        return frame


def waits(task, slow, pause=0.005):
    """The most bytes of one party that waited at another one."""
    made = Slow(slow, pause)
    with contextlib.suppress(OutOfRangeError):
        run(task, links=made.links())
    return max(made.most.values())


@pytest.mark.parametrize("slow", [1, 2, 3])
@pytest.mark.parametrize(
    "queries, rows, k", [(1, 1, 1), (3, 129, 2), (2, 900, 900), (1, 20_000, 10), (4, 5000, 1), (1, 70_000, 3)]
)
def test_rankings(queries, rows, k, slow):
    pub = public(rows)
    shares = share(RNG.integers(-100, 101, (queries, rows)), np.uint32, RNG)
    most = waits(lambda p: top_k(p, shares[p.index], k, pub), slow)
    assert most <= top_k_room(pub, queries, k)
    match = waits(lambda p: threshold(p, shares[p.index], pub, theta_shares=shares[p.index][:, 0].copy()), slow)
    assert match <= threshold_room(pub, queries)


@pytest.mark.parametrize("slow", [1, 2, 3])
def test_rankings_with_a_check_of_the_query(slow):
    pub = public(500)
    shares = share(RNG.integers(-100, 101, (1, 500)), np.uint32, RNG)
    zero = share(np.zeros((1, 90), np.int64), np.uint64, RNG)
    wrong = share(np.ones((1, 90), np.int64), np.uint64, RNG)
    plain = top_k_room(pub, 1, 5)
    for check in (zero, wrong):
        most = waits(lambda p, c=check: top_k(p, shares[p.index], 5, pub, zero=c[p.index]), slow)
        assert most <= top_k_room(pub, 1, 5, 64)
    assert plain < top_k_room(pub, 1, 5, 64) <= plain + 1024 + 2 * FRAME_BYTES


@pytest.mark.parametrize("slow", [1, 2, 3])
@pytest.mark.parametrize("name", list(ENCODINGS))
@pytest.mark.parametrize("count", [1, 40, 900])
def test_tests_of_rows(name, count, slow, monkeypatch):
    """Also of rows out of range, of which each is tested again by itself."""
    from mipp.mpc import certificate

    monkeypatch.setattr(certificate, "_CHUNK_WORDS", 4096)
    of = Ranged(ENCODINGS[name])
    rows = rows_of(of, count)
    bad = crafted(of, rows) if count == 900 else rows * 0 + (of.half >> 1)
    for some in (rows, bad):
        assert waits(of.task(of.share(some)), slow, 0.0005) <= certificate_room(of.rows, count)


def test_the_bound_is_near_what_is_sent():
    """It is no licence: a peer that floods costs about what an honest one does."""
    pub = public(1_000_000, -17_598, 17_598)
    assert top_k_room(pub, 1, 10, 64) < 18e6
    assert threshold_room(pub, 1, 64) < 8e6
    cosine = Ranged(ENCODINGS["cosine"])
    assert certificate_room(cosine.rows, 1 << 30) < 40e6
    assert certificate_room(cosine.rows, 10) < 1 << 17


def orders(rows):
    """Orders of the keys at the shuffled positions, most of them of a chance that nobody meets."""
    yield np.arange(rows)
    yield np.arange(rows)[::-1].copy()
    for _ in range(3):
        yield RNG.permutation(rows)
    # the first positions, of which samples are taken, hold the best, the worst, or both
    best = np.concatenate([np.arange(rows - 400, rows), np.arange(rows - 400)]) if rows > 400 else np.arange(rows)
    yield best
    yield rows - 1 - best
    yield np.argsort(np.argsort(np.abs(np.arange(rows) - rows / 2 + 0.25)))
    halves = RNG.permutation(rows)
    halves[:300] = np.sort(halves[:300])
    yield halves


@pytest.mark.parametrize("rows", [1, 2, 64, 156, 157, 158, 700, 3000, 13_000, 30_000])
@pytest.mark.parametrize("part", [0, 0.01, 0.5, 1])
def test_no_order_asks_for_more_in_one_call(rows, part):
    k = max(1, int(part * rows))
    for key in orders(rows):
        calls = select(key, k)[1]
        assert max(calls, default=0) <= most_compared(rows, k)
    assert most_compared(rows, k) >= max(expected_calls(rows, k), default=0)


def test_one_party_splits_alone(monkeypatch):
    """Just below the size from which three do, it sends more than in a larger call."""
    monkeypatch.setattr(comparison, "_SPLIT_GROUPS", 12)
    for rows in (5632, 5700, 6144, 7000):
        pub = public(rows)
        shares = share(RNG.integers(-100, 101, (1, rows)), np.uint32, RNG)
        for slow in (1, 2, 3):
            assert waits(lambda p, s=shares, q=pub: top_k(p, s[p.index], 4, q), slow) <= top_k_room(pub, 1, 4)
