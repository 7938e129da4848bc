"""Integers as ring words, and labels as arrays of bytes: the forms that native code takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DTypeError, ParameterError, ShapeError
from ..params import Params

__all__ = ["as_words", "label_array"]


def as_words(values: np.ndarray, params: Params, what: str) -> np.ndarray:
    """Integers of at most the ring's width as ring words (two's complement), C-contiguous; no copy when possible."""
    try:
        values = np.asarray(values)
    except (ValueError, OverflowError):
        raise ShapeError(f"{what} must be (rows, dim), with rows of one length") from None
    if values.dtype.kind not in "iu":
        raise DTypeError(f"{what} must be integers, not {str(values.dtype)[:50]}")
    if values.ndim != 2 or values.shape[1] < 1:
        raise ShapeError(f"{what} must be (rows, dim) with dim >= 1, not {values.shape}")
    if values.dtype.itemsize == params.dtype.itemsize and values.dtype.isnative:
        return np.require(values, requirements=("C", "A")).view(params.dtype)
    if values.dtype.itemsize > params.dtype.itemsize and values.size:
        half = 1 << (params.ring_bits - 1)
        if int(values.min()) < -half or int(values.max()) >= 2 * half:
            raise ParameterError(f"{what} hold integers that do not fit {params.ring_bits} bits")
    return np.ascontiguousarray(values.astype(params.dtype))


def label_array(labels: Sequence[bytes]) -> np.ndarray:
    """Labels of one length as rows of a uint8 array."""
    return np.frombuffer(b"".join(labels), np.uint8).reshape(len(labels), -1)
