"""Predicted rounds and bytes against what the parties count."""

import tracemalloc

import numpy as np
import pytest

from mipp import Encoding
from mipp.encoding.bounds import query_rule
from mipp.mpc import comparison as comparison_module
from mipp.mpc import cost as cost_module
from mipp.mpc.comparison import CIRCUITS, combine_matches, less_than, threshold
from mipp.mpc.cost import (
    all_comparisons,
    comparison_cost,
    expected_calls,
    largest_call,
    threshold_cost,
    threshold_memory,
    top_k_cost,
    top_k_memory,
)
from mipp.mpc.replicated import reshare_words
from mipp.mpc.topk import KeyRoom, combine_top_k, top_k
from tests.mpc.parties import in_session, public, recorded, run, share
from tests.mpc.test_topk import select

RNG = np.random.default_rng(10)


def counted(task):
    counters = {}

    def keep(party):
        counters[party.index] = party.counters
        return task(party)

    run(keep)
    return counters


def exactly(cost, counters):
    for i, c in counters.items():
        assert (cost.rounds, cost.payload[i], cost.frames[i]) == (c.rounds, c.payload_bytes, c.frames), i
        assert cost.bytes[i] == c.payload_bytes + c.framing_bytes


@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("queries, rows, ring_bits", [(1, 1, 16), (3, 700, 32), (1, 70_000, 64), (2, 6144, 32)])
def test_threshold_cost_is_exact(queries, rows, ring_bits, circuit):
    pub = public(rows, ring_bits=ring_bits)
    shares = share(RNG.integers(-100, 101, (queries, rows)), np.dtype(f"u{ring_bits // 8}"), RNG)
    counters = counted(lambda p: threshold(p, shares[p.index], pub, 7, circuit=circuit))
    exactly(threshold_cost(pub, queries, (7, 7), circuit), counters)


@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("width", [2, 3, 16, 43])
def test_comparison_cost_is_exact(width, circuit):
    shares = share(np.zeros(7000, np.int64), np.uint64, RNG)
    plain = counted(in_session(lambda p: reshare_words(p, shares[p.index])))
    whole = counted(in_session(lambda p: less_than(p, reshare_words(p, shares[p.index]), width, circuit)))
    cost = comparison_cost(7000, width, circuit, first_step=2)
    for i in (1, 2, 3):
        assert cost.rounds == whole[i].rounds - plain[i].rounds
        assert cost.payload[i] == whole[i].payload_bytes - plain[i].payload_bytes
        assert cost.frames[i] == whole[i].frames - plain[i].frames


@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("queries, rows, k", [(1, 1, 1), (2, 100, 10), (1, 129, 1), (3, 900, 20), (1, 30_000, 10)])
def test_top_k_cost_is_within_its_bound(queries, rows, k, circuit):
    pub = public(rows)
    cost = top_k_cost(pub, queries, k, circuit)
    for _ in range(3):
        shares = share(RNG.integers(-100, 101, (queries, rows)), np.uint32, RNG)
        counters = counted(lambda p, s=shares: top_k(p, s[p.index], k, pub, circuit=circuit))
        for i, c in counters.items():
            assert c.rounds <= cost.bound.rounds and c.payload_bytes + c.framing_bytes <= cost.bound.bytes[i]
            if rows <= 128:
                assert c.rounds == cost.typical.rounds == cost.bound.rounds
        total = sum(c.payload_bytes for c in counters.values())
        assert 0.5 * total <= sum(cost.typical.payload.values()) <= 2 * total


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_cost_of_more_comparisons_than_one_call_takes(circuit, monkeypatch):
    """Calls one after the other: what each sends, exactly, and the rounds of all."""
    for module in (comparison_module, cost_module):
        monkeypatch.setattr(module, "MOST_AT_ONCE", 1024)
    pub = public(1500)
    shares = share(RNG.integers(-100, 101, (2, 1500)), np.uint32, RNG)
    counters = counted(lambda p: threshold(p, shares[p.index], pub, 7, circuit=circuit))
    assert len(comparison_module.pieces(3000)) == 3
    exactly(threshold_cost(pub, 2, (7, 7), circuit), counters)


@pytest.mark.parametrize(
    "rows, ranking, k",
    [(3_000_000, "top-k", 10), (3_000_000, "threshold", 0), (60_000, "top-k", 60_000)],
)
def test_memory_is_what_is_said(rows, ranking, k, monkeypatch):
    """The most that three servers in one process hold, with calls that are small beside the rows.

    Also where the first ranks are so many that a call has very many comparisons.
    """
    for module in (comparison_module, cost_module):
        monkeypatch.setattr(module, "MOST_AT_ONCE", 1 << 18)
    pub = public(rows)
    scores = RNG.integers(-100, 101, rows)
    shares = share(scores, np.uint32, RNG)

    def task(party):
        if ranking == "threshold":
            return threshold(party, shares[party.index], pub, 7)
        room = KeyRoom(1, pub)
        room.words[0] = shares[party.index]
        return top_k(party, room, k, pub)

    tracemalloc.start()
    try:
        parts = run(task)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if ranking == "threshold":
        assert np.array_equal(combine_matches(parts)[0], scores >= 7)
        assert peak < 3 * threshold_memory(pub, 1)
    else:
        assert combine_top_k(parts, pub)[0].tolist() == [np.lexsort((np.arange(rows), -scores))[:k].tolist()]
        assert rows * 3 * 16 < peak < 3 * top_k_memory(pub, 1, k)


