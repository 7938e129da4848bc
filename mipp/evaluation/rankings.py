"""Rankings, and measures of each query's ranking.

A ranking is an int array (B, M): for each query the numbers of all M ranked rows, nearest first. A row is relevant to a
query if it carries the query's label. The query is left out of its own ranking everywhere but in the N-S score, which
counts it as the first hit, as its source does.

Definitions as in Manning, Raghavan, Schuetze, "Introduction to Information Retrieval", chapter 8; of ANMRR in
Manjunath, Ohm, Vasudevan, Yamada, "Color and texture descriptors", IEEE CSVT 2001; of the N-S score in Nister,
Stewenius, "Scalable recognition with a vocabulary tree", CVPR 2006.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..encoding.numbers import array, integer
from ..errors import DTypeError, EncodingError, ParameterError, ShapeError

__all__ = [
    "average_precision",
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
]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def ranking_from_scores(scores: npt.ArrayLike, exclude: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
    """Rank rows by falling score; equal scores by smaller row number.

    Parameters
    ----------
    scores : array_like
        (B, N) real numbers, larger is nearer.
    exclude : array_like of int, optional
        (B,) row left out of each query's ranking (leave-one-out: the query itself).

    Returns
    -------
    ndarray
        int64 (B, N), or (B, N-1) with ``exclude``: row numbers, nearest first.

    Raises
    ------
    DTypeError, ShapeError, ParameterError, EncodingError
        Not real numbers; shapes that do not fit; an excluded row out of range; NaN scores.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> metrics.ranking_from_scores([[3, 9, 9, 1]]).tolist()
    [[1, 2, 0, 3]]
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
    """Tell whether each ranked row is relevant: whether it has the label of its query.

    Parameters
    ----------
    ranking : array_like of int
        (B, M) row numbers.
    row_labels : array_like
        (N,) labels of rows.
    query_labels : array_like
        (B,) labels of queries.

    Returns
    -------
    ndarray
        bool (B, M).

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        A ranking that is not of integers; shapes that do not fit; row numbers out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> metrics.relevance([[1, 0, 2]], ["cat", "dog", "cat"], ["cat"]).tolist()
    [[False, True, True]]
    """
    order, rows, queries = _ranking(ranking), array(row_labels, "labels"), array(query_labels, "labels")
    if rows.ndim != 1 or queries.shape != (len(order),):
        raise ShapeError(f"labels must have shapes (N,) and ({len(order)},), not {rows.shape} and {queries.shape}")
    if order.size and (order.min() < 0 or order.max() >= len(rows)):
        raise ParameterError(f"row numbers must be in 0..{len(rows) - 1}")
    return np.asarray(rows[order] == queries[:, None])


def precision_at_k(relevant: BoolArray, k: int) -> FloatArray:
    """Compute the share of relevant rows among the first k.

    Parameters
    ----------
    relevant : ndarray
        bool (B, M), of :func:`relevance`: whether each ranked row is relevant, nearest first.
    k : int
        Depth of the ranking, 1 or more.

    Returns
    -------
    ndarray
        float64 (B,); among all ranked rows where there are fewer than k, 0 where there are none.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not bool; not (B, M); a parameter out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> relevant = np.array([[True, False, True, False]])
    >>> metrics.precision_at_k(relevant, 2).tolist()
    [0.5]
    """
    first = _first(relevant, k)
    return np.asarray(first.sum(1) / max(1, first.shape[1]))


def recall_at_k(relevant: BoolArray, k: int) -> FloatArray:
    """Compute the share of a query's relevant rows that are among the first k.

    Parameters
    ----------
    relevant : ndarray
        bool (B, M), of :func:`relevance`: whether each ranked row is relevant, nearest first.
    k : int
        Depth of the ranking, 1 or more.

    Returns
    -------
    ndarray
        float64 (B,); NaN where the ranking has no relevant row.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not bool; not (B, M); a parameter out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> relevant = np.array([[True, False, True, False]])
    >>> metrics.recall_at_k(relevant, 3).tolist()
    [1.0]
    """
    return _divide(_first(relevant, k).sum(1), relevant.sum(1))


def average_precision(relevant: BoolArray) -> FloatArray:
    """Compute the mean of the precisions at the rank of each relevant row, over the full ranking.

    Parameters
    ----------
    relevant : ndarray
        bool (B, M), of :func:`relevance`: whether each ranked row is relevant, nearest first.

    Returns
    -------
    ndarray
        float64 (B,); NaN where the ranking has no relevant row. Its mean over queries is the mAP.

    Raises
    ------
    DTypeError, ShapeError
        Not bool; not (B, M).

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> relevant = np.array([[True, False, True, False]])
    >>> metrics.average_precision(relevant).round(3).tolist()
    [0.833]
    """
    matrix = _relevant(relevant)
    precision = np.cumsum(matrix, axis=1) / np.arange(1, matrix.shape[1] + 1)
    return _divide((precision * matrix).sum(1), matrix.sum(1))


