"""Edge histogram: which of five kinds of edges occur how often in each of 4x4 parts of the image.

Source: ISO/IEC 15938-3 (MPEG-7 visual), EdgeHistogram, with the arithmetic of the experimentation model: written from
that definition. The gray value is floor((R + G + B) / 3), as in the experimentation model's library adaptation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import ShapeError
from .base import Descriptor, FloatArray, check_image, identity

__all__ = ["EHD", "ehd"]

SHORT_SIDE = 70
LEVELS = 8
MAX_ENLARGED = 1 << 26


def ehd(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Edge histogram descriptor of one image.

    Images whose short side is below 70 pixels are first enlarged to 70, bilinearly. The standard's block size grows
    with the area; where one side is more than 20 times the other, blocks can become so large that some of the 16 parts
    have none and the standard defines no value: the next smaller size that gives each part a block is used instead.

    Parameters
    ----------
    image : uint8 (H, W, 3), RGB

    Returns
    -------
    ndarray
        uint8 (80,), 0..7: for the 16 parts, row by row, the quantised share of blocks with a vertical, horizontal, 45
        degree, 135 degree and non-directional edge.

    Raises
    ------
    DTypeError, ShapeError
        Not a uint8 array (H, W, 3), or one so elongated that it would be enlarged beyond 2^26 pixels.
    """
    return _extract(check_image(image))


def enlarged_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width of what edges are looked for in: the image, or its enlargement to a short side of 70."""
    short = min(height, width)
    if short >= SHORT_SIDE:
        return height, width
    shape = (int(height * SHORT_SIDE / short + 0.5), int(width * SHORT_SIDE / short + 0.5))
    if shape[0] * shape[1] > MAX_ENLARGED:
        raise ShapeError(f"an image of {width} x {height} pixels is too elongated for an edge histogram")
    return shape


def block_size(height: int, width: int) -> int:
    """Side of a block in pixels, even: about 1100 blocks per image, and one at least in each of the 16 parts."""
    short = min(height, width)
    size = max(2, int(np.sqrt(width * height / 1100) / 2) * 2)
    # the last block must begin in the last quarter
    while size > 2 and 4 * (short // size - 1) * size < 3 * short:
        size -= 2
    return size


def _extract(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from . import _kernels  # numba loads at the first extraction, not at import

    original = image.shape[0], image.shape[1]
    height, width = enlarged_shape(*original)
    gray = np.empty(original, np.uint8)
    _kernels.gray_kernel(image, gray)
    if original != (height, width):
        small, gray = gray, np.empty((height, width), np.uint8)
        _kernels.enlarge_kernel(small, gray)
    out = np.empty(80, np.uint8)
    _kernels.ehd_kernel(gray, block_size(height, width), out)
    return out


def distance(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """Sum of absolute differences of the 80 indices."""
    steps = np.arange(1, LEVELS)

    def code(values: FloatArray) -> npt.NDArray[np.float32]:
        # thermometer code: |a - b|_1 = |a|_1 + |b|_1 - 2 <code(a), code(b)>; exact in float32, sums stay below 2^10
        return (values[:, :, None] >= steps).reshape(len(values), -1).astype(np.float32)

    common = code(queries) @ code(rows).T
    return np.asarray(queries.sum(1)[:, None] + rows.sum(1)[None] - 2.0 * common)


EHD = Descriptor(
    name="ehd", version=1, dim=80, dtype=np.dtype(np.uint8), low=(0,) * 80, high=(LEVELS - 1,) * 80,
    metric="l1", exact=True, embed_dim=80, embed_low=(0.0,) * 80, embed_high=(float(LEVELS - 1),) * 80, levels=LEVELS,
    extract_fn=_extract, distance_fn=distance, embed_fn=identity,
    doc="MPEG-7 edge histogram, 80 indices of 3 bits; L1 distance, exact",
)  # fmt: skip
