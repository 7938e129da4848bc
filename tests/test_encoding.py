"""Encoding: exact distances, enforced bounds, refusals."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp import Encoding
from mipp.encoding import Projection, fit, pca, rotation, tune
from mipp.errors import DTypeError, EncodingError, MippError, ParameterError, ScoreRangeError, ShapeError


def scores(encoding, rows, queries):
    a, b = encoding.encode_rows(rows), encoding.encode_queries(queries)
    return b.astype(object) @ a.astype(object).T


def in_ring(encoding, rows, queries):
    """The same in the ring: what the servers compute."""
    k = encoding.ring_bits
    a, b = (
        m.astype(f"i{k // 8}").view(f"u{k // 8}")
        for m in (encoding.encode_rows(rows), encoding.encode_queries(queries))
    )
    with np.errstate(over="ignore"):
        return (b @ a.T).view(f"i{k // 8}")


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_l1_is_exact(dim, levels, seed):
    rng = np.random.default_rng(seed)
    x, q = rng.integers(0, levels, (20, dim)), rng.integers(0, levels, (3, dim))
    e = Encoding("l1", dim, levels=levels)
    distance = np.abs(q[:, None] - x[None]).sum(-1)
    assert (e.values(scores(e, x, q), q) == distance).all()
    assert (np.argsort(-in_ring(e, x, q), kind="stable") == np.argsort(distance, kind="stable")).all()


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_hamming_is_exact(dim, seed):
    rng = np.random.default_rng(seed)
    x, q = rng.integers(0, 2, (20, dim)), rng.integers(0, 2, (3, dim))
    e = Encoding("hamming", dim, ring_bits=16)
    assert (e.values(scores(e, x, q), q) == (x[None] != q[:, None]).sum(-1)).all()


@pytest.mark.parametrize(("bits", "query_bits"), [(8, 8), (6, 10), (4, 4), (12, 16)])
def test_l2_is_the_distance_of_the_quantised(bits, query_bits):
    rng = np.random.default_rng(1)
    x, q = rng.uniform(-1, 1, (50, 7)), rng.uniform(-1, 1, (4, 7))
    scale = 1 / (2 ** (bits - 1) - 1)
    e = Encoding("l2", 7, bits=bits, query_bits=query_bits, scale=(scale,), ring_bits=64)
    c = 2 ** (query_bits - bits)
    a = np.clip(np.rint(x / scale), -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
    b = np.clip(np.rint(q / scale * c), -(2 ** (query_bits - 1)) + 1, 2 ** (query_bits - 1) - 1)
    distance = ((b[:, None] / c - a[None]) ** 2).sum(-1)
    assert np.allclose(e.values(scores(e, x, q), q), distance * scale**2)
    assert np.abs(e.values(scores(e, x, q), q) - ((q[:, None] - x[None]) ** 2).sum(-1)).max() < 8 * scale * 7


@given(
    st.sampled_from(["ip", "cosine", "l2"]),
    st.integers(1, 24),
    st.sampled_from([16, 32, 64]),
    st.integers(2, 12),
    st.integers(0, 8),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_nothing_that_is_accepted_wraps(metric, dim, ring, bits, more, seed):
    """Either the encoding, a row or a query is refused, or the ring's score is the integer score."""
    rng = np.random.default_rng(seed)
    x, q = rng.normal(size=(30, dim)) * 10 ** rng.uniform(-3, 3), rng.normal(size=(5, dim)) * 10 ** rng.uniform(-3, 3)
    x[0], q[0] = np.sign(x[0]) * 1e6, np.sign(x[0]) * 1e6  # as long and as parallel as clipping allows
    try:
        e = Encoding(metric, dim, bits=bits, query_bits=bits + more, ring_bits=ring)
    except ScoreRangeError:
        return
    exact = scores(e, x, q)
    assert (in_ring(e, x, q).astype(object) == exact).all()
    low, high = e.score_range
    assert low <= exact.min() <= exact.max() <= high


