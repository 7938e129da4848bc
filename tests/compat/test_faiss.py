"""Indexes beside faiss's own: the same calls, the same results."""

import faiss as real
import numpy as np
import pytest

import mipp.compat.faiss as ours
from mipp.errors import (
    DeploymentError,
    DTypeError,
    EncodingError,
    MippError,
    NotFoundError,
    ParameterError,
    ScoreRangeError,
    ShapeError,
)
from tests.adversary.forge import uncertified

D = 12
KINDS = ["IndexFlatL2", "IndexFlatIP"]
FAR = float(np.finfo(np.float32).max)


@pytest.fixture(autouse=True)
def exact_path():
    """faiss's other path, by BLAS, takes |x - q|^2 as |x|^2 - 2 x q + |q|^2 in float32, which is not exact."""
    before = real.cvar.distance_compute_blas_threshold
    real.cvar.distance_compute_blas_threshold = 1 << 30
    yield
    real.cvar.distance_compute_blas_threshold = before


def whole(rows, seed=0, low=-20, high=21, d=D):
    return np.random.default_rng(seed).integers(low, high, (rows, d)).astype(np.float32)


def real_numbers(rows, seed=0, d=D):
    return np.random.default_rng(seed).normal(size=(rows, d)).astype(np.float32)


def pair(kind, x=None, **options):
    """An index of ours and one of faiss's with the same rows."""
    a, b = getattr(ours, kind)(D, threads=1, **options), getattr(real, kind)(D)
    if x is not None:
        a.add(x)
        b.add(x)
    return a, b


def values(kind, x, q, labels):
    """True values of labels (B, k)."""
    x, q = x.astype(np.float64), q.astype(np.float64)
    every = q @ x.T if kind == "IndexFlatIP" else ((q[:, None] - x[None]) ** 2).sum(axis=2)
    return np.take_along_axis(every, labels, axis=1)


def check_equal(kind, found, expected, x, q):
    """Distances equal, bit for bit, and labels up to ties."""
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[0].dtype == np.float32 and found[1].dtype == np.int64
    there = expected[1][0] >= 0
    assert (found[1][:, ~there] == -1).all()
    np.testing.assert_array_equal(values(kind, x, q, found[1][:, there]), expected[0][:, there])
    assert all(len(set(row)) == len(row) for row in found[1][:, there].tolist())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranking", ["user", "server"])
@pytest.mark.parametrize("ring_bits", [0, 16, 64])
def test_whole_numbers_are_exact(kind, ranking, ring_bits):
    # a ring of 16 bits has room for small ones
    x, q = (whole(60, s, -4, 5) if ring_bits == 16 else whole(60, s) for s in (0, 1))
    a, b = pair(kind, x, ring_bits=ring_bits, ranking=ranking)
    assert a.encoding.ring_bits == (ring_bits or 32)
    for k in (1, 7, 60, 63):
        check_equal(kind, a.search(q, k), b.search(q, k), x, q)


@pytest.mark.parametrize("kind", KINDS)
def test_large_whole_numbers_take_64_bits(kind):
    x, q = whole(50, 0, -30000, 30001), whole(5, 1, -30000, 30001)
    a, _ = pair(kind, x)
    assert a.encoding.ring_bits == 64
    found, labels = a.search(q, 50)
    # beyond 2^24 faiss rounds its sums; ours are exact, then rounded once
    np.testing.assert_array_equal(found, values(kind, x, q, labels).astype(np.float32))


def test_whole_numbers_far_from_zero_are_exact():
    x, q = whole(150) + 100_000, whole(5, 1) + 100_000
    a, b = pair("IndexFlatL2", x)
    check_equal("IndexFlatL2", a.search(q, 9), b.search(q, 9), x, q)


