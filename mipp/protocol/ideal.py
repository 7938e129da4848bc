"""The ideal functionality: the same results in the clear, behind the same interface.

A trusted third party that gets the three servers' shares and answers the user. For tests, and to see what the protocols
must compute; it protects nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ParameterError, ScoreRangeError
from .session import Public

__all__ = ["matches", "open_scores", "ranking"]


def open_scores(shares: Sequence[np.ndarray], public: Public) -> np.ndarray:
    """Scores (B, N) int64 from the three servers' (B, N) or (N,) shares; ScoreRangeError outside the public range."""
    first, second, third = (public.words(s) for s in shares)
    total = (first + second + third).view(f"<i{public.ring_bits // 8}").astype(np.int64)
    if int(total.min()) < public.low or int(total.max()) > public.high:
        raise ScoreRangeError("a score outside the declared range")
    return total


def ranking(
    shares: Sequence[np.ndarray], k: int, public: Public, *, scores: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """What :func:`mipp.protocol.topk.combine_top_k` returns: rows (B, k), best first, ties by smaller row; scores."""
    if not 1 <= k <= public.rows:
        raise ParameterError(f"k must be from 1 to {public.rows}, not {k!r}")
    clear = open_scores(shares, public)
    rows = np.stack([np.lexsort((np.arange(public.rows), ~s))[:k] for s in clear])
    return rows, np.take_along_axis(clear, rows, 1) if scores else None


def matches(shares: Sequence[np.ndarray], theta: int | Sequence[int], public: Public) -> np.ndarray:
    """What :func:`mipp.protocol.comparison.combine_matches` returns: (B, N) bool, score >= theta."""
    clear = open_scores(shares, public)
    return clear >= np.broadcast_to(np.asarray(theta, np.int64).reshape(-1, 1), (len(clear), 1))
