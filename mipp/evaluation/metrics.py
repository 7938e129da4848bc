"""Retrieval accuracy: measures of each query's ranking, and means over the queries of a leave-one-out evaluation.

:mod:`mipp.evaluation.rankings` defines the measures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..encoding.numbers import array
from ..errors import ParameterError, ShapeError
from .rankings import (
    FloatArray,
    average_precision,
    nearest_neighbour_error,
    neighbour_recall,
    nmrr,
    ns_score,
    precision_at_k,
    precision_at_recall,
    rank_hits,
    ranking_from_scores,
    recall_at_k,
    relevance,
)

__all__ = [
    "average_precision",
    "curves",
    "evaluate_ranking",
    "mean",
    "nearest_neighbour_error",
    "nearest_rows",
    "neighbour_recall",
    "nmrr",
    "ns_score",
    "per_query",
    "precision_at_k",
    "precision_at_recall",
    "rank_hits",
    "ranking_from_scores",
    "recall_at_k",
    "relevance",
    "summary",
]

_CHUNK = 256


def evaluate_ranking(
    ranking: npt.ArrayLike, row_labels: npt.ArrayLike, query_labels: npt.ArrayLike
) -> dict[str, FloatArray]:
    """Compute the accuracy of each query.

    Parameters
    ----------
    ranking : array_like of int
        (B, M) row numbers, nearest first.
    row_labels, query_labels : array_like
        (N,) and (B,) labels.

    Returns
    -------
    dict of str to ndarray
        ``ap``, ``p10``, ``p20``, ``nn_error``, float64 (B,) each.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        As :func:`relevance`.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> found = metrics.evaluate_ranking([[1, 0]], ["cat", "dog"], ["dog"])
    >>> {key: float(value[0]) for key, value in found.items()}
    {'ap': 1.0, 'p10': 0.5, 'p20': 0.5, 'nn_error': 0.0}
    """
    relevant = relevance(ranking, row_labels, query_labels)
    return {
        "ap": average_precision(relevant),
        "p10": precision_at_k(relevant, 10),
        "p20": precision_at_k(relevant, 20),
        "nn_error": nearest_neighbour_error(relevant),
    }


def summary(scores: npt.ArrayLike, labels: npt.ArrayLike, exclude: npt.ArrayLike) -> dict[str, float]:
    """Compute the accuracy of a leave-one-out evaluation, mean over queries.

    Parameters
    ----------
    scores : array_like
        (B, N), larger is nearer.
    labels : array_like
        (N,) labels of the rows; a query has the label of its own row.
    exclude : array_like of int
        (B,) the row that is the query itself.

    Returns
    -------
    dict of str to float
        ``map``, ``p10``, ``p20``, ``nn_error``, ``anmrr``, ``ns``. Queries without any relevant row do not count in
        ``map`` and ``anmrr``.

    Raises
    ------
    DTypeError, ShapeError, ParameterError, EncodingError
        As :func:`ranking_from_scores`; no queries.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> scores = -np.abs(np.subtract.outer([0, 1, 9, 10], [0, 1, 9, 10]))
    >>> labels = ["low", "low", "high", "high"]
    >>> metrics.summary(scores, labels, range(4))["map"]
    1.0
    """
    return {name: mean(values) for name, values in per_query(scores, labels, exclude).items()}


def per_query(scores: npt.ArrayLike, labels: npt.ArrayLike, exclude: npt.ArrayLike) -> dict[str, FloatArray]:
    """Compute the accuracy of each query of a leave-one-out evaluation.

    Parameters
    ----------
    scores : array_like
        (B, N), larger is nearer.
    labels : array_like
        (N,) labels of the rows; a query has the label of its own row.
    exclude : array_like of int
        (B,) the row that is the query itself.

    Returns
    -------
    dict of str to ndarray
        float64 (B,) each, by the names of :func:`summary`; ``map`` is the average precision of each query. NaN in
        ``map`` and ``anmrr`` for queries without any relevant row.

    Raises
    ------
    DTypeError, ShapeError, ParameterError, EncodingError
        As :func:`ranking_from_scores`; no queries.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> scores = -np.abs(np.subtract.outer([0, 1, 9, 10], [0, 1, 9, 10]))
    >>> metrics.per_query(scores, ["low", "low", "high", "high"], range(4))["map"].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    array, names, own = _leave_one_out(scores, labels, exclude)
    _, counts = np.unique(names, return_counts=True)
    parts: list[dict[str, FloatArray]] = []
    for start in range(0, len(array), _CHUNK):
        end = start + _CHUNK
        ranking = ranking_from_scores(array[start:end], own[start:end])
        part = evaluate_ranking(ranking, names, names[own[start:end]])
        relevant = relevance(ranking, names, names[own[start:end]])
        parts.append(part | {"anmrr": nmrr(relevant, int(counts.max()) - 1), "ns": ns_score(relevant)})
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    joined["map"] = joined.pop("ap")
    return {key: joined[key] for key in ("map", "p10", "p20", "nn_error", "anmrr", "ns")}