@pytest.mark.parametrize("ring_bits, ranking", [(32, "user"), (32, "server"), (64, "user")])
@pytest.mark.parametrize("trained", [False, True])
def test_real_numbers_within_the_stated_bound(ring_bits, ranking, trained):
    """The bounds of the README."""
    x, q = real_numbers(120) * 3 + 150, real_numbers(9, 1) * 3 + 150
    for kind in KINDS:
        a = getattr(ours, kind)(D, ring_bits=ring_bits, ranking=ranking, threads=1)
        if trained:
            a.train(x[:110] * 1.1)
        a.add(x)
        s, root = a.encoding.scale[0], np.sqrt(D)
        found, labels = a.search(q, 120)
        true = values(kind, x, q, labels)
        if kind == "IndexFlatL2":
            wrong = np.abs(np.sqrt(found.astype(np.float64)) - np.sqrt(true)).max()
            assert wrong <= root * s * (1 if ring_bits == 32 else 0.502) + 1e-6 * np.sqrt(true).max()
        else:
            steps = {(32, "user"): 0.76, (32, "server"): 1.01, (64, "user"): 0.51}[ring_bits, ranking]
            length = np.linalg.norm(q, axis=1, keepdims=True)
            assert (np.abs(found - true) <= steps * root * s * length + 1e-6 * np.abs(true)).all()
        assert np.abs(a.reconstruct_n() - x).max() <= s / 2 + 1e-5
        # the bound says something: no step is coarse
        assert s < np.linalg.norm(x, axis=1).max() / 5000
        a.close()


def test_fractional_queries_on_whole_rows():
    x, q = whole(40), real_numbers(5, 1) * 10
    a, _ = pair("IndexFlatL2", x)
    finer = 2 ** (a.encoding.query_bits - a.encoding.bits)
    assert finer >= 64
    found, labels = a.search(q, 40)
    wrong = np.sqrt(found.astype(np.float64)) - np.sqrt(values("IndexFlatL2", x, q, labels))
    assert np.abs(wrong).max() <= np.sqrt(D) / (2 * finer) + 1e-5
    a, b = pair("IndexFlatIP", x)
    np.testing.assert_allclose(a.search(q * 1e6, 5)[0], b.search(q * 1e6, 5)[0], rtol=1e-5)
    np.testing.assert_allclose(a.search(q * 1e-6, 5)[0], b.search(q * 1e-6, 5)[0], rtol=1e-4)
    assert (a.search(q * 0, 5)[0] == 0).all()


def test_16_bits_of_real_numbers():
    x = real_numbers(300)
    for kind in KINDS:
        a, b = pair(kind, x, ring_bits=16)
        found, true = a.search(x[::10], 10)[1], b.search(x[::10], 10)[1]
        recall = np.mean([len(np.intersect1d(f, t)) / 10 for f, t in zip(found, true, strict=True)])
        assert recall > 0.7
    with pytest.raises(ShapeError, match="too small"):
        pair("IndexFlatL2", real_numbers(5), ring_bits=16)


@pytest.mark.parametrize("kind", KINDS)
def test_what_add_gives_away(kind):
    """Of private rows, the encoding shows the power of two above the longest: another batch gives the same one."""
    encodings = set()
    for seed in range(4):
        a, _ = pair(kind, real_numbers(50, seed))
        encodings.add(a.encoding.hash)
        a.close()
    assert len(encodings) == 1


