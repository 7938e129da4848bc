"""Public linear maps that shorten or rotate vectors before they are quantised."""

from __future__ import annotations

import base64
import dataclasses
import math
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..errors import DTypeError, EncodingError, ParameterError
from .numbers import integer, said, sample_matrix
from .numbers import matrix as checked

__all__ = ["Projection", "pca", "rotation"]

MAX_DIM = 1 << 16
MAX_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class Projection:
    """An orthonormal map from ``dim`` to ``out_dim`` numbers. Public, immutable, part of its encoding's hash.

    Parameters
    ----------
    dim, out_dim : int
        Dimensions before and after, ``out_dim <= dim <= 65536``.
    data : bytes
        Entries of the (dim, out_dim) matrix by rows, little-endian float32, at most 64 MiB; its columns are orthonormal
        to 1e-4.

    Raises
    ------
    ParameterError
        Sizes out of range, or columns that are not orthonormal.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding, Projection
    >>> first = Projection.of(np.eye(3)[:, :2])  # keeps the first two of three dimensions
    >>> first.dim, first.out_dim
    (3, 2)
    >>> Encoding("ip", 3, projection=first).encode_rows([[5, 6, 7]])
    array([[5, 6]], dtype=int32)
    """

    dim: int
    out_dim: int
    data: bytes = dataclasses.field(repr=False)

    #: relative length that a vector can gain, as the stored numbers are rounded
    TOLERANCE: ClassVar[float] = 1e-4

    def __post_init__(self) -> None:
        for name in ("dim", "out_dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_DIM:
                raise ParameterError(f"projection: {name} must be an integer from 1 to {MAX_DIM}, not {said(value)}")
        if self.out_dim > self.dim or 4 * self.dim * self.out_dim > MAX_BYTES:
            raise ParameterError("projection: at most as many dimensions after as before, and at most 64 MiB in all")
        if not isinstance(self.data, bytes) or len(self.data) != 4 * self.dim * self.out_dim:
            raise ParameterError("projection: data must be one float32 for each entry")
        m = self.matrix
        if not np.isfinite(m).all() or np.abs(m.T @ m - np.eye(self.out_dim)).max() > self.TOLERANCE / 2:
            raise ParameterError("projection: columns must be orthonormal")

    @cached_property
    def matrix(self) -> np.ndarray:
        """The matrix: float64, shape (dim, out_dim)."""
        return np.frombuffer(self.data, "<f4").reshape(self.dim, self.out_dim).astype(np.float64)

    @classmethod
    def of(cls, matrix: np.ndarray) -> Projection:
        """Make a projection from a matrix.

        Parameters
        ----------
        matrix : array_like of float, shape (dim, out_dim)
            Matrix with orthonormal columns; rounded to float32.

        Returns
        -------
        Projection
            The projection.

        Raises
        ------
        ParameterError
            The columns are not orthonormal, or a size is out of range.
        ShapeError
            Not a matrix.
        """
        try:
            m = checked(matrix, None, "a projection's entries")
        except (DTypeError, EncodingError) as error:
            raise ParameterError(str(error)) from None
        if np.abs(m).max(initial=0) > 2:
            raise ParameterError("projection: columns must be orthonormal")
        return cls(m.shape[0], m.shape[1], m.astype("<f4").tobytes())

    def to_dict(self) -> dict[str, Any]:
        """Serialise the projection.

        Returns
        -------
        dict
            Values that JSON holds; :meth:`from_dict` reads them.
        """
        return {"dim": self.dim, "out_dim": self.out_dim, "data": base64.b64encode(self.data).decode()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Projection:
        """Read a projection that :meth:`to_dict` wrote.

        Parameters
        ----------
        data : dict
            The serialised projection.

        Returns
        -------
        Projection
            The projection.

        Raises
        ------
        ParameterError
            Anything else than a serialised projection.
        """
        if not isinstance(data, dict) or set(data) != {"dim", "out_dim", "data"}:
            raise ParameterError("not a projection")
        try:
            raw = base64.b64decode(data["data"], validate=True)
        except (TypeError, ValueError):
            raise ParameterError("not a projection: its data is not base64 text") from None
        return cls(data["dim"], data["out_dim"], raw)


def pca(sample: np.ndarray, out_dim: int, *, center: bool = True) -> Projection:
    """Project to the principal directions of a **public** sample: those in which it varies most, strongest first.

    Parameters
    ----------
    sample : array_like of float, shape (N, dim)
        **Public** sample; the projection, which everybody sees, shows its principal directions.
    out_dim : int
        Number of directions, 1 to dim.
    center : bool
        Measure variation about the mean (for ``l2`` with the mean as offset) instead of about zero (``ip``,
        ``cosine``).

    Returns
    -------
    Projection
        From ``dim`` to ``out_dim`` dimensions.

    Raises
    ------
    ParameterError
        More directions than dimensions, or numbers so small that their squares vanish.
    DTypeError, ShapeError, EncodingError
        The sample is not a matrix of finite numbers, or of numbers whose squares overflow.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import pca
    >>> pca(np.array([[0.0, 1.0], [0.0, 3.0], [0.1, 2.0]]), 1).matrix.round(1)
    array([[0.],
           [1.]])
    """
    x = sample_matrix(sample)
    integer(out_dim, 1, x.shape[1], f"dimensions of a projection of {x.shape[1]}")
    if center:
        x = x - x.mean(axis=0)
    try:
        _, vectors = np.linalg.eigh(x.T @ x)
    except np.linalg.LinAlgError:
        raise EncodingError("the principal directions of the sample could not be computed") from None
    basis = vectors[:, ::-1][:, :out_dim]
    # signs are arbitrary: make the largest entry positive, so that the same sample gives the same map
    signs = np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(out_dim)])
    return Projection.of(basis * signs)


def rotation(dim: int, seed: int = 0) -> Projection:
    """Make a random rotation, which spreads energy evenly over all dimensions. Public.

    Parameters
    ----------
    dim : int
        Dimensions, 1 to 4096.
    seed : int
        Seed of the pseudo-random numbers, 0 to 2^64 - 1; the same seed gives the same rotation.

    Returns
    -------
    Projection
        From ``dim`` to ``dim`` dimensions.

    Raises
    ------
    ParameterError
        ``dim`` or ``seed`` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import rotation
    >>> m = rotation(5, seed=1).matrix
    >>> np.allclose(m @ m.T, np.eye(5), atol=1e-5)
    True
    """
    integer(dim, 1, math.isqrt(MAX_BYTES // 4), "dimensions of a rotation")
    integer(seed, 0, (1 << 64) - 1, "a seed")
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))
    return Projection.of(q * np.sign(np.diag(r)))
