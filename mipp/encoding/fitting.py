"""Scales that fit a public sample, found by quantiles: what ``Encoding.fit`` does."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from ..errors import EncodingError, ParameterError, ScoreRangeError
from .bounds import ranking_problem
from .numbers import LARGEST, integer, sample_matrix
from .parameters import EncodingParameters
from .quantise import prepared, quantise

__all__ = ["checked_sample", "fitted"]

_E = TypeVar("_E", bound=EncodingParameters)


def fitted(
    kind: type[_E],
    metric: str,
    sample: np.ndarray,
    *,
    quantile: float,
    center: bool,
    server_ranking: bool,
    options: dict[str, Any],
) -> _E:
    """An encoding of class ``kind`` whose scale fits a **public** sample; see :meth:`mipp.encoding.Encoding.fit`."""
    x = checked_sample(metric, sample)
    if not 0 < quantile <= 1:
        raise ParameterError("quantile must be in (0, 1]")
    if center and metric != "l2":
        raise ParameterError("center is for l2")
    options = dict(options)
    dim = x.shape[1]
    if metric in ("l1", "hamming"):
        if metric == "l1":
            options.setdefault("levels", min(max(int(x.max()), 0), 1 << 20) + 1)
        return _rankable(kind(metric, dim, **options), server_ranking)
    if center:
        options["offset"] = tuple(x.mean(axis=0).tolist())
    v = prepared(metric, x.copy(), options.get("offset"), options.get("projection"), "sample")
    largest = float(np.quantile(np.abs(v), quantile))
    if largest <= 0:
        raise EncodingError("the sample is zero everywhere; there is no scale to fit")
    bits, query_bits = (integer(options.get(name, 8), 2, 24, name) for name in ("bits", "query_bits"))
    scale = largest / ((1 << (bits - 1)) - 1)
    if metric != "l2":
        # the query's integers are about q s / t: let the sample's largest value reach the query's range too
        options.setdefault("query_scale", largest * scale / ((1 << (query_bits - 1)) - 1))
    try:
        return _rankable(kind(metric, dim, scale=(scale,), **options), server_ranking)
    except ScoreRangeError:
        if options.get("row_norm2") or options.get("query_norm2"):
            raise
    # the bounds that follow from the bits alone do not fit this ring: use the sample's norms, a tenth longer
    wide = kind(metric, dim, scale=(scale,), **{**options, "ring_bits": 64})
    norms: dict[str, Any] = {}
    for name, query in (("row_norm2", False), ("query_norm2", True)):
        a = quantise(wide, x, query=query)
        norms[name] = math.ceil(1.21 * int(np.einsum("ij,ij,j->i", a, a, wide.integer_weights).max()))
    return _rankable(kind(metric, dim, scale=(scale,), **options, **norms), server_ranking)


def _rankable(encoding: _E, server_ranking: bool) -> _E:
    """The encoding itself; ScoreRangeError if the servers are to rank its scores and cannot."""
    problem = ranking_problem(encoding) if server_ranking else ""
    if problem:
        raise ScoreRangeError(f"{problem}, so servers cannot rank: use a larger ring or fewer bits, or let users rank")
    return encoding


def checked_sample(metric: str, sample: np.ndarray, largest: float = LARGEST) -> np.ndarray:
    """A sample as float64 matrix; numbers beyond ``largest`` are refused where the metric squares them."""
    # the other metrics divide by a row's length first, or take whole numbers
    return sample_matrix(sample, largest if metric in ("ip", "l2") else math.inf)
