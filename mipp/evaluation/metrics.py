"""Retrieval accuracy over rankings.

The query is left out of its own ranking everywhere but in the N-S score, which counts it as the first hit, as its
source does.

A ranking is an int array (B, M): for each query the numbers of all M ranked rows, nearest first. A row is relevant to a
query if it carries the query's label. Definitions as in Manning, Raghavan, Schuetze, "Introduction to Information
Retrieval", chapter 8; of ANMRR in Manjunath, Ohm, Vasudevan, Yamada, "Color and texture descriptors", IEEE CSVT 2001;
of the N-S score in Nister, Stewenius, "Scalable recognition with a vocabulary tree", CVPR 2006.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..encoding.numbers import array, integer
from ..errors import DTypeError, EncodingError, ParameterError, ShapeError

__all__ = [
    "average_precision",
    "curves",
    "evaluate_ranking",
    "nearest_neighbour_error",
    "neighbour_recall",
    "nmrr",
    "ns_score",
    "precision_at_k",
    "precision_at_recall",
    "rank_hits",
    "ranking_from_scores",
    "recall_at_k",
    "relevance",
    "summary",
]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_CHUNK = 256


def ranking_from_scores(scores: npt.ArrayLike, exclude: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
    """Rows by falling score; equal scores by smaller row number.

    Parameters
    ----------
    scores : (B, N) numbers, larger is nearer
    exclude : (B,) row left out of each query's ranking (leave-one-out: the query itself), or None

    Returns
    -------
    ndarray
        int64 (B, N), or (B, N-1) with ``exclude``

    Raises
    ------
    DTypeError, ShapeError, ParameterError, EncodingError
        Not real numbers; shapes that do not fit; an excluded row out of range; NaN scores.
    """
    given = array(scores, "scores")
    if given.dtype.kind not in "buif":
        raise DTypeError(f"scores must be real numbers, not {str(given.dtype)[:50]}")
    if given.ndim != 2:
        raise ShapeError(f"scores must have shape (B, N), not {given.shape}")
    if given.dtype.kind == "f":
        if np.isnan(given).any():
            raise EncodingError("scores hold NaN")
        falling = -given
    else:
        # the complement reverses the order of any integer type; a minus overflows at the smallest
        falling = ~given
    order: npt.NDArray[np.int64] = np.argsort(falling, axis=1, kind="stable").astype(np.int64)
    if exclude is None:
        return order
    own = array(exclude, "exclude")
    if own.shape != (len(given),) or own.dtype.kind not in "iu":
        raise ShapeError(f"exclude must be {len(given)} row numbers")
    if own.size and (own.min() < 0 or own.max() >= given.shape[1]):
        raise ParameterError(f"exclude must be in 0..{given.shape[1] - 1}")
    return np.asarray(order[order != own[:, None]].reshape(len(order), max(0, order.shape[1] - 1)))


def relevance(ranking: npt.ArrayLike, row_labels: npt.ArrayLike, query_labels: npt.ArrayLike) -> BoolArray:
    """Whether each ranked row is relevant: bool (B, M) from a ranking (B, M), labels (N,) of rows and (B,) of queries.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        A ranking that is not of integers; shapes that do not fit; row numbers out of range.
    """
    order, rows, queries = _ranking(ranking), array(row_labels, "labels"), array(query_labels, "labels")
    if rows.ndim != 1 or queries.shape != (len(order),):
        raise ShapeError(f"labels must have shapes (N,) and ({len(order)},), not {rows.shape} and {queries.shape}")
    if order.size and (order.min() < 0 or order.max() >= len(rows)):
        raise ParameterError(f"row numbers must be in 0..{len(rows) - 1}")
    return np.asarray(rows[order] == queries[:, None])


def precision_at_k(relevant: BoolArray, k: int) -> FloatArray:
    """Share (B,) of relevant rows among the first k; among all ranked rows where they are fewer than k, 0 of none."""
    first = _first(relevant, k)
    return np.asarray(first.sum(1) / max(1, first.shape[1]))


def recall_at_k(relevant: BoolArray, k: int) -> FloatArray:
    """Share (B,) of a query's relevant rows that are among the first k; NaN where the ranking has none."""
    return _divide(_first(relevant, k).sum(1), relevant.sum(1))


def average_precision(relevant: BoolArray) -> FloatArray:
    """Mean (B,) of the precisions at the rank of each relevant row, over the full ranking; NaN where there is none."""
    matrix = _relevant(relevant)
    precision = np.cumsum(matrix, axis=1) / np.arange(1, matrix.shape[1] + 1)
    return _divide((precision * matrix).sum(1), matrix.sum(1))


def nearest_neighbour_error(relevant: BoolArray) -> FloatArray:
    """1 (B,) where the nearest row is not relevant or there is none, else 0."""
    matrix = _relevant(relevant)
    return np.asarray(~matrix[:, :1].any(axis=1), np.float64)


def ns_score(relevant: BoolArray) -> FloatArray:
    """Relevant rows (B,) among the first four, the query counted as the first: 1 to 4, for groups of four."""
    return np.asarray(1.0 + _first(relevant, 3).sum(1))


