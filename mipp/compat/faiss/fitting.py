"""Fitting an index's encoding to its rows, and again where rows or queries do not fit it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...encoding import Encoding
from ...encoding.finest import MISSES, check_queries, judged, misses, query_factors
from ...errors import EncodingError, ScoreRangeError
from .home import METRIC_L2, METRICS, Home

__all__ = ["encoding_for", "fit", "fit_again", "judge", "prepare_queries", "shortest_length"]

#: an encoding that loses more of the nearest rows is refused
_MOST_MISSES = 0.05
#: least and most new rows that are judged by themselves; how many times shorter than all before a new row is that has
#: all rows judged again
_LEAST_JUDGED, _JUDGED, _SHORTER = 20, 2000, 8
#: length of the longest row, in steps of the query's precision, below which fractional queries among whole rows lose
#: neighbours
_STEPS = 1 << 18

Floats = npt.NDArray[np.float32]


def fit(home: Home, x: Floats) -> None:
    """Fit the encoding to rows (n, d) and write it down."""
    s = home.settings
    s.encoding, s.declared = _fitted(home, x), False
    home.save()


def _fitted(home: Home, x: np.ndarray, queries: Floats | None = None) -> Encoding:
    """The encoding of rows (n, d) that reaches queries (m, d) too. EncodingError if it would lose neighbours."""
    s = home.settings
    return encoding_for(
        METRICS[s.metric], x, ring_bits=s.ring_bits, server_ranking=s.ranking == "server", reach=queries
    )  # fmt: skip


def encoding_for(
    metric: str, x: np.ndarray, *, ring_bits: int, server_ranking: bool, reach: Floats | None = None
) -> Encoding:
    """As :func:`mipp.encoding.finest`; EncodingError for an encoding that would lose the nearest rows of x."""
    found, lost = judged(metric, x, ring_bits=ring_bits, server_ranking=server_ranking, reach=reach)
    if ring_bits != 16 and (misses(found, x) if lost is None else lost) > _MOST_MISSES:
        more = "" if ring_bits in (0, 64) else ", or take ring_bits=64"
        server = ', or rank as the user (ranking="user")' if server_ranking else ""
        raise EncodingError(
            f"an encoding of {found.ring_bits} bits would lose the nearest rows: differences between them are too "
            "small beside the longest row; leave the longest out, or subtract what all rows have in common"
            f"{more}{server}"
        )
    return found


def fit_again(home: Home, x: Floats, *, rows: bool) -> bool:
    """Fit the encoding again, so that rows or queries (n, d) fit it too; False where it may not change."""
    s = home.settings
    if s.declared or s.ring_bits == 16:
        return False
    kept = home.all_rows()
    found = _fitted(home, np.concatenate([kept, x]) if rows else kept, None if rows else x)
    if found == s.encoding:
        return False
    home.encode_again(found)
    return True


def judge(home: Home, x: Floats) -> None:
    """Fit the encoding again if rows (n, d) that are about to be added show that it loses the nearest.

    All rows are looked at when there are twice as many as last time, when some new ones are much shorter than all
    before, or when the new ones by themselves lose neighbours. ScoreRangeError for rows that it does not hold.
    """
    s = home.settings
    if s.declared or s.ring_bits == 16 or s.encoding is None:
        return
    length = shortest_length(home, x)
    some = x[np.arange(min(len(x), _JUDGED)) * len(x) // min(len(x), _JUDGED)]
    total = home.live + len(x)
    lost = len(some) >= _LEAST_JUDGED and misses(s.encoding, some) > MISSES
    if total < 2 * home.judged and length * _SHORTER >= home.shortest and not lost:
        return
    every = np.concatenate([home.all_rows(), x])
    if misses(s.encoding, every) > MISSES:
        found = _fitted(home, every)
        if found.ring_bits > s.encoding.ring_bits or found.scale[0] < s.encoding.scale[0]:
            home.encode_again(found)
    home.judged, home.shortest = total, min(length, home.shortest)


def shortest_length(home: Home, x: Floats) -> float:
    """The least length of rows (n, d) from the encoding's offset; rows at the offset itself do not count."""
    assert home.settings.encoding is not None
    offset = np.array(home.settings.encoding.offset) if home.settings.encoding.offset else 0.0
    lengths = np.linalg.norm(x.astype(np.float64) - offset, axis=1)
    return float(lengths[lengths > 0].min(initial=np.inf))


def prepare_queries(home: Home, x: Floats) -> tuple[np.ndarray, np.ndarray]:
    """Queries (n, d) as they are encoded, and the divisors (n, 1) of their scores.

    L2 queries that the encoding does not hold have it fitted again. ScoreRangeError where it may not change.
    """
    assert home.settings.encoding is not None
    if home.settings.metric == METRIC_L2:
        try:
            check_queries(home.settings.encoding, x)
            home.settings.encoding.encode_queries(x)
            if _too_coarse(home, x):
                fit_again(home, x, rows=False)
        except ScoreRangeError:
            if not fit_again(home, x, rows=False):
                raise
        return x, np.ones((len(x), 1))
    factors = query_factors(home.settings.encoding, x)[:, None]
    return x * factors, factors


def _too_coarse(home: Home, x: Floats) -> bool:
    """Whether the encoding rounds fractions of queries among whole rows so coarsely that neighbours may change."""
    e, s = home.deployment.config.encoding, home.settings
    if s.ring_bits or s.declared or e.ring_bits == 64 or e.scale != (1.0,):
        return False
    finer = 1 << (e.query_bits - e.bits)
    fine = x.astype(np.float64) * finer
    return e.row_norm2**0.5 * finer < _STEPS and bool((fine != np.rint(fine)).any())
