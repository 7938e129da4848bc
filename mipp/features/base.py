"""What a descriptor is: the values it extracts, their distance, and the vectors that stand for it in an encoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTypeError, ParameterError, ShapeError

__all__ = ["METRICS", "Descriptor", "check_image", "euclidean", "identity"]

FloatArray = npt.NDArray[np.float64]
METRICS = ("cosine", "hamming", "ip", "l1", "l2")


@dataclass(frozen=True, eq=False, repr=False)
class Descriptor:
    """An image descriptor, and how its distance becomes an inner product. Everything in it is public.

    Parameters
    ----------
    name : canonical spec, lower case; parts of a fused descriptor joined by ``+``
    version : raised whenever the values or the embedding of the same image change
    dim : values per image
    dtype : of the values
    low, high : (dim,) smallest and largest possible value of each dimension, from the definition and never from data
    metric : metric of an encoding of :meth:`embed` that ranks by the distance: one of :data:`METRICS`
    exact : whether that metric, before quantisation, ranks exactly as :meth:`distance`
    embed_dim : length of an embedded vector
    embed_low, embed_high : (embed_dim,) bounds of embedded values, to fix an encoding's scale without private data
    levels : for ``metric="l1"``, values are integers 0 .. levels-1; else 0
    weights : (dim,) weights of squared differences in the distance, empty if there are none
    doc : one line on what it measures, and its source
    extract_fn, distance_fn, embed_fn : unchecked functions behind :meth:`extract`, :meth:`distance`, :meth:`embed`
    """

    name: str
    version: int
    dim: int
    dtype: np.dtype[Any]
    low: tuple[int, ...]
    high: tuple[int, ...]
    metric: str
    exact: bool
    embed_dim: int
    embed_low: tuple[float, ...]
    embed_high: tuple[float, ...]
    extract_fn: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]
    distance_fn: Callable[[FloatArray, FloatArray], FloatArray]
    embed_fn: Callable[[FloatArray], FloatArray]
    levels: int = 0
    weights: tuple[float, ...] = ()
    doc: str = ""

    def __repr__(self) -> str:
        return f"<Descriptor {self.name} version {self.version}: {self.doc}>"

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ParameterError(f"metric must be one of {', '.join(METRICS)}, not {self.metric!r}")
        for field, length in (
            ("low", self.dim), ("high", self.dim), ("embed_low", self.embed_dim), ("embed_high", self.embed_dim),
        ):  # fmt: skip
            if len(getattr(self, field)) != length:
                raise ParameterError(f"{field} of descriptor {self.name} must have {length} entries")

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
        return self.embed_fn(self.check_values(values))

    def check_values(self, values: npt.ArrayLike) -> FloatArray:
        """``values`` as a float64 array (N, dim) within the descriptor's range, else the errors of :meth:`embed`."""
        array = np.asarray(values)
        if array.dtype.kind not in "buif":
            raise DTypeError(f"{self.name} values must be real numbers, not {array.dtype}")
        if array.ndim != 2 or array.shape[1] != self.dim:
            raise ShapeError(f"{self.name} values must have shape (N, {self.dim}), not {array.shape}")
        out = array.astype(np.float64)
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
    return np.ascontiguousarray(image)


def identity(values: FloatArray) -> FloatArray:
    """The embedding of descriptors that an encoding takes as they are."""
    return values


def euclidean(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """Euclidean distances (B, N); through inner products, so that no (B, N, dim) array is made."""
    squared = (queries**2).sum(1)[:, None] + (rows**2).sum(1)[None] - 2.0 * (queries @ rows.T)
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))
