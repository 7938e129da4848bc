"""Searches by radius beside scikit-learn's own."""

import numpy as np
import pytest

from mipp.errors import DTypeError, ParameterError

pytest.importorskip("sklearn")

from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors

import mipp
from mipp.compat.sklearn import METRICS, EncryptedNeighbors
from tests.compat.test_sklearn import table

#: CI runs them: the test command has ten minutes
pytestmark = pytest.mark.slow
RANKINGS = ("user", "server")
RADII = {"euclidean": 3.5, "sqeuclidean": 12.0, "cosine": 0.7}


def pair(x, metric, ranking="user", **options):
    ours = EncryptedNeighbors(metric=metric, ranking=ranking, threads=1, **options).fit(x)
    return ours, NearestNeighbors(metric=metric, algorithm="brute").fit(x)


@pytest.mark.parametrize("metric", RADII)
@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("x_is_none", [False, True])
def test_rows_and_distances_are_scikit_learns(metric, ranking, x_is_none):
    x, radius = table(12 if x_is_none else 25), RADII[metric]
    q = None if x_is_none else table(3, 1)
    ours, theirs = pair(x, metric, ranking)
    for sort in (False, True):
        (distances, rows), (true, true_rows) = (
            e.radius_neighbors(q, radius, sort_results=sort) for e in (ours, theirs)
        )
        assert rows.shape == true_rows.shape == distances.shape and rows.dtype == distances.dtype == true_rows.dtype
        for found, expected, near, far in zip(rows, true_rows, distances, true, strict=True):
            assert found.dtype == expected.dtype and near.dtype == np.float64 and len(found) == len(near)
            # no row of these is so close to the radius that rounding decides
            assert sorted(found) == sorted(expected) and (sort or (np.diff(found) > 0).all())
            np.testing.assert_allclose(near[np.argsort(found)], far[np.argsort(expected)], atol=2e-3)
            assert not sort or (np.diff(near) >= 0).all()
    assert sum(map(len, rows)) > len(rows)
    alone = ours.radius_neighbors(q, radius, return_distance=False)
    assert alone.dtype == object and all(sorted(a) == sorted(b) for a, b in zip(alone, rows, strict=True))


@pytest.mark.parametrize("ranking", RANKINGS)
def test_rows_at_the_radius_are_within(ranking):
    x = np.array([[0, 0], [3, 4], [3, 4], [6, 8], [5, 1]], np.float32)
    ours, theirs = pair(x, "euclidean", ranking)
    for radius in (0, 4.999, 5, 1e6, np.inf):
        for q in (None, np.array([[0, 0], [100, 0]])) if radius in (0, 5) else (None,):
            found, expected = ours.radius_neighbors(q, radius), theirs.radius_neighbors(q, radius)
            for mine, true in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
                np.testing.assert_allclose(mine, true, rtol=1e-6)


@pytest.mark.parametrize("ranking", RANKINGS)
def test_products_at_least_as_large(ranking):
    x, q = table(20), np.concatenate([table(3, 1), np.zeros((1, 9), np.float32)])
    fitted = EncryptedNeighbors(metric="inner_product", ranking=ranking, threads=1).fit(x)
    true = q.astype(float) @ x.T.astype(float)
    for radius in (1.5, -0.5, 1e6, -np.inf):
        values, rows = fitted.radius_neighbors(q, radius, sort_results=True)
        for n in range(len(q)):
            assert sorted(rows[n]) == np.flatnonzero(true[n] >= radius).tolist()
            np.testing.assert_allclose(values[n], true[n][rows[n]], atol=2e-3)
            assert (np.diff(values[n]) <= 0).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_graphs(metric):
    x, radius = table(25), RADII[metric]
    ours, theirs = pair(x, metric)
    for mode in ("connectivity", "distance"):
        for q in (None, table(4, 1)):
            graphs = [e.radius_neighbors_graph(q, radius, mode=mode) for e in (ours, theirs)]
            assert graphs[0].format == graphs[1].format == "csr" and type(graphs[0]) is type(graphs[1])
            assert graphs[0].shape == graphs[1].shape and graphs[0].nnz == graphs[1].nnz
            np.testing.assert_allclose(graphs[0].toarray(), graphs[1].toarray(), atol=2e-3)
    graph = ours.radius_neighbors_graph(None, radius, "distance", sort_results=True)
    assert all((np.diff(graph.data[a:b]) >= 0).all() for a, b in zip(graph.indptr, graph.indptr[1:], strict=False))
    assert ours.radius_neighbors_graph(x[:2] + 9, 0.0).nnz == 0