def test_bounds_are_enforced():
    e = Encoding("ip", 4, ring_bits=16, row_norm2=100, query_norm2=400)
    e.encode_rows(np.array([[5, 5, 5, 5]]))
    with pytest.raises(ScoreRangeError):
        e.encode_rows(np.array([[6, 5, 5, 5]]))
    with pytest.raises(ScoreRangeError):
        e.encode_queries(np.array([[20, 1, 0, 0]]))
    with pytest.raises(ScoreRangeError):
        Encoding("ip", 4, ring_bits=16)
    with pytest.raises(ScoreRangeError):
        Encoding("l1", 1 << 14, levels=5, ring_bits=16)
    wide = Encoding("ip", 4, ring_bits=32, bits=16, query_bits=15, row_norm2=2**31, query_norm2=2**30)
    assert not wide.allows_server_ranking
    assert e.allows_server_ranking


def test_rounding_is_half_to_even_and_clips():
    e = Encoding("ip", 6, bits=4, query_bits=4)
    assert e.encode_rows(np.array([[0.5, 1.5, 2.5, -0.5, 100, -100]])).tolist() == [[0, 2, 2, 0, 7, -7]]


def test_scale_per_dimension():
    e = Encoding("ip", 3, scale=(0.1, 1, 10), bits=8, query_bits=16, query_scale=0.001)
    x, q = np.array([[1.0, 10, 100]]), np.array([[0.3, 0.02, 0.001]])
    assert abs(float(e.values(scores(e, x, q), q)[0, 0]) - 0.6) < 0.02


def test_fit_uses_the_sample_only_for_public_constants():
    sample = np.random.default_rng(0).normal(size=(100, 9))
    e = Encoding.fit("l2", sample, center=True, query_bits=10)
    assert len(e.offset) == 9
    small = Encoding.fit("ip", sample, ring_bits=16, bits=6, query_bits=6)
    assert max(-small.score_range[0], small.score_range[1]) < 2**15
    with pytest.raises(EncodingError):
        Encoding.fit("ip", np.zeros((3, 3)))
    with pytest.raises(ShapeError):
        Encoding.fit("ip", np.zeros((0, 3)))


def test_fit_is_a_method_and_a_function():
    sample = np.random.default_rng(0).normal(size=(10, 3))
    e = fit("l2", sample, center=True, quantile=0.9)
    assert type(e) is Encoding and e == Encoding.fit("l2", sample, center=True, quantile=0.9)


def test_serialisation_and_hash():
    e = Encoding.fit("l2", np.random.default_rng(0).normal(size=(10, 3)), center=True)
    again = Encoding.from_dict(json.loads(json.dumps(e.to_dict())))
    assert again == e and again.hash == e.hash
    assert Encoding("l2", 3).hash != e.hash
    for bad in ({}, {"format": 2}, {**e.to_dict(), "more": 1}, 3):
        with pytest.raises(ParameterError):
            Encoding.from_dict(bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"metric": "cos"},
        {"dim": 0},
        {"dim": 1.5},
        {"dim": True},
        {"bits": 1},
        {"bits": 17},
        {"query_bits": 25},
        {"ring_bits": 31},
        {"scale": (0.0,)},
        {"scale": (-1.0,)},
        {"scale": (float("nan"),)},
        {"scale": (1.0, 2.0)},
        {"metric": "l1"},
        {"metric": "l1", "levels": 4, "scale": (1.0,)},
        {"levels": 3},
        {"offset": (1.0,) * 4},
        {"metric": "l2", "offset": (1.0,)},
        {"metric": "l2", "bits": 9, "query_bits": 8},
        {"metric": "hamming", "row_norm2": 5},
        {"metric": "l2", "query_scale": -1.0},
        {"metric": "l1", "levels": 3, "query_scale": 1.0},
    ],
)
def test_bad_encodings(bad):
    with pytest.raises(MippError):
        Encoding(**{"metric": "ip", "dim": 4, **bad})


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (np.zeros((2, 5)), ShapeError),
        (np.zeros(4), ShapeError),
        (np.zeros((2, 2, 4)), ShapeError),
        (np.full((2, 4), np.nan), EncodingError),
        (np.full((2, 4), np.inf), EncodingError),
        (np.zeros((2, 4), complex), DTypeError),
        (np.array([["a"] * 4]), DTypeError),
        (np.zeros((2, 4), object), DTypeError),
    ],
)
def test_bad_rows(rows, error):
    e = Encoding("ip", 4)
    with pytest.raises(error):
        e.encode_rows(rows)
    with pytest.raises(error):
        e.encode_queries(rows if rows.ndim != 1 else rows[:3])


