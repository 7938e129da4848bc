"""Range of a metric's values: results are clipped to it, and thresholds outside it are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ParameterError
from .parameters import EncodingParameters

__all__ = ["DISTANCES", "checked_threshold", "in_range", "value_range"]

#: metrics of which smaller values are nearer
DISTANCES = {"l2": "squared distance", "l1": "city-block distance", "hamming": "Hamming distance"}
_SIMILARITIES = {"cosine": "cosine", "hellinger": "Bhattacharyya coefficient", "ip": "inner product"}


def value_range(encoding: EncodingParameters) -> tuple[float, float]:
    """Least and largest value of the encoding's metric, over all rows and queries."""
    return {
        "cosine": (-1.0, 1.0),
        "hellinger": (0.0, 1.0),
        "ip": (-math.inf, math.inf),
        "l2": (0.0, math.inf),
        "l1": (0.0, float(encoding.dim * max(encoding.levels - 1, 0))),
        "hamming": (0.0, float(encoding.dim)),
    }[encoding.metric]


def in_range(encoding: EncodingParameters, values: np.ndarray) -> np.ndarray:
    """Clip values to the metric's range; -0.0 becomes 0.0. Without this, rounding gives cosines such as 1.0018."""
    low, high = value_range(encoding)
    return np.asarray(np.clip(values, low, high) + 0.0)


def checked_threshold(encoding: EncodingParameters, value: Any, largest: float = math.inf) -> float:
    """Check the threshold of a range search.

    Parameters
    ----------
    encoding : EncodingParameters
        Parameters of the index's encoding.
    value : float
        Threshold in the metric's unit: least similarity, or largest distance (squared for ``l2``).
    largest : float
        Distance that no two vectors exceed, if the caller knows one.

    Returns
    -------
    float
        The threshold.

    Raises
    ------
    ParameterError
        Not a finite number, or a value out of the metric's range, which all rows or none would reach.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ParameterError(f"a threshold is a number, not {type(value).__name__}")
    try:
        value = float(value)
    except OverflowError:
        value = math.inf if value > 0 else -math.inf
    if not math.isfinite(value):
        raise ParameterError(f"a threshold must be a finite number, not {value!r}")
    low, high = value_range(encoding)
    if encoding.metric in DISTANCES:
        what, high = f"a {DISTANCES[encoding.metric]} (smaller is nearer)", min(high, largest)
        reach = "none is", "all are"
    else:
        what, reach = f"a {_SIMILARITIES[encoding.metric]} (larger is nearer)", ("all are", "none is")
    if low <= value <= high:
        return value
    span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
    found = reach[0] if value < low else reach[1]
    raise ParameterError(f"the threshold {value!r} is out of range: {what} is {span}, so {found} within it")
