"""Quantisation: vectors of the metrics with scales to integers, and the lengths that norm bounds are enforced on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import EncodingError, ScoreRangeError
from .numbers import LARGEST, unit
from .parameters import MAX_NORM2, UNIT_METRICS, EncodingParameters
from .projection import Projection

__all__ = ["check_queries", "prepared", "quantise", "quantise_rows", "query_length", "refuse_long", "squares"]


def prepared(
    metric: str, v: np.ndarray, offset: Sequence[float] | None, projection: Projection | None, what: str
) -> np.ndarray:
    """Vectors as they are before scaling: square roots, unit vectors or differences from the offset, projected.

    ``v`` (N, dim) float64 may be overwritten. EncodingError for negative histograms and for vectors without direction.
    """
    if metric == "hellinger":
        if (v < 0).any():
            raise EncodingError(f"a {what} holds negative values, which no histogram has")
        np.sqrt(v, out=v)
    if metric in UNIT_METRICS:
        v = unit(v, what)
    if offset:
        v -= np.array(offset)
    if projection is not None:
        if np.abs(v).max(initial=0.0) > LARGEST:
            raise EncodingError(f"a {what} holds numbers too large to be projected")
        v = v @ projection.matrix
    return v


def quantise(e: EncodingParameters, x: np.ndarray, *, query: bool) -> np.ndarray:
    """Round vectors (N, dim) to integers (N, inner_dim) int64, half to even, and clip them; secret."""
    v = _whole(e, x, query=query)
    if np.isnan(v).any():
        raise _too_large(query=query)
    return v.astype(np.int64)


def quantise_rows(e: EncodingParameters, x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """As :func:`quantise` of rows, into integers ``out`` (N, inner_dim); gives their weighted squared lengths.

    Fewer passes: lengths of up to 2^53 are exact as floats, and one that is not a number tells of its row.
    """
    v = _whole(e, x, query=False)
    if e.clip**2 * v.shape[1] * int(e.integer_weights.max(initial=1)) > 1 << 53:
        if np.isnan(v).any():
            raise _too_large(query=False)
        a = v.astype(np.int64)
        out[:] = a
        return squares(e, a)
    lengths = np.einsum("ij,ij->i", v * e.integer_weights if e.weights else v, v)
    if np.isnan(lengths).any():
        raise _too_large(query=False)
    out[:] = v
    return lengths.astype(np.int64)


def _too_large(*, query: bool) -> EncodingError:
    return EncodingError(f"a {'query' if query else 'row'} holds numbers too large for the encoding")


def _whole(e: EncodingParameters, x: np.ndarray, *, query: bool) -> np.ndarray:
    """Vectors rounded and clipped, as float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        # numbers beyond float64 become infinite, and are clipped like all large ones
        v = prepared(e.metric, x.astype(np.float64), e.offset, e.projection, "query" if query else "row")
        v = _scaled(e, v, query=query)
    clip = e.query_clip if query else e.clip
    np.rint(v, out=v)
    np.clip(v, -clip, clip, out=v)
    return v


def _scaled(e: EncodingParameters, v: np.ndarray, *, query: bool) -> np.ndarray:
    """Prepared vectors in units of one integer step of rows or queries. Those of rows are overwritten."""
    scale = np.array(e.scale)
    if not query:
        return np.divide(v, scale, out=v)
    if e.stepped:
        return np.asarray(v * (2 * e.integer_weights * scale / e.query_scale))
    return np.asarray(v / (scale / e.query_factor) if e.metric == "l2" else v * scale / e.query_scale)


def query_length(e: EncodingParameters, b: np.ndarray) -> np.ndarray:
    """Squared weighted lengths, in units of t, of quantised queries b of stepped ``l2``: of b t / (2 w s)."""
    v = b / (2 * np.array(e.scale))
    return np.asarray(np.einsum("ij,ij,j->i", v, v, 1.0 / e.integer_weights) * e.query_scale)


def check_queries(e: EncodingParameters, b: np.ndarray) -> None:
    """ScoreRangeError if a quantised query is longer than the encoding's bound."""
    longest = (query_length(e, b) if e.stepped else squares(e, b)).max(initial=0)
    refuse_long(longest > e.query_norm2, "query")


def squares(e: EncodingParameters, v: np.ndarray) -> np.ndarray:
    """Weighted squared lengths of rows.

    Exact for integers, except where int64 could wrap: there they are floats, larger than every bound.
    """
    weighted = v * e.integer_weights if e.weights else v
    if v.dtype.kind == "i" and max(e.clip, e.query_clip) >= 1 << 20:
        about = np.einsum("ij,ij->i", weighted.astype(np.float64), v.astype(np.float64))
        if about.max(initial=0.0) > 2.0 * MAX_NORM2 * 0.9:
            return np.asarray(about)
    return np.asarray(np.einsum("ij,ij->i", weighted, v))


def refuse_long(wrong: bool | np.bool_, what: str) -> None:
    """ScoreRangeError if ``wrong``: a row or query is too long."""
    if wrong:
        raise ScoreRangeError(f"a {what} is longer than the encoding's bound allows; scores could wrap")
