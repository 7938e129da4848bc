"""CEDD, the colour and edge directivity descriptor.

Source: Chatzichristofis and Boutalis, "CEDD: Color and Edge Directivity Descriptor", ICVS 2008, with the details of the
authors' published program as LIRE has it: written from a description of them. The image is cut into 1600 blocks (400 if
it is small); each adds the fuzzy membership of its mean colour in 24 colours to the kinds of edges that it shows: none,
non-directional, horizontal, vertical, two diagonals.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import codes
from ._tables import CEDD_LEVELS
from .base import Descriptor, FloatArray, check_image

__all__ = ["CEDD", "cedd"]

DIM = 144


def cedd(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Compute the colour and edge directivity descriptor (CEDD) of one image.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3), RGB. A side of one pixel is doubled. Secret at its owner or user.

    Returns
    -------
    ndarray
        uint8 (144,), 0 to 7: for each of 6 kinds of edges, the quantised shares of 24 colours.

    Raises
    ------
    DTypeError, ShapeError
        Not a uint8 array (H, W, 3).

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import features
    >>> image = np.zeros((64, 64, 3), np.uint8)
    >>> image[:, 32:] = 255, 0, 0
    >>> features.cedd(image).shape
    (144,)
    """
    return _extract(check_image(image))


def _extract(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from ._kernels import cedd as kernels  # numba loads at the first extraction, not at import

    if min(image.shape[:2]) < 2:
        image = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    height, width = image.shape[:2]
    short = min(height, width)
    if short >= 40:
        rows = columns = 40 if short >= 80 else 20
        step_y, step_x = height // rows // 2 * 2, width // columns // 2 * 2
    else:
        step_y = step_x = 2
        rows, columns = height // 2, width // 2
    sums = np.zeros((6, 24))
    kernels.cedd_kernel(image, rows, columns, step_y, step_x, sums)
    shares = sums / sums.sum()
    return np.abs(shares[:, :, None] - CEDD_LEVELS[:, None, :]).argmin(axis=2).ravel().astype(np.uint8)


def _distance(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """100 (1 - Tanimoto coefficient) of the values divided by their sums; 100 between a zero and another vector."""
    a, b = (v / np.maximum(v.sum(1, keepdims=True), 1.0) for v in (queries, rows))
    common = a @ b.T
    union = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - common
    ratio = np.divide(common, union, out=np.ones_like(common), where=union > 0)
    return np.asarray(np.maximum(100.0 * (1.0 - ratio), 0.0))


_LOW, _HIGH = (0.0,) * DIM, (7.0,) * DIM
CEDD = Descriptor(
    name="cedd", version=1, dim=DIM, dtype=np.dtype(np.uint8), low=_LOW, high=_HIGH, native="Tanimoto",
    codes=(
        codes.power(_LOW, _HIGH, 0.5), codes.l2(_LOW, _HIGH, whole=True), codes.hellinger(DIM),
        codes.thermometer(DIM, 8, exact=False),
    ),
    extract_fn=_extract, distance_fn=_distance, fuse="power",
    doc="colour and edge directivity descriptor, 6 x 24 values of 3 bits",
)  # fmt: skip
