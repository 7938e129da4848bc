"""Codes: how own distances of descriptors become inner products, and the dimension that each code costs.

===========  =========  ========================  ==============================================================
code         metric     words per row             distance that it computes
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
    """Make the code ``l1``: L1 over integers 0 .. levels-1, exactly; ``levels - 1`` stored words for each value.

    Parameters
    ----------
    dim : int
        Number of values.
    levels : int
        Number of levels, 2 to 65536.
    exact : bool
        Whether L1 is the descriptor's own distance.

    Returns
    -------
    Code

    Raises
    ------
    ParameterError
        A parameter out of range.

    Examples
    --------
    >>> from mipp.features import codes
    >>> codes.thermometer(80, 8).metric
    'l1'
    """
    _check_dim(dim)
    integer(levels, 2, 1 << 16, "levels")
    return Code("l1", "l1", dim, (0.0,) * dim, (levels - 1.0,) * dim, _identity, exact, levels, whole=True)


def sine(dim: int, high: float, terms: int) -> Code:
    """Make the code ``sine<terms>``: L1 over 0 .. high approximately; ``terms`` words for each value.

    |a - b| = integral of the squared difference of the thermometer codes of a and b, whose kernel min(a, b) has the
    eigenfunctions sin((j - 1/2) pi x / high) with eigenvalues falling as 1 / (j - 1/2)^2 (the Karhunen-Loeve expansion
    of Brownian motion); the first terms hold most of it.

    Parameters
    ----------
    dim : int
        Number of values.
    high : float
        Largest value, above 0.
    terms : int
        Terms of the series, 1 to 1024.

    Returns
    -------
    Code

    Raises
    ------
    ParameterError
        A parameter out of range.

    Examples
    --------
    >>> from mipp.features import codes
    >>> codes.sine(80, 7.0, 2).dim
    160
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
    """Make the code ``ramps``: a coarse L1, one word for each segment between ``knots``.

    A thermometer code with soft steps. Whole segments between two values count with their length, as in L1; a part x of
    a segment of length s counts x^2 / s.

    Parameters
    ----------
    low, high : sequence of float
        (dim,) bounds of the values.
    knots : sequence of float
        Ends of the segments, at least two, rising.

    Returns
    -------
    Code

    Raises
    ------
    ParameterError
        A parameter out of range.

    Examples
    --------
    >>> from mipp.features import codes
    >>> codes.ramps((0.0,) * 4, (9.0,) * 4, (0.0, 3.0, 9.0)).dim
    8
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
    """Make the code ``power``: squared differences of signed powers of the values.

    Parameters
    ----------
    low, high : sequence of float
        (dim,) bounds of the values.
    exponent : float
        Above 0, at most 16. Below 1 it damps the large values, which dominate a plain L2.

    Returns
    -------
    Code

    Raises
    ------
    ParameterError
        A parameter out of range.

    Examples
    --------
    >>> from mipp.features import codes
    >>> codes.power((0.0,) * 4, (16.0,) * 4, 0.5).high
    (4.0, 4.0, 4.0, 4.0)
    """
    exponent = real(exponent)
    if not 0 < exponent <= 16:
        raise ParameterError("the exponent must be above 0 and at most 16")

    def embed(values: FloatArray) -> FloatArray:
        return np.asarray(np.sign(values) * np.abs(values) ** exponent)

    return _monotone("power", low, high, embed)


def hellinger(dim: int) -> Code:
    """Make the code ``hellinger``: squared differences of the roots of shares.

    That is 2 - 2 times the Bhattacharyya coefficient of two histograms. Values must not be negative; a histogram that
    is all zero stays zero.

    Parameters
    ----------
    dim : int
        Number of values.

    Returns
    -------
    Code

    Raises
    ------
    ParameterError
        A parameter out of range.

    Examples
    --------
    >>> from mipp.features import codes
    >>> codes.hellinger(64).radius
    1.0
    """
    _check_dim(dim)

    def embed(values: FloatArray) -> FloatArray:
        total = values.sum(1, keepdims=True)
        return np.asarray(np.sqrt(np.divide(values, total, out=np.zeros_like(values), where=total > 0)))

    # roots of shares are vectors of length 1
    return Code("hellinger", "l2", dim, (0.0,) * dim, (1.0,) * dim, embed, centre=(0.0,) * dim, radius=1.0)


def weighted(low: Sequence[float], high: Sequence[float], weights: Sequence[int]) -> Code:
    """Make the code ``weighted``: weighted squared differences of integers, exactly.

    The encoding applies the weights to the query.

    Parameters
    ----------
    low, high : sequence of float
        (dim,) bounds of the values.
    weights : sequence of int
        (dim,) weights, 1 to 65535.

    Returns
    -------
    Code

    Raises
    ------
    ParameterError
        A parameter out of range.

    Examples
    --------
    >>> from mipp.features import codes
    >>> codes.weighted((0.0,) * 2, (31.0,) * 2, (2, 1)).weights
    (2, 1)
    """
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
    """Make the code ``l2``: squared differences of the values as they are.

    Parameters
    ----------
    low, high : sequence of float
        (dim,) bounds of the values.
    exact : bool
        Whether L2 is the descriptor's own distance.
    whole : bool
        Whether values are integers.
    unit : float
        Typical squared distance, see :class:`Code`.

    Returns
    -------
    Code

    Raises
    ------
    ParameterError
        A parameter out of range.

    Examples
    --------
    >>> from mipp.features import codes
    >>> codes.l2((0.0,) * 3, (255.0,) * 3).dim
    3
    """
    return Code("l2", "l2", len(several(low)), _floats(low), _floats(high), _identity, exact, whole=whole, unit=unit)


def linear(name: str, matrix: FloatArray, low: Sequence[float], high: Sequence[float]) -> Code:
    """Make a code of squared differences after a linear map, for distances that are quadratic forms.

    Parameters
    ----------
    name : str
        Name of the code.
    matrix : ndarray
        float64 (out, dim), the map.
    low, high : sequence of float
        (dim,) bounds of the values.

    Returns
    -------
    Code

    Raises
    ------
    ParameterError
        A parameter out of range.

    Examples
    --------
    >>> from mipp.features import codes
    >>> import numpy as np
    >>> codes.linear("sums", np.ones((1, 3)), (0.0,) * 3, (2.0,) * 3).high
    (6.0,)
    """
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
    with np.errstate(over="ignore", invalid="ignore"):  # Code refuses bounds that are not finite
        ends = [_floats(embed(np.array([_floats(side)]))[0]) for side in (low, high)]
    return Code(name, "l2", len(ends[0]), ends[0], ends[1], embed)


def _identity(values: FloatArray) -> FloatArray:
    return values


def _floats(values: Sequence[float] | FloatArray) -> tuple[float, ...]:
    return tuple(real(v) for v in several(values))
