"""The estimator beside scikit-learn's own."""

import copy
import pickle

import numpy as np
import pytest

from mipp.errors import DTypeError, ParameterError

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.estimator_checks import parametrize_with_checks

from mipp.compat.sklearn import METRICS, EncryptedNeighbors

# secret keys are in no pickle: only estimators that are not fitted yet have one
NO_PICKLE = "a fitted estimator holds secret keys and refuses to pickle"
EXPECTED = {"check_estimators_pickle": NO_PICKLE}


@parametrize_with_checks([EncryptedNeighbors(threads=1)], expected_failed_checks=lambda _: EXPECTED)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def table(rows, seed=0, d=9):
    return np.random.default_rng(seed).normal(size=(rows, d)).astype(np.float32)


def beside(metric, x, q, k, **options):
    """Ours and scikit-learn's neighbours, and the bound on what distances differ by (on their roots, where squared)."""
    fitted = EncryptedNeighbors(k, metric=metric, threads=1, **options).fit(x)
    bound = 1.01 * np.sqrt(x.shape[1]) * fitted.index_.encoding.scale[0] + 1e-6
    theirs = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(x).kneighbors(q)
    return fitted.kneighbors(q), theirs, bound


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("ranking", ["user", "server"])
@pytest.mark.parametrize("x_is_none", [False, True])
def test_neighbours_are_scikit_learns(metric, ranking, x_is_none):
    x = table(70)
    q = None if x_is_none else table(9, 1)
    (distances, rows), (true, true_rows), bound = beside(metric, x, q, 6, ranking=ranking)
    assert distances.shape == true.shape and distances.dtype == np.float64 and rows.dtype == true_rows.dtype
    if metric == "sqeuclidean":
        distances, true = np.sqrt(distances), np.sqrt(true)
    # a row's own rounding is in it twice where rows are the queries, decrypted
    np.testing.assert_allclose(distances, true, rtol=0, atol=bound * (2 if x_is_none else 1))
    assert bound < 3e-3 and (rows != true_rows).mean() < 0.1
    if x_is_none:
        assert not (rows == np.arange(70)[:, None]).any()


@pytest.mark.parametrize("metric", METRICS)
def test_missing_neighbours_are_infinitely_far_and_in_no_graph(metric, monkeypatch):
    """Where fewer rows are left than were asked for, because a program stored some beyond the encoding's bounds."""
    x, q = table(20), table(4, 1)
    fitted = EncryptedNeighbors(5, metric=metric, threads=1).fit(x)
    (distances, rows), search = fitted.kneighbors(q), fitted.index_.search

    def fewer(x, k):
        values, labels = search(x, k)
        values[:, -2:], labels[:, -2:] = np.finfo(np.float32).max, -1
        return values, labels

    monkeypatch.setattr(fitted.index_, "search", fewer)
    less, found = fitted.kneighbors(q)
    assert np.array_equal(found[:, :3], rows[:, :3]) and (found[:, 3:] == -1).all()
    assert np.array_equal(less[:, :3], distances[:, :3])
    assert (less[:, 3:] == (-np.inf if metric == "inner_product" else np.inf)).all()
    for mode in ("connectivity", "distance"):
        graph = fitted.kneighbors_graph(q, mode=mode)
        assert graph.shape == (4, 20) and np.array_equal(graph.indices.reshape(4, 3), rows[:, :3])


def test_whole_numbers_are_exact():
    x = np.random.default_rng(0).integers(0, 17, (60, 64)).astype(float)
    (distances, _), (true, _), _ = beside("sqeuclidean", x, None, 7)
    np.testing.assert_array_equal(distances, true)


