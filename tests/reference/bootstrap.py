"""The slow twin of :mod:`mipp.evaluation.intervals`: one draw after the other, one measure, in plain Python."""

from __future__ import annotations

import math

import numpy as np


def bootstrap(values: list[float], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> list[float]:
    """Mean of the values that are not NaN, and the ends of its percentile interval."""
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = [values[i] for i in rng.integers(0, len(values), len(values)).tolist()]
        counted = [value for value in drawn if not math.isnan(value)]
        if counted:
            means.append(math.fsum(counted) / len(counted))
    means.sort()

    def quantile(share: float) -> float:
        place = share * (len(means) - 1)
        below = math.floor(place)
        above = min(below + 1, len(means) - 1)
        return means[below] + (place - below) * (means[above] - means[below])

    counted = [value for value in values if not math.isnan(value)]
    tail = (1 - confidence) / 2
    return [math.fsum(counted) / len(counted), quantile(tail), quantile(1 - tail)]
