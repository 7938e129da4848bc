"""Windows: the range of gray values of a deep image that becomes black to white. Light to import."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ParameterError

__all__ = ["apply_window", "check_window"]

#: values that are mapped at once
_AT_ONCE = 1 << 18


def check_window(window: Sequence[float] | None) -> tuple[float, float] | None:
    """Check a window.

    Parameters
    ----------
    window : sequence of float or None
        (low, high).

    Returns
    -------
    tuple of float or None
        The window as two floats; None for None.

    Raises
    ------
    ParameterError
        Not two finite numbers, the smaller first.

    Examples
    --------
    >>> from mipp.io.window import check_window
    >>> check_window([-160, 240])
    (-160.0, 240.0)
    """
    if window is None:
        return None
    try:
        low, high = (float(v) for v in window)
    except (TypeError, ValueError, OverflowError):
        raise ParameterError("a window is two numbers, low and high") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ParameterError(f"a window is two finite numbers, the smaller first, not {low:g} and {high:g}")
    return low, high


def apply_window(values: npt.NDArray[Any], window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Map gray values through a window.

    Parameters
    ----------
    values : ndarray
        (H, W) real numbers; NaN counts as the low end.
    window : tuple of float
        (low, high) in the unit of the values.

    Returns
    -------
    ndarray
        uint8 (H, W, 3).

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.io.window import apply_window
    >>> apply_window(np.array([[0, 60, 900]]), (0, 510))[0, :, 0].tolist()
    [0, 30, 255]
    """
    # piece by piece: values as doubles take eight times the memory of pixels
    flat = values.reshape(-1)
    out = np.empty((flat.size, 3), np.uint8)
    for start in range(0, flat.size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        out[part] = _gray(flat[part], *window)[:, None]
    return out.reshape((*values.shape, 3))


def _gray(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    wide = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    with np.errstate(over="ignore"):
        if not math.isfinite(high - low):
            wide, low, high = wide / 2, low / 2, high / 2
        factor = 255.0 / np.float64(high - low)
        scaled = (
            (wide - low) * factor if np.isfinite(factor) else (np.clip(wide, low, high) - low) / (high - low) * 255.0
        )
    return np.floor(np.clip(scaled, 0.0, 255.0) + 0.5).astype(np.uint8)
