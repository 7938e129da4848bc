"""Encodings tuned to a public sample by measured recall."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import EncodingError, ParameterError, ScoreRangeError, ShapeError
from .encoding import Encoding
from .fitting import checked_sample
from .numbers import LARGEST, integer
from .projection import Projection, pca
from .quantise import prepared

__all__ = ["Tuning", "recall", "tune"]

MOST_QUERIES = 200
_TUNED = ("ip", "l2", "cosine", "hellinger")
_QUERY_BITS, _CHECKED_BITS = 24, 19
#: scores of a tuned encoding have at most about this many bits
_FINEST = 36


def recall(encoding: Encoding, sample: np.ndarray, k: int = 10) -> float:
    """Measure the recall of an encoding: the share of the k nearest rows in float64 that it keeps.

    Rows of the sample are the queries, evenly spread, at most 200; each is taken out of its own ranking.

    Parameters
    ----------
    encoding : Encoding
        Encoding of ``ip``, ``cosine``, ``hellinger`` or ``l2``, without weights.
    sample : array_like of float, shape (N, dim)
        **Public** sample, N at least 2 k.
    k : int
        Number of neighbours.

    Returns
    -------
    float
        Recall at k, from 0 to 1.

    Raises
    ------
    ParameterError
        The encoding is exact for its metric, or has weights; or ``k`` is out of range.
    ShapeError
        The sample is too small, or not a matrix.
    DTypeError, EncodingError
        The sample holds values that are not finite real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import fit, recall
    >>> sample = np.random.default_rng(0).normal(size=(200, 16))
    >>> coarse, fine = (fit("cosine", sample, bits=bits, query_bits=bits) for bits in (2, 8))
    >>> recall(coarse, sample) < recall(fine, sample)
    True
    """
    if encoding.metric not in _TUNED or encoding.weights:
        raise ParameterError("recall is measured for encodings of ip, cosine, hellinger and l2 without weights")
    x = checked_sample(encoding.metric, sample, math.sqrt(LARGEST))
    _enough(x, integer(k, 1, 1 << 62, "k"))
    own = _own(x)
    true = _nearest_rows(encoding.metric, x, encoding.offset, own, k)
    return _recall(encoding, x, own, true)


def _recall(encoding: Encoding, x: np.ndarray, own: np.ndarray, true: np.ndarray) -> float:
    a, b = encoding.encode_rows(x).astype(np.float64), encoding.encode_queries(x[own]).astype(np.float64)
    found = _nearest(b @ a.T, own, true.shape[1])
    hits = [len(np.intersect1d(f, t)) for f, t in zip(found, true, strict=True)]
    return float(np.mean(hits)) / true.shape[1]


def _own(x: np.ndarray) -> np.ndarray:
    """Row numbers of the sample's rows that serve as queries."""
    count = min(MOST_QUERIES, len(x))
    return np.arange(count) * len(x) // count


def _enough(x: np.ndarray, k: int) -> None:
    if k < 1 or len(x) < 2 * k:
        raise ShapeError(f"a sample of {len(x)} vectors is too small to measure recall at {k}: {2 * k} are needed")


@dataclass(frozen=True)
class Tuning:
    """The result of :func:`tune`.

    Parameters
    ----------
    encoding : Encoding
        The best encoding.
    recall : float
        Its recall at k on the sample.
    trials : list of (float, str)
        Recall and description of each candidate, in the order of the trials.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import tune
    >>> found = tune("ip", np.random.default_rng(0).normal(size=(50, 4)), k=5)
    >>> found.recall == max(recall for recall, text in found.trials)
    True
    """

    encoding: Encoding
    recall: float
    trials: list[tuple[float, str]]


def tune(
    metric: str,
    sample: np.ndarray,
    *,
    ring_bits: int = 32,
    out_dim: int = 0,
    rotate: bool = False,
    k: int = 10,
    server_ranking: bool = False,
    margin: float = 1.25,
) -> Tuning:
    """Find the encoding that keeps most of the float ranking of a **public** sample.

    The search tries row scales, clipping and scales per dimension, with the query scale as fine as the ring allows,
    and measures the recall at k of each candidate as :func:`recall` does.

    Parameters
    ----------
    metric : str
        ``ip``, ``cosine``, ``hellinger`` or ``l2``; ``l2`` also gets the sample's mean as offset.
    sample : array_like of float, shape (N, dim)
        **Public** sample, N at least 2 k. Larger samples give surer results. The encoding, which everybody sees, shows
        its mean, its scales and its largest norm.
    ring_bits : int
        16, 32 or 64.
    out_dim : int
        Project to this many principal directions of the sample; 0 for no projection.
    rotate : bool
        Without ``out_dim``: rotate to the sample's principal directions, so that scales per dimension gain more.
    k : int
        Number of neighbours of the recall.
    server_ranking : bool
        Leave the room that oblivious comparison needs: half the score range.
    margin : float
        Factor by which squared norms may exceed the sample's largest, from 1 to 100. Longer rows and queries are
        refused later.

    Returns
    -------
    Tuning
        The best encoding, its recall, and all trials.

    Raises
    ------
    ParameterError
        The metric is exact and needs no tuning, or an argument is out of range.
    ShapeError
        The sample is too small, or not a matrix.
    DTypeError, EncodingError
        The sample holds values that are not finite real numbers, or only zeros.
    ScoreRangeError
        No candidate fits the ring.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import tune
    >>> sample = np.random.default_rng(0).normal(size=(100, 8))
    >>> found = tune("l2", sample, ring_bits=16)
    >>> found.encoding.metric, found.encoding.ring_bits, found.recall > 0.8
    ('l2', 16, True)
    """
    if metric not in _TUNED:
        raise ParameterError(f"{metric} is exact as it is; there is nothing to tune")
    # products of numbers and scales are squared
    x = checked_sample(metric, sample, math.sqrt(LARGEST))
    _enough(x, integer(k, 1, 1 << 62, "k"))
    if not 1 <= margin < 100:
        raise ParameterError("margin must be from 1 to 100")
    offset = tuple(x.mean(axis=0).tolist()) if metric == "l2" else ()
    projection: Projection | None = None
    if out_dim or rotate:
        projection = pca(prepared(metric, x.copy(), offset, None, "sample"), out_dim or x.shape[1], center=False)
    vectors = prepared(metric, x.copy(), offset, projection, "sample")
    if not np.abs(vectors).max() > 0:
        raise EncodingError("the sample is zero everywhere; there is nothing to tune")
    own = _own(x)
    true = _nearest_rows(metric, x, offset, own, k)
    common: dict[str, Any] = {"ring_bits": ring_bits, "offset": offset, "projection": projection}
    best: tuple[float, Encoding] | None = None
    trials: list[tuple[float, str]] = []
    for text, options in _candidates(metric, vectors, ring_bits, server_ranking, margin):
        try:
            encoding = Encoding(metric, x.shape[1], **common, **options)
            if server_ranking and not encoding.allows_server_ranking:
                continue
            kept = _recall(encoding, x, own, true)
        except (ScoreRangeError, ParameterError):
            continue
        trials.append((kept, text))
        if best is None or kept > best[0]:
            best = kept, encoding
    if best is None:
        rankable = " that servers can rank" if server_ranking else ""
        raise ScoreRangeError(f"no encoding of these vectors{rankable} fits a ring of {ring_bits} bits")
    return Tuning(best[1], best[0], trials)


