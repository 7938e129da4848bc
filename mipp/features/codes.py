"""Codes: how native distances of descriptors become inner products, and the dimension that each choice costs.

===========  =========  ========================  ==============================================================
code         metric     words per row             what it computes
===========  =========  ========================  ==============================================================
``l1``       l1         dim (levels - 1)          thermometer code: the L1 distance, exact
``sine2``    l2         2 dim                     first two terms of a series whose limit is L1
``ramps``    l2         dim segments              L1 between values on different segments, squared within one
``power``    l2         dim                       squared differences of sign(x) abs(x)^p: damps large values
``hellinger``l2         dim                       squared differences of roots of shares (Hellinger distance)
``weighted`` l2         dim                       weighted squared differences, exact in integers
``l2``       l2         dim                       squared differences
===========  =========  ========================  ==============================================================

An ``l2`` encoding stores one word more, for the norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..encoding.numbers import LARGEST, SMALLEST, integer, real, several
from ..errors import ParameterError
from .base import Code, FloatArray

__all__ = ["hellinger", "l2", "linear", "power", "ramps", "sine", "thermometer", "weighted"]


def thermometer(dim: int, levels: int, *, exact: bool = True) -> Code:
    """L1 over integers 0 .. levels-1, exactly; ``levels - 1`` stored words for each value."""
    _check_dim(dim)
    integer(levels, 2, 1 << 16, "levels")
    return Code("l1", "l1", dim, (0.0,) * dim, (levels - 1.0,) * dim, _identity, exact, levels, whole=True)


def sine(dim: int, high: float, terms: int) -> Code:
    """L1 over 0 .. high approximately: ``terms`` words for each value.

    |a - b| = integral of the squared difference of the thermometer codes of a and b, whose kernel min(a, b) has the
    eigenfunctions sin((j - 1/2) pi x / high) with eigenvalues falling as 1 / (j - 1/2)^2 (the Karhunen-Loeve expansion
    of Brownian motion); the first terms hold most of it.
    """
    _check_dim(dim)
    integer(terms, 1, 1 << 10, "terms")
    high = real(high)
    if not SMALLEST <= high <= LARGEST:
        raise ParameterError("the greatest value must be a positive number")
    orders = np.arange(1, terms + 1) - 0.5
    sizes = math.sqrt(2.0 * high) / (orders * math.pi)

    def embed(values: FloatArray) -> FloatArray:
        waves = np.sin(values[:, :, None] * (orders * math.pi / high)) * sizes
        return np.asarray(waves.reshape(len(values), -1))

    top = np.tile(sizes, dim)
    low = np.tile(np.where(orders < 1, 0.0, -sizes), dim)
    return Code(f"sine{terms}", "l2", dim * terms, _floats(low), _floats(top), embed)


def ramps(low: Sequence[float], high: Sequence[float], knots: Sequence[float]) -> Code:
    """L1 made coarse: each value becomes its way through each segment between ``knots``, over the root of its length.

    A thermometer code with soft steps. Values in neighbouring segments on either side of whole ones differ by their L1
    distance, values within a segment of length s by its square over s. One word for each segment.
    """
    edges = np.array([real(knot) for knot in several(knots)])
    if len(edges) < 2 or not (abs(edges) <= LARGEST).all() or not (edges[1:] > edges[:-1]).all():
        raise ParameterError("knots must be two finite numbers or more, rising")
    lengths = np.diff(edges)
    roots = np.sqrt(lengths)

    def embed(values: FloatArray) -> FloatArray:
        ways = np.clip(values[:, :, None] - edges[:-1], 0.0, lengths) / roots
        return np.asarray(ways.reshape(len(values), -1))

    return _monotone("ramps", low, high, embed)


def power(low: Sequence[float], high: Sequence[float], exponent: float) -> Code:
    """Squared differences of signed powers; ``exponent`` below 1 damps the large values that rule a plain L2."""
    exponent = real(exponent)
    if not 0 < exponent <= 16:
        raise ParameterError("the exponent must be above 0 and at most 16")

    def embed(values: FloatArray) -> FloatArray:
        return np.asarray(np.sign(values) * np.abs(values) ** exponent)

    return _monotone("power", low, high, embed)


def hellinger(dim: int) -> Code:
    """Squared differences of the roots of shares: 2 - 2 times the Bhattacharyya coefficient of two histograms.

    Values are not negative; a histogram of zeros alone stays zero.
    """
    _check_dim(dim)

    def embed(values: FloatArray) -> FloatArray:
        total = values.sum(1, keepdims=True)
        return np.asarray(np.sqrt(np.divide(values, total, out=np.zeros_like(values), where=total > 0)))

    # roots of shares are vectors of length 1
    return Code("hellinger", "l2", dim, (0.0,) * dim, (1.0,) * dim, embed, centre=(0.0,) * dim, radius=1.0)


def weighted(low: Sequence[float], high: Sequence[float], weights: Sequence[int]) -> Code:
    """Weighted squared differences of integers: exact, the encoding applies the weights to the query."""
    return Code(
        "weighted",
        "l2",
        len(several(low)),
        _floats(low),
        _floats(high),
        _identity,
        weights=several(weights),
        whole=True,
    )


def l2(
    low: Sequence[float], high: Sequence[float], *, exact: bool = False, whole: bool = False, unit: float = 1.0
) -> Code:
    """Squared differences of the values as they are."""
    return Code("l2", "l2", len(several(low)), _floats(low), _floats(high), _identity, exact, whole=whole, unit=unit)


def linear(name: str, matrix: FloatArray, low: Sequence[float], high: Sequence[float]) -> Code:
    """Squared differences after a linear map (out, dim), for distances that are quadratic forms."""
    a, b = matrix * np.asarray(low), matrix * np.asarray(high)

    def embed(values: FloatArray) -> FloatArray:
        return np.asarray(values @ matrix.T)

    ends = _floats(np.minimum(a, b).sum(1)), _floats(np.maximum(a, b).sum(1))
    return Code(name, "l2", len(matrix), ends[0], ends[1], embed)


def _check_dim(dim: int) -> None:
    integer(dim, 1, 1 << 20, "the number of values")


def _monotone(
    name: str, low: Sequence[float], high: Sequence[float], embed: Callable[[FloatArray], FloatArray]
) -> Code:
    """A code whose words rise with the values: its bounds are the words of theirs."""
    with np.errstate(over="ignore", invalid="ignore"):  # the code refuses what is not finite
        ends = [_floats(embed(np.array([_floats(side)]))[0]) for side in (low, high)]
    return Code(name, "l2", len(ends[0]), ends[0], ends[1], embed)


def _identity(values: FloatArray) -> FloatArray:
    return values


def _floats(values: Sequence[float] | FloatArray) -> tuple[float, ...]:
    return tuple(real(v) for v in several(values))
