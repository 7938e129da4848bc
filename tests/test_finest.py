"""The finest encodings: exact for whole numbers, within bounds for others, telling little of their sample."""

import sys

import numpy as np
import pytest

from mipp import Encoding
from mipp.encoding import finest, rotation
from mipp.encoding.finest import check_queries, check_whole, finest_unit, query_factors
from mipp.errors import DTypeError, EncodingError, MippError, ParameterError, ScoreRangeError, ShapeError


def normal(rows, seed=0, dim=10):
    return np.random.default_rng(seed).normal(size=(rows, dim))


def whole(rows, most, seed=0, dim=10):
    return np.random.default_rng(seed).integers(-most, most + 1, (rows, dim))


def scores(encoding, x, q):
    """Exact integers, and the ring's: they must be the same."""
    a, b = encoding.encode_rows(x).astype(object), encoding.encode_queries(q).astype(object)
    exact = b @ a.T
    half = 1 << (encoding.ring_bits - 1)
    assert all(-half <= s < half for s in exact.ravel())
    return exact.astype(np.float64)


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("server_ranking", [False, True])
@pytest.mark.parametrize("ring_bits", [0, 16, 32, 64])
def test_whole_numbers_stay_exact(metric, server_ranking, ring_bits):
    most = 4 if ring_bits == 16 else 300
    x, q = whole(50, most), whole(50, most, 1)
    encoding = finest(metric, x, ring_bits=ring_bits, server_ranking=server_ranking)
    assert encoding.ring_bits == (ring_bits or 32)
    assert encoding.allows_server_ranking or not server_ranking
    found = encoding.values(scores(encoding, x, q), q)
    true = q @ x.T if metric == "ip" else ((q[:, None] - x[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(found, true)
    np.testing.assert_array_equal(encoding.decode_rows(encoding.encode_rows(x)), x)


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("server_ranking", [False, True])
@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("scale, shift", [(1, 0), (1e-120, 0), (1e30, 0), (1, 1000)])
def test_other_numbers_within_a_step(metric, server_ranking, ring_bits, scale, shift):
    x, q = normal(120) * scale + shift, normal(9, 1) * scale + shift
    encoding = finest(metric, x, ring_bits=ring_bits, server_ranking=server_ranking)
    assert encoding.ring_bits == ring_bits and len(encoding.scale) == 1
    assert encoding.allows_server_ranking or not server_ranking
    step = encoding.scale[0]
    assert np.abs(encoding.decode_rows(encoding.encode_rows(x)) - x).max() <= step * 0.5001
    longest = np.linalg.norm(x - (np.array(encoding.offset) if encoding.offset else 0), axis=1).max()
    finer = 1 if ring_bits == 32 else 1 << 3 if server_ranking else 1 << 14
    assert longest / 60000 / finer < step < longest / 5000 / finer
    if metric == "l2":
        wrong = np.sqrt(encoding.values(scores(encoding, x, q), q)) - np.linalg.norm(q[:, None] - x[None], axis=2)
        assert np.abs(wrong).max() <= np.sqrt(10) * step * 1.0001


def test_the_longest_rows_and_queries_use_the_ring():
    """No score of rows and queries at their bounds wraps, and the range is used to an eighth at least."""
    for metric in ("ip", "l2"):
        for dim in (1, 3, 200):
            for ring_bits in (32, 64):
                sample = normal(5, 2, dim)
                encoding = finest(metric, sample, ring_bits=ring_bits)
                low, high = encoding.score_range
                assert max(-low, high) < 1 << (ring_bits - 1)
                if ring_bits == 32:
                    assert max(-low, high) > 1 << 29


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_what_is_too_long_is_refused_never_clipped(metric):
    for x in (normal(40), whole(40, 100), whole(40, 30000)):
        encoding = finest(metric, x)
        far = np.zeros((1, 10))
        far[0, 3] = np.abs(x).max() * 50
        with pytest.raises(MippError):
            check_whole(encoding, far)
            encoding.encode_rows(far)
        if metric == "l2":
            with pytest.raises(ScoreRangeError):
                check_queries(encoding, far)
                encoding.encode_queries(far)


def test_it_tells_a_power_of_two_and_a_coarse_mean():
    """All that is public of a sample: two samples alike give the same encoding, far from zero too."""
    for metric in ("ip", "l2"):
        assert len({finest(metric, normal(100, seed)).hash for seed in range(5)}) == 1
        assert len({finest(metric, whole(100, 90, seed)).hash for seed in range(5)}) == 1
    shifted = [finest("l2", normal(100, seed) + 1000) for seed in range(5)]
    assert len({e.hash for e in shifted}) == 1
    assert set(shifted[0].offset) <= {992.0, 1000.0, 1008.0}
    bounds = {round(e.row_norm2**0.5 * e.scale[0], 1) for e in (finest("ip", normal(100) * s) for s in (1, 1.01, 1.02))}
    assert len(bounds) == 1


@pytest.mark.parametrize("server_ranking", [False, True])
def test_queries_of_products_take_their_range(server_ranking):
    for x in (normal(50), whole(50, 100)):
        encoding = finest("ip", x, server_ranking=server_ranking)
        q = normal(8, 1) * np.geomspace(1e-20, 1e20, 8)[:, None]
        factors = query_factors(encoding, q)
        encoded = encoding.encode_queries(q * factors[:, None]).astype(np.float64)
        used = np.linalg.norm(encoded, axis=1) / encoding.query_norm2**0.5
        assert (used <= 1).all() and (used > 0.45).all()
        found = encoding.values(scores(encoding, x, q * factors[:, None]), q) / factors[:, None]
        true = q @ x.T
        assert (np.abs(found - true) <= 1e-3 * np.abs(true).max(axis=1, keepdims=True)).all()
    whole_queries = whole(8, 90, 3)
    factors = query_factors(encoding, whole_queries)
    assert (np.log2(factors) % 1 == 0).all()
    np.testing.assert_array_equal(query_factors(encoding, np.zeros((2, 10))) > 0, True)


def test_16_bits_are_tuned_where_numbers_are_not_small():
    x = normal(400)
    for metric in ("ip", "l2"):
        encoding = finest(metric, x, ring_bits=16)
        assert encoding.ring_bits == 16 and encoding.bits < 16
        check_whole(encoding, x)
        found = encoding.values(scores(encoding, x, x[:20]), x[:20])
        true = x[:20] @ x.T if metric == "ip" else ((x[:20, None] - x[None]) ** 2).sum(axis=2)
        assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.98


def test_large_samples_are_thinned_but_not_their_longest(monkeypatch):
    # the name of the module is also the function's
    monkeypatch.setattr(sys.modules["mipp.encoding.finest"], "_MOST_TUNED", 50)
    x = normal(501)
    x[333] *= 3
    encoding = finest("l2", x, ring_bits=16)
    encoding.encode_rows(x)


@pytest.mark.parametrize(
    "arguments, options, error",
    [
        (("cosine", normal(5)), {}, ParameterError),
        (("l2", normal(5)), {"ring_bits": 8}, ParameterError),
        (("l2", normal(0)), {}, ShapeError),
        (("l2", np.empty((3, 0))), {}, ShapeError),
        (("l2", normal(5)[0]), {}, ShapeError),
        (("l2", np.full((2, 3), np.nan)), {}, EncodingError),
        (("ip", np.array([["a"]])), {}, DTypeError),
        (("ip", normal(5)), {"ring_bits": 16}, ShapeError),
        (("l2", normal(3) * 1e-306), {}, ParameterError),
    ],
)
def test_bad_input(arguments, options, error):
    with pytest.raises(error):
        finest(*arguments, **options)


def test_zeros_are_whole():
    encoding = finest("l2", np.zeros((3, 4)))
    assert encoding.encode_rows(np.zeros((1, 4))).shape == (1, 5)
    with pytest.raises(EncodingError, match="whole"):
        check_whole(encoding, np.full((1, 4), 0.5))


@pytest.mark.parametrize(
    "encoding, x",
    [
        (Encoding("l1", 5, levels=7), whole(9, 3, dim=5) + 3),
        (Encoding("hamming", 5), whole(9, 3, dim=5) % 2),
        (Encoding("l2", 5, bits=12, query_bits=12, scale=0.01, offset=(3.0,) * 5), normal(9, dim=5) + 3),
        (Encoding("cosine", 5, bits=12), normal(9, dim=5)),
        (Encoding("hellinger", 5, bits=12), np.abs(normal(9, dim=5))),
        (Encoding("ip", 5, bits=12, scale=0.01, projection=rotation(5)), normal(9, dim=5)),
    ],
)  # fmt: skip
def test_rows_decoded(encoding, x):
    """Back to what was encoded, by half a step at most; units where the metric makes units."""
    expected = np.asarray(x, np.float64)
    if encoding.metric == "cosine":
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    if encoding.metric == "hellinger":
        expected = expected / expected.sum(axis=1, keepdims=True)
    found = encoding.decode_rows(encoding.encode_rows(x))
    exact = encoding.metric in ("l1", "hamming")
    np.testing.assert_allclose(found, expected, rtol=0, atol=0 if exact else 0.012)
    with pytest.raises(ShapeError):
        encoding.decode_rows(np.zeros((2, 1), int))


def test_few_vectors_give_no_offset():
    """One vector after the other: the first must not be the middle of all."""
    first = np.full((1, 10), 9.5)
    encoding = finest("l2", first)
    assert not encoding.offset
    for x in (normal(20) * 5, -first * 1.9):
        encoding.encode_rows(x)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_unit_vectors_need_no_sample(metric):
    for dim in (1, 2, 100):
        x = normal(200, dim=dim).astype(np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        for ring_bits in (32, 64):
            for server_ranking in (False, True):
                encoding = finest_unit(metric, dim, ring_bits=ring_bits, server_ranking=server_ranking)
                assert encoding.allows_server_ranking or not server_ranking
                finer = 1 if ring_bits == 32 else 1 << 3 if server_ranking else 1 << 15
                assert 1 / 33000 / finer < encoding.scale[0] < 1 / 23000 / finer
                encoding.encode_rows(x)
                with pytest.raises(ScoreRangeError):
                    encoding.encode_rows(x * 1.001)
    for wrong in (("cosine", 3, 32), ("ip", 3, 16)):
        with pytest.raises(ParameterError):
            finest_unit(*wrong[:2], ring_bits=wrong[2])
