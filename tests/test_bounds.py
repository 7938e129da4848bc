"""The rules for rows and queries: whatever keeps them has a score in range, and whatever clients make keeps them."""

import dataclasses
import itertools

import numpy as np
import pytest

from mipp.encoding import Encoding, tune
from mipp.encoding.bounds import NORM, PROJECTIONS, query_rule, row_rule
from mipp.encoding.projection import Projection
from mipp.errors import ScoreRangeError
from tests.mpc.ranged import ENCODINGS, Ranged

TINY = {
    "ip": Encoding("ip", 2, bits=3, query_bits=3, ring_bits=16),
    "ip, short": Encoding("ip", 2, bits=3, query_bits=3, ring_bits=16, row_norm2=5, query_norm2=7),
    "cosine": Encoding("cosine", 2, bits=3, query_bits=4, ring_bits=16),
    "l2": Encoding("l2", 2, bits=3, query_bits=3, ring_bits=16),
    "l2, finer queries": Encoding("l2", 2, bits=3, query_bits=5, ring_bits=32),
    "l2, weights": Encoding("l2", 2, bits=3, query_bits=3, ring_bits=32, weights=(3, 5)),
    "l2, steps": Encoding("l2", 2, bits=3, query_bits=4, ring_bits=32, scale=0.7, query_scale=0.9),
    "l2, steps and scales": Encoding(
        "l2", 2, bits=3, query_bits=4, ring_bits=32, scale=(0.3, 1.1), query_scale=0.8, weights=(2, 3)
    ),
    "l2, wide steps": Encoding("l2", 2, bits=3, query_bits=4, ring_bits=16, scale=1.3, query_scale=3.1),
    "l1": Encoding("l1", 2, levels=3, ring_bits=16),
    "hamming": Encoding("hamming", 3, ring_bits=16),
}