# --- conventions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_facts_and_empty_inputs(kind):
    a, b = pair(kind)
    empty = np.empty((0, D), np.float32)
    for _ in range(2):  # without rows, and after a reset
        for fact in ("d", "ntotal", "is_trained", "metric_type"):
            assert getattr(a, fact) == getattr(b, fact)
        for found, expected in zip(a.search(whole(2), 3), b.search(whole(2), 3), strict=True):
            np.testing.assert_array_equal(found, expected)
        a.add(empty)
        assert a.ntotal == 0 and a.remove_ids(np.array([0])) == 0
        assert a.reconstruct_n().shape == (0, D)
        for found, expected in zip(a.range_search(whole(2), 3), b.range_search(whole(2), 3), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype
        for index in (a, b):
            index.add(whole(5))
        assert a.search(empty, 3)[0].shape == a.search(empty, 3)[1].shape == (0, 3)
        assert a.ntotal == b.ntotal == 5
        np.testing.assert_array_equal(a.assign(whole(2), 3), b.assign(whole(2), 3))
        a.reset()
        b.reset()
    assert repr(a) == f"{kind}(d={D}, ntotal=0)"
    assert (ours.METRIC_INNER_PRODUCT, ours.METRIC_L2) == (real.METRIC_INNER_PRODUCT, real.METRIC_L2)
    assert ours.IndexFlat(D).metric_type == real.IndexFlat(D).metric_type


@pytest.mark.parametrize("kind", KINDS)
def test_other_dtypes_layouts_and_results_to_fill(kind):
    x, q = whole(20), whole(3, 1)
    a, b = pair(kind)
    for form in (x, x.astype(np.float64), x.astype(np.int64), np.asfortranarray(x), x[::-1]):
        a.add(form)
        b.add(form)
    check_equal(kind, a.search(q, 100), b.search(q, 100), np.concatenate([x] * 4 + [x[::-1]]), q)
    distances, labels = np.empty((3, 4), np.float32), np.empty((3, 4), np.int64)
    found = a.search(x=q, k=np.int64(4), D=distances, I=labels)
    assert found[0] is distances and found[1] is labels
    np.testing.assert_array_equal(distances, b.search(q, 4)[0])


@pytest.fixture(scope="module")
def five():
    """Pairs of indexes with five rows, for calls that change nothing."""
    return {kind: pair(kind, whole(5)) for kind in KINDS}


@pytest.mark.parametrize(
    "call, error, theirs",
    [
        (lambda i: i.add(whole(1)[0]), ShapeError, ValueError),
        (lambda i: i.add(whole(2, d=D + 1)), ShapeError, AssertionError),
        (lambda i: i.add(np.array([["a"] * D])), DTypeError, ValueError),
        (lambda i: i.add(np.full((1, D), np.nan, np.float32)), EncodingError, None),
        (lambda i: i.add(np.full((1, D), 1e300)), EncodingError, None),
        (lambda i: i.search(whole(1)[0], 1), ShapeError, ValueError),
        (lambda i: i.search(whole(2, d=D - 1), 1), ShapeError, AssertionError),
        (lambda i: i.search(np.full((1, D), np.inf, np.float32), 1), EncodingError, None),
        (lambda i: i.search(whole(1), 0), ParameterError, AssertionError),
        (lambda i: i.search(whole(1), -1), ParameterError, AssertionError),
        (lambda i: i.search(whole(1), 2.5), DTypeError, TypeError),
        (lambda i: i.search(whole(1), 2, D=np.empty((1, 3), np.float32)), ShapeError, AssertionError),
        (lambda i: i.search(whole(1), 2, I=np.empty((1, 2), np.int32)), DTypeError, TypeError),
        (lambda i: i.search(whole(1), 2, params=3), DTypeError, TypeError),
        (lambda i: i.remove_ids(np.zeros((1, 1), np.int64)), ShapeError, AssertionError),
        (lambda i: i.remove_ids(np.array([0.5])), DTypeError, None),
        (lambda i: i.reconstruct(99), NotFoundError, None),  # faiss 1.10 reads past its end
        (lambda i: i.reconstruct_n(3, 4), NotFoundError, RuntimeError),
        (lambda i: i.add_with_ids(whole(2), np.arange(2)), ParameterError, RuntimeError),
        (lambda i: i.train(whole(2, d=3)), ShapeError, AssertionError),
    ],
)
def test_bad_input(five, call, error, theirs):
    """Calls that faiss refuses end in a typed error and change nothing."""
    for kind, (a, b) in five.items():
        with pytest.raises(error) as caught:
            call(a)
        assert isinstance(caught.value, MippError)
        if theirs is not None:
            with pytest.raises(theirs):
                call(b)
        assert a.ntotal == 5
        check_equal(kind, a.search(whole(2, 3), 5), b.search(whole(2, 3), 5), whole(5), whole(2, 3))


@pytest.mark.parametrize(
    "options, error",
    [
        ({"d": 0}, ParameterError),
        ({"d": 2.5}, DTypeError),
        ({"metric": 7}, ParameterError),
        ({"ring_bits": 8}, ParameterError),
        ({"ranking": "none"}, ParameterError),
    ],
)
def test_bad_parameters(options, error):
    with pytest.raises(error):
        ours.IndexFlat(**{"d": D, **options})


def test_training():
    a = ours.IndexFlatL2(D, threads=1)
    assert a.encoding is None
    a.train(real_numbers(50) * 100)
    fitted = a.encoding
    a.add(real_numbers(50))
    assert a.encoding == fitted
    with pytest.raises(ParameterError, match="reset"):
        a.train(real_numbers(50))
    a.reset()
    assert a.ntotal == 0 and a.encoding == fitted
    a.train(real_numbers(50))
    assert a.encoding != fitted
    a.add(real_numbers(50))
    assert a.search(real_numbers(50)[:3], 1)[1].tolist() == [[0], [1], [2]]
    declared = ours.IndexFlatL2(D, encoding=fitted, threads=1)
    declared.add(real_numbers(5))
    assert declared.encoding == fitted
    with pytest.raises(ParameterError, match="encoding"):
        ours.IndexFlatIP(D, encoding=fitted)
    with pytest.raises(ParameterError, match="room"):
        ours.IndexFlatL2(D, encoding=fitted, ranking="server")


# --- ids, selectors, owners -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_ids_follow_faiss_through_any_order_of_calls(kind):
    """Random adds and removals, several owners: ids move up without ids of the caller's, and stay with them."""
    rng = np.random.default_rng(7)
    for explicit in (False, True):
        a, b = getattr(ours, kind)(D, threads=1), getattr(real, kind)(D)
        if explicit:
            a, b = ours.IndexIDMap(a), real.IndexIDMap2(b)
        fresh = 0
        for step in range(12):
            # rows that differ, so that no two are tied
            x = rng.integers(-90, 91, (int(rng.integers(1, 9)), D)).astype(np.float32)
            owner = f"owner{step % 3}"
            if explicit:
                ids = (np.arange(fresh, fresh + len(x)) * 17 - 40).astype(np.int64)
                ids[ids == -1] = 10**12
                fresh += len(x)
                a.add_with_ids(x, ids, owner=owner)
                b.add_with_ids(x, ids)
            else:
                a.add(x, owner=owner)
                b.add(x)
            if step % 3 == 2:
                gone = a.search(x, 3)[1][:, 1]
                assert a.remove_ids(gone) == b.remove_ids(gone)
            assert a.ntotal == b.ntotal
            q = rng.integers(-90, 91, (4, D)).astype(np.float32)
            found, expected = a.search(q, a.ntotal), b.search(q, b.ntotal)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(np.sort(found[1]), np.sort(expected[1]))
            np.testing.assert_array_equal(a.reconstruct_batch(found[1][0]), b.reconstruct_batch(found[1][0]))
            one = int(found[1][0, 0])
            np.testing.assert_array_equal(a.reconstruct(one), b.reconstruct(one))


def test_selectors_of_ours_and_of_faiss():
    x, q = whole(30), whole(4, 1)
    for kind in KINDS:
        a, b = pair(kind, x)
        for mine, theirs in (
            (ours.IDSelectorRange(3, 17), real.IDSelectorRange(3, 17)),
            (ours.IDSelectorBatch([1, 5, 5, 99]), real.IDSelectorBatch([1, 5, 5, 99])),
            (ours.IDSelectorAll(), real.IDSelectorAll()),
            (
                ours.IDSelectorNot(ours.IDSelectorRange(0, 5)),
                real.IDSelectorNot(real.IDSelectorRange(0, 5)),
            ),
        ):
            expected = b.search(q, 20, params=real.SearchParameters(sel=theirs))
            for params in (ours.SearchParameters(sel=mine), real.SearchParameters(sel=theirs)):
                check = a.search(q, 20, params=params)
                np.testing.assert_array_equal(check[0], expected[0])
                np.testing.assert_array_equal(check[1] >= 0, expected[1] >= 0)
                assert all(mine.is_member(i) for i in check[1][check[1] >= 0].tolist())
        assert a.remove_ids(real.IDSelectorRange(2, 6)) == b.remove_ids(real.IDSelectorRange(2, 6)) == 4
        assert a.remove_ids(ours.IDSelectorNot(ours.IDSelectorRange(0, 20))) == 6
        b.remove_ids(real.IDSelectorRange(20, 99))
        np.testing.assert_array_equal(a.reconstruct_n(), b.reconstruct_n())
        np.testing.assert_array_equal(a.reconstruct_n(4, 6), b.reconstruct_n(4, 6))
    a, _ = pair("IndexFlatL2", x, ranking="server")
    for call in (lambda: a.search(q, 2, params=ours.SearchParameters(sel=mine)), lambda: a.range_search(q, 9)):
        with pytest.raises(ParameterError, match="all scores"):
            call()


@pytest.mark.parametrize("kind", KINDS)
def test_range_search(kind):
    x, q = whole(40), whole(5, 1)
    a, b = pair(kind, x)
    every = np.unique(b.search(q, 40)[0])
    for thresh in (every[0], every[len(every) // 2], every[-1], every[-1] + 1, -1e9):
        for found, expected in zip(a.range_search(q, thresh), b.range_search(q, thresh), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype


@pytest.mark.parametrize("kind", KINDS)
def test_rows_out_of_range_are_missing(kind, monkeypatch):
    """Of an owner whose program does not check: id -1 behind all others, as if the rows were not there."""
    x, q = whole(20), whole(1, 1)
    a, b = pair(kind, x)
    encode, past = type(a.encoding).encode_rows, a.encoding.row_norm2 * 16
    long = np.zeros((3, a.encoding.encoded_dim), np.int64)
    long[:, :D] = np.sqrt(past / D) * np.sign(q[0])
    monkeypatch.setattr(type(a.encoding), "encode_rows", lambda self, rows: long.astype(encode(self, rows).dtype))
    with uncertified(a.home.deployment):
        a.add(np.zeros((3, D), np.float32), owner="mallory")
    assert a.ntotal == 23
    for k in (3, 20, 21, 25):
        check_equal(kind, a.search(q, k), b.search(q, k), x, q)
    found = a.search(q, 25, params=ours.SearchParameters(sel=ours.IDSelectorRange(15, 23)))
    expected = b.search(q, 25, params=real.SearchParameters(sel=real.IDSelectorRange(15, 23)))
    check_equal(kind, found, expected, x, q)
    far = np.inf if kind == "IndexFlatL2" else -np.inf
    lims, _, ids = a.range_search(q, far)
    assert lims.tolist() == [0, 20] and ids.tolist() == list(range(20))


def test_owners_have_keys_of_their_own():
    a = ours.IndexFlatL2(D, threads=1)
    a.add(whole(5), owner="anna")
    a.add(whole(5, 1), owner="berta")
    a.add(whole(5, 2), owner="anna")
    assert a.home.deployment.owners() == ["anna", "berta"]
    assert [o["live"] for o in sorted(a.home.deployment.status()["owners"], key=lambda o: o["name"])] == [10, 5]
    np.testing.assert_array_equal(a.reconstruct_n(), np.concatenate([whole(5, s) for s in range(3)]))
    with pytest.raises(ParameterError):
        a.add(whole(5), owner="../anna")
    assert a.ntotal == 15


def test_ids_of_the_callers():
    a = ours.IndexFlatL2(D, threads=1)
    a.add_with_ids(whole(4), np.array([7, -5, 7, 2**62]))
    for call, error in (
        (lambda: a.add(whole(1)), ParameterError),
        (lambda: a.add_with_ids(whole(2), np.array([1])), ShapeError),
        (lambda: a.add_with_ids(whole(1), np.array([-1])), ParameterError),
        (lambda: a.add_with_ids(whole(1), np.array([1.0])), DTypeError),
        (lambda: ours.IndexIDMap(a), ParameterError),
    ):
        with pytest.raises(error):
            call()
    np.testing.assert_array_equal(a.reconstruct(7), whole(4)[2])
    assert a.remove_ids(np.array([7])) == 2 and a.ntotal == 2
    assert sorted(a.search(whole(1), 2)[1][0].tolist()) == [-5, 2**62]
    a.reset()
    a.add(whole(3))  # a new start, either way
    assert ours.IndexIDMap(ours.IndexFlatL2(D)).ntotal == 0
    mapped = ours.IndexIDMap(ours.IndexFlatL2(D))
    mapped.reset()
    with pytest.raises(ParameterError):
        mapped.add(whole(3))


def test_closed():
    a, _ = pair("IndexFlatL2", whole(3))
    with a:
        pass
    for call in (lambda: a.search(whole(1), 1), lambda: a.add(whole(1)), a.reset):
        with pytest.raises((DeploymentError, MippError)):
            call()


def test_unit_vectors_tell_nothing():
    x = real_numbers(50)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for kind in KINDS:
        for options in ({}, {"ranking": "server"}, {"ring_bits": 64}, {"ring_bits": 16}):
            a = getattr(ours, kind)(D, unit=True, threads=1, **options)
            declared = a.encoding
            assert (declared is None) == (options.get("ring_bits") == 16)
            a.add(x)
            assert a.search(x[:9], 1)[1][:, 0].tolist() == list(range(9))
            assert declared is None or a.encoding == declared
            with pytest.raises(ScoreRangeError):
                a.add(x * 2)
