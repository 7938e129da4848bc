"""Colour layout: a tiny picture of the image in the frequency domain.

Source: ISO/IEC 15938-3 (MPEG-7 visual), ColorLayout, with the arithmetic of the experimentation model: written from
that definition. 8x8 block means in YCbCr, discrete cosine transform, the first coefficients in zigzag order (by default
6 of Y, 3 each of Cb and Cr), quantised to 6 bits (first of each) and 5 bits (the others).
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import numpy.typing as npt

from . import codes
from .base import Descriptor, FloatArray, check_count, check_image, euclidean

__all__ = ["COUNTS", "cld", "cld_descriptor"]

#: how many coefficients the standard allows
COUNTS = (3, 6, 10, 15, 21, 28, 64)


def cld(image: npt.NDArray[np.uint8], y_count: int = 6, c_count: int = 3) -> npt.NDArray[np.uint8]:
    """Compute the MPEG-7 colour layout descriptor of one image.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3), RGB, any size; a side shorter than 8 pixels is read as if each pixel were repeated.
    y_count, c_count : int
        Coefficients of Y, and of each of Cb and Cr: one of :data:`COUNTS`.

    Returns
    -------
    ndarray
        uint8 (y_count + 2 c_count,): coefficients of Y, Cb and Cr; 0 to 63 for the first of each, else 0 to 31.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not a uint8 array (H, W, 3); a count that the standard does not have.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import features
    >>> image = np.zeros((64, 64, 3), np.uint8)
    >>> image[:, 32:] = 255, 0, 0
    >>> features.cld(image).shape, features.cld(image, 10, 6).shape
    ((12,), (22,))
    """
    for count in (y_count, c_count):
        check_count(count, COUNTS, "coefficients of colour layout")
    return _extract(check_image(image), y_count=y_count, c_count=c_count)


def _extract(image: npt.NDArray[np.uint8], *, y_count: int, c_count: int) -> npt.NDArray[np.uint8]:
    from ._kernels import layout  # numba loads at the first extraction, not at import

    out = np.empty(y_count + 2 * c_count, np.uint8)
    layout.cld_kernel(image, y_count, c_count, out)
    return out


def _weights(y_count: int, c_count: int) -> tuple[int, ...]:
    """Weights of squared differences in the standard's matching: Y 2, 2, 2, 1.., Cb 2, 1.., Cr 4, 2, 2, 1.."""
    y, b, r = [1] * y_count, [1] * c_count, [1] * c_count
    y[:3], b[0], r[:3] = (2, 2, 2), 2, (4, 2, 2)
    return (*y, *b, *r)


def _distance(queries: FloatArray, rows: FloatArray, *, y_count: int, c_count: int) -> FloatArray:
    roots = np.sqrt(_weights(y_count, c_count))
    ends = np.cumsum([0, y_count, c_count, c_count])
    out = np.zeros((len(queries), len(rows)))
    for start, end in itertools.pairwise(ends):
        part = slice(start, end)
        out += euclidean(queries[:, part] * roots[part], rows[:, part] * roots[part])
    return out


def cld_descriptor(y_count: int = 6, c_count: int = 3) -> Descriptor:
    """The descriptor ``cld`` (6, 3, 3), or ``cld<y>_<c>`` for other counts.

    The standard's distance, a sum of three roots, is no inner product; the code ranks by the sum of the three weighted
    squared distances instead. ParameterError for counts that the standard does not have.
    """
    for count in (y_count, c_count):
        check_count(count, COUNTS, "coefficients of colour layout")
    dim = y_count + 2 * c_count
    high = [31.0] * dim
    for first in (0, y_count, y_count + c_count):
        high[first] = 63.0
    return Descriptor(
        name="cld" if (y_count, c_count) == (6, 3) else f"cld{y_count}_{c_count}",
        version=2,
        dim=dim,
        dtype=np.dtype(np.uint8),
        low=(0,) * dim,
        high=tuple(high),
        native="sum over Y, Cb, Cr of weighted L2",
        codes=(
            codes.weighted((0.0,) * dim, high, _weights(y_count, c_count)),
            codes.l2((0.0,) * dim, high, whole=True),
        ),
        extract_fn=partial(_extract, y_count=y_count, c_count=c_count),
        distance_fn=partial(_distance, y_count=y_count, c_count=c_count),
        fuse="weighted",
        doc=f"MPEG-7 colour layout, {y_count} + {c_count} + {c_count} coefficients",
    )
