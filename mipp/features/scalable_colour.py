"""Scalable colour: the Haar transform of a colour histogram in HSV.

Source: ISO/IEC 15938-3 (MPEG-7 visual), ScalableColor, with the arithmetic of the experimentation model: written from
that definition. A histogram of 16 hues x 4 saturations x 4 values, 4 bits a bin non-linearly, is transformed by sums
and differences of neighbours; coefficients are quantised by the standard's table. Fewer coefficients are the first of
all 256, as the standard says: they stand for a coarser histogram. (Two published libraries cut the histogram instead.)
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import numpy.typing as npt

from . import codes
from ._tables import SCD_BITS, SCD_OFFSETS
from .base import Descriptor, check_count, check_image, city_block

__all__ = ["SIZES", "scd", "scd_descriptor"]

SIZES = (16, 32, 64, 128, 256)
#: damps the few large coefficients; the best of .3, .4, .5, .7 and 1 for mAP + P@10 on Corel-1k, and .3 to .5 are close
EXPONENT = 0.4
#: of the ramps code, which keeps the accuracy of 64 and 128 coefficients at four words each
KNOTS = (-255.0, -4.0, 0.0, 4.0, 255.0)


def scd(image: npt.NDArray[np.uint8], count: int = 256) -> npt.NDArray[np.int16]:
    """Compute the MPEG-7 scalable colour descriptor of one image.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3), RGB, any size.
    count : int
        Coefficients, one of :data:`SIZES`.

    Returns
    -------
    ndarray
        int16 (count,), coarsest first, each within its own bounds, -255 to 255 at most.

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
    >>> features.scd(image).shape, features.scd(image, 64).shape
    ((256,), (64,))
    """
    check_count(count, SIZES, "coefficients of scalable colour")
    return _extract(check_image(image), count=count)


@cache
def _plan() -> tuple[npt.NDArray[np.int64], ...]:
    """Pairs of the transform (first and second bin), bins of the coefficients in order, offsets and maxima (256, 2).

    Bin index is v * 64 + s * 16 + h; a pass merges neighbours that differ in one bit of it, in the order hue,
    saturation, value, twice, then the two upper bits of hue.
    """
    pairs: list[tuple[int, int]] = []
    merged = 0
    for bit in (0, 4, 6, 1, 5, 7, 2, 3):
        merged |= 1 << bit
        pairs += [(i, i + (1 << bit)) for i in range(256) if not i & merged]
    # coefficients: from the last pass to the first, the passes of 2 and 4 pairs in the standard's own order
    order = [252, 254, 253, *range(240, 244), *range(248, 252), *range(244, 248)]
    for start, end in ((224, 240), (192, 224), (128, 192), (0, 128)):
        order += range(start, end)
    first, second = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    cells = np.concatenate([np.zeros(1, np.int64), second[order]])
    table = np.stack([SCD_OFFSETS, (1 << (np.array(SCD_BITS) - 1)) - 1], axis=1).astype(np.int64)
    return first, second, cells, table


def _extract(image: npt.NDArray[np.uint8], *, count: int) -> npt.NDArray[np.int16]:
    from ._kernels import colour  # numba loads at the first extraction, not at import

    counts, bins = np.zeros(256, np.int64), np.empty(256, np.int64)
    colour.hsv_bins_kernel(image, counts)
    colour.scd_quantise_kernel(counts, bins)
    out = np.empty(count, np.int16)
    first, second, cells, table = _plan()
    colour.haar_kernel(bins, first, second, cells, table, out)
    return out


def scd_descriptor(count: int = 256) -> Descriptor:
    """The descriptor ``scd<count>``. ParameterError for a count that the standard does not have."""
    check_count(count, SIZES, "coefficients of scalable colour")
    high = tuple(float((1 << (bits - 1)) - 1) for bits in SCD_BITS[:count])
    low = tuple(-v for v in high)
    return Descriptor(
        name=f"scd{count}",
        version=1,
        dim=count,
        dtype=np.dtype(np.int16),
        low=low,
        high=high,
        native="L1",
        codes=(codes.power(low, high, EXPONENT), codes.ramps(low, high, KNOTS), codes.l2(low, high, whole=True)),
        extract_fn=partial(_extract, count=count),
        distance_fn=city_block,
        fuse="power",
        doc=f"MPEG-7 scalable colour, {count} Haar coefficients",
    )
