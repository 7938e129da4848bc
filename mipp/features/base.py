"""Descriptors and codes: values of an image, their distance, and the vectors that an encoding compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..encoding.numbers import LARGEST, SMALLEST, array, integer, real, said, several
from ..errors import DTypeError, NotFoundError, ParameterError, ShapeError

__all__ = [
    "METRICS",
    "Code",
    "Descriptor",
    "FloatArray",
    "check_count",
    "check_image",
    "city_block",
    "euclidean",
    "squared",
]

FloatArray = npt.NDArray[np.float64]
METRICS = ("cosine", "hamming", "hellinger", "ip", "l1", "l2")


@dataclass(frozen=True, eq=False)
class Code:
    """A way to turn a descriptor's values into vectors whose inner products stand for its distance. Public.

    Parameters
    ----------
    name : str
        Name in a spec, after the colon: ``csd64:hellinger``.
    metric : str
        Metric of an encoding of the vectors that ranks by the distance: one of :data:`METRICS`.
    dim : int
        Length of a vector, which is the cost of a stored row (``l1`` encodings store ``levels - 1`` words for each
        value).
    low, high : tuple of float
        (dim,) bounds of a vector, which fix an encoding's scale without private data.
    embed_fn : callable
        Function from values, float64 (N, descriptor's dim), to vectors, float64 (N, dim).
    exact : bool
        Whether the metric of the vectors, before quantisation, ranks exactly as the descriptor's own distance.
    levels : int
        For ``metric="l1"`` values are integers 0 .. levels-1; else 0.
    weights : tuple of int
        (dim,) integer weights of squared differences that the encoding applies, or empty.
    whole : bool
        Whether vectors are integers; an encoding of scale 1 holds them exactly.
    unit : float
        Typical squared distance of two natural images' vectors (weighted), which makes weights in a fused descriptor
        comparable. A public constant; the built-in ones were measured on Corel-1k.
    centre : tuple of float
        (dim,), the middle of the ball that holds all vectors (weighted). Default: the middle of the bounds.
    radius : float
        Radius of that ball. Default: half the distance of the corners of the bounds, which for shares of a histogram is
        much larger than needed.

    Raises
    ------
    ParameterError
        Fields that do not fit together, or numbers out of range.

    Examples
    --------
    >>> from mipp import features
    >>> code = features.get("csd64").code
    >>> code.name, code.metric, code.dim
    ('power', 'l2', 64)
    """

    name: str
    metric: str
    dim: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    embed_fn: Callable[[FloatArray], FloatArray]
    exact: bool = False
    levels: int = 0
    weights: tuple[int, ...] = ()
    whole: bool = False
    unit: float = 1.0
    centre: tuple[float, ...] = ()
    radius: float = 0.0

    def __post_init__(self) -> None:
        name = str(self.name)[:50]
        integer(self.dim, 1, 1 << 20, f"the length of code {name}")
        integer(self.levels, 0, 1 << 16, f"levels of code {name}")
        for field in ("low", "high", "centre"):
            values = tuple(real(v) for v in several(getattr(self, field)))
            # written so that NaN fails it
            if not all(abs(v) <= LARGEST for v in values):
                raise ParameterError(f"{field} of code {name} must be finite numbers, up to 2^480")
            object.__setattr__(self, field, values)
        object.__setattr__(self, "weights", several(self.weights))
        for field in ("unit", "radius"):
            object.__setattr__(self, field, real(getattr(self, field)))
        if self.metric not in METRICS:
            raise ParameterError(f"metric must be one of {', '.join(METRICS)}, not {said(self.metric)}")
        if len(self.low) != self.dim or len(self.high) != self.dim or len(self.weights) not in (0, self.dim):
            raise ParameterError(f"bounds and weights of code {name} must have {self.dim} entries")
        for weight in self.weights:
            integer(weight, 1, (1 << 16) - 1, f"weights of code {name}")
        if len(self.centre) not in (0, self.dim) or bool(self.centre) != (self.radius > 0):
            raise ParameterError(f"code {name} needs a centre of {self.dim} entries and a radius, or neither")
        if not SMALLEST <= self.unit <= LARGEST or not 0 <= self.radius <= LARGEST**2:
            raise ParameterError(f"the unit of code {name} must be positive, and its radius finite")
        if not self.centre:
            low, high = np.array(self.low), np.array(self.high)
            roots = np.sqrt(np.array(self.weights)) if self.weights else 1.0
            object.__setattr__(self, "centre", tuple(((low + high) / 2).tolist()))
            object.__setattr__(self, "radius", float(np.linalg.norm((high - low) / 2 * roots)))


@dataclass(frozen=True, eq=False, repr=False)
class Descriptor:
    """An image descriptor, its distance, and codes that make it an inner product. Everything in it is public.

    Parameters
    ----------
    name : str
        Canonical spec, lower case.
    version : int
        Raised whenever the values or the vectors of the same image change; of a fused descriptor the sum of its parts'.
    dim : int
        Values per image.
    dtype : dtype
        Of the values.
    low, high : tuple of float
        (dim,) smallest and largest possible value of each dimension, from the definition and never from data.
    native : str
        The descriptor's own distance in a few words.
    codes : tuple of Code
        Ways to turn values into vectors; the first is the default.
    extract_fn, distance_fn : callable
        Unchecked functions behind :meth:`extract` and :meth:`distance`.
    fuse : str
        Name of the ``l2`` code that stands for the descriptor in a fused one; empty if it cannot be fused.
    doc : str
        One line on what it measures, and its source.

    Raises
    ------
    ParameterError
        Fields that do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import features
    >>> descriptor = features.get("cld")
    >>> values = np.stack([descriptor.extract(np.full((16, 16, 3), gray, np.uint8)) for gray in (0, 40, 200)])
    >>> descriptor.distance(values[:1], values).argsort().tolist()
    [[0, 1, 2]]
    >>> descriptor.metric, descriptor.embed(values).shape
    ('l2', (3, 12))
    """

    name: str
    version: int
    dim: int
    dtype: np.dtype[Any]
    low: tuple[float, ...]
    high: tuple[float, ...]
    native: str
    codes: tuple[Code, ...]
    extract_fn: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]
    distance_fn: Callable[[FloatArray, FloatArray], FloatArray]
    fuse: str = ""
    doc: str = ""

    def __repr__(self) -> str:
        return f"<Descriptor {self.name} version {self.version}: {self.doc}>"

    def __post_init__(self) -> None:
        for field in ("low", "high"):
            values = tuple(real(v) for v in several(getattr(self, field)))
            if len(values) != self.dim or not all(abs(v) <= LARGEST for v in values):
                raise ParameterError(f"{field} of descriptor {self.name} must have {self.dim} finite entries")
        names = [code.name for code in self.codes]
        if not names or len(set(names)) != len(names):
            raise ParameterError(f"descriptor {self.name} needs codes of different names")
        if self.fuse and (self.fuse not in names or self.with_code(self.fuse).metric != "l2"):
            raise ParameterError(f"{self.name} cannot be fused by {self.fuse!r}, which is no l2 code of it")

    @property
    def code(self) -> Code:
        """The :class:`Code` in use: the first of ``codes``."""
        return self.codes[0]

    @property
    def metric(self) -> str:
        """Metric (str) of an encoding of the vectors that :meth:`embed` gives."""
        return self.code.metric

    @property
    def exact(self) -> bool:
        """Whether that metric, before quantisation, ranks exactly as :meth:`distance`."""
        return self.code.exact

    @property
    def embed_dim(self) -> int:
        """Length of a vector that :meth:`embed` gives."""
        return self.code.dim

    def with_code(self, name: str) -> Descriptor:
        """Return the same descriptor with another of its codes in use.

        Parameters
        ----------
        name : str
            Name of the code.

        Returns
        -------
        Descriptor
            Called ``<name>:<code>`` unless the code is the default.

        Raises
        ------
        NotFoundError
            The descriptor has no such code.
        """
        for code in self.codes:
            if code.name == name:
                rest = tuple(other for other in self.codes if other is not code)
                if code is self.code:
                    return self
                plain = self.name.partition(":")[0]
                return replace(self, name=f"{plain}:{name}", codes=(code, *rest), fuse="")
        raise NotFoundError(f"{self.name} has no code {name!r}; there are {', '.join(c.name for c in self.codes)}")

    def extract(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Compute the values of one image.

        Parameters
        ----------
        image : ndarray
            uint8 (H, W, 3), RGB. Secret at its owner or user.

        Returns
        -------
        ndarray
            (dim,) of :attr:`dtype`. As secret as the image.

        Raises
        ------
        DTypeError, ShapeError
            Another dtype or shape, or an image that the descriptor cannot take.
        """
        return self.extract_fn(check_image(image))

    def distance(self, queries: npt.ArrayLike, rows: npt.ArrayLike) -> FloatArray:
        """Compute the descriptor's own distance; smaller is nearer.

        Parameters
        ----------
        queries, rows : array_like
            (B, dim) and (N, dim) values.

        Returns
        -------
        ndarray
            float64 (B, N), not negative.

        Raises
        ------
        DTypeError, ShapeError, ParameterError
            As :meth:`embed`.
        """
        return self.distance_fn(self.check_values(queries), self.check_values(rows))

    def embed(self, values: npt.ArrayLike) -> FloatArray:
        """Turn values into vectors for an encoding with metric :attr:`metric`.

        Parameters
        ----------
        values : array_like
            (N, dim) values.

        Returns
        -------
        ndarray
            float64 (N, embed_dim).

        Raises
        ------
        DTypeError
            Values that are not real numbers.
        ShapeError
            Another shape than (N, dim).
        ParameterError
            A value outside ``low`` .. ``high`` of its dimension, or NaN.
        """
        return self.code.embed_fn(self.check_values(values))

    def check_values(self, values: npt.ArrayLike) -> FloatArray:
        """Check that values lie within the descriptor's range.

        Parameters
        ----------
        values : array_like
            (N, dim) values.

        Returns
        -------
        ndarray
            The values as float64 (N, dim).

        Raises
        ------
        DTypeError, ShapeError, ParameterError
            As :meth:`embed`.
        """
        given = array(values, f"{self.name} values")
        if given.dtype.kind not in "buif":
            raise DTypeError(f"{self.name} values must be real numbers, not {str(given.dtype)[:50]}")
        if given.ndim != 2 or given.shape[1] != self.dim:
            raise ShapeError(f"{self.name} values must have shape (N, {self.dim}), not {given.shape}")
        with np.errstate(over="ignore"):
            out = given.astype(np.float64)
        # written so that NaN fails it
        if not np.all((out >= self.low) & (out <= self.high)):
            raise ParameterError(f"{self.name} values outside their range")
        return out


def check_image(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """``image`` as a C-contiguous uint8 array (H, W, 3) with H, W >= 1; DTypeError or ShapeError otherwise."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise DTypeError(f"an image must be a uint8 array, not {kind}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError(f"an image must have shape (H, W, 3), not {image.shape}")
    # a read-only array would have all kernels compiled once more
    return np.require(image, np.uint8, ["C", "W"])


def check_count(count: int, allowed: tuple[int, ...], what: str) -> None:
    """ParameterError unless ``count`` is one of the numbers of ``what`` that there are."""
    if isinstance(count, bool) or not isinstance(count, int) or count not in allowed:
        raise ParameterError(f"there are {', '.join(map(str, allowed))} {what}, not {said(count)}")


def squared(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """Squared Euclidean distances (B, N); through inner products, so that no (B, N, dim) array is made."""
    out = (queries**2).sum(1)[:, None] + (rows**2).sum(1)[None] - 2.0 * (queries @ rows.T)
    return np.asarray(np.maximum(out, 0.0))


def euclidean(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """Euclidean distances (B, N)."""
    return np.asarray(np.sqrt(squared(queries, rows)))


def city_block(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """Sums of absolute differences (B, N), query by query."""
    return np.array([np.abs(rows - q).sum(1) for q in queries]).reshape(len(queries), len(rows))