def test_values_out_of_range():
    for value in (-1, 4, 1.5):
        with pytest.raises(EncodingError):
            Encoding("l1", 2, levels=4).encode_rows(np.array([[0, value]]))
    with pytest.raises(EncodingError):
        Encoding("hamming", 2).encode_rows(np.array([[0, 2]]))
    with pytest.raises(EncodingError, match="direction"):
        Encoding("cosine", 2).encode_rows(np.zeros((1, 2)))


def test_cosine_survives_extreme_lengths():
    e = Encoding("cosine", 3, ring_bits=64, bits=12, query_bits=12)
    x = np.array([[1e-300, 1e-300, 0], [1e300, 1e300, 0], [1, 1, 0]])
    a = e.encode_rows(x)
    assert (a == a[0]).all()


@given(
    st.integers(1, 24),
    st.sampled_from([16, 32, 64]),
    st.integers(2, 14),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_no_accepted_stepped_l2_wraps(dim, ring, bits, several, weighted, seed):
    """Scores in steps of t: what is accepted is the integer score, within half steps of the distance."""
    rng = np.random.default_rng(seed)
    x, q = rng.normal(size=(30, dim)), rng.normal(size=(5, dim))
    x[0], q[0] = np.sign(x[0]) * 1e3, -np.sign(x[0]) * 1e3
    scale = tuple(rng.uniform(0.01, 0.2, dim if several else 1))
    weights = tuple(int(w) for w in rng.integers(1, 9, dim)) if weighted else ()
    t = 10.0 ** rng.uniform(-4, 1)
    bounds = {} if rng.random() < 0.3 else {"row_norm2": int(rng.integers(1, 9000)), "query_norm2": 5000}
    try:
        e = Encoding(
            "l2", dim, bits=bits, query_bits=24, ring_bits=ring, scale=scale, query_scale=t, weights=weights, **bounds
        )
    except ScoreRangeError:
        return
    rows, queries = [], []
    for kept, source, encode in ((rows, x, e.encode_rows), (queries, q, e.encode_queries)):
        for row in source:
            try:
                encode(row[None])
            except ScoreRangeError:
                continue
            kept.append(row)
    if not rows or not queries:
        return
    rows, queries = np.array(rows), np.array(queries)
    got = in_ring(e, rows, queries).astype(np.int64)
    low, high = e.score_range
    assert (got >= low).all() and (got <= high).all()
    assert (np.abs(e.encode_queries(queries).astype(object)).sum(axis=1) <= e.query_norm1).all()
    s = np.array(scale) * np.ones(dim)
    w = np.array(weights or [1] * dim)
    v = np.clip(np.rint(rows / s), -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) * s
    b = np.clip(np.rint(queries * 2 * w * s / t), -(2**23) + 1, 2**23 - 1) * t / (2 * w * s)
    want = (w * (b[:, None] - v[None]) ** 2).sum(-1)
    assert np.abs(e.values(got, queries) - want).max() <= t * 0.5 + 1e-6 * want.max()


def test_weighted_l2_is_exact():
    rng = np.random.default_rng(2)
    x, q = rng.integers(0, 64, (40, 6)), rng.integers(0, 64, (5, 6))
    w = (4, 2, 2, 1, 1, 7)
    e = Encoding("l2", 6, bits=8, offset=(32,) * 6, weights=w)
    want = (np.array(w) * (q[:, None] - x[None]) ** 2).sum(-1)
    assert np.array_equal(e.values(in_ring(e, x, q), q), want)
    assert e.encoded_dim == 7
    assert (np.abs(e.encode_queries(q).astype(int)).sum(axis=1) <= e.query_norm1).all()


def test_hellinger():
    rng = np.random.default_rng(4)
    x, q = rng.dirichlet(np.ones(20), 50), rng.dirichlet(np.ones(20), 4)
    e = Encoding("hellinger", 20, bits=12, query_bits=14)
    assert np.abs(e.values(in_ring(e, 7 * x, 3 * q), q) - np.sqrt(q) @ np.sqrt(x).T).max() < 2e-3
    with pytest.raises(EncodingError, match="negative"):
        e.encode_rows(-x)
    with pytest.raises(EncodingError, match="zero"):
        e.encode_rows(0 * x)


def test_fields_that_say_nothing_do_not_change_the_hash():
    """What was made before these fields existed keeps its hash."""
    data = Encoding("l2", 3).to_dict()
    assert "weights" not in data and "projection" not in data
    assert Encoding.from_dict(data).hash == Encoding("l2", 3).hash


def test_projection():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 10)) * np.array([9, 5, 3, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1]) @ rotation(10, 3).matrix.T
    p = pca(x, 4)
    assert np.allclose(p.matrix.T @ p.matrix, np.eye(4), atol=1e-6)
    kept = ((x - x.mean(0)) @ p.matrix).var(axis=0)
    assert (np.diff(kept) < 0).all() and kept.sum() > 0.98 * x.var(axis=0).sum()
    for metric, offset in (("l2", tuple(x.mean(0))), ("ip", ()), ("cosine", ())):
        e = Encoding(metric, 10, bits=12, query_bits=20, scale=0.02 if metric != "cosine" else (), ring_bits=64,
                     query_scale=1e-4 if metric == "ip" else 0.0, projection=p, offset=offset)  # fmt: skip
        again = Encoding.from_dict(json.loads(json.dumps(e.to_dict())))
        assert again == e and again.hash == e.hash and e.hash != Encoding(metric, 10).hash
        assert e.encoded_dim == 4 + (metric == "l2") and repr(p.data)[2:8] not in repr(e)
        y = x - np.array(offset or 0.0)
        y = (y / np.linalg.norm(y, axis=1)[:, None] if metric == "cosine" else y) @ p.matrix
        want = ((y[:3, None] - y[None]) ** 2).sum(-1) if metric == "l2" else y[:3] @ y.T
        assert np.abs(e.values(in_ring(e, x, x[:3]), x[:3]) - want).max() < 0.02 * np.abs(want).max()
    full = pca(x, 10)
    e = Encoding("cosine", 10, bits=8, query_bits=8, projection=full)  # unit vectors stay within the bound
    e.encode_rows(x), e.encode_queries(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Projection.of(np.ones((3, 2))),
        lambda: Projection.of(np.eye(3)[:2]),
        lambda: Projection.of(np.full((2, 2), np.nan)),
        lambda: Projection.of(np.ones(3)),
        lambda: Projection(3, 3, b"123"),
        lambda: Projection.from_dict({"dim": 1}),
        lambda: Projection.from_dict({"dim": 1, "out_dim": 1, "data": "*"}),
        lambda: Encoding("ip", 4, projection=rotation(3)),
        lambda: Encoding("l1", 3, levels=3, projection=rotation(3)),
        lambda: Encoding("l2", 3, weights=(1, 2)),
        lambda: Encoding("ip", 3, weights=(1, 2, 3)),
        lambda: Encoding("l2", 3, weights=(1, 2, 0)),
        lambda: pca(np.ones((5, 3)), 4),
        lambda: tune("l1", np.ones((50, 3))),
        lambda: tune("l2", np.ones((5, 3))),
        lambda: tune("l2", np.zeros((50, 3))),
        lambda: tune("hellinger", -np.ones((50, 3))),
        lambda: tune("l2", np.ones((50, 3)), margin=0.5),
    ],
)
def test_bad_projections_weights_and_samples(make):
    with pytest.raises(MippError):
        make()


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "hellinger"])
@pytest.mark.parametrize(("ring", "least"), [(16, 0.85), (32, 0.985)])
@pytest.mark.parametrize("options", [{}, {"rotate": True}, {"server_ranking": True}])
def test_tuned_encodings_keep_the_neighbours(metric, ring, least, options):
    """Fitted on one half, measured on the other, against exact neighbours in float."""
    rng = np.random.default_rng(6)
    centres = rng.gamma(0.7, 20.0, (40, 24))
    data = np.abs(centres[rng.integers(0, 40, 1500)] + rng.normal(size=(1500, 24)) * 6)
    sample, x, q = data[:700], data[700:1400], data[1400:]
    tuned = tune(metric, sample, ring_bits=ring, **options)
    e = tuned.encoding
    assert e.ring_bits == ring and (e.allows_server_ranking or "server_ranking" not in options)
    assert tuned.recall == max(recall for recall, _ in tuned.trials) >= least
    good = np.array([_accepted(e.encode_rows, row) for row in x])
    asked = np.array([_accepted(e.encode_queries, row) for row in q])
    assert good.mean() > 0.98 and asked.mean() > 0.97
    x, q = x[good], q[asked]
    y, p = (np.sqrt(v) if metric == "hellinger" else v for v in (x, q))
    if metric in ("cosine", "hellinger"):
        y, p = (v / np.linalg.norm(v, axis=1)[:, None] for v in (y, p))
    near = 2 * p @ y.T - (y**2).sum(1) if metric == "l2" else p @ y.T
    true, found = (np.argsort(-s, axis=1, kind="stable")[:, :10] for s in (near, in_ring(e, x, q).astype(int)))
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(true, found, strict=True)]) / 10 >= least - 0.03


