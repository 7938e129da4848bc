"""Encoding: exact distances, enforced bounds, refusals."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp import Encoding
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
        {"metric": "l2", "query_scale": 1.0},
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
