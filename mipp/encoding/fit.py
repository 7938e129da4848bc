"""Encodings fitted to a public sample: scales by quantiles, or everything by measured recall."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import EncodingError, ParameterError, ScoreRangeError, ShapeError
from .bounds import ranking_problem
from .encoding import Encoding
from .numbers import LARGEST, integer, sample_matrix, unit
from .projection import Projection, pca

__all__ = ["Tuning", "fit", "recall", "tune"]

MOST_QUERIES = 200
_TUNED = ("ip", "l2", "cosine", "hellinger")
_QUERY_BITS, _CHECKED_BITS = 24, 19
#: scores of a tuned encoding have about so many bits at most
_FINEST = 36


def fit(
    metric: str,
    sample: np.ndarray,
    *,
    quantile: float = 1.0,
    center: bool = False,
    server_ranking: bool = False,
    **options: Any,
) -> Encoding:
    """An encoding whose scale fits a **public** sample.

    Parameters
    ----------
    metric : as in :class:`Encoding`; ``l1`` and ``hamming`` need no fit
    sample : (N, dim) numbers, public
    quantile : of the absolute values that must not clip, in (0, 1]
    center : ``l2`` only: use the mean of the sample as offset
    server_ranking : leave the room that servers need to rank: half the range
    options : passed on to :class:`Encoding`

    When the ring is too small for what the bits allow, rows and queries are bounded to the longest of the sample plus a
    tenth; longer ones are refused later.

    Raises
    ------
    ScoreRangeError
        The ring is too small for these bits all the same.
    """
    x = _sample(metric, sample)
    if not 0 < quantile <= 1:
        raise ParameterError("quantile must be in (0, 1]")
    if center and metric != "l2":
        raise ParameterError("center is for l2")
    dim = x.shape[1]
    if metric in ("l1", "hamming"):
        if metric == "l1":
            options.setdefault("levels", min(max(int(x.max()), 0), 1 << 20) + 1)
        return _rankable(Encoding(metric, dim, **options), server_ranking)
    original = x
    if center:
        options["offset"] = tuple(x.mean(axis=0).tolist())
    x = _prepared(metric, x, options.get("offset"), options.get("projection"))
    largest = float(np.quantile(np.abs(x), quantile))
    if largest <= 0:
        raise EncodingError("the sample is zero everywhere; there is no scale to fit")
    bits, query_bits = (integer(options.get(name, 8), 2, 24, name) for name in ("bits", "query_bits"))
    scale = largest / ((1 << (bits - 1)) - 1)
    if metric != "l2":
        # the query's integers are about q s / t: let the sample's largest value reach the query's range too
        options.setdefault("query_scale", largest * scale / ((1 << (query_bits - 1)) - 1))
    try:
        return _rankable(Encoding(metric, dim, scale=(scale,), **options), server_ranking)
    except ScoreRangeError:
        if options.get("row_norm2") or options.get("query_norm2"):
            raise
    # no bound that the bits alone give fits this ring: bound norms by the sample's, a tenth longer
    wide = Encoding(metric, dim, scale=(scale,), **{**options, "ring_bits": 64})
    norms: dict[str, Any] = {}
    for name, query in (("row_norm2", False), ("query_norm2", True)):
        a = wide._quantise(original, query=query)
        norms[name] = math.ceil(1.21 * int(np.einsum("ij,ij,j->i", a, a, wide.integer_weights).max()))
    return _rankable(Encoding(metric, dim, scale=(scale,), **options, **norms), server_ranking)


def _rankable(encoding: Encoding, server_ranking: bool) -> Encoding:
    """The same; ScoreRangeError if the servers are to rank, and cannot."""
    problem = ranking_problem(encoding) if server_ranking else ""
    if problem:
        raise ScoreRangeError(f"{problem}, so servers cannot rank: use a larger ring or fewer bits, or let users rank")
    return encoding


def recall(encoding: Encoding, sample: np.ndarray, k: int = 10) -> float:
    """The share of the k nearest in float that an encoding keeps, on a **public** sample, as :func:`tune` measures it.

    Parameters
    ----------
    encoding : of ``ip``, ``cosine``, ``hellinger`` or ``l2`` without weights
    sample : (N, dim) numbers, N at least 2 k

    Raises
    ------
    ParameterError, ShapeError, DTypeError, EncodingError
        A metric that is exact as it is, or weights; a sample that is too small or no matrix of finite numbers.
    """
    if encoding.metric not in _TUNED or encoding.weights:
        raise ParameterError("recall is measured for encodings of ip, cosine, hellinger and l2 without weights")
    x = _sample(encoding.metric, sample, math.sqrt(LARGEST))
    _enough(x, integer(k, 1, 1 << 62, "k"))
    own = _own(x)
    true = _nearest(_float_scores(encoding.metric, _prepared(encoding.metric, x, encoding.offset, None), own), own, k)
    return _recall(encoding, x, own, true)


def _recall(encoding: Encoding, x: np.ndarray, own: np.ndarray, true: np.ndarray) -> float:
    a, b = encoding.encode_rows(x).astype(np.float64), encoding.encode_queries(x[own]).astype(np.float64)
    found = _nearest(b @ a.T, own, true.shape[1])
    hits = [len(np.intersect1d(f, t)) for f, t in zip(found, true, strict=True)]
    return float(np.mean(hits)) / true.shape[1]


def _own(x: np.ndarray) -> np.ndarray:
    """Rows of the sample that are the queries."""
    count = min(MOST_QUERIES, len(x))
    return np.arange(count) * len(x) // count


def _enough(x: np.ndarray, k: int) -> None:
    if k < 1 or len(x) < 2 * k:
        raise ShapeError(f"a sample of {len(x)} vectors is too small to measure recall at {k}: it takes {2 * k}")


@dataclass(frozen=True)
class Tuning:
    """What :func:`tune` chose and what it tried.

    Parameters
    ----------
    encoding : the best
    recall : its recall at k on the sample
    trials : (recall, what was tried) of each candidate, in order
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
    """The encoding that keeps the most of the float ranking on a **public** sample.

    Tries row scales, clipping, and scales per dimension for a ring, with the query scale as fine as the ring allows,
    and measures recall at k: rows of the sample are the queries, evenly spread, at most 200, each taken out of its own
    ranking.

    Parameters
    ----------
    metric : ``ip``, ``cosine``, ``hellinger`` or ``l2`` (which also gets the sample's mean as offset)
    sample : (N, dim) numbers, N at least 2 k; the larger, the surer
    ring_bits : 16, 32 or 64
    out_dim : project to so many principal directions of the sample; 0 for none
    rotate : without ``out_dim``: rotate by its principal directions, so that scales per dimension have more to gain
    k : of the recall
    server_ranking : leave the room that oblivious comparison needs: half the range
    margin : by which squared norms may exceed the sample's largest; longer rows and queries are refused later

    Raises
    ------
    ParameterError, ShapeError, DTypeError, EncodingError,
        ScoreRangeError A metric that is not to be tuned, a sample that is too small or no matrix of finite numbers, or
        nothing that fits the ring.
    """
    if metric not in _TUNED:
        raise ParameterError(f"{metric} is exact as it is; there is nothing to tune")
    # products of numbers and scales are squared
    x = _sample(metric, sample, math.sqrt(LARGEST))
    _enough(x, integer(k, 1, 1 << 62, "k"))
    if not 1 <= margin < 100:
        raise ParameterError("margin must be from 1 to 100")
    offset = tuple(x.mean(axis=0).tolist()) if metric == "l2" else ()
    projection: Projection | None = None
    if out_dim or rotate:
        projection = pca(_prepared(metric, x, offset, None), out_dim or x.shape[1], center=False)
    prepared = _prepared(metric, x, offset, projection)
    if not np.abs(prepared).max() > 0:
        raise EncodingError("the sample is zero everywhere; there is nothing to tune")
    own = _own(x)
    true = _nearest(_float_scores(metric, _prepared(metric, x, offset, None), own), own, k)
    common: dict[str, Any] = {"ring_bits": ring_bits, "offset": offset, "projection": projection}
    best: tuple[float, Encoding] | None = None
    trials: list[tuple[float, str]] = []
    for text, options in _candidates(metric, prepared, ring_bits, server_ranking, margin):
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
        by = " that servers can rank" if server_ranking else ""
        raise ScoreRangeError(f"no encoding of these vectors{by} fits a ring of {ring_bits} bits")
    return Tuning(best[1], best[0], trials)