def test_dbscan_on_the_graph_clusters_alike():
    from sklearn.cluster import DBSCAN

    x = np.concatenate([table(15) / 4, table(15, 1) / 4 + 5])
    graph = EncryptedNeighbors(threads=1).fit(x).radius_neighbors_graph(x, 1.5, "distance")
    ours = DBSCAN(eps=1.5, metric="precomputed").fit_predict(graph)
    assert (ours == DBSCAN(eps=1.5).fit_predict(x)).all() and set(ours) >= {0, 1}


def test_servers_learn_how_many_were_found_only_where_distances_are_asked_for(monkeypatch):
    """Each is a search whose k servers see."""
    x = table(25)
    fitted = EncryptedNeighbors(ranking="server", threads=1).fit(x)
    asked, nearest = [], mipp.User.nearest
    monkeypatch.setattr(mipp.User, "nearest", lambda s, q, k, **o: asked.append(k) or nearest(s, q, k, **o))
    rows = fitted.radius_neighbors(table(3, 1), 3.5, return_distance=False)
    assert not asked
    fitted.radius_neighbors(table(3, 1), 3.5)
    assert asked == [max(1, len(found)) for found in rows]


@pytest.mark.parametrize("metric", METRICS)
def test_default_radius(metric):
    x = table(9)
    fitted = EncryptedNeighbors(metric=metric, radius=RADII.get(metric, 2.0), threads=1).fit(x)
    default, given = (fitted.radius_neighbors(x, r, return_distance=False) for r in (None, fitted.radius))
    assert [a.tolist() for a in default] == [a.tolist() for a in given]
    assert EncryptedNeighbors().radius == NearestNeighbors().radius == 1.0


@pytest.mark.parametrize("radius, error", [(-1.0, ParameterError), (np.nan, ParameterError), ("1", DTypeError),
                                           ([1.0], DTypeError), (True, DTypeError)])  # fmt: skip
def test_bad_radius(radius, error):
    with pytest.raises(error, match="radius"):
        EncryptedNeighbors(radius=radius).fit(table(5))
    with pytest.raises(error, match="radius"):
        EncryptedNeighbors(threads=1).fit(table(5)).radius_neighbors(table(2), radius)


def test_bad_searches():
    with pytest.raises(NotFittedError):
        EncryptedNeighbors().radius_neighbors(table(2))
    with pytest.raises(NotFittedError):
        EncryptedNeighbors().radius_neighbors_graph(table(2), mode="none")
    fitted = EncryptedNeighbors(radius=None, threads=1).fit(table(5))
    for call in (fitted.radius_neighbors_graph, fitted.kneighbors_graph):
        with pytest.raises(ParameterError, match="mode"):
            call(table(2), mode="none")
    with pytest.raises(ValueError, match="sort_results"):
        fitted.radius_neighbors(table(2), 1.0, return_distance=False, sort_results=True)
    with pytest.raises(TypeError, match="NoneType"):
        fitted.radius_neighbors(table(2))
    with pytest.raises(ValueError, match="features"):
        fitted.radius_neighbors(table(2, d=8), 1.0)
    with pytest.raises(ValueError, match="NaN"):
        fitted.radius_neighbors(np.full((1, 9), np.nan), 1.0)


def test_an_index_of_an_earlier_version_says_so(monkeypatch):
    from mipp.compat.faiss.home import Settings

    with monkeypatch.context() as patch:
        patch.setattr(Settings, "rankings", property(lambda self: [self.ranking]))
        fitted = EncryptedNeighbors(ranking="server", threads=1).fit(table(5))
    with pytest.raises(ParameterError, match="without range searches"):
        fitted.radius_neighbors(table(2), 1.0)