def nearest_neighbour_error(relevant: BoolArray) -> FloatArray:
    """Tell whether the nearest row is not relevant.

    Parameters
    ----------
    relevant : ndarray
        bool (B, M), of :func:`relevance`: whether each ranked row is relevant, nearest first.

    Returns
    -------
    ndarray
        float64 (B,): 1 where the nearest row is not relevant or there is none, else 0.

    Raises
    ------
    DTypeError, ShapeError
        Not bool; not (B, M).

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> relevant = np.array([[True, False, True, False]])
    >>> metrics.nearest_neighbour_error(relevant).tolist()
    [0.0]
    """
    matrix = _relevant(relevant)
    return np.asarray(~matrix[:, :1].any(axis=1), np.float64)


def ns_score(relevant: BoolArray) -> FloatArray:
    """Count relevant rows among the first four, the query counted as the first.

    Parameters
    ----------
    relevant : ndarray
        bool (B, M), of :func:`relevance`: whether each ranked row is relevant, nearest first.

    Returns
    -------
    ndarray
        float64 (B,): 1 to 4. For groups of four images.

    Raises
    ------
    DTypeError, ShapeError
        Not bool; not (B, M).

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> relevant = np.array([[True, False, True, False]])
    >>> metrics.ns_score(relevant).tolist()
    [3.0]
    """
    return np.asarray(1.0 + _first(relevant, 3).sum(1))


def nmrr(relevant: BoolArray, largest: int) -> FloatArray:
    """Compute the normalised modified retrieval rank.

    With G relevant rows and K = min(4 G, 2 ``largest``): ranks beyond K count 1.25 K, and the mean rank is mapped
    linearly from (1 + G) / 2 .. 1.25 K to 0 .. 1.

    Parameters
    ----------
    relevant : ndarray
        bool (B, M), of :func:`relevance`: whether each ranked row is relevant, nearest first.
    largest : int
        The largest G of all queries.

    Returns
    -------
    ndarray
        float64 (B,): 0 where all relevant rows come first, 1 where none is near the front, NaN where none is relevant.

    Raises
    ------
    DTypeError, ShapeError
        Not bool; not (B, M).

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> relevant = np.array([[True, False, True, False]])
    >>> metrics.nmrr(relevant, 2).round(3).tolist()
    [0.143]
    """
    matrix = _relevant(relevant)
    count = matrix.sum(1).astype(np.float64)
    limit = np.minimum(4.0 * count, 2.0 * largest)
    ranks = np.arange(1, matrix.shape[1] + 1)[None]
    counted = np.where(ranks <= limit[:, None], ranks, 1.25 * limit[:, None])
    mean = _divide((counted * matrix).sum(1), count)
    return np.asarray((mean - 0.5 - count / 2) / (1.25 * limit - 0.5 * (1.0 + count)))


def precision_at_recall(relevant: BoolArray, points: int = 101) -> FloatArray:
    """Compute the interpolated precision: the best one at or beyond each recall.

    Parameters
    ----------
    relevant : ndarray
        bool (B, M), of :func:`relevance`: whether each ranked row is relevant, nearest first.
    points : int
        Number of recalls, spread evenly from 0 to 1.

    Returns
    -------
    ndarray
        float64 (B, points); NaN where no row is relevant.

    Raises
    ------
    DTypeError, ShapeError
        Not bool; not (B, M).

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> relevant = np.array([[True, False, True, False]])
    >>> metrics.precision_at_recall(relevant, 3).round(3).tolist()
    [[1.0, 1.0, 0.667]]
    """
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
    """Tell for each rank whether a relevant row has come by then.

    Parameters
    ----------
    relevant : ndarray
        bool (B, M), of :func:`relevance`: whether each ranked row is relevant, nearest first.
    ranks : int
        Number of ranks.

    Returns
    -------
    ndarray
        float64 (B, ranks): 1 from the rank of the first relevant row on, else 0. The mean over queries is the share
        of queries with a hit.

    Raises
    ------
    DTypeError, ShapeError
        Not bool; not (B, M).

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> relevant = np.array([[True, False, True, False]])
    >>> metrics.rank_hits(relevant[:, 1:], 3).tolist()
    [[0.0, 1.0, 1.0]]
    """
    matrix = _relevant(relevant)
    out = np.zeros((len(matrix), ranks))
    seen = np.cumsum(matrix[:, :ranks], axis=1) > 0
    out[:, : seen.shape[1]] = seen
    out[:, seen.shape[1] :] = seen[:, -1:] if seen.shape[1] else 0.0
    return out


def neighbour_recall(ranking: npt.ArrayLike, truth: npt.ArrayLike, k: int) -> FloatArray:
    """Compute the share of the true k nearest rows that are among the first k ranked.

    For approximate or quantised search.

    Parameters
    ----------
    ranking, truth : array_like of int
        (B, >= k) row numbers, nearest first, without repetition within a query.
    k : int
        Depth of the ranking, 1 or more.

    Returns
    -------
    ndarray
        float64 (B,).

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not integers; other shapes; k below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation import metrics
    >>> metrics.neighbour_recall([[4, 7, 1]], [[7, 4, 2]], 3).round(3).tolist()
    [0.667]
    """
    found, true = _ranking(ranking), _ranking(truth)
    integer(k, 1, 1 << 62, "k")
    if len(found) != len(true) or found.shape[1] < k or true.shape[1] < k:
        raise ShapeError(f"ranking and truth must have one row of at least {k} per query")
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found[:, :k], true[:, :k], strict=True)]
    return np.array(hits, np.float64) / k


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
