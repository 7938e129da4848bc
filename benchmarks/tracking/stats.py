"""Is one build slower than another? Pure functions of recorded seconds; measures nothing.

A *sample* is the fastest of a few calls in a row, so interruptions inside it do not count. A *pair* is a sample of the
base and one of the head, taken directly after each other: what changes slowly (clock, neighbours) meets both. A
*launch* is a list of pairs by two fresh processes: where a process's memory lies makes it some percent faster or
slower for all its life, so pairs of one launch are not independent, and the bootstrap draws launches first, then pairs.
The statistic is the median of the ratios head / base: of two modes or many outliers it follows the majority.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: pairs (base seconds, head seconds) of one launch
Launch = Sequence[tuple[float, float]]

THRESHOLD = 0.05
CONFIDENCE = 0.95
RESAMPLES = 1000

SLOWER, FASTER, SAME, UNCLEAR = "slower", "faster", "same", "unclear"


@dataclass(frozen=True)
class Interval:
    """Median of the paired ratios head / base, and its bootstrap confidence interval."""

    ratio: float
    low: float
    high: float


def interval(
    launches: Sequence[Launch], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Two-stage bootstrap: launches with replacement, and pairs within each (as many as the longest launch has).

    Parameters
    ----------
    launches : at least two, each of at least one pair of positive seconds
    confidence : share of the interval, percentile method

    Raises
    ------
    ValueError
        Fewer than two launches, an empty one, or seconds that are not positive and finite.
    """
    if len(launches) < 2:
        raise ValueError(f"an interval needs two launches, not {len(launches)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    logs = [log_ratios(launch) for launch in launches]
    rng = np.random.default_rng(seed)
    lengths = np.array([len(log) for log in logs])
    table = np.zeros((len(logs), lengths.max()))
    for row, log in zip(table, logs, strict=True):
        row[: len(log)] = log
    drawn = rng.integers(0, len(logs), (resamples, len(logs), 1))
    pairs = (rng.random((resamples, len(logs), lengths.max())) * lengths[drawn]).astype(int)
    medians = np.median(table[drawn, pairs].reshape(resamples, -1), axis=1)
    tail = (1 - confidence) / 2
    low, high = np.exp(np.quantile(medians, [tail, 1 - tail]))
    return Interval(float(np.exp(np.median(np.concatenate(logs)))), float(low), float(high))


def log_ratios(launch: Launch) -> np.ndarray:
    """log(head / base) of each pair."""
    seconds = np.asarray(launch, float)
    if seconds.ndim != 2 or seconds.shape[1:] != (2,) or not len(seconds):
        raise ValueError("a launch is a list of pairs (base, head) of seconds")
    if not np.all(np.isfinite(seconds)) or np.any(seconds <= 0):
        raise ValueError("seconds must be positive and finite")
    return np.log(seconds[:, 1] / seconds[:, 0])


def verdict(found: Interval, threshold: float = THRESHOLD) -> str:
    """``slower`` or ``faster`` only where the whole interval lies beyond the threshold.

    ``same``: the interval lies below the slowdown that would alarm. ``unclear``: it holds it; measure more.
    """
    if threshold <= 0:
        raise ValueError(f"a threshold must be positive, not {threshold}")
    if found.low > 1 + threshold:
        return SLOWER
    if found.high < 1 / (1 + threshold):
        return FASTER
    return SAME if found.high <= 1 + threshold else UNCLEAR


def quality(launches: Sequence[Launch]) -> tuple[float, float]:
    """Spread of ratios within launches (median), and between the medians of launches, both in percent."""
    logs = [log_ratios(launch) for launch in launches]
    within = float(np.median([np.median(np.abs(x - np.median(x))) for x in logs]))
    between = float(np.std([np.median(x) for x in logs]))
    return 100 * within, 100 * between