def _candidates(
    metric: str, x: np.ndarray, ring_bits: int, server_ranking: bool, margin: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Options of candidates; their score ranges barely fit the ring."""
    dim = x.shape[1]
    longest = math.sqrt(float(np.einsum("ij,ij->i", x, x).max()))
    if metric in ("ip", "l2"):
        longest *= math.sqrt(margin)
    # leave room for rounding; steps finer than those of rows and queries gain nothing
    room = (1 << min(ring_bits - 1 - server_ranking, _FINEST)) * 0.98
    # the proof that servers check has no room for sums of squares of longer words
    most = 1 << (_CHECKED_BITS if server_ranking and metric == "l2" else _QUERY_BITS) - 1
    spread = np.sqrt(x.std(axis=0) + 1e-12)
    shapes = {"one scale": np.ones(1), "scale per dimension": spread / spread.mean()}
    for quantile in (1.0, 0.9999, 0.999):
        for name, shape in shapes.items():
            top = float(np.quantile(np.abs(x / shape), quantile))
            for bits in (12, 10, 8, 7, 6, 5, 4):
                if top <= 0:
                    continue
                scale = shape * (top / ((1 << (bits - 1)) - 1))
                text = f"{bits} bits, {name}, quantile {quantile:g}"
                full = np.broadcast_to(scale, dim)
                # rounding lengthens a row, and a query in units of 2 s / t or s / t
                row = longest + math.sqrt(float((full**2).sum())) / 2
                if metric == "l2":
                    # range 4 R^2 / t, R^2 the larger bound in units of t
                    t = max(2 * row * row / room, 2 * float((full * longest).max()) / (most - 1))
                    slack = t / 4 * math.sqrt(float((1 / full**2).sum()))
                    t = max(t, 2 * (row + slack) ** 2 / room)
                    bound = {
                        "row_norm2": math.ceil(row * row / t), "query_norm2": math.ceil((longest + slack) ** 2 / t),
                    }  # fmt: skip
                else:
                    # norms in integers: |x / s| + root(dim) / 2 and |q s / t| + root(dim) / 2
                    factor = longest / _length(x)
                    if metric in ("cosine", "hellinger") and shape.size > 1:
                        # unit vectors all have one length, but not after scales per dimension
                        factor = math.sqrt(margin)
                    stored = float(np.linalg.norm(x / full, axis=1).max()) * factor + math.sqrt(dim) / 2
                    asked = room / stored - math.sqrt(dim) / 2
                    if asked <= 1:
                        continue
                    t = float(np.linalg.norm(x * full, axis=1).max()) * factor / asked
                    t = max(t, float((np.abs(x) * full).max()) * factor / (most - 1))
                    bound = {
                        "row_norm2": math.floor(stored**2),
                        "query_norm2": math.floor(min(room / stored, most * math.sqrt(dim)) ** 2),
                    }  # fmt: skip
                yield (
                    text,
                    {
                        "bits": bits,
                        "query_bits": _QUERY_BITS,
                        "scale": tuple(scale.tolist()),
                        "query_scale": t,
                        **bound,
                    },
                )


def _length(x: np.ndarray) -> float:
    return math.sqrt(float(np.einsum("ij,ij->i", x, x).max()))


def _nearest_rows(metric: str, x: np.ndarray, offset: tuple[float, ...], own: np.ndarray, k: int) -> np.ndarray:
    """The k nearest rows, in float64, of the rows ``own``."""
    v = prepared(metric, x.copy(), offset, None, "sample")
    scores = v[own] @ v.T
    return _nearest(2 * scores - np.einsum("ij,ij->i", v, v) if metric == "l2" else scores, own, k)


def _nearest(scores: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    scores = scores.copy()
    scores[np.arange(len(own)), own] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
