"""Local binary patterns and histograms of oriented gradients.

Sources: Ojala, Pietikainen, Maenpaa, "Multiresolution gray-scale and rotation invariant texture classification with
local binary patterns", PAMI 2002 (uniform patterns); Dalal, Triggs, "Histograms of oriented gradients for human
detection", CVPR 2005.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import numpy.typing as npt

from . import codes
from .base import Descriptor, check_count, check_image, city_block, euclidean

__all__ = ["HOG", "HOG324", "LBP", "hog", "lbp"]

SIDE = 64
ORIENTATIONS = 9


def lbp(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Compute a histogram of uniform local binary patterns: 8 neighbours at radius 1, 59 bins.

    Neighbours are the eight pixels around; gray is (77 R + 150 G + 29 B + 128) >> 8, so everything up to the shares is
    in integers. Patterns with at most two changes around the circle have a bin each, all others share the last one.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3), RGB; a side below 3 pixels is continued by its last row or column.

    Returns
    -------
    ndarray
        float32 (59,): shares of the inner pixels, sum 1; bins in order of the pattern, clockwise from the top left.

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
    >>> features.lbp(image).shape
    (59,)
    """
    return _lbp(check_image(image))


@cache
def _bins() -> npt.NDArray[np.uint8]:
    out = np.full(256, 58, np.uint8)
    uniform = [p for p in range(256) if bin(p ^ (p >> 1 | (p & 1) << 7)).count("1") <= 2]
    out[uniform] = np.arange(58)
    return out


def _lbp(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    from ._kernels import texture  # numba loads at the first extraction, not at import

    height, width = image.shape[:2]
    if min(height, width) < 3:
        image = np.pad(image, ((0, max(0, 3 - height)), (0, max(0, 3 - width)), (0, 0)), mode="edge")
        height, width = image.shape[:2]
    gray = np.empty((height, width), np.uint8)
    texture.luma_kernel(image, gray)
    counts = np.zeros(59, np.int64)
    texture.lbp_kernel(gray, _bins(), counts)
    return (counts / counts.sum()).astype(np.float32)


def hog(image: npt.NDArray[np.uint8], cell: int = 8) -> npt.NDArray[np.float32]:
    """Compute a histogram of oriented gradients of the image shrunk to 64x64 gray pixels.

    As scikit-image's ``hog`` on the same 64x64 array: 9 unsigned orientations, cells of ``cell`` pixels, blocks of 2x2
    cells, block norm L2-Hys. Gray is 0.299 R + 0.587 G + 0.114 B; shrinking takes the mean over each part's exact area.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3), RGB, any size; a smaller image is enlarged.
    cell : int
        Side of a cell in pixels, 8 or 16.

    Returns
    -------
    ndarray
        float32, 0 to 1: (1764,) with cells of 8 pixels, (324,) with 16.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not a uint8 array (H, W, 3); another cell size.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import features
    >>> image = np.zeros((64, 64, 3), np.uint8)
    >>> image[:, 32:] = 255, 0, 0
    >>> features.hog(image).shape, features.hog(image, 16).shape
    ((1764,), (324,))
    """
    check_count(cell, (8, 16), "pixels of a cell")
    return _hog(check_image(image), cell=cell)


def _hog(image: npt.NDArray[np.uint8], *, cell: int) -> npt.NDArray[np.float32]:
    from ._kernels import texture  # numba loads at the first extraction, not at import

    gray = np.empty((SIDE, SIDE))
    texture.shrink_kernel(image, gray)
    out = np.empty((SIDE // cell - 1) ** 2 * 4 * ORIENTATIONS, np.float32)
    texture.hog_kernel(gray, cell, ORIENTATIONS, out)
    return out


LBP = Descriptor(
    name="lbp", version=1, dim=59, dtype=np.dtype(np.float32), low=(0.0,) * 59, high=(1.0,) * 59, native="L1",
    codes=(codes.hellinger(59), codes.sine(59, 1.0, 2), codes.l2((0.0,) * 59, (1.0,) * 59)),
    extract_fn=_lbp, distance_fn=city_block, fuse="hellinger",
    doc="uniform local binary patterns, 8 neighbours, radius 1",
)  # fmt: skip


def _hog_descriptor(name: str, dim: int, cell: int) -> Descriptor:
    bounds = (0.0,) * dim, (1.0,) * dim
    return Descriptor(
        name=name, version=1, dim=dim, dtype=np.dtype(np.float32), low=bounds[0], high=bounds[1], native="L2",
        codes=(codes.l2(*bounds, exact=True), codes.power(*bounds, 0.5)),
        extract_fn=partial(_hog, cell=cell), distance_fn=euclidean, fuse="l2",
        doc=f"histogram of oriented gradients of 64x64 gray pixels, cells of {cell} pixels",
    )  # fmt: skip


HOG = _hog_descriptor("hog", 1764, 8)
HOG324 = _hog_descriptor("hog324", 324, 16)
