"""Metrics against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp.errors import DTypeError, EncodingError, MippError, ParameterError, ShapeError
from mipp.evaluation import metrics


def slow(scores, labels, own):
    """All figures of a summary, query by query."""
    maps, p10, p20, errors, ranks, four = [], [], [], [], [], []
    largest = max(sum(a == b for b in labels) for a in labels) - 1
    for row, q in zip(scores, own, strict=True):
        order = sorted((i for i in range(len(row)) if i != q), key=lambda i: (-row[i], i))
        good = [labels[i] == labels[q] for i in order]
        precisions = [sum(good[: r + 1]) / (r + 1) for r in range(len(good)) if good[r]]
        if precisions:
            maps.append(sum(precisions) / len(precisions))
            g = len(precisions)
            k = min(4 * g, 2 * largest)
            mean = sum(r + 1 if r + 1 <= k else 1.25 * k for r in range(len(good)) if good[r]) / g
            ranks.append((mean - 0.5 - g / 2) / (1.25 * k - 0.5 * (1 + g)))
        four.append(1 + sum(good[:3]))
        for k, out in ((10, p10), (20, p20)):
            out.append(sum(good[:k]) / max(1, min(k, len(good))))
        errors.append(0.0 if good and good[0] else 1.0)
    values = {"map": maps, "p10": p10, "p20": p20, "nn_error": errors, "anmrr": ranks, "ns": four}
    return {name: sum(v) / len(v) if v else 0.0 for name, v in values.items()}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32), st.booleans())
def test_summary_equals_slow(n, classes, seed, real):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-4, 4, (n, n))
    if real:
        scores = scores / 3
    labels = rng.integers(0, classes, n)
    own = rng.permutation(n)
    got = metrics.summary(scores, labels, own)
    assert got == pytest.approx(slow(scores.tolist(), labels.tolist(), own.tolist()))


def test_more_queries_than_a_chunk():
    rng = np.random.default_rng(0)
    scores, labels, own = rng.normal(size=(600, 30)), rng.integers(0, 3, 30), rng.integers(0, 30, 600)
    assert metrics.summary(scores, labels, own) == pytest.approx(slow(scores, labels, own))


def test_ranking():
    scores = np.array([[1, 3, 3, 2]])
    assert metrics.ranking_from_scores(scores).tolist() == [[1, 2, 3, 0]]
    assert metrics.ranking_from_scores(scores, [2]).tolist() == [[1, 3, 0]]
    extreme = np.array([[0, np.iinfo(np.int64).min, np.iinfo(np.int64).max, -1]])
    assert metrics.ranking_from_scores(extreme).tolist() == [[2, 0, 3, 1]]
    assert metrics.ranking_from_scores(scores.astype(np.uint8)).tolist() == [[1, 2, 3, 0]]
    assert metrics.ranking_from_scores([[-np.inf, np.inf, 0.0]]).tolist() == [[1, 2, 0]]


def test_ranking_errors():
    with pytest.raises(DTypeError):
        metrics.ranking_from_scores([["a"]])
    with pytest.raises(ShapeError):
        metrics.ranking_from_scores([1.0])
    with pytest.raises(EncodingError):
        metrics.ranking_from_scores([[np.nan]])
    for bad in ([0, 1], [0.0], 0):
        with pytest.raises(ShapeError):
            metrics.ranking_from_scores([[1.0, 2.0]], bad)
    for bad in ([-1], [2]):
        with pytest.raises(ParameterError):
            metrics.ranking_from_scores([[1.0, 2.0]], bad)


RELEVANT = np.array([[True, False, True, False, False], [False, False, False, False, True], [False] * 5])


def test_single_metrics():
    assert metrics.precision_at_k(RELEVANT, 2).tolist() == [0.5, 0, 0]
    assert metrics.precision_at_k(RELEVANT, 100).tolist() == [0.4, 0.2, 0]
    assert metrics.precision_at_k(RELEVANT[:, :0], 3).tolist() == [0, 0, 0]
    assert np.allclose(metrics.average_precision(RELEVANT), [(1 + 2 / 3) / 2, 0.2, np.nan], equal_nan=True)
    assert np.allclose(metrics.recall_at_k(RELEVANT, 2), [0.5, 0, np.nan], equal_nan=True)
    assert metrics.nearest_neighbour_error(RELEVANT).tolist() == [0, 1, 1]
    assert metrics.nearest_neighbour_error(RELEVANT[:, :0]).tolist() == [1, 1, 1]


def test_neighbour_recall():
    assert metrics.neighbour_recall([[1, 2, 3], [4, 5, 6]], [[3, 2], [7, 8]], 2).tolist() == [0.5, 0]
    with pytest.raises(ParameterError):
        metrics.neighbour_recall([[1]], [[1]], 0)
    for ranking, truth in (([[1]], [[1, 2]]), ([[1, 2]], [[1]]), ([[1, 2]], [[1, 2], [1, 2]])):
        with pytest.raises(ShapeError):
            metrics.neighbour_recall(ranking, truth, 2)


def test_rank_figures():
    relevant = np.array([[True, True, True, False], [False, False, False, True], [False] * 4])
    assert metrics.ns_score(relevant).tolist() == [4, 1, 1]
    # G = 1: K = min(4, 6) = 4, the rank 4 counts as it is: (4 - 1) / (5 - 1)
    got = metrics.nmrr(relevant, 3)
    assert got[:2].tolist() == [0.0, 0.75] and np.isnan(got[2])
    assert metrics.rank_hits(relevant, 6).tolist() == [[1] * 6, [0, 0, 0, 1, 1, 1], [0] * 6]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32), st.integers(2, 12))
def test_precision_at_recall(n, seed, points):
    row = np.random.default_rng(seed).random(n) < 0.3
    got = metrics.precision_at_recall(row[None], points)[0]
    if not row.any():
        assert np.isnan(got).all()
        return
    pairs = [(row[: r + 1].sum() * (points - 1), row[: r + 1].mean()) for r in range(n)]
    want = [max(p for hits, p in pairs if hits >= i * row.sum()) for i in range(points)]
    assert got.tolist() == pytest.approx(want)


def test_curves():
    scores = np.array([[9, 5, 1, 0], [5, 9, 1, 0], [0, 1, 9, 5], [0, 5, 1, 9]])
    got = metrics.curves(scores, np.array([0, 0, 1, 1]), np.arange(4))
    # the last query finds its only relevant row at rank 2
    assert got["p_at_k"][:2] == [0.75, 0.5] and got["hits"][:2] == [0.75, 1.0] and len(got["hits"]) == 50
    assert got["precision"] == pytest.approx([(1 + 1 + 1 + 0.5) / 4] * 101)


def test_argument_errors():
    for k in (0, -1, True):
        with pytest.raises(ParameterError):
            metrics.precision_at_k(RELEVANT, k)
    with pytest.raises(DTypeError):
        metrics.average_precision(RELEVANT.astype(int))
    with pytest.raises(ShapeError):
        metrics.average_precision(RELEVANT[0])
    with pytest.raises(DTypeError):
        metrics.relevance([[0.0]], [1], [1])
    for ranking, rows, queries in (([0], [1], [1]), ([[0]], [[1]], [1]), ([[0]], [1], [1, 2])):
        with pytest.raises(ShapeError):
            metrics.relevance(ranking, rows, queries)
    for bad in (-1, 1):
        with pytest.raises(ParameterError):
            metrics.relevance([[bad]], [1], [1])
    with pytest.raises(ShapeError):
        metrics.summary([[1.0, 2.0]], [1], [0])
    with pytest.raises(ShapeError):
        metrics.summary([[1.0]], [1], [0, 1])
    with pytest.raises(ParameterError):
        metrics.summary(np.zeros((0, 2)), [1, 2], np.zeros(0, int))
    with pytest.raises(ParameterError):
        metrics.summary([[1.0, 2.0]], [1, 2], [-1])


@pytest.mark.parametrize("bad", [[[1], [2, 3]], None, "a", 1j, np.zeros((2, 3), "M8[s]"), np.zeros((2, 3), complex)])
def test_what_is_no_array_of_numbers_is_refused(bad):
    for call in (
        lambda: metrics.ranking_from_scores(bad), lambda: metrics.relevance(bad, [1, 2], [1, 2]),
        lambda: metrics.summary(bad, [1, 2, 3], [0, 1]), lambda: metrics.precision_at_k(bad, 1),
        lambda: metrics.precision_at_k(np.ones((2, 3), bool), bad), lambda: metrics.neighbour_recall(bad, bad, 1),
        lambda: metrics.summary(np.zeros((2, 3)), [1, 1, 2], bad),
    ):  # fmt: skip
        with pytest.raises(MippError):
            call()