def _accepted(encode, row):
    try:
        encode(row[None])
    except ScoreRangeError:
        return False
    return True


@pytest.mark.parametrize(
    "options",
    [
        {"metric": "l2", "query_bits": 16}, {"metric": "l2", "bits": 4, "query_bits": 20},
        {"metric": "l2", "ring_bits": 64, "bits": 12, "query_bits": 20},
        {"metric": "l2", "ring_bits": 64, "bits": 16, "query_bits": 24},
        {"metric": "l2", "ring_bits": 64, "bits": 15, "query_bits": 20, "query_scale": 12.04},
        {"metric": "l2", "bits": 6, "query_bits": 12, "query_scale": 0.5}, {"metric": "cosine"}, {"metric": "ip"},
    ],
)  # fmt: skip
def test_a_threshold_at_a_scores_own_value_is_reached(options):
    """Also where floats do not tell one score from the next."""
    rng = np.random.default_rng(5)
    encoding = Encoding(dim=24, **options)
    rows, queries = encoding.encode_rows(rng.normal(size=(30, 24))), rng.normal(size=(20, 24))
    scores = encoding.encode_queries(queries).astype(np.int64) @ rows.astype(np.int64).T
    values = encoding.values(scores, queries)
    worst = 0
    for q, of_query in enumerate(values):
        for score, value in zip(scores[q].tolist(), of_query.tolist(), strict=True):
            theta = encoding.score_threshold(value, queries[q])
            assert theta <= score
            worst = max(worst, score - theta)
    assert worst <= 1 + abs(scores).max() * 2.0**-44


def test_default_bounds_can_be_written_down():
    encoding = Encoding("l2", 63, bits=16, query_bits=24, ring_bits=64, scale=(1e-3,), query_scale=1e-2)
    assert encoding.query_norm2 <= 1 << 62 and Encoding.from_dict(encoding.to_dict()) == encoding
