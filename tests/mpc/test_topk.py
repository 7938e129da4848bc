"""Top-k and max against the ideal functionality; selection by opened bits; bad input."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp.errors import (
    DTypeError,
    MippError,
    ParameterError,
    ProtocolError,
    ScoreRangeError,
    ShapeError,
    StaleSnapshotError,
)
from mipp.mpc import comparison, ideal, topk
from mipp.mpc.quickselect import Quickselect
from mipp.mpc.topk import KeyRoom, combine_top_k, distinct_keys, top_k
from tests.mpc.parties import public, run, share

RNG = np.random.default_rng(8)


def best(scores, k, pub, dtype=np.uint32, granted=True, **options):
    shares = share(scores, dtype, RNG)
    parts = run(lambda p: top_k(p, shares[p.index], k, pub, scores=granted, **options))
    got = combine_top_k(parts, pub, scores=granted)
    want = ideal.ranking(list(shares.values()), k, pub, scores=granted)
    for a, b in zip(got, want, strict=True):
        assert np.array_equal(a, b) if b is not None else a is None
    return got


INPUTS = {
    "random": lambda n: RNG.integers(-100, 101, n), "constant": lambda n: np.full(n, -7),
    "two values": lambda n: RNG.integers(0, 2, n),
    "extremes": lambda n: np.where(RNG.integers(0, 2, n) == 1, 100, -100),
    "rising": lambda n: np.arange(n) % 201 - 100,
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("rows, ks", [(1, [1]), (2, [1, 2]), (7, [1, 3, 7]), (130, [10, 130]), (1500, [10, 1500])])
def test_top_k_is_the_ideal_one(rows, ks, name):
    scores = np.stack([INPUTS[name](rows) for _ in range(2)])
    for k in ks:
        for granted in (True, False):
            rows_got, _ = best(scores, k, public(rows), granted=granted)
            # and the ideal one is the plain sort, ties by smaller row
            assert rows_got[0].tolist() == sorted(range(rows), key=lambda r: (-scores[0][r], r))[:k]


@pytest.mark.parametrize("ring_bits", [16, 32, 64])
@pytest.mark.parametrize("queries, rows", [(1, 1), (1, 64), (3, 65), (2, 5000)])
def test_score_shares_in_the_room_of_the_keys(queries, rows, ring_bits, monkeypatch):
    """Keys are made where the score shares were, some at a time: none is overwritten before it is read."""
    monkeypatch.setattr(topk, "_AT_ONCE", 37)
    dtype, pub = np.dtype(f"u{ring_bits // 8}"), public(rows, ring_bits=ring_bits)
    words = RNG.integers(0, 1 << min(ring_bits, 63), (queries, rows)).astype(dtype)
    for index in (1, 2):
        room = KeyRoom(queries, pub)
        assert room.words.shape == words.shape and room.words.dtype == dtype
        assert all(row.ctypes.data % 64 == 0 for row in room.words)
        room.words[...] = words
        for made, row in zip(room.keys(index, pub.row_bits), words, strict=True):
            keys = [(int(w) << pub.row_bits) + (((1 << pub.row_bits) - 1 - i) if index == 1 else 0)
                    for i, w in enumerate(row)]  # fmt: skip
            assert made.tolist() == [k % (1 << 64) for k in keys] == distinct_keys(index, row, pub.row_bits).tolist()
        assert repr(room) == f"KeyRoom({queries} queries, {rows} rows, secret hidden)" and not hasattr(room, "words")
    scores = RNG.integers(-100, 101, (queries, rows))
    shares = share(scores, dtype, RNG)

    def task(party):
        room = KeyRoom(queries, pub)
        room.words[...] = shares[party.index]
        return top_k(party, room, 1, pub)

    found, values = combine_top_k(run(task), pub)
    assert (
        found[:, 0].tolist() == scores.argmax(axis=1).tolist() and values[:, 0].tolist() == scores.max(axis=1).tolist()
    )


@pytest.mark.parametrize("queries, rows, k", [(1, 1500, 10), (3, 700, 700), (1, 40_000, 3)])
def test_more_comparisons_than_one_call_takes(queries, rows, k, monkeypatch):
    """Calls one after the other give what one gives, wherever requests are cut."""
    monkeypatch.setattr(comparison, "MOST_AT_ONCE", 512)
    best(RNG.integers(-100, 101, (queries, rows)), k, public(rows))


@pytest.mark.parametrize("ring_bits", [16, 32, 64])
def test_extreme_ranges(ring_bits):
    """The widest spread that a ring allows, and keys of exactly 64 bits."""
    half = 1 << min(ring_bits, 58) - 2
    pub = public(40, -half, half - 1, ring_bits)
    assert ring_bits < 64 or pub.key_bits == 64
    scores = np.array([[-half, half - 1, 0, -1, 1] * 8])
    best(scores, 40, pub, np.dtype(f"u{ring_bits // 8}"))


@pytest.mark.parametrize("circuit", ["tree", "ripple"])
def test_circuits_and_shifted_ranges(circuit):
    best(RNG.integers(1000, 1100, (1, 300)), 5, public(300, 1000, 1100), circuit=circuit)
    best(RNG.integers(-1100, -1000, (1, 300)), 5, public(300, -1100, -1000), circuit=circuit)


def test_batches_share_rounds():
    def rounds(queries):
        counters = []
        shares = share(RNG.integers(-100, 101, (queries, 100)), np.uint32, RNG)

        def task(party):
            counters.append(party.counters)
            return top_k(party, shares[party.index], 3, public(100))

        run(task)
        return {c.rounds for c in counters}

    assert len(rounds(1)) == 1 and rounds(1) == rounds(5)
    best(RNG.integers(-100, 101, (7, 400)), 4, public(400))


def test_the_best_row_alone():
    scores = RNG.integers(-100, 101, (3, 50))
    shares = share(scores, np.uint32, RNG)
    rows, values = combine_top_k(run(lambda p: top_k(p, shares[p.index], 1, public(50))), public(50))
    assert rows[:, 0].tolist() == scores.argmax(axis=1).tolist()
    assert values[:, 0].tolist() == scores.max(axis=1).tolist()


@pytest.mark.parametrize(
    "shares, k, change, error",
    [(np.zeros(9, np.uint32), 0, {}, ParameterError), (np.zeros(9, np.uint32), 10, {}, ParameterError),
     (np.zeros(9, np.uint32), True, {}, ParameterError), (np.zeros(8, np.uint32), 1, {}, ShapeError),
     (np.zeros((0, 9), np.uint32), 1, {}, ShapeError), (np.zeros((1, 1, 9), np.uint32), 1, {}, ShapeError),
     (np.zeros(9, np.uint16), 1, {}, DTypeError), (np.zeros(9, np.float32), 1, {}, DTypeError),
     (np.zeros(9, np.uint64), 1, {"ring_bits": 64, "high": 1 << 60}, ScoreRangeError)],
)  # fmt: skip
def test_bad_input_is_refused_before_the_first_round(shares, k, change, error):
    counters = []

    def task(party):
        counters.append(party.counters)
        return top_k(party, shares, k, public(9, **change))

    with pytest.raises(error):
        run(task)
    assert not any(c.rounds for c in counters)


@pytest.mark.parametrize(
    "change, error",
    [({"low": 5, "high": 4}, ParameterError), ({"low": -(1 << 31), "high": 0}, ScoreRangeError),
     ({"rows": 0}, ParameterError), ({"ring_bits": 8}, ParameterError), ({"header": b""}, ParameterError)],
)  # fmt: skip
def test_bad_public_values(change, error):
    with pytest.raises(error):
        dataclasses.replace(public(9), **change)


@pytest.mark.parametrize(
    "change, error",
    [
        ({"snapshot": b"t" * 32}, StaleSnapshotError),
        ({"high": 99}, ParameterError),
        ({"header": b"g" * 32}, ParameterError),
    ],
)
def test_a_party_with_other_parameters(change, error):
    """Every party gets the typed error; nothing but the first message was sent."""
    seen, counters = {}, []

    def task(party):
        counters.append(party.counters)
        try:
            pub = dataclasses.replace(public(9), **(change if party.index == 2 else {}))
            top_k(party, np.zeros(9, np.uint32), 1, pub)
        except MippError as e:
            seen[party.index] = type(e)

    run(task)
    assert seen == dict.fromkeys((1, 2, 3), error)
    assert all(set(c.payload) <= {"hello", "abort"} for c in counters)


def test_another_k_or_another_length_at_one_party():
    for k, n in ((2, 9), (1, 8)):
        with pytest.raises(MippError):
            odd = {1: (k, n)}
            run(lambda p, odd=odd: top_k(p, np.zeros(odd.get(p.index, (1, 9))[1], np.uint32),
                                         odd.get(p.index, (1, 9))[0], public(9)))  # fmt: skip


def test_shares_that_add_up_to_nothing_are_refused():
    """Keys K = 16 score + 15 - row that no run gives: order, ties, rows and scores out of range, one row twice."""
    pub = public(9)
    shares = share(np.arange(9), np.uint32, RNG)
    good = run(lambda p: top_k(p, shares[p.index], 3, pub))

    def opened(parts, ranking):
        keys = np.array([[16 * score + 15 - row for row, score in ranking]])
        words = share(keys, np.uint64, RNG)
        made = [dataclasses.replace(part, words=words[part.server]) for part in parts]
        return combine_top_k(made, pub, scores=parts is good)

    ok = [(3, 100), (5, -100), (7, -100)]
    assert [a.tolist() for a in opened(good, ok)] == [[[3, 5, 7]], [[100, -100, -100]]]
    for bad in (
        [(3, 100), (7, -100), (5, -100)], [(5, -100), (3, 100), (7, -100)], [(9, 100), (5, 0), (7, 0)],
        [(3, 101), (5, 0), (7, 0)], [(3, 100), (5, 0), (7, -101)], [(3, 5), (3, 4), (7, 3)],
    ):  # fmt: skip
        with pytest.raises(ProtocolError, match="add up"):
            opened(good, bad)
    hidden = run(lambda p: top_k(p, shares[p.index], 3, pub, scores=False))
    assert opened(hidden, [(3, 0), (1, 0), (2, 0)])[0].tolist() == [[3, 1, 2]]
    for bad in ([(3, 0), (3, 0), (2, 0)], [(3, 0), (12, 0), (2, 0)]):
        with pytest.raises(ProtocolError, match="add up"):
            opened(hidden, bad)
    with pytest.raises(ProtocolError):
        combine_top_k(good, pub, scores=False)
    with pytest.raises(MippError):
        combine_top_k(good, public(10))


# --- selection in the clear -----------------------------------------------------------------------------------------


def select(key, k, flip=lambda bits: bits):
    """Quickselect on clear keys; comparisons of each call."""
    q, calls = Quickselect(len(key), k), []
    while not q.done:
        answers = []
        for c in q.requests():
            a, b = c.positions(0, c.size)
            bits = flip(key[a] > key[b])
            answers.append(np.packbits(np.pad(bits, (0, -len(bits) % 64)), bitorder="little").view(np.uint64))
        q.feed(answers)
        calls.append(64 * sum(map(len, answers)))
    return q.order, calls


@given(st.integers(1, 900), st.data())
@settings(max_examples=60, deadline=None)
def test_selection_finds_every_rank(n, data):
    k = data.draw(st.integers(1, n))
    key = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(n)
    order, _ = select(key, k)
    assert key[order].tolist() == list(range(n - 1, n - 1 - k, -1))


def test_about_one_pass_over_all():
    for seed in range(3):
        _, calls = select(np.random.default_rng(seed).permutation(200_000), 10)
        assert sum(calls) < 1.35 * 200_000 and len(calls) <= 11


@pytest.mark.parametrize("n", [3, 100, 2000])
def test_contradictory_bits_are_an_error_not_a_loop(n):
    rng = np.random.default_rng(n)
    circle = np.array([True, False, True])  # 0 > 1 > 2 > 0
    for _ in range(5):
        with pytest.raises(ProtocolError, match="contradict"):
            select(np.arange(n), min(n, 10), lambda b: circle if n == 3 else rng.integers(0, 2, len(b)).astype(bool))
    if n > 100:
        with pytest.raises(ProtocolError, match="contradict"):
            select(np.arange(n), 10, lambda b: np.ones(len(b), bool))


def test_contradiction_within_the_protocol(monkeypatch):
    noise = np.full(1000, 0x5A3C, np.uint64)
    monkeypatch.setattr(topk, "less_than", lambda party, d, width, circuit: noise)
    with pytest.raises(ProtocolError, match="contradict"):
        run(lambda p: top_k(p, np.zeros(60, np.uint32), 3, public(60)))
