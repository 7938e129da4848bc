"""HSV histogram and grid colour moments.

Sources: Swain, Ballard, "Color indexing", IJCV 1991; Stricker, Orengo, "Similarity of color images", SPIE 1995
(moments); the grid, as in the 225 block-wise moments of NUS-WIDE, is common use.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import codes
from .base import Descriptor, check_image, city_block

__all__ = ["HSV", "MOMENTS", "hsv_histogram", "moments"]

GRID = 4
MOMENTS_DIM = GRID * GRID * 9


def hsv_histogram(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Compute a histogram of 16 hues x 4 saturations x 4 values.

    Bins are those of the scalable colour descriptor, decided exactly in integers: hue is scaled to 0..255 and divided
    into steps of 16, saturation and value (0..255) into steps of 64.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3), RGB, any size.

    Returns
    -------
    ndarray
        float32 (256,): shares of the pixels, sum 1, at index v * 64 + s * 16 + h.

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
    >>> histogram = features.hsv_histogram(image)
    >>> histogram.shape, float(histogram.sum())
    ((256,), 1.0)
    """
    return _histogram(check_image(image))


def _histogram(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    from ._kernels import colour  # numba loads at the first extraction, not at import

    counts = np.zeros(256, np.int64)
    colour.hsv_bins_kernel(image, counts)
    return (counts / (image.shape[0] * image.shape[1])).astype(np.float32)


def moments(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Compute colour moments: mean, deviation and cube root of the third moment of Y, Cb and Cr in each of 4x4 parts.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3), RGB, any size; with a side shorter than 4 pixels, parts share pixels.

    Returns
    -------
    ndarray
        float32 (144,): parts row by row, three channels (Rec. 601, 0 to 1) each, three moments each. They lie in 0 to
        1, 0 to 0.5 and -1 to 1.

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
    >>> features.moments(image).shape
    (144,)
    """
    return _moments(check_image(image))


def _moments(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    from ._kernels import colour  # numba loads at the first extraction, not at import

    out = np.empty((GRID, GRID, 3, 3))
    colour.moments_kernel(image, GRID, out)
    return out.ravel().astype(np.float32)


HSV = Descriptor(
    name="hsv", version=1, dim=256, dtype=np.dtype(np.float32), low=(0.0,) * 256, high=(1.0,) * 256, native="L1",
    codes=(codes.hellinger(256), codes.sine(256, 1.0, 2), codes.l2((0.0,) * 256, (1.0,) * 256)),
    extract_fn=_histogram, distance_fn=city_block, fuse="hellinger",
    doc="HSV histogram, 16 x 4 x 4 bins",
)  # fmt: skip

# squared differences of chroma count 9 times, of deviations 4 times and of third moments a quarter of luma's mean: the
# best of 18 choices on Corel-1k
_SCALES = np.tile(np.outer([1.0, 3.0, 3.0], [1.0, 2.0, 0.5]).ravel(), GRID * GRID)
_LOW, _HIGH = (0.0, 0.0, -1.0) * (MOMENTS_DIM // 3), (1.0, 0.5, 1.0) * (MOMENTS_DIM // 3)
MOMENTS = Descriptor(
    name="moments", version=1, dim=MOMENTS_DIM, dtype=np.dtype(np.float32), low=_LOW, high=_HIGH, native="L1",
    codes=(codes.linear("scaled", np.diag(_SCALES), _LOW, _HIGH), codes.l2(_LOW, _HIGH)),
    extract_fn=_moments, distance_fn=city_block, fuse="scaled",
    doc="colour moments of Y, Cb, Cr in 4 x 4 parts",
)  # fmt: skip
