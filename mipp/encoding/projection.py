"""Public linear maps that shorten or mix vectors before they are quantised."""

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
    dim, out_dim : dimensions before and after, ``out_dim <= dim``
    data : little-endian float32, (dim, out_dim) by rows; columns orthonormal to 1e-4
    """

    dim: int
    out_dim: int
    data: bytes = dataclasses.field(repr=False)

    #: how much a vector can become longer, by rounding of the stored numbers
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
        """(dim, out_dim) float64."""
        return np.frombuffer(self.data, "<f4").reshape(self.dim, self.out_dim).astype(np.float64)

    @classmethod
    def of(cls, matrix: np.ndarray) -> Projection:
        """From a matrix (dim, out_dim) with orthonormal columns; ParameterError for another."""
        try:
            m = checked(matrix, None, "a projection's entries")
        except (DTypeError, EncodingError) as error:
            raise ParameterError(str(error)) from None
        if np.abs(m).max(initial=0) > 2:
            raise ParameterError("projection: columns must be orthonormal")
        return cls(m.shape[0], m.shape[1], m.astype("<f4").tobytes())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"dim": self.dim, "out_dim": self.out_dim, "data": base64.b64encode(self.data).decode()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Projection:
        """Inverse of :meth:`to_dict`; ParameterError for anything else."""
        if not isinstance(data, dict) or set(data) != {"dim", "out_dim", "data"}:
            raise ParameterError("not a projection")
        try:
            raw = base64.b64decode(data["data"], validate=True)
        except (TypeError, ValueError):
            raise ParameterError("not a projection: its data is no base64 text") from None
        return cls(data["dim"], data["out_dim"], raw)


def pca(sample: np.ndarray, out_dim: int, *, center: bool = True) -> Projection:
    """The ``out_dim`` directions in which a **public** sample (N, dim) varies most, strongest first.

    With ``center`` about its mean (for ``l2``, where the mean becomes the offset), else about zero (``ip``,
    ``cosine``).

    Raises
    ------
    ParameterError, DTypeError, ShapeError, EncodingError
        More dimensions than the sample has; a sample that is no matrix of finite numbers, or of numbers whose squares
        overflow or vanish.
    """
    x = sample_matrix(sample)
    integer(out_dim, 1, x.shape[1], f"dimensions of a projection of {x.shape[1]}")
    if center:
        x = x - x.mean(axis=0)
    try:
        _, vectors = np.linalg.eigh(x.T @ x)
    except np.linalg.LinAlgError:
        raise EncodingError("no principal directions of the sample were found") from None
    basis = vectors[:, ::-1][:, :out_dim]
    # a sign is free: let the largest entry be positive, so that the same sample gives the same map
    signs = np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(out_dim)])
    return Projection.of(basis * signs)


def rotation(dim: int, seed: int = 0) -> Projection:
    """A random rotation of ``dim`` dimensions, public, from a seed: spreads energy evenly over all of them.

    ParameterError for a dimension outside 1..4096, or a seed that is no integer from 0 on.
    """
    integer(dim, 1, math.isqrt(MAX_BYTES // 4), "dimensions of a rotation")
    integer(seed, 0, (1 << 64) - 1, "a seed")
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))
    return Projection.of(q * np.sign(np.diag(r)))
