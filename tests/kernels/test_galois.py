"""Sharing kernels: every tier against plain integers, algebra that must hold, and every error."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mipp import cpu
from mipp._native import _core
from mipp.errors import DTypeError, ParameterError, ShapeError
from mipp.params import Params
from mipp.sharing import constants
from tests.reference import galois as oracle
from tests.reference import prf as prf_oracle

DTYPES = [np.uint16, np.uint32, np.uint64]
KEY = bytes(range(32))
THREADS = [1, 2, 3]
SYSTEMS = [
    (3, 1, "infinity"),
    (4, 1, "infinity"),
    (3, 1, "finite"),
    (4, 1, "finite"),
    (5, 2, "finite"),
    (7, 3, "finite"),
]


@pytest.fixture
def rng():
    return np.random.default_rng(22)


@pytest.fixture(params=DTYPES, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def words(rng, shape, dtype):
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def bits_of(dtype):
    return np.dtype(dtype).itemsize * 8


def combine(inputs, matrices, threads=1):
    outs = [np.full_like(inputs[0], 3) for _ in matrices]
    _core.combine(inputs, matrices, outs, threads)
    return outs


# --- the linear map ------------------------------------------------------------------------------------------------


def test_forced_tier_runs(tier):
    assert cpu.active()["galois"] == tier


def test_oracles_agree(rng, dtype):
    inputs, matrices = [words(rng, (2, 6), dtype) for _ in range(3)], words(rng, (2, 3, 3, 3), dtype)
    slow = oracle.combine([x.reshape(-1) for x in inputs], matrices, bits_of(dtype))
    assert [w.reshape(-1).tolist() for w in oracle.combine_wide(inputs, matrices)] == slow


@pytest.mark.parametrize("m", [2, 3])
def test_every_length(tier, dtype, rng, m):
    """From one element on, around the vectors of every tier and the chunks of the kernel."""
    matrices = words(rng, (2, 2, m, m), dtype)
    chunk = 3072 // np.dtype(dtype).itemsize
    around = [e for c in (chunk // m, 2 * chunk // m) for e in range(c - 3, c + 4)]
    for elements in [0, *range(1, 110), *around]:
        inputs = [words(rng, (1, elements * m), dtype) for _ in range(2)]
        for got, expected in zip(combine(inputs, matrices), oracle.combine_wide(inputs, matrices), strict=True):
            assert np.array_equal(got, expected), elements


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize(("outs", "ins"), [(1, 1), (1, 4), (3, 2), (7, 4), (8, 4), (2, 3)])
def test_every_shape_of_map(tier, dtype, rng, m, outs, ins):
    matrices = words(rng, (outs, ins, m, m), dtype)
    inputs = [words(rng, (5, 35 * m), dtype) for _ in range(ins)]
    for got, expected in zip(combine(inputs, matrices), oracle.combine_wide(inputs, matrices), strict=True):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("m", [2, 3])
def test_threads_and_streaming(tier, rng, m):
    """More than 8 MiB of results go past the caches; outputs at odd addresses, nothing written beside them."""
    matrices = words(rng, (2, 2, m, m), np.uint32)
    elements = 600_000
    for threads in THREADS:
        inputs = [words(rng, (elements * m + 8,), np.uint32)[k : elements * m + k].reshape(1, -1) for k in (1, 2)]
        wholes = [np.full(elements * m + 32, 77, np.uint32) for _ in range(2)]
        outs = [w[k : elements * m + k].reshape(1, -1) for w, k in zip(wholes, (3, 16), strict=True)]
        _core.combine(inputs, matrices, outs, threads)
        for got, expected in zip(outs, oracle.combine_wide(inputs, matrices), strict=True):
            assert np.array_equal(got, expected)
        for whole, k in zip(wholes, (3, 16), strict=True):
            assert (whole[:k] == 77).all() and (whole[elements * m + k :] == 77).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_combine_is_linear(tier, data):
    dtype, m = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from([2, 3]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    outs, ins, shape = (
        data.draw(st.integers(1, 4)),
        data.draw(st.integers(1, 4)),
        (3, m * data.draw(st.integers(1, 70))),
    )
    matrices = words(rng, (outs, ins, m, m), dtype)
    x, y = ([words(rng, shape, dtype) for _ in range(ins)] for _ in range(2))
    factor = words(rng, (), dtype)
    mixed = combine([a + factor * b for a, b in zip(x, y, strict=True)], matrices)
    for got, a, b in zip(mixed, combine(x, matrices), combine(y, matrices), strict=True):
        assert np.array_equal(got, a + factor * b)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_multiplication_by_a_unit_is_invertible(tier, data):
    n, t, form = data.draw(st.sampled_from(SYSTEMS))
    params = Params(n, t, data.draw(st.sampled_from([16, 32, 64])), sharing=form)
    ring = constants.galois_ring(params)
    element = tuple(data.draw(st.integers(0, ring.mask)) for _ in range(ring.m))
    if not ring.is_unit(element):
        element = (element[0] | 1, *element[1:])
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = words(rng, (2, ring.m * data.draw(st.integers(1, 60))), params.dtype)
    there = combine([x], np.array([[ring.matrix(element)]], params.dtype))
    back = combine(there, np.array([[ring.matrix(ring.inv(element))]], params.dtype))
    assert np.array_equal(back[0], x)


# --- shares of rows ------------------------------------------------------------------------------------------------


def share(rng, params, rows, first_row=0, threads=1):
    """(shares, what the oracle says) under fresh schedules of several segments each."""
    width = params.padded(rows.shape[1])
    infos = [rng.integers(0, 256, (3, 40), dtype=np.uint8) for _ in range(params.t)]
    segments = [int(s) for s in rng.integers(0, 3, params.t)]
    schedules = [_core.KeySchedules(KEY, i, 1) for i in infos]
    outs = [np.full((len(rows), width), 3, params.dtype) for _ in params.clouds]
    _core.share_rows(rows, schedules, segments, first_row, constants.row_matrices(params), outs, threads)
    padded = np.zeros((len(rows), width), params.dtype)
    padded[:, : rows.shape[1]] = rows
    streams = [
        prf_oracle.keystream_rows(prf_oracle.hkdf(KEY, bytes(i[s])), params.dtype, width, first_row, len(rows))
        for i, s in zip(infos, segments, strict=True)
    ]
    return outs, oracle.combine_wide([padded, *streams], constants.row_matrices(params)), padded, streams


@pytest.mark.parametrize(("n", "t", "form"), SYSTEMS)
@pytest.mark.parametrize("k", [16, 32, 64])
def test_shares(tier, rng, n, t, form, k):
    params = Params(n, t, k, sharing=form)
    for dim, rows, first_row in ((1, 5, 0), (7, 3, 2), (24, 70, 1), (100, 33, 1000), (128, 130, 7), (513, 9, 0)):
        x = words(rng, (rows, dim), params.dtype)
        got, expected, _, _ = share(rng, params, x, first_row)
        assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True)), (dim, rows)


@pytest.mark.parametrize(("n", "t", "form"), SYSTEMS[:4])
def test_shares_by_threads_past_the_caches(tier, rng, n, t, form):
    params = Params(n, t, 32, sharing=form)
    for threads in THREADS:
        got, expected, _, _ = share(rng, params, words(rng, (9000, 130), params.dtype), 5, threads)
        assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True)), threads


def test_no_rows(tier, rng):
    params = Params()
    got, _, _, _ = share(rng, params, np.empty((0, 8), params.dtype))
    assert [g.shape for g in got] == [(0, 8), (0, 8)]


@pytest.mark.parametrize(("n", "t", "form"), SYSTEMS)
def test_shares_open(tier, rng, n, t, form):
    """t+1 servers' values of the polynomials, any of them, give the rows back by interpolation at 0."""
    params = Params(n, t, 32, sharing=form)
    ring = constants.galois_ring(params)
    rows = words(rng, (20, 11), params.dtype)
    shares, _, padded, streams = share(rng, params, rows)
    values = dict(zip((*params.clouds, *params.key_centres), (*shares, *streams), strict=True))
    for chosen in itertools.combinations(range(1, n + 1), t + 1):
        weights = ring.lagrange([constants.server_point(params, i) for i in chosen], ring.point(0))
        matrices = np.array([[ring.matrix(w) for w in weights]], params.dtype)
        assert np.array_equal(combine([np.ascontiguousarray(values[i]) for i in chosen], matrices)[0], padded)


