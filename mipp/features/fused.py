"""Fused descriptors: the vectors of several parts side by side in one ``l2`` index.

The squared distance is the sum over parts of weight / unit times the part's own squared distance, where the unit is
typical between two natural images (a public constant of each code): parts of equal weight count equally. Weights
are part of the spec, ``2*scd256+csd64``, so an index that keeps its spec keeps them; they are fixed when the index is
made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..encoding.numbers import real, several
from ..errors import DTypeError, ParameterError
from .base import Code, Descriptor, FloatArray, euclidean

__all__ = ["MAX_WEIGHT", "fuse", "scale_weights"]

MAX_WEIGHT = 1000.0


def fuse(parts: Sequence[Descriptor], weights: Sequence[float] | None = None) -> Descriptor:
    """Make one descriptor of several.

    Parameters
    ----------
    parts : sequence of Descriptor
        Descriptors of different names that have an ``l2`` code to be fused by.
    weights : sequence of float, optional
        Weights of their squared distances in units, each above 0 and at most 1000; default all 1.

    Returns
    -------
    Descriptor
        Its values are the parts' values side by side (float64 if their types differ), its distance is that of the
        vectors.

    Raises
    ------
    DTypeError, ParameterError
        Parts that are not descriptors; no parts, a part twice or one that cannot be fused, weights that do not fit.

    Examples
    --------
    >>> from mipp import features
    >>> both = features.fuse([features.get("csd64"), features.get("ehd")], [2, 1])
    >>> both.name, both.dim
    ('2*csd64+ehd', 144)
    """
    for part in parts:
        if not isinstance(part, Descriptor):
            raise DTypeError(f"parts must be descriptors, not {type(part).__name__}")
    factors = [1.0] * len(parts) if weights is None else [real(w) for w in several(weights)]
    if not parts or len(factors) != len(parts):
        raise ParameterError("a fused descriptor needs parts and as many weights")
    if len({part.name for part in parts}) != len(parts):
        raise ParameterError("a fused descriptor takes each part once")
    for part, weight in zip(parts, factors, strict=True):
        if not math.isfinite(weight) or not 0 < weight <= MAX_WEIGHT:
            raise ParameterError(
                f"the weight of {part.name} must be above 0 and at most {MAX_WEIGHT:g}, not {weight!r}"
            )
        if not _code(part):
            raise ParameterError(f"{part.name} cannot be part of a fused descriptor: it has no l2 code for that")
    if len(parts) == 1 and factors == [1.0]:
        return parts[0]
    name = "+".join(_text(weight) + part.name for part, weight in zip(parts, factors, strict=True))
    chosen = [_code(part) for part in parts]
    scales = [math.sqrt(weight / code[0].unit) for code, weight in zip(chosen, factors, strict=True)]
    ends = np.cumsum([0, *(part.dim for part in parts)])

    def extract(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
        return np.concatenate([part.extract_fn(image) for part in parts]).astype(dtype, copy=False)

    def embed(values: FloatArray) -> FloatArray:
        pieces = []
        for i, (code, scale) in enumerate(zip(chosen, scales, strict=True)):
            piece = code[0].embed_fn(values[:, ends[i] : ends[i + 1]])
            roots = np.sqrt(np.array(code[0].weights)) if code[0].weights else 1.0
            pieces.append(piece * roots * scale)
        return np.concatenate(pieces, axis=1)

    def distance(queries: FloatArray, rows: FloatArray) -> FloatArray:
        return euclidean(embed(queries), embed(rows))

    def bounds(side: str) -> tuple[float, ...]:
        out: list[float] = []
        for (code,), scale in zip(chosen, scales, strict=True):
            roots = np.sqrt(np.array(code.weights)) if code.weights else np.ones(code.dim)
            out += (np.array(getattr(code, side)) * roots * scale).tolist()
        return tuple(out)

    centre: list[float] = []
    for (code,), scale in zip(chosen, scales, strict=True):
        roots = np.sqrt(np.array(code.weights)) if code.weights else np.ones(code.dim)
        centre += (np.array(code.centre) * roots * scale).tolist()
    radius = math.hypot(*(code[0].radius * scale for code, scale in zip(chosen, scales, strict=True)))
    dtype = np.result_type(*(part.dtype for part in parts))
    total = sum(code[0].dim for code in chosen)
    return Descriptor(
        name=name,
        version=sum(part.version for part in parts),
        dim=int(ends[-1]),
        dtype=dtype,
        low=tuple(v for part in parts for v in part.low),
        high=tuple(v for part in parts for v in part.high),
        native="weighted sum of the parts' squared distances",
        codes=(
            Code(
                "l2", "l2", total, bounds("low"), bounds("high"), embed, exact=True, centre=tuple(centre), radius=radius
            ),
        ),
        extract_fn=extract,
        distance_fn=distance,
        doc=f"{len(parts)} descriptors in one l2 vector",
    )


def scale_weights(parts: Sequence[Descriptor], values: Sequence[npt.ArrayLike]) -> tuple[float, ...]:
    """Compute weights under which the parts have equal mean squared distances on a **public** sample.

    Parameters
    ----------
    parts : sequence of Descriptor
        As for :func:`fuse`.
    values : sequence of array_like
        (N, dim) values of each part, N at least 2, of the same public images.

    Returns
    -------
    tuple of float
        A weight for each part, to three digits. They become part of the index's public spec.

    Raises
    ------
    ParameterError
        Not as many values as parts, fewer than two images, or a part that does not vary over them.
    DTypeError, ShapeError
        As :meth:`Descriptor.embed`.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import features
    >>> parts = [features.get("csd64"), features.get("cld")]
    >>> rng = np.random.default_rng(0)
    >>> sample = [rng.integers(0, 32, (50, part.dim)) for part in parts]
    >>> len(features.scale_weights(parts, sample))
    2
    """
    if len(parts) != len(values):
        raise ParameterError("values must be given for each part")
    out = []
    for part, sample in zip(parts, values, strict=True):
        code = _code(part)
        if not code:
            raise ParameterError(f"{part.name} cannot be part of a fused descriptor: it has no l2 code for that")
        vectors = code[0].embed_fn(part.check_values(sample))
        if len(vectors) < 2:
            raise ParameterError("a sample needs two images at least")
        weights = np.array(code[0].weights) if code[0].weights else 1.0
        # the mean squared distance of two different rows is twice the unbiased variance
        mean = 2.0 * float((vectors.var(axis=0, ddof=1) * weights).sum())
        if mean <= 0:
            raise ParameterError(f"{part.name} is the same for all images of the sample")
        out.append(float(f"{code[0].unit / mean:.3g}"))
    return tuple(out)


def _code(part: Descriptor) -> tuple[Code, ...]:
    """The code by which a part is fused, none if it has none: the one in use if that is l2 and was chosen."""
    if part.fuse:
        return (part.with_code(part.fuse).code,)
    return (part.code,) if part.metric == "l2" else ()


def _text(weight: float) -> str:
    return "" if weight == 1.0 else f"{weight:.6g}*"