def _candidates(
    metric: str, x: np.ndarray, ring_bits: int, server_ranking: bool, margin: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Options of encodings whose score range just fits the ring."""
    dim = x.shape[1]
    longest = math.sqrt(float(np.einsum("ij,ij->i", x, x).max()))
    if metric in ("ip", "l2"):
        longest *= math.sqrt(margin)
    # stay clear of what rounding adds; steps that are finer than rows and queries say no more
    room = (1 << min(ring_bits - 1 - server_ranking, _FINEST)) * 0.98
    # sums of squares of longer words have no room in the proof that servers check
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


def _sample(metric: str, sample: np.ndarray, largest: float = LARGEST) -> np.ndarray:
    # the others divide by a row's length first, or take whole numbers
    return sample_matrix(sample, largest if metric in ("ip", "l2") else math.inf)


def _prepared(metric: str, x: np.ndarray, offset: Any, projection: Projection | None) -> np.ndarray:
    """What an encoding quantises: unit vectors or differences from the offset, projected."""
    if metric == "hellinger":
        if (x < 0).any():
            raise EncodingError("the sample holds negative values, which no histogram has")
        x = np.sqrt(x)
    if metric in ("cosine", "hellinger"):
        x = unit(x, "sample")
    if offset:
        x = x - np.array(offset)
    return x if projection is None else x @ projection.matrix


def _float_scores(metric: str, x: np.ndarray, own: np.ndarray) -> np.ndarray:
    scores = x[own] @ x.T
    return 2 * scores - np.einsum("ij,ij->i", x, x) if metric == "l2" else scores


def _nearest(scores: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    scores = scores.copy()
    scores[np.arange(len(own)), own] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