@pytest.mark.parametrize("name", TINY)
def test_all_pairs_that_keep_the_rules_have_scores_in_range(name):
    """Every row and every query of a tiny encoding, and some beyond it."""
    of = Ranged(TINY[name])
    e, n = of.encoding, of.encoding.encoded_dim
    reach = range(-9, 10) if n < 4 else range(-3, 4)
    inner = list(itertools.product(reach, repeat=e.inner_dim if e.metric == "l2" else n))
    rows = of.padded(np.array(inner))
    if e.metric == "l2":  # all last words near the sum
        sums = (rows[:, : e.inner_dim] ** 2 * e.integer_weights * e.scales**2).sum(axis=1)
        sums = np.rint(sums / e.query_scale).astype(np.int64) - e.centre if e.stepped else rows[:, :2] ** 2 @ np.array(
            e.integer_weights)  # fmt: skip
        rows = np.concatenate([rows] * 5)
        rows[:, e.inner_dim] = np.concatenate([sums + d for d in (-2, -1, 0, 1, 2)])
    rows = rows[~of.rows.failing(rows)]
    wide = range(-16, 17) if n < 4 else range(-2, 3)
    queries = of.padded(np.array(list(itertools.product(wide, repeat=of.queries.count)), np.int64) * of.queries.factors)
    if of.queries.last is not None:
        queries[:, of.queries.count] = of.queries.last
    queries = queries[~of.queries.failing(queries)]
    assert len(rows) >= 4 and len(queries) >= 4
    scores = rows @ queries.T
    low, high = of.queries.low, of.queries.high
    assert (
        low <= e.score_range[0]
        and e.score_range[1] <= high
        and high - low <= 1.1 * (e.score_range[1] - e.score_range[0]) + 9
    )
    assert low <= scores.min() and scores.max() <= high
    half = 1 << of.queries.score_bits - 1  # the least width that holds them
    assert -half <= low and high < half and not (-half // 2 <= low and high < half // 2)
    # and the range is not much too wide: some pair reaches half of it
    assert scores.max() - scores.min() >= (high - low) / 3


@pytest.mark.parametrize("name", [*TINY, *ENCODINGS])
def test_what_clients_make_keeps_the_rules(name):
    of = Ranged(TINY.get(name) or ENCODINGS[name])
    rng = np.random.default_rng(4)
    features = of.features(400, rng)
    if of.encoding.metric == "ip" and name in TINY:
        features = rng.integers(-1, 2, (400, of.encoding.dim))
    try:
        rows = of.encoding.encode_rows(features)
    except ScoreRangeError:
        rows = of.encoding.encode_rows(features / 4)
    assert not of.rows.failing(of.padded(rows)).any()
    try:
        queries = of.encoding.encode_queries(features)
    except ScoreRangeError:
        queries = of.encoding.encode_queries(features / 4)
    assert not of.queries.failing(of.padded(queries)).any()
    of.prove(queries)


def test_every_encoding_that_servers_could_rank_has_rules():
    count = 0
    for metric, dim, bits, query_bits, k in itertools.product(
        ("cosine", "ip", "l2"), (1, 7, 128, 482, 3000), (2, 5, 8, 12, 16), (2, 5, 8, 16, 24), (16, 32, 64)
    ):
        try:
            e = Encoding(metric, dim, bits=bits, query_bits=query_bits, ring_bits=k)
        except Exception:
            continue
        if e.allows_server_ranking:
            _in_bounds(Ranged(e))
            count += 1
    assert count > 250


def _in_bounds(of):
    rule, k = of.rows, of.encoding.ring_bits
    assert rule.largest < 1 << (k - 2) and rule.largest_sum < 1 << (rule.sum_bits - 1) <= 1 << 63
    assert rule.limit < 1 << (rule.sum_bits - 1) and rule.group >= 1
    assert rule.alone().largest <= rule.largest and (rule.exact or rule.alone().group == 1)
    query = of.queries
    if query.weights is not None:
        top = sum(int(w) for w in query.weights) << (2 * query.bits - 2)
        assert max(top, query.limit) < 1 << (query.proof_bits - 1)


def test_sums_are_bounded_by_projections_only_where_these_cannot_wrap():
    rule = Ranged(Encoding("l2", 128)).rows
    x, t = rule.largest, rule.bound
    assert rule.group == 64 and rule.largest_sum == NORM * t * t < 128 * x * x
    assert 64 * 128 * x + t < 1 << 32
    larger = dataclasses.replace(rule, group=1024)
    assert larger.largest_sum == 128 * x * x
    words = dataclasses.replace(rule, exact=True)
    assert words.largest_sum == 128 * t * t


def test_a_projection_of_features_changes_nothing():
    rng = np.random.default_rng(2)
    matrix = np.linalg.qr(rng.normal(size=(20, 20)))[0][:, :6]
    of = Ranged(Encoding("cosine", 20, projection=Projection.of(matrix)))
    x = rng.normal(size=(300, 20))
    assert not of.rows.failing(of.padded(of.encoding.encode_rows(x))).any()
    assert not of.queries.failing(of.padded(of.encoding.encode_queries(x))).any()


def test_words_beyond_the_projections_bound_pass_one_with_at_most_a_half():
    """The lemma of the README, counted out: every word and every sum of the other words in a ring of 6 bits."""
    ring, bound = 64, 5
    inside = {v % ring for v in range(-bound, bound + 1)}
    for x, rest in itertools.product(range(ring), range(ring)):
        passing = sum((rest + s * x) % ring in inside for s in (-1, 0, 0, 1))
        if min(x, ring - x) > 2 * bound:
            assert passing <= 2
    # one less, and it is no longer true
    assert any(sum((rest + s * 2 * bound) % ring in inside for s in (-1, 0, 0, 1)) > 2 for rest in range(ring))
    # what must be zero
    for x, rest in itertools.product(range(1, ring), range(ring)):
        assert sum((rest + s * x) % ring == 0 for s in (-1, 0, 0, 1)) <= 2
        assert sum((rest + s * x) % ring == 0 for s in (0, 1)) <= 1
    assert PROJECTIONS >= 40


def test_long_groups_pass_a_projection_with_at_most_a_half():
    """The README's second lemma, counted out: words of at most 2 T whose squares add up to more than 30 T^2."""
    rng, bound = np.random.default_rng(4), 6

    def passing(words):
        odds = np.ones(1)
        for x in words:
            one = np.zeros(2 * x + 1)
            one[[0, x, 2 * x]] += 0.25, 0.5, 0.25
            odds = np.convolve(odds, one)
        middle = len(odds) // 2
        return odds[max(0, middle - bound) : middle + bound + 1].sum()

    for largest in (1, 2, bound - 1, bound, bound + 1, 2 * bound):
        for draw in range(20):
            words = []
            while sum(x * x for x in words) <= NORM * bound**2:
                words.append(largest if draw == 0 else int(rng.integers(1, largest + 1)))
            assert passing(words) <= 0.5
    # a constant of 1 would not do
    assert passing([1] * (bound**2 + 1)) > 0.5


def test_rules_need_integers_that_fit():
    of = ENCODINGS["l2, steps"]
    assert row_rule(of, 12).extra.unit > 1 and query_rule(of, 12).last == -1
    tuned = tune("l2", np.random.default_rng(0).gamma(1.0, 9.0, (120, 12)), ring_bits=32, server_ranking=True).encoding
    assert tuned.stepped and row_rule(tuned, 16).limit and query_rule(tuned, 16).proof_bits == 64
    with pytest.raises(ScoreRangeError, match="only users can rank"):
        row_rule(Encoding("ip", 1 << 20, bits=16, query_bits=2, ring_bits=64), 1 << 20)
