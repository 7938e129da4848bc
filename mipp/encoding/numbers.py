"""Checks of feature arrays, in one place. Arrays may be secret: errors say what is wrong, never a value."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..errors import DTypeError, EncodingError, ParameterError, ShapeError

__all__ = ["matrix", "numbers", "plain_scalars", "unit", "whole"]


def plain_scalars(of: Any) -> None:
    """Fields of a frozen dataclass that are numpy's scalars as Python's, which JSON knows, too."""
    for field in dataclasses.fields(of):
        value = getattr(of, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(of, field.name, value.item())


def numbers(value: Any, what: str) -> tuple[float, ...]:
    """One number, or several, as a tuple of floats; ParameterError for anything else."""
    try:
        given = (value,) if isinstance(value, (int, float)) else tuple(value)
        if any(isinstance(v, (str, bytes)) for v in given):
            raise TypeError
        return tuple(float(v) for v in given)
    except (TypeError, ValueError):
        raise ParameterError(f"{what} is one number or several, not {type(value).__name__}") from None


def matrix(x: np.ndarray, dim: int | None, what: str) -> np.ndarray:
    """``x`` as a matrix of finite real numbers with ``dim`` columns, else DTypeError, ShapeError or EncodingError."""
    x = np.asarray(x)
    if x.dtype == bool:
        x = x.astype(np.uint8)
    if x.dtype.kind not in "iuf":
        raise DTypeError(f"{what} must be real numbers, not {x.dtype}")
    if x.ndim != 2 or (dim is not None and x.shape[1] != dim):
        expected = f"(rows, {dim})" if dim is not None else "two-dimensional"
        raise ShapeError(f"{what} must be {expected}, not {x.shape}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise EncodingError(f"{what} hold NaN or infinite values")
    return x


def unit(v: np.ndarray, what: str) -> np.ndarray:
    """Rows divided by their lengths; EncodingError for a row of zeros."""
    largest = np.abs(v).max(axis=1, keepdims=True, initial=0)
    if (largest == 0).any():
        raise EncodingError(f"a {what} is zero everywhere and has no direction; cosine is undefined")
    v = v / largest  # first, so that squares neither overflow nor vanish
    return v / np.sqrt(np.einsum("ij,ij->i", v, v))[:, None]


def whole(x: np.ndarray, low: int, high: int, what: str) -> np.ndarray:
    """``x`` as int64 if it holds whole numbers from ``low`` to ``high`` only, else EncodingError."""
    if x.size and (x.min() < low or x.max() > high or (x.dtype.kind == "f" and (x != np.rint(x)).any())):
        raise EncodingError(f"{what} must be whole numbers from {low} to {high}")
    return x.astype(np.int64)
