"""Confidence intervals of means over queries, by bootstrap.

The percentile method: queries are drawn with replacement, as many as there are, and the interval holds the middle 95 %
of the means. All measures of an evaluation are computed on the same draws, and a difference of two is that of the same
queries (paired). Intervals say how much a figure depends on which queries were asked. They say nothing about another
collection of images. With fewer than about 30 queries they are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..encoding.numbers import array, integer
from ..errors import DTypeError, ParameterError, ShapeError

__all__ = ["CONFIDENCE", "RESAMPLES", "SEED", "bootstrap", "differences", "intervals", "less"]

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
#: draws that are held at a time
_CELLS = 1 << 22

FloatArray = npt.NDArray[np.float64]
#: values of queries, one list for each measure; None where a query does not count
Values = dict[str, list[float | None]]
K = TypeVar("K", bound=Hashable)


def bootstrap(
    values: npt.ArrayLike, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = SEED
) -> FloatArray:
    """Compute means over queries with their confidence intervals.

    Parameters
    ----------
    values : array_like
        (B, M) real numbers: M measures of B queries; NaN where a query does not count in a measure.
    confidence : float
        Share of the interval, between 0 and 1.
    resamples : int
        Number of draws, 1 or more.
    seed : int
        Of the draws. One seed and one number of queries give the same draws for all measures.

    Returns
    -------
    ndarray
        float64 (M, 3): mean, lower and upper end. The ends are NaN where fewer than two queries count.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not real numbers; not (B, M) with B at least 1; a parameter out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation.intervals import bootstrap
    >>> mean, low, high = bootstrap(np.arange(101)[:, None] / 100)[0]
    >>> bool(abs(mean - 0.5) < 1e-9), bool(0.43 < low < 0.46 and 0.54 < high < 0.57)
    (True, True)
    """
    given = array(values, "values")
    if given.dtype.kind not in "buif":
        raise DTypeError(f"values must be real numbers, not {str(given.dtype)[:50]}")
    if given.ndim != 2 or not len(given):
        raise ShapeError(f"values must have shape (B, M), B at least 1, not {given.shape}")
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence must lie between 0 and 1, not {confidence}")
    integer(resamples, 1, 1 << 24, "resamples")
    counted = ~np.isnan(given.astype(np.float64))
    filled = np.where(counted, given, 0.0).astype(np.float64)
    count, size = counted.sum(axis=0), len(given)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, given.shape[1]))
    step = max(1, _CELLS // size)
    with np.errstate(invalid="ignore", divide="ignore"):
        for start in range(0, resamples, step):
            part = min(step, resamples - start)
            # how often each query was drawn, so that one product gives the sums of all measures
            drawn = rng.integers(0, size, (part, size)) + np.arange(part)[:, None] * size
            times = np.bincount(drawn.ravel(), minlength=part * size).reshape(part, size).astype(np.float64)
            means[start : start + part] = (times @ filled) / (size if counted.all() else times @ counted)
        out = np.full((given.shape[1], 3), np.nan)
        out[:, 0] = filled.sum(axis=0) / count
    tail = (1 - confidence) / 2
    for column in np.flatnonzero(count > 1):
        # a draw may hold no query that counts
        got = means[:, column][~np.isnan(means[:, column])]
        out[column, 1:] = np.quantile(got, [tail, 1 - tail])
    return out


def intervals(values: Mapping[K, Sequence[float | None]]) -> dict[K, list[float | None]]:
    """Compute the mean of each measure over queries, with its 95 % interval.

    Parameters
    ----------
    values : dict
        Measure to the values of all queries, None where a query does not count.

    Returns
    -------
    dict
        Measure to [mean, low, high]; None where there is none.

    Raises
    ------
    DTypeError, ShapeError
        As :func:`bootstrap`; lists of different lengths.

    Examples
    --------
    >>> from mipp.evaluation.intervals import intervals
    >>> intervals({"p10": [1.0, 1.0, 1.0]})
    {'p10': [1.0, 1.0, 1.0]}
    """
    found = bootstrap(_matrix(values)) if values else np.empty((0, 3))
    return {name: [_known(v) for v in row] for name, row in zip(values, found.tolist(), strict=True)}


def differences(first: Values, second: Values) -> dict[str, list[float | None]]:
    """Compute the mean difference of each measure, second less first, query by query, with its 95 % interval.

    Parameters
    ----------
    first, second : dict
        As for :func:`intervals`, of the same queries in the same order.

    Returns
    -------
    dict
        Measures that both have: [mean difference, low, high]; None where there is none. A query counts where both
        have a value.

    Raises
    ------
    DTypeError, ShapeError
        As :func:`bootstrap`; lists of different lengths.

    Examples
    --------
    >>> from mipp.evaluation.intervals import differences
    >>> differences({"p10": [0.0, 0.5]}, {"p10": [0.5, 1.0]})
    {'p10': [0.5, 0.5, 0.5]}
    """
    return intervals(less(first, second))


def less(first: Values, second: Values) -> Values:
    """Compute differences query by query, second less first.

    Parameters
    ----------
    first, second : dict
        As for :func:`intervals`, of the same queries in the same order.

    Returns
    -------
    dict
        Measures that both have, to a difference for each query; None where either has none.

    Raises
    ------
    ShapeError
        Lists of different lengths.

    Examples
    --------
    >>> from mipp.evaluation.intervals import less
    >>> less({"p10": [0.5, None]}, {"p10": [0.75, 1.0]})
    {'p10': [0.25, None]}
    """
    shared = {name: (first[name], second[name]) for name in first if name in second}
    for a, b in shared.values():
        if len(a) != len(b):
            raise ShapeError(f"{len(a)} and {len(b)} queries are not the same ones")
    return {
        name: [None if x is None or y is None else y - x for x, y in zip(a, b, strict=True)]
        for name, (a, b) in shared.items()
    }


def _matrix(values: Mapping[K, Sequence[float | None]]) -> FloatArray:
    """(B, M), NaN for None."""
    if len({len(column) for column in values.values()}) > 1:
        raise ShapeError("measures must have a value for each query")
    # dtype float makes NaN of None
    return np.array(list(values.values()), dtype=np.float64).T


def _known(value: float) -> Any:
    return None if math.isnan(value) else value
