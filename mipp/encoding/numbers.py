"""Checks of feature arrays, in one place. Arrays may be secret: errors say what is wrong, never a value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTypeError, EncodingError, ParameterError, ShapeError

__all__ = [
    "LARGEST",
    "SMALLEST",
    "array",
    "check_sample",
    "integer",
    "matrix",
    "plain_scalars",
    "real",
    "said",
    "sample_matrix",
    "several",
    "unit",
    "whole",
]

#: of numbers that are squared and summed: squares of up to 2^40 such numbers neither overflow nor vanish
LARGEST, SMALLEST = 2.0**480, 2.0**-480


def plain_scalars(of: Any) -> None:
    """Fields of a frozen dataclass that are numpy's scalars as Python's, which JSON knows, too."""
    for field in dataclasses.fields(of):
        value = getattr(of, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(of, field.name, value.item())


def array(x: npt.ArrayLike, what: str) -> np.ndarray:
    """``x`` as an array, else ShapeError."""
    try:
        return np.asarray(x)
    except (ValueError, OverflowError):
        raise ShapeError(f"{what} must be an array, with rows of one length") from None


def matrix(x: npt.ArrayLike, dim: int | None, what: str) -> np.ndarray:
    """``x`` as a matrix of finite real numbers with ``dim`` columns, else DTypeError, ShapeError or EncodingError.

    Numbers of more than 64 bits become float64.
    """
    x = array(x, what)
    if x.dtype == bool:
        x = x.astype(np.uint8)
    if x.dtype.kind not in "iuf":
        raise DTypeError(f"{what} must be real numbers, not {str(x.dtype)[:50]}")
    if x.ndim != 2 or (dim is not None and x.shape[1] != dim):
        expected = f"(rows, {dim})" if dim is not None else "two-dimensional"
        raise ShapeError(f"{what} must be {expected}, not {x.shape}")
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            x = x.astype(np.float64)  # what is too large for the arithmetic is infinite, and refused
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise EncodingError(f"{what} hold NaN or infinite values, or values that float64 does not hold")
    return x


def check_sample(x: np.ndarray, largest: float = LARGEST) -> None:
    """Errors for a matrix that encodings cannot be fitted to.

    Raises
    ------
    ShapeError
        No numbers in it.
    EncodingError, ParameterError
        The largest absolute value is beyond ``largest``; it is not zero but below its inverse. Sums of squares overflow
        or vanish.
    """
    if not x.size:
        raise ShapeError("the sample is empty")
    found = max(abs(float(x.max())), abs(float(x.min())))
    if found > largest:
        raise EncodingError("the sample holds numbers too large for float arithmetic; rescale it")
    if 0 < found < 1 / largest:
        raise ParameterError("the sample's numbers are too small for float arithmetic; rescale it")


def sample_matrix(x: npt.ArrayLike, largest: float = LARGEST) -> np.ndarray:
    """A sample as :func:`matrix`, in float64, with the errors of :func:`check_sample`."""
    found = matrix(x, None, "sample").astype(np.float64)
    check_sample(found, largest)
    return found


def said(value: object) -> str:
    """A wrong value for a message: at most 50 characters of it."""
    try:
        return repr(value)[:50]
    except ValueError:
        # Python writes no integers of thousands of digits
        return f"a very long {type(value).__name__}"


def real(value: object) -> float:
    """A real number as float; NaN for what is none, or too large for float64."""
    if isinstance(value, (bool, str, bytes, complex, np.complexfloating)):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def several(value: object) -> tuple[Any, ...]:
    """The entries of a list, tuple, array or other iterable; what is none by itself."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict)):
        try:
            return tuple(value)
        except TypeError:  # an array without dimensions
            pass
    return (value,)


def integer(value: object, low: int, high: int, what: str) -> int:
    """``value`` if it is an integer from ``low`` to ``high``, else ParameterError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ParameterError(f"{what} must be an integer from {low} to {high}, not {said(value)}")
    return int(value)


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
