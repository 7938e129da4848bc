"""Colour layout: a tiny picture of the image in the frequency domain.

Source: ISO/IEC 15938-3 (MPEG-7 visual), ColorLayout, with the arithmetic of the experimentation model: written from
that definition. 8x8 block means in YCbCr, discrete cosine transform, the first coefficients in zigzag order (6 of Y, 3
each of Cb and Cr), quantised to 6 bits (first of each) and 5 bits (the others).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .base import Descriptor, FloatArray, check_image, euclidean

__all__ = ["CLD", "WEIGHTS", "cld"]

#: first index and end of the Y, Cb and Cr coefficients
PARTS = ((0, 6), (6, 9), (9, 12))
#: weights of squared differences, from the standard's matching
WEIGHTS = (2, 2, 2, 1, 1, 1, 2, 1, 1, 4, 2, 2)
HIGH = (63, 31, 31, 31, 31, 31, 63, 31, 31, 63, 31, 31)
_ROOTS = np.sqrt(np.array(WEIGHTS, np.float64))


def cld(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Colour layout descriptor (6, 3, 3) of one image.

    Parameters
    ----------
    image : uint8 (H, W, 3), RGB, any size; a side shorter than 8 pixels is read as if each pixel were repeated

    Returns
    -------
    ndarray
        uint8 (12,): Y, Cb and Cr coefficients; 0..63 for the first of each, 0..31 for the others.

    Raises
    ------
    DTypeError, ShapeError
        Not a uint8 array (H, W, 3).
    """
    return _extract(check_image(image))


def _extract(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from . import _kernels  # numba loads at the first extraction, not at import

    out = np.empty(12, np.uint8)
    _kernels.cld_kernel(image, out)
    return out


def embed(values: FloatArray) -> FloatArray:
    """Coefficients times the roots of their weights: the squared Euclidean distance is the weighted one."""
    return np.asarray(values * _ROOTS)


def distance(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """The standard's matching: the sum over Y, Cb and Cr of the root of the weighted sum of squared differences."""
    a, b = embed(queries), embed(rows)
    out = np.zeros((len(a), len(b)))
    for start, end in PARTS:
        out += euclidean(a[:, start:end], b[:, start:end])
    return out


# The standard's sum of three roots is no inner product. The l2 metric ranks by the sum without the roots instead.
CLD = Descriptor(
    name="cld", version=1, dim=12, dtype=np.dtype(np.uint8), low=(0,) * 12, high=HIGH,
    metric="l2", exact=False, embed_dim=12, embed_low=(0.0,) * 12,
    embed_high=tuple(float(v) for v in _ROOTS * np.array(HIGH)), weights=tuple(float(w) for w in WEIGHTS),
    extract_fn=_extract, distance_fn=distance, embed_fn=embed,
    doc="MPEG-7 colour layout (6, 3, 3); l2 on weighted coefficients, close to the standard's matching but not equal",
)  # fmt: skip
