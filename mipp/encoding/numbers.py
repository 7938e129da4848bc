"""Checks of feature arrays, in one place. Arrays may be secret: errors say what is wrong, but show no value."""

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

#: range of numbers that are squared and summed: sums of up to 2^40 such squares neither overflow nor vanish
LARGEST, SMALLEST = 2.0**480, 2.0**-480


def plain_scalars(of: Any) -> None:
    """Turn numpy scalars in fields of a frozen dataclass into Python's, which JSON can hold."""
    for field in dataclasses.fields(of):
        value = getattr(of, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(of, field.name, value.item())


def array(x: npt.ArrayLike, what: str) -> np.ndarray:
    """Convert to an array; ShapeError if that fails."""
    try:
        return np.asarray(x)
    except (ValueError, OverflowError):
        raise ShapeError(f"{what} must be an array, with rows of one length") from None


def matrix(x: npt.ArrayLike, dim: int | None, what: str) -> np.ndarray:
    """Convert to a matrix of finite real numbers with ``dim`` columns; DTypeError, ShapeError or EncodingError.

    Floats of more than 64 bits become float64.
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
            x = x.astype(np.float64)  # numbers beyond float64 become infinite, and are refused below
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise EncodingError(f"{what} hold NaN or infinite values, or values that float64 does not hold")
    return x


def check_sample(x: np.ndarray, largest: float = LARGEST) -> None:
    """Refuse a sample that encodings cannot be fitted to.

    Raises
    ------
    ShapeError
        The sample is empty.
    EncodingError, ParameterError
        The largest absolute value is beyond ``largest``, or below 1 / ``largest`` and not zero: sums of squares would
        overflow or vanish.
    """
    if not x.size:
        raise ShapeError("the sample is empty")
    found = max(abs(float(x.max())), abs(float(x.min())))
    if found > largest:
        raise EncodingError("the sample holds numbers too large for float arithmetic; rescale it")
    if 0 < found < 1 / largest:
        raise ParameterError("the sample's numbers are too small for float arithmetic; rescale it")


def sample_matrix(x: npt.ArrayLike, largest: float = LARGEST) -> np.ndarray:
    """Convert a sample to a float64 matrix, with the checks of :func:`matrix` and :func:`check_sample`."""
    found = matrix(x, None, "sample").astype(np.float64)
    check_sample(found, largest)
    return found


def said(value: object) -> str:
    """Show a wrong value in a message: at most 50 characters of it."""
    try:
        return repr(value)[:50]
    except ValueError:
        # Python refuses to print integers of thousands of digits
        return f"a very long {type(value).__name__}"


def real(value: object) -> float:
    """Convert a real number to float; NaN if it is not a number, or too large for float64."""
    if isinstance(value, (bool, str, bytes, complex, np.complexfloating)):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def several(value: object) -> tuple[Any, ...]:
    """Entries of an iterable as a tuple; a single value becomes a tuple of one."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict)):
        try:
            return tuple(value)
        except TypeError:  # an array without dimensions
            pass
    return (value,)


def integer(value: object, low: int, high: int, what: str) -> int:
    """Check that ``value`` is an integer from ``low`` to ``high``; else ParameterError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ParameterError(f"{what} must be an integer from {low} to {high}, not {said(value)}")
    return int(value)


def unit(v: np.ndarray, what: str) -> np.ndarray:
    """Divide rows by their lengths; EncodingError for a row of zeros."""
    largest = np.abs(v).max(axis=1, keepdims=True, initial=0)
    if (largest == 0).any():
        raise EncodingError(f"a {what} is zero everywhere and has no direction; cosine is undefined")
    v = v / largest  # first, so that squares neither overflow nor vanish
    return v / np.sqrt(np.einsum("ij,ij->i", v, v))[:, None]


def whole(x: np.ndarray, low: int, high: int, what: str) -> np.ndarray:
    """Convert to int64; EncodingError unless all are whole numbers from ``low`` to ``high``."""
    if x.size and (x.min() < low or x.max() > high or (x.dtype.kind == "f" and (x != np.rint(x)).any())):
        raise EncodingError(f"{what} must be whole numbers from {low} to {high}")
    return x.astype(np.int64)