def test_memory_of_many_queries_is_what_is_said():
    pub, shares = public(1), share(np.zeros((3000, 1), np.int64), np.uint32, RNG)
    tracemalloc.start()
    try:
        run(lambda p: top_k(p, shares[p.index], 1, pub))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * (top_k_memory(pub, 3000, 1) - (32 << 20))


@pytest.mark.parametrize("k", [1, 3, 1000, 1025, 99_999])
def test_calls_for_admission_are_those_of_the_next_power_of_two(k):
    """So that a user who asks for each k in turn has servers compute few of them."""
    rows, more = 100_000, min(100_000, 1 << (k - 1).bit_length())
    assert largest_call(rows, k) == max([rows, *expected_calls(rows, more)]) >= max(expected_calls(rows, k)) / 2
    assert all_comparisons(rows, k) == sum(expected_calls(rows, more))
    before = cost_module._calls_kept.cache_info().misses
    for some in range(max(1, k - 400), k):
        largest_call(rows, some)
    assert cost_module._calls_kept.cache_info().misses <= before + 10


@pytest.mark.parametrize("rows, k, runs", [(129, 1, 300), (1000, 10, 300), (1000, 1000, 100), (20_000, 10, 50)])
def test_the_bound_of_the_selection(rows, k, runs):
    """The selection alone, on clear permutations: calls and comparisons stay within what the bound assumes."""
    from mipp.mpc.cost import bound_calls, bound_comparisons

    expected = expected_calls(rows, k)
    made = [select(RNG.permutation(rows), k)[1] for _ in range(runs)]
    assert max(map(len, made)) <= bound_calls(expected)
    assert max(map(sum, made)) <= bound_comparisons(expected, rows)
    assert 0.5 <= np.mean([sum(m) for m in made]) / sum(expected) <= 1.5


@pytest.mark.parametrize("queries, rows, k", [(1, 400, 3), (2, 900, 20), (1, 30_000, 10)])
def test_rounds_of_a_run_are_those_of_its_calls(queries, rows, k):
    """Hello, shuffle, confirm and done, and the comparison's rounds for each call; the shuffle's bytes exactly."""
    pub, frames = public(rows), []
    scores = RNG.integers(-100, 101, (queries, rows))
    shares = share(scores, np.uint32, RNG)
    counters = []

    def task(party):
        counters.append(party.counters)
        return top_k(party, shares[party.index], k, pub)

    got, _ = combine_top_k(recorded(task, frames), pub)
    assert got.tolist() == [np.lexsort((np.arange(rows), -s))[:k].tolist() for s in scores]
    calls = len({h.step for h, _ in frames if h.kind == "split"})
    each = comparison_cost(1000, pub.key_bits).rounds
    assert {c.rounds for c in counters} == {6 + calls * each}
    assert calls <= len(expected_calls(rows, k)) + 5
    size = 8 * -(-rows * pub.key_bits // 64)
    assert sum(c.payload["shuffle"] for c in counters) == 5 * size * queries


@pytest.mark.parametrize("high, key_bits", [(17_598, 37), (128 * 127 * 127, 43)])
def test_the_first_ten_of_a_million(high, key_bits):
    """Few rounds, also with a call more than expected, and few bytes at every server: cosine, and words of 8 bits."""
    pub, encoding = public(1_000_000, -high, high), Encoding("cosine", 128)
    assert pub.key_bits == key_bits and encoding.score_range == (-17_598, 17_598)
    rule = query_rule(encoding, 128)
    cost = top_k_cost(pub, 1, 10, rule=rule)
    rounds = comparison_cost(1_000_000, pub.key_bits).rounds
    assert cost.typical.rounds == 30 and cost.typical.rounds + rounds <= 36
    # the server with two of the shuffle's five words sends a third of a word a row more than the mean
    assert max(cost.typical.bytes.values()) + 1e6 * pub.key_bits / 24 < 24e6


def test_cost_grows_linearly():
    one, four = (top_k_cost(public(n, -2_000_000, 2_000_000), 1, 10).typical for n in (1_000_000, 4_000_000))
    assert 3.8 < sum(four.payload.values()) / sum(one.payload.values()) < 4.4
    assert four.rounds <= one.rounds + 20
