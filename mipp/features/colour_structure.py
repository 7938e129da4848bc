"""Colour structure: how much of the image is near each colour.

Source: ISO/IEC 15938-3 (MPEG-7 visual), ColorStructure, with the arithmetic of the experimentation model: written from
that definition. An 8x8 element moves over the image, spread over more pixels on large images; each colour of HMMD space
(256 cells of hue, sum and difference) counts at every position where it is present in the element.
"""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from . import codes
from .base import Descriptor, check_count, check_image, city_block

__all__ = ["SIZES", "csd", "csd_descriptor"]

SIZES = (32, 64, 128, 256)
#: the best of .5, .7 and 1 for mAP + P@10 on Corel-1k; flat around it
EXPONENT = 0.75
# hue levels and sum levels in each of the 5 ranges of the difference, smallest difference first
_LEVELS = {
    256: ((1, 4, 16, 16, 16), (32, 8, 4, 4, 4)),
    128: ((1, 4, 8, 8, 8), (16, 4, 4, 4, 4)),
    64: ((1, 4, 4, 8, 8), (8, 4, 4, 2, 1)),
    32: ((1, 4, 4, 4, 4), (8, 4, 4, 1, 1)),
}
# first cell of each range; with 32 cells, the second and third range share theirs
_BASES = {256: (224, 192, 128, 64, 0), 128: (112, 96, 64, 32, 0), 64: (56, 40, 24, 8, 0), 32: (24, 8, 8, 4, 0)}


def csd(image: npt.NDArray[np.uint8], count: int = 64) -> npt.NDArray[np.uint8]:
    """Compute the MPEG-7 colour structure descriptor of one image.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3), RGB, any size; an image with a side below 8 pixels is continued by its last row or column.
    count : int
        Bins, one of :data:`SIZES`.

    Returns
    -------
    ndarray
        uint8 (count,): for each colour, the quantised share of positions at which it is present.

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
    >>> features.csd(image).shape
    (64,)
    """
    check_count(count, SIZES, "bins of colour structure")
    return _extract(check_image(image), count=count)


@cache
def _merge(count: int) -> npt.NDArray[np.int64]:
    """(256,) which of ``count`` coarser cells each of the 256 cells belongs to."""
    out = np.zeros(256, np.int64)
    for part in range(5):
        hues, sums = (levels[part] for levels in _LEVELS[256])
        coarse_hues, coarse_sums = (levels[part] for levels in _LEVELS[count])
        for hue in range(hues):
            for level in range(sums):
                coarse = hue * coarse_hues // hues * coarse_sums + level * coarse_sums // sums
                out[_BASES[256][part] + hue * sums + level] = _BASES[count][part] + coarse
    return out


def _extract(image: npt.NDArray[np.uint8], *, count: int) -> npt.NDArray[np.uint8]:
    from ._kernels import colour  # numba loads at the first extraction, not at import

    height, width = image.shape[:2]
    if min(height, width) < 8:
        image = np.pad(image, ((0, max(0, 8 - height)), (0, max(0, 8 - width)), (0, 0)), mode="edge")
        height, width = image.shape[:2]
    # the element is spread so that images of any size are looked at in like detail, as far as it fits
    step = 1 << max(0, math.floor(math.log2(math.sqrt(width * height)) - 7.5))
    while 8 * step > min(height, width):
        step //= 2
    rows, columns = (height - 8 * step) // step + 1, (width - 8 * step) // step + 1
    cells = np.empty((columns + 7, rows + 7), np.uint8)
    colour.hmmd_cells_kernel(image, step, cells)
    counts = np.zeros(256, np.int64)
    colour.structure_kernel(cells, rows, columns, counts)
    if count < 256:
        merged = np.zeros(count, np.int64)
        np.add.at(merged, _merge(count), counts)
        # a sum of several cells can exceed the number of positions: quantisation ends at 255 all the same
        counts = merged
    out = np.empty(count, np.uint8)
    colour.csd_quantise_kernel(counts, rows * columns, out)
    return out


def csd_descriptor(count: int = 64) -> Descriptor:
    """The descriptor ``csd<count>``. ParameterError for a count that the standard does not have."""
    check_count(count, SIZES, "bins of colour structure")
    low, high = (0.0,) * count, (255.0,) * count
    return Descriptor(
        name=f"csd{count}",
        version=1,
        dim=count,
        dtype=np.dtype(np.uint8),
        low=low,
        high=high,
        native="L1",
        codes=(
            codes.power(low, high, EXPONENT),
            codes.l2(low, high, whole=True),
            codes.sine(count, 255.0, 2),
            codes.hellinger(count),
            codes.thermometer(count, 256),
        ),
        extract_fn=partial(_extract, count=count),
        distance_fn=city_block,
        fuse="power",
        doc=f"MPEG-7 colour structure, {count} bins",
    )