def test_inner_products_largest_first():
    x, q = table(50), table(4, 1)
    values, rows = EncryptedNeighbors(metric="inner_product", threads=1).fit(x).kneighbors(q)
    true = q.astype(float) @ x.T.astype(float)
    np.testing.assert_allclose(values, -np.sort(-true)[:, :5], atol=2e-3)
    np.testing.assert_allclose(np.take_along_axis(true, rows, axis=1), values, atol=2e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_each_row_leaves_itself_out_among_its_equals(metric):
    x = np.repeat(table(3), 6, axis=0)
    distances, rows = EncryptedNeighbors(4, metric=metric, threads=1).fit(x).kneighbors()
    assert not (rows == np.arange(18)[:, None]).any()
    assert all(len(set(r)) == 4 for r in rows.tolist())
    if metric != "inner_product":
        assert (rows // 6 == (np.arange(18) // 6)[:, None]).all()
        np.testing.assert_allclose(distances, 0, atol=1e-3)


def test_zero_vectors_have_cosine_distance_one():
    x = np.concatenate([table(5), np.zeros((1, 9), np.float32)])
    (distances, _), (true, _), bound = beside("cosine", x, np.concatenate([x[-1:], x[:1]]), 6)
    np.testing.assert_allclose(distances, true, rtol=0, atol=bound)


def test_graphs():
    x = table(30)
    ours = EncryptedNeighbors(4, threads=1).fit(x)
    theirs = NearestNeighbors(n_neighbors=4).fit(x)
    for mode in ("connectivity", "distance"):
        for q in (None, table(5, 1)):
            found, expected = ours.kneighbors_graph(q, mode=mode), theirs.kneighbors_graph(q, mode=mode)
            assert found.shape == expected.shape
            np.testing.assert_allclose(found.toarray(), expected.toarray(), atol=2e-3)
    assert ours.kneighbors(x, 3, return_distance=False).shape == (30, 3)
    with pytest.raises(ParameterError, match="mode"):
        ours.kneighbors_graph(mode="none")


def test_pickles_hold_no_keys():
    estimator = EncryptedNeighbors(3, metric="cosine")
    assert pickle.loads(pickle.dumps(estimator)).get_params() == estimator.get_params()
    fitted = clone(estimator).fit(table(9))
    assert clone(fitted).get_params() == estimator.get_params()
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret keys"):
            attempt(fitted)


def test_works_in_a_search_over_parameters():
    """A pipeline step like another: scikit-learn's classifier on the encrypted graph."""
    from sklearn.neighbors import KNeighborsClassifier

    x = np.concatenate([table(20), table(20, 1) + 6])
    y = np.repeat([0, 1], 20)
    neighbours = EncryptedNeighbors(threads=1).fit(x)
    classifier = KNeighborsClassifier(5, metric="precomputed").fit(neighbours.kneighbors_graph(x, 40, "distance"), y)
    assert classifier.score(neighbours.kneighbors_graph(x, 40, "distance"), y) == 1


@pytest.mark.parametrize(
    "options, error",
    [
        ({"metric": "manhattan"}, ParameterError),
        ({"n_neighbors": 0}, ParameterError),
        ({"n_neighbors": 2.0}, DTypeError),
        ({"n_neighbors": True}, DTypeError),
        ({"ranking": "none"}, ParameterError),
        ({"ring_bits": 8}, ParameterError),
    ],
)
def test_bad_parameters(options, error):
    with pytest.raises(error):
        EncryptedNeighbors(**options).fit(table(5))


def test_bad_searches():
    fitted = EncryptedNeighbors(5, threads=1).fit(table(5))
    assert fitted.kneighbors(table(2), 5)[1].shape == (2, 5)
    for call in (
        lambda: fitted.kneighbors(),
        lambda: fitted.kneighbors(table(2), 6),
        lambda: fitted.kneighbors(table(2), 0),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError, match="features"):
        fitted.kneighbors(table(2, d=8))
    with pytest.raises(ValueError, match="NaN"):
        fitted.kneighbors(np.full((1, 9), np.nan))
    with pytest.raises(DTypeError):
        fitted.kneighbors(table(2), 1.5)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_a_pipeline_classifies_as_scikit_learns_own_transformer(metric):
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer
    from sklearn.pipeline import make_pipeline

    x, labels, q = table(80), np.arange(80) % 3, table(30, 1)
    ours = make_pipeline(EncryptedNeighbors(6, metric=metric, threads=1), KNeighborsClassifier(5, metric="precomputed"))
    theirs = make_pipeline(
        KNeighborsTransformer(mode="distance", n_neighbors=6, metric=metric),
        KNeighborsClassifier(5, metric="precomputed"),
    )
    ours.fit(x, labels)
    theirs.fit(x, labels)
    assert (ours.predict(q) == theirs.predict(q)).all()
    assert (ours.predict(x) == theirs.predict(x)).all()
    graph, true = ours[0].transform(q), theirs[0].transform(q)
    assert graph.shape == true.shape and graph.nnz == true.nnz
    np.testing.assert_allclose(graph.toarray(), true.toarray(), atol=1e-4)


def test_inner_products_are_no_distances():
    with pytest.raises(ParameterError, match="distances"):
        EncryptedNeighbors(2, metric="inner_product", threads=1).fit(table(9)).transform(table(2))