def nmrr(relevant: BoolArray, largest: int) -> FloatArray:
    """Normalised modified retrieval rank (B,): 0 where all relevant rows come first, 1 where none is near the front.

    With G relevant rows and K = min(4 G, 2 ``largest``): ranks beyond K count 1.25 K, and the mean rank is brought from
    (1 + G) / 2 .. 1.25 K to 0 .. 1. NaN where nothing is relevant.

    Parameters
    ----------
    relevant : bool (B, M)
    largest : the largest G of all queries
    """
    matrix = _relevant(relevant)
    count = matrix.sum(1).astype(np.float64)
    limit = np.minimum(4.0 * count, 2.0 * largest)
    ranks = np.arange(1, matrix.shape[1] + 1)[None]
    counted = np.where(ranks <= limit[:, None], ranks, 1.25 * limit[:, None])
    mean = _divide((counted * matrix).sum(1), count)
    return np.asarray((mean - 0.5 - count / 2) / (1.25 * limit - 0.5 * (1.0 + count)))


def precision_at_recall(relevant: BoolArray, points: int = 101) -> FloatArray:
    """Interpolated precision (B, points): the best at any recall from 0, .. 1 on; NaN where nothing is relevant."""
    matrix = _relevant(relevant)
    total = matrix.sum(1, keepdims=True)
    hits = np.cumsum(matrix, axis=1)
    precision = hits / np.arange(1, matrix.shape[1] + 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    out = np.full((len(matrix), points), np.nan)
    for row in np.flatnonzero(total[:, 0]):
        # the first rank at which each recall is reached; in integers, so that no rounding moves it
        need = -(-np.arange(points) * total[row, 0] // (points - 1))
        out[row] = best[row, np.searchsorted(hits[row], np.maximum(need, 1))]
    return out


def rank_hits(relevant: BoolArray, ranks: int = 50) -> FloatArray:
    """1 (B, ranks) from the rank of the first relevant row on, 0 before: the mean is the share of queries that hit."""
    matrix = _relevant(relevant)
    out = np.zeros((len(matrix), ranks))
    seen = np.cumsum(matrix[:, :ranks], axis=1) > 0
    out[:, : seen.shape[1]] = seen
    out[:, seen.shape[1] :] = seen[:, -1:] if seen.shape[1] else 0.0
    return out


def neighbour_recall(ranking: npt.ArrayLike, truth: npt.ArrayLike, k: int) -> FloatArray:
    """Share (B,) of the true k nearest rows that are among the first k ranked, for approximate or quantised search.

    Parameters
    ----------
    ranking, truth : int (B, >= k), row numbers, nearest first, without repetition within a query
    k : 1 or more

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not integers; other shapes; k below 1.
    """
    found, true = _ranking(ranking), _ranking(truth)
    integer(k, 1, 1 << 62, "k")
    if len(found) != len(true) or found.shape[1] < k or true.shape[1] < k:
        raise ShapeError(f"ranking and truth must have one row of at least {k} per query")
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found[:, :k], true[:, :k], strict=True)]
    return np.array(hits, np.float64) / k


def evaluate_ranking(
    ranking: npt.ArrayLike, row_labels: npt.ArrayLike, query_labels: npt.ArrayLike
) -> dict[str, FloatArray]:
    """Accuracy per query: ``ap``, ``p10``, ``p20``, ``nn_error``, each (B,). Arguments as of :func:`relevance`."""
    relevant = relevance(ranking, row_labels, query_labels)
    return {
        "ap": average_precision(relevant),
        "p10": precision_at_k(relevant, 10),
        "p20": precision_at_k(relevant, 20),
        "nn_error": nearest_neighbour_error(relevant),
    }


def summary(scores: npt.ArrayLike, labels: npt.ArrayLike, exclude: npt.ArrayLike) -> dict[str, float]:
    """Accuracy of a leave-one-out evaluation, mean over queries.

    Parameters
    ----------
    scores : (B, N), larger is nearer
    labels : (N,) of the rows; a query has the label of its own row
    exclude : (B,) the row that is the query itself

    Returns
    -------
    dict
        ``map``, ``p10``, ``p20``, ``nn_error``, ``anmrr``, ``ns``. Queries without any relevant row do not count in
        ``map`` and ``anmrr``.

    Raises
    ------
    DTypeError, ShapeError, ParameterError, EncodingError
        As :func:`ranking_from_scores`; no queries.
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
    return {key: _mean(joined[key]) for key in ("map", "p10", "p20", "nn_error", "anmrr", "ns")}


def curves(scores: npt.ArrayLike, labels: npt.ArrayLike, exclude: npt.ArrayLike) -> dict[str, list[float]]:
    """Mean curves of a leave-one-out evaluation. Arguments and errors as of :func:`summary`.

    Returns
    -------
    dict
        ``precision``: at recalls 0, .01, .. 1 (interpolated); ``hits``: share of queries with a relevant row among the
        first 1, 2, .. 50; ``p_at_k``: precision among the first 1, 2, .. 100.
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


def _mean(values: FloatArray) -> float:
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else 0.0


def _ranking(ranking: npt.ArrayLike) -> npt.NDArray[Any]:
    order = array(ranking, "a ranking")
    if order.dtype.kind not in "iu":
        raise DTypeError(f"a ranking holds row numbers, not {order.dtype}")
    if order.ndim != 2:
        raise ShapeError(f"a ranking must have shape (B, M), not {order.shape}")
    return order


def _relevant(relevant: BoolArray) -> BoolArray:
    matrix = array(relevant, "relevance")
    if matrix.dtype != np.bool_:
        raise DTypeError(f"relevance must be bool, not {matrix.dtype}")
    if matrix.ndim != 2:
        raise ShapeError(f"relevance must have shape (B, M), not {matrix.shape}")
    return matrix


def _first(relevant: BoolArray, k: int) -> BoolArray:
    integer(k, 1, 1 << 62, "k")
    return _relevant(relevant)[:, :k]


def _divide(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> FloatArray:
    return np.asarray(np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0))