def curves(scores: npt.ArrayLike, labels: npt.ArrayLike, exclude: npt.ArrayLike) -> dict[str, list[float]]:
    """Compute mean curves of a leave-one-out evaluation.

    Parameters
    ----------
    scores : array_like
        (B, N), larger is nearer.
    labels : array_like
        (N,) labels of the rows; a query has the label of its own row.
    exclude : array_like of int
        (B,) the row that is the query itself.

    Returns
    -------
    dict of str to list of float
        ``precision``: at recalls 0, .01, .. 1 (interpolated); ``hits``: share of queries with a relevant row among the
        first 1, 2, .. 50; ``p_at_k``: precision among the first 1, 2, .. 100.

    Raises
    ------
    DTypeError, ShapeError, ParameterError, EncodingError
        As :func:`ranking_from_scores`; no queries.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> scores = -np.abs(np.subtract.outer([0, 1, 9, 10], [0, 1, 9, 10]))
    >>> labels = ["low", "low", "high", "high"]
    >>> metrics.curves(scores, labels, range(4))["hits"][:2]
    [1.0, 1.0]
    """
    array, names, own = _leave_one_out(scores, labels, exclude)
    parts = []
    for start in range(0, len(array), _CHUNK):
        end = start + _CHUNK
        ranking = ranking_from_scores(array[start:end], own[start:end])
        relevant = relevance(ranking, names, names[own[start:end]])
        first = relevant[:, :100]
        along = np.cumsum(first, axis=1) / np.arange(1, first.shape[1] + 1)
        parts.append((precision_at_recall(relevant), rank_hits(relevant), along))
    joined = [np.concatenate(kind) for kind in zip(*parts, strict=True)]
    good = ~np.isnan(joined[0][:, 0])
    precision = joined[0][good].mean(axis=0) if good.any() else np.zeros(joined[0].shape[1])
    return {
        "precision": precision.tolist(),
        "hits": joined[1].mean(axis=0).tolist(),
        "p_at_k": joined[2].mean(0).tolist(),
    }


def _leave_one_out(
    scores: npt.ArrayLike, labels: npt.ArrayLike, exclude: npt.ArrayLike
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    given, names, own = array(scores, "scores"), array(labels, "labels"), array(exclude, "exclude")
    if given.ndim != 2 or names.shape != (given.shape[1],):
        raise ShapeError(f"scores (B, N) and labels (N,) do not fit: {given.shape}, {names.shape}")
    if own.shape != (len(given),):
        raise ShapeError(f"exclude must be {len(given)} row numbers")
    if not len(given):
        raise ParameterError("no queries")
    return given, names, own


def nearest_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """Find the k rows of largest scores, ties by smaller row, without sorting all.

    Parameters
    ----------
    scores : ndarray
        (B, N), larger is nearer.
    k : int
        1 to N.

    Returns
    -------
    ndarray of int64
        (B, k), nearest first.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation.metrics import nearest_rows
    >>> nearest_rows(np.array([[3, 9, 3, 1]]), 2).tolist()
    [[1, 0]]
    """
    out = np.empty((len(scores), k), np.int64)
    for i, row in enumerate(scores):
        least = np.partition(row, len(row) - k)[len(row) - k]
        rows = np.flatnonzero(row >= least)
        out[i] = rows[ranking_from_scores(row[rows][None])[0, :k]]
    return out


def mean(values: FloatArray) -> float:
    """Compute the mean over the queries that count.

    Parameters
    ----------
    values : ndarray
        float64 (B,); NaN where a query does not count.

    Returns
    -------
    float
        0 where none counts.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> metrics.mean(np.array([1.0, np.nan, 0.5]))
    0.75
    """
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else 0.0
