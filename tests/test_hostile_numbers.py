"""Numbers at the ends of float64, and what is no number: a typed error or a right answer, never a warning."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mipp import Encoding
from mipp.encoding import Projection, finest, fit, pca, rotation, tune
from mipp.encoding.finest import query_factors
from mipp.errors import DTypeError, EncodingError, MippError, ParameterError

pytestmark = pytest.mark.filterwarnings("error")

BASE = np.random.default_rng(0).normal(size=(40, 6))
SIZES = [1e200, -1e200, 1.7e308, 1e-200, 5e-324, 1e154, 1e-160, 1e100, 1e39, 2.0**62, np.nan, np.inf, -np.inf]
ENCODINGS = [
    Encoding("ip", 6), Encoding("cosine", 6), Encoding("hellinger", 6), Encoding("l2", 6), Encoding("l1", 6, levels=5),
    Encoding("hamming", 6), Encoding("l2", 6, ring_bits=64, bits=16, query_bits=24), Encoding("ip", 6, scale=(1e-140,)),
    Encoding("l2", 6, bits=6, query_bits=6, ring_bits=16, query_scale=5.0, scale=(0.5,) * 6, row_norm2=3000,
             query_norm2=3000),
    Encoding("ip", 6, scale=(1e140,)), Encoding("ip", 6, projection=rotation(6)),
]  # fmt: skip


def _arrays(value: float):
    yield np.full((40, 6), value)
    one = BASE.copy()
    one[3, 2] = value
    yield one
    yield np.abs(one)
    if abs(value) < 1e300:
        yield BASE * value


NO_NUMBERS = [
    BASE.astype(complex), BASE.astype(object), np.full((40, 6), 10**400, object), BASE.astype(str), [[1, 2], [3]], None,
    np.zeros((40, 6), "M8[s]"), np.zeros((40, 6), "m8[s]"), np.zeros((40, 6), "V8"), np.zeros((40, 6), [("a", "f4")]),
    np.full((40, 6), np.longdouble("1e4000")), np.zeros((40, 0)), BASE[0, 0], np.zeros((2, 3, 6)),
]  # fmt: skip
PARAMETERS = [
    None, "1", "ab", 1e300, 1e-300, 5e-324, np.nan, np.inf, -1.0, 10**400, 10**5000, 1j, b"1", [None], [[1.0]],
    {"a": 1}, True, np.complex128(1), [1e200] * 6,
]  # fmt: skip
METRICS = ("ip", "cosine", "hellinger", "l2", "l1", "hamming")
FITS = [
    *(lambda x, m=m, k=k: fit(m, x, ring_bits=k, center=m == "l2") for m in METRICS for k in (16, 32, 64)),
    *(lambda x, m=m, k=k: tune(m, x, ring_bits=k, rotate=k == 16) for m in METRICS[:4] for k in (16, 32)),
    *(lambda x, m=m, k=k: finest(m, x, ring_bits=k) for m in ("ip", "l2") for k in (0, 16, 64)),
    lambda x: pca(x, 3), lambda x: pca(x, 3, center=False), Projection.of,
]  # fmt: skip


@pytest.mark.parametrize("value", SIZES)
def test_fits_of_any_size_give_typed_errors_or_finite_encodings(value):
    for x in _arrays(value):
        for make in FITS:
            try:
                made = make(x)
            except MippError:
                continue
            made = getattr(made, "encoding", made)
            if isinstance(made, Encoding):
                assert all(math.isfinite(v) for v in (*made.scale, *made.offset, made.query_scale))
                assert Encoding.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize("value", SIZES)
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.metric)
def test_rows_and_queries_of_any_size(value, encoding):
    low, high = encoding.score_range
    for x in _arrays(value):
        for call in (
            encoding.encode_rows,
            encoding.encode_queries,
            encoding.decode_rows,
            lambda x: encoding.values(np.zeros((40, 2), int), x),
            lambda x: encoding.score_threshold(0.5, x[0]),
        ):
            try:
                out = call(x)
            except MippError:
                continue
            assert np.isfinite(np.asarray(out, float)).all()
        try:
            theta = encoding.score_threshold(value, np.full(6, 0.25) if encoding.metric not in ("l1", "hamming") else
                                             np.ones(6))  # fmt: skip
        except MippError:
            continue
        assert low <= theta <= high


@pytest.mark.parametrize("x", NO_NUMBERS, ids=range(len(NO_NUMBERS)))
def test_what_is_no_matrix_of_numbers_is_refused(x):
    calls = [*FITS, lambda x: query_factors(finest("ip", BASE), x)]
    for encoding in ENCODINGS:
        calls += [encoding.encode_rows, encoding.encode_queries, encoding.decode_rows]
    for call in calls:
        with pytest.raises(MippError):
            call(x)


@pytest.mark.parametrize("value", [1e200, 1.7e308, -1e150])
def test_samples_whose_squares_overflow_are_refused(value):
    x = BASE.copy()
    x[0, 0] = value
    for make in (lambda: fit("l2", x), lambda: fit("ip", x), lambda: tune("l2", x), lambda: finest("ip", x),
                 lambda: pca(x, 2)):  # fmt: skip
        with pytest.raises(EncodingError, match="too large"):
            make()


def test_directions_need_no_size():
    for factor in (1e200, 1e-200, 1e300, 1e-300):
        assert np.array_equal(Encoding("cosine", 6).encode_rows(BASE * factor), Encoding("cosine", 6).encode_rows(BASE))
        assert fit("cosine", BASE * factor).scale == pytest.approx(fit("cosine", BASE).scale)


def test_wide_floats_are_taken_if_they_fit():
    e = Encoding("ip", 6, scale=0.1)
    assert np.array_equal(e.encode_rows(BASE.astype(np.longdouble)), e.encode_rows(BASE))


@pytest.mark.parametrize(
    "name", ["scale", "offset", "query_scale", "weights", "dim", "bits", "levels", "row_norm2", "metric"]
)
@pytest.mark.parametrize("value", PARAMETERS, ids=range(len(PARAMETERS)))
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "l1"])
def test_parameters_of_any_kind(name, value, metric):
    data = {"metric": metric, "dim": 6} | ({"levels": 4} if metric == "l1" else {}) | {name: value}
    for make in (lambda: Encoding(**data), lambda: Encoding.from_dict({"format": 1, **data})):
        try:
            made = make()
        except MippError:
            continue
        assert made.score_range and made.query_norm1 and made.allows_server_ranking in (True, False)


@pytest.mark.parametrize("scale", [2.0**-480, 1e-100, 1e100, 2.0**480])
@pytest.mark.parametrize("query_scale", [2.0**-960, 1e-200, 1.0, 1e200, 2.0**960])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("ring_bits", [16, 64])
def test_scales_of_any_size(scale, query_scale, metric, ring_bits):
    try:
        made = Encoding(metric, 6, scale=scale, query_scale=query_scale, ring_bits=ring_bits)
    except MippError:
        return
    assert made.query_norm1 >= 0 and made.allows_server_ranking in (True, False)
    assert np.isfinite(made.values(np.array([[made.score_range[1]]]), BASE[:1])).all()


def test_incomplete_dictionaries_are_refused():
    for data in ({}, {"format": 1}, {"format": 1, "metric": "ip"}, None, [], {"format": 1, "metric": ["ip"], "dim": 3}):
        with pytest.raises(ParameterError):
            Encoding.from_dict(data)


@pytest.mark.parametrize("value", [None, "1", 0, -1, 1.5, True, 10**9])
def test_dimensions_of_projections(value):
    with pytest.raises(ParameterError):
        rotation(value)
    with pytest.raises(ParameterError):
        pca(BASE, value)


@pytest.mark.parametrize("scores", [["a"], None, [[1j]], [object()]])
def test_scores_must_be_numbers(scores):
    for encoding in ENCODINGS:
        with pytest.raises(DTypeError):
            encoding.values(scores, np.ones((1, 6)))