def test_one_share_tells_nothing(tier, rng):
    """A stored word is a feature word plus a unit times fresh keystream: bits are balanced whatever the rows."""
    params = Params(3, 1, 32)
    for rows in (np.zeros((4000, 16), np.uint32), np.full((4000, 16), 123456, np.uint32)):
        for out in share(rng, params, rows)[0]:
            bits = np.unpackbits(out.view(np.uint8)).reshape(-1, 32)
            assert np.abs(bits.mean(axis=0) - 0.5).max() < 6 * 0.5 / np.sqrt(len(bits))
            assert len(np.unique(out)) > 0.99 * out.size


# --- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 5, 7, 8])
def test_reconstruct(tier, dtype, rng, count):
    for n in [*range(70), 511, 512, 513]:
        answers = [words(rng, (2, n), dtype) for _ in range(count)]
        out = np.empty((2, n), np.int64)
        _core.reconstruct(answers, out, 1)
        assert out.reshape(-1).tolist() == oracle.reconstruct([a.reshape(-1) for a in answers], bits_of(dtype))


def test_reconstruct_threads(tier, dtype, rng):
    answers = [words(rng, (3, 70_001), dtype) for _ in range(3)]
    signed = np.dtype(f"i{np.dtype(dtype).itemsize}")
    expected = (answers[0] + answers[1] + answers[2]).view(signed).astype(np.int64)
    for threads in THREADS:
        out = np.empty((3, 70_001), np.int64)
        _core.reconstruct(answers, out, threads)
        assert np.array_equal(out, expected)


