"""What a descriptor is: the values it extracts, their distance, and the vectors that stand for it in an encoding."""

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
    """How values become vectors whose inner products stand for a distance. Public.

    Parameters
    ----------
    name : what it is called in a spec, after the colon: ``csd64:hellinger``
    metric : metric of an encoding of the vectors that ranks by the distance: one of :data:`METRICS`
    dim : length of a vector, which is what a stored row costs (``l1`` encodings store ``levels - 1`` words for each)
    low, high : (dim,) bounds of a vector, to fix an encoding's scale without private data
    embed_fn : (N, descriptor's dim) float64 to (N, dim) float64
    exact : whether the metric of the vectors, before quantisation, ranks exactly as the descriptor's own distance
    levels : for ``metric="l1"``, values are integers 0 .. levels-1; else 0
    weights : (dim,) integer weights of squared differences that the encoding applies, or empty
    whole : vectors are integers; an encoding of scale 1 holds them exactly
    unit : typical squared distance of two natural images' vectors (weighted): what makes weights in a fused descriptor
        comparable. A public constant; the built-in ones were measured on Corel-1k.
    centre, radius : (dim,) and a distance from it that no vector exceeds (weighted); default the middle of the bounds
        and the distance of their corners, which for shares of a histogram is much more than can be
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
    """An image descriptor, its distance, and how that becomes an inner product. Everything in it is public.

    Parameters
    ----------
    name : canonical spec, lower case
    version : raised whenever the values or the vectors of the same image change; of a fused one the sum of its parts'
    dim : values per image
    dtype : of the values
    low, high : (dim,) smallest and largest possible value of each dimension, from the definition and never from data
    native : the descriptor's own distance in a few words
    codes : ways to turn values into vectors; the first is the default
    extract_fn, distance_fn : unchecked functions behind :meth:`extract` and :meth:`distance`
    fuse : name of the ``l2`` code that stands for the descriptor in a fused one
    doc : one line on what it measures, and its source
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
        """The code in use."""
        return self.codes[0]

    @property
    def metric(self) -> str:
        """Metric of an encoding of :meth:`embed`."""
        return self.code.metric

    @property
    def exact(self) -> bool:
        """Whether that metric, before quantisation, ranks exactly as :meth:`distance`."""
        return self.code.exact

    @property
    def embed_dim(self) -> int:
        """Length of an embedded vector."""
        return self.code.dim

    def with_code(self, name: str) -> Descriptor:
        """The same descriptor with another of its codes, called ``<name>:<code>`` unless it is the default.

        Raises
        ------
        NotFoundError
            No such code.
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
        """Values (dim,) of one image, uint8 (H, W, 3) in RGB.

        Raises
        ------
        DTypeError, ShapeError
            Another dtype or shape, or an image that the descriptor cannot take.
        """
        return self.extract_fn(check_image(image))

    def distance(self, queries: npt.ArrayLike, rows: npt.ArrayLike) -> FloatArray:
        """The descriptor's own distance, smaller is nearer.

        Parameters
        ----------
        queries, rows : (B, dim) and (N, dim) values

        Returns
        -------
        ndarray
            (B, N) float64, not negative

        Raises
        ------
        DTypeError, ShapeError, ParameterError
            As :meth:`embed`.
        """
        return self.distance_fn(self.check_values(queries), self.check_values(rows))

    def embed(self, values: npt.ArrayLike) -> FloatArray:
        """Vectors for an encoding with metric :attr:`metric`: (N, dim) values to (N, embed_dim) float64.

        Raises
        ------
        DTypeError
            Values that are no real numbers.
        ShapeError
            Another shape than (N, dim).
        ParameterError
            A value outside ``low`` .. ``high`` of its dimension, or NaN.
        """
        return self.code.embed_fn(self.check_values(values))

    def check_values(self, values: npt.ArrayLike) -> FloatArray:
        """``values`` as a float64 array (N, dim) within the descriptor's range, else the errors of :meth:`embed`."""
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