def split(rng, scores, dtype, count=3):
    """Additive shares of signed scores."""
    answers = [words(rng, scores.shape, dtype) for _ in range(count - 1)]
    return [*answers, scores.astype(dtype) - sum(answers[1:], answers[0])]


def check_top_k(scores, answers, k, threads):
    rows, values = _core.reconstruct_top_k_var(answers, k, threads)
    for b, row in enumerate(scores):
        expected = np.lexsort((np.arange(len(row)), -row.astype(object)))[:k] if len(row) < 300 else _best(row, k)
        assert rows[b].tolist() == list(expected)
        assert values[b].tolist() == row[list(expected)].tolist()
    assert rows.dtype == values.dtype == np.int64


def _best(row, k):
    return np.lexsort((np.arange(len(row)), ~row))[:k]  # ~x is -x-1: no overflow


def test_top_k_oracles_agree(rng):
    row = rng.integers(-5, 5, 400)
    assert oracle.top_k(row, 37) == _best(row, 37).tolist()


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 63, 64, 65, 511, 512, 513, 1500])
def test_top_k(tier, dtype, rng, n):
    """Ties everywhere, k from 1 to all."""
    bound = 2 ** (bits_of(dtype) - 1)
    for low, high in ((-3, 4), (-bound, bound)):
        scores = rng.integers(low, high, (3, n), dtype=np.int64)
        scores[0, rng.integers(0, n)] = -bound
        scores[1, rng.integers(0, n)] = bound - 1
        for k in {1, min(2, n), min(10, n), (n + 1) // 2, n}:
            check_top_k(scores, split(rng, scores, dtype), k, 1)


@pytest.mark.parametrize("shape", ["rising", "falling", "equal", "lowest", "random"])
def test_top_k_of_hard_orders(tier, shape, rng):
    n = 200_000
    scores = {
        "rising": np.arange(n),
        "falling": np.arange(n)[::-1] - n,
        "equal": np.full(n, 7),
        "lowest": np.full(n, -(2**31)),
        "random": rng.integers(-1000, 1000, n),
    }[shape].astype(np.int64)[None]
    answers = split(rng, scores, np.uint32)
    for threads in THREADS:
        for k in (1, 10, 5000):
            check_top_k(scores, answers, k, threads)
    check_top_k(np.repeat(scores, 3, axis=0), [np.repeat(a, 3, axis=0) for a in answers], 3, 2)
    check_top_k(scores, answers, n, 2)


def test_top_k_of_no_queries(tier):
    rows, scores = _core.reconstruct_top_k_var([np.zeros((0, 4), np.uint64)], 2)
    assert rows.shape == scores.shape == (0, 2)


def split_rows(rng, n, parts):
    return np.concatenate([[0], np.sort(rng.integers(0, n + 1, parts - 1)), [n]]).tolist()


@pytest.mark.parametrize(("n", "k"), [(1, 1), (40, 7), (40, 40), (3000, 1), (3000, 10), (3000, 900), (200_000, 5)])
def test_running_top_k(tier, dtype, rng, n, k):
    """Some rows at a time gives what all at once gives, for any splits, ties and k."""
    bound = 2 ** (bits_of(dtype) - 1)
    for low, high in ((-2, 3), (-bound, bound)):
        for queries in (1, 3):
            scores = rng.integers(low, high, (queries, n), dtype=np.int64)
            answers = split(rng, scores, dtype)
            expected = _core.reconstruct_top_k_var(answers, k)
            for threads, parts in ((1, 2), (2, 3), (3, min(n, 40))):
                best = np.full((queries, k), -1), np.full((queries, k), -1)
                edges = split_rows(rng, n, parts)
                for a, b in itertools.pairwise(edges):
                    some = [np.ascontiguousarray(x[:, a:b]) for x in answers]
                    found = _core.reconstruct_top_k_var(some, k, threads, a, best)
                    assert found[0] is best[0] and found[1] is best[1]
                    assert (best[0][:, min(k, b) :] == -1).all()
                assert np.array_equal(best[0], expected[0]) and np.array_equal(best[1], expected[1])


def test_running_top_k_in_long_blocks(tier, rng):
    """Rows that threads share, with more and fewer than k known before."""
    n = 300_000
    scores = np.concatenate([rng.integers(-50, 50, (1, n)), np.arange(n)[None], -np.arange(n)[None]])
    answers = split(rng, scores, np.uint32)
    for k in (3, 2000):
        expected = _core.reconstruct_top_k_var(answers, k)
        for some in (slice(0, 1), slice(0, 3)):
            rows, values = np.empty((2, some.stop, k), np.int64)
            for a, b in ((0, 1000), (1000, 201_000), (201_000, n)):
                part = [np.ascontiguousarray(x[some, a:b]) for x in answers]
                _core.reconstruct_top_k_var(part, k, 2, a, (rows, values))
            assert np.array_equal(rows, expected[0][some]) and np.array_equal(values, expected[1][some])


def ranges(bits):
    bound = 2 ** (bits - 1)
    return [(-bound + 1, bound - 2), (-3, 3), (0, 0), (-bound, -bound + 1), (bound - 1, bound - 1), (-(2**63), 1)]


@pytest.mark.parametrize("n", [1, 2, 17, 64, 511, 512, 513, 1500])
def test_top_k_drops_what_is_out_of_range(tier, dtype, rng, n):
    """Ties, k from 1 to all, none or all of it out of range; the rows at once and some at a time."""
    bound = 2 ** (bits_of(dtype) - 1)
    for low, high in ranges(bits_of(dtype)):
        scores = rng.integers(-bound, bound, (4, n), dtype=np.int64)
        scores[1] = rng.integers(-5, 6, n)
        scores[2] = np.where(rng.random(n) < 0.03, scores[1], bound - 1)  # few that count among the largest
        scores[3] = np.where(rng.random(n) < 0.9, scores[1], scores[0])
        answers = split(rng, scores, dtype)
        for k in {1, min(10, n), (n + 1) // 2, n}:
            expected = [oracle.top_k_in_range(row.tolist(), k, low, high) for row in scores]
            rows, values = _core.reconstruct_top_k_var(answers, k, 1, low=low, high=high)
            found = [list(zip(*both, strict=True)) for both in zip(rows.tolist(), values.tolist(), strict=True)]
            assert found == expected
            best = np.empty((2, 4, k), np.int64)
            for a, b in itertools.pairwise(split_rows(rng, n, 4)):
                some = [np.ascontiguousarray(x[:, a:b]) for x in answers]
                _core.reconstruct_top_k_var(some, k, 1, a, (best[0], best[1]), low, high)
            assert np.array_equal(best[0], rows) and np.array_equal(best[1], values)


def test_top_k_in_range_of_many_rows(tier, dtype, rng):
    """Rows that threads share; high scores out of range in every block hide nothing."""
    n, bound = 200_000, 2 ** (bits_of(dtype) - 1)
    scores = rng.integers(-100, 101, (2, n), dtype=np.int64)
    scores[:, ::100] = bound - 1
    scores[:, 50::100] = -bound
    scores[1, 7:] = bound - 2
    answers = split(rng, scores, dtype)
    for k in (1, 10, 3000):
        expected = [oracle.top_k_in_range(row.tolist(), k, -100, 100) for row in scores]
        for threads in THREADS:
            rows, values = _core.reconstruct_top_k_var(answers, k, threads, low=-100, high=100)
            found = [list(zip(*both, strict=True)) for both in zip(rows.tolist(), values.tolist(), strict=True)]
            assert found == expected


def test_running_top_k_errors():
    best = np.zeros((2, 4), np.int64), np.zeros((2, 4), np.int64)
    good = {"answers": [u32(2, 6)] * 3, "k": 4, "threads": 1, "first": 9, "best": best}
    both = np.zeros((2, 4), np.int64)
    fails(_core.reconstruct_top_k_var, good, [
        (ParameterError, {"best": None}),
        (ParameterError, {"k": 0}),
        (ParameterError, {"first": -1}),
        (DTypeError, {"first": 1.0}),
        (DTypeError, {"best": both}),
        (ParameterError, {"best": best[:1]}),
        (ParameterError, {"best": (both, both)}),
        (ShapeError, {"best": (best[0], np.zeros((2, 5), np.int64))}),
        (ShapeError, {"k": 5}),
        (DTypeError, {"best": (best[0], np.zeros((2, 4), np.uint64))}),
        (DTypeError, {"best": (best[0], [0] * 8)}),
        (ShapeError, {"best": (best[0], read_only(np.zeros((2, 4), np.int64)))}),
        (ShapeError, {"best": (best[0], np.zeros((4, 2), np.int64).T)}),
        (ShapeError, {"answers": [u32(3, 6)]}),
        (ParameterError, {"low": 1, "high": 0}),
        (ParameterError, {"low": -(2**63) - 1}),
        (ParameterError, {"high": 2**63}),
        (DTypeError, {"low": 0.0}),
        (DTypeError, {"high": None}),
    ])  # fmt: skip


# --- errors --------------------------------------------------------------------------------------------------------


def read_only(a):
    a.flags.writeable = False
    return a


def fails(function, good, cases):
    function(**good)
    for error, change in cases:
        with pytest.raises(error):
            function(**{**good, **change})


def u32(*shape):
    return np.zeros(shape, np.uint32)


def test_combine_errors():
    x = u32(3, 12)
    good = {"inputs": [u32(3, 12), u32(3, 12)], "matrices": u32(1, 2, 2, 2), "outs": [u32(3, 12)], "threads": 1}
    fails(_core.combine, good, [
        (DTypeError, {"inputs": u32(2, 3, 12)}),
        (DTypeError, {"inputs": [u32(3, 12), None]}),
        (DTypeError, {"inputs": [u32(3, 12), np.zeros((3, 12), np.uint64)]}),
        (DTypeError, {"inputs": [np.zeros((3, 12))] * 2}),
        (ParameterError, {"inputs": []}),
        (ParameterError, {"inputs": [x] * 5}),
        (ShapeError, {"inputs": [u32(3, 12), u32(3, 14)]}),
        (ShapeError, {"inputs": [u32(3, 24)[:, ::2]] * 2}),
        (ShapeError, {"inputs": [u32(36)] * 2}),
        (ShapeError, {"matrices": u32(1, 1, 2, 2)}),
        (ShapeError, {"matrices": u32(2, 2, 2, 2)}),
        (ShapeError, {"matrices": u32(1, 2, 4, 4)}),
        (ShapeError, {"matrices": u32(1, 2, 2, 3)}),
        (ShapeError, {"matrices": u32(2, 2, 2)}),
        (DTypeError, {"matrices": np.zeros((1, 2, 2, 2), np.uint16)}),
        (DTypeError, {"matrices": None}),
        (DTypeError, {"outs": [np.zeros((3, 12), np.uint16)]}),
        (DTypeError, {"outs": None}),
        (ParameterError, {"outs": []}),
        (ShapeError, {"outs": [u32(3, 10)]}),
        (ShapeError, {"outs": [read_only(u32(3, 12))]}),
        (ParameterError, {"inputs": [x, x], "outs": [x]}),
        (ParameterError, {"outs": [x, x], "matrices": u32(2, 2, 2, 2)}),
        (ParameterError, {"threads": 1025}),
        (DTypeError, {"threads": 1.5}),
    ])  # fmt: skip
    with pytest.raises(ShapeError):  # 14 words are no whole elements of three
        _core.combine([u32(3, 14)], u32(1, 1, 3, 3), [u32(3, 14)], 1)


def test_share_errors():
    schedules = _core.KeySchedules(KEY, np.zeros((2, 4), np.uint8), 1)
    x = u32(3, 8)
    good = {
        "rows": u32(3, 7), "schedules": [schedules], "segment": [1], "first_row": 0, "matrices": u32(2, 2, 2, 2),
        "outs": [u32(3, 8), u32(3, 8)], "threads": 1,
    }  # fmt: skip
    fails(_core.share_rows, good, [
        (DTypeError, {"rows": np.zeros((3, 7), np.int32)}),
        (DTypeError, {"rows": np.zeros((3, 7), np.uint16)}),
        (ShapeError, {"rows": u32(7)}),
        (ShapeError, {"rows": u32(4, 7)}),
        (ShapeError, {"rows": u32(3, 9)}),
        (ShapeError, {"rows": u32(3, 14)[:, ::2]}),
        (DTypeError, {"schedules": [None]}),
        (DTypeError, {"schedules": schedules}),
        (ParameterError, {"schedules": [_core.KeySchedules(KEY, np.zeros((0, 4), np.uint8))]}),
        (ParameterError, {"schedules": [schedules] * 4, "segment": [0] * 4}),
        (ShapeError, {"schedules": [schedules] * 2, "segment": [0] * 2}),
        (ShapeError, {"segment": []}),
        (ParameterError, {"segment": [2]}),
        (ParameterError, {"segment": [-1]}),
        (DTypeError, {"segment": ["0"]}),
        (DTypeError, {"segment": 0}),
        (ParameterError, {"first_row": -1}),
        (ParameterError, {"first_row": 2**31 - 2}),
        (ParameterError, {"first_row": 2**64}),
        (DTypeError, {"first_row": 0.5}),
        (ShapeError, {"matrices": u32(2, 1, 2, 2)}),
        (ShapeError, {"matrices": u32(2, 2, 3, 3)}),
        (DTypeError, {"matrices": np.zeros((2, 2, 2, 2), np.uint64)}),
        (ShapeError, {"outs": [u32(3, 8)]}),
        (ShapeError, {"outs": [u32(3, 10)] * 2}),
        (ShapeError, {"outs": [u32(3, 0)] * 2, "rows": u32(3, 0)}),
        (ParameterError, {"outs": [x, x]}),
        (ParameterError, {"rows": x, "outs": [x, u32(3, 8)]}),
        (ParameterError, {"threads": 5000}),
    ])  # fmt: skip


def test_answer_errors():
    x = np.zeros((2, 8), np.uint64)
    fails(_core.reconstruct, {"answers": [u32(2, 4)] * 3, "out": np.zeros((2, 4), np.int64), "threads": 1}, [
        (DTypeError, {"answers": u32(3, 2, 4)}),
        (ParameterError, {"answers": []}),
        (ParameterError, {"answers": [u32(2, 4)] * 9}),
        (ShapeError, {"answers": [u32(2, 4), u32(2, 5)]}),
        (DTypeError, {"answers": [np.zeros((2, 4), np.int64)]}),
        (DTypeError, {"out": np.zeros((2, 4), np.uint64)}),
        (ShapeError, {"out": np.zeros((2, 5), np.int64)}),
        (ShapeError, {"out": np.zeros((4, 2), np.int64).T}),
        (ShapeError, {"out": read_only(np.zeros((2, 4), np.int64))}),
        (ParameterError, {"answers": [x], "out": x.view(np.int64)}),
        (ParameterError, {"threads": -1}),
    ])  # fmt: skip
    bad_k = [
        (ParameterError, {"k": 0}),
        (ParameterError, {"k": 5}),
        (ParameterError, {"k": -1}),
        (DTypeError, {"k": 1.0}),
        (DTypeError, {"k": True}),
        (DTypeError, {"threads": None.__class__}),
    ]
    fails(_core.reconstruct_top_k_var, {"answers": [u32(2, 4)] * 3, "k": 4, "threads": 1}, [
        *bad_k,
        (ShapeError, {"answers": [u32(2, 0)], "k": 1}),
        (ShapeError, {"answers": [u32(4)]}),
    ])  # fmt: skip
