"""Edge histogram: which of five kinds of edges occur how often in each of 4x4 parts of the image.

Source: ISO/IEC 15938-3 (MPEG-7 visual), EdgeHistogram, with the arithmetic of the experimentation model: written from
that definition. The gray value is floor((R + G + B) / 3), as in the experimentation model's library adaptation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import ShapeError
from . import codes
from .base import Descriptor, FloatArray, check_image, city_block

__all__ = ["EHD", "EHD150", "ehd", "ehd_bins"]

SHORT_SIDE = 70
LEVELS = 8
MAX_ENLARGED = 1 << 26
# of squared differences of group means; tuned on Corel-1k, flat from 2 to 6
GROUP_WEIGHT = 3.0


def ehd(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Compute the MPEG-7 edge histogram descriptor of one image.

    Images whose short side is below 70 pixels are first enlarged to 70, bilinearly. The standard's block size grows
    with the area; where one side is more than 20 times the other, blocks can become so large that some of the 16 parts
    have none and the standard defines no value: the next smaller size that gives each part a block is used instead.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3), RGB.

    Returns
    -------
    ndarray
        uint8 (80,), 0 to 7: for the 16 parts, row by row, the quantised share of blocks with a vertical, horizontal, 45
        degree, 135 degree and non-directional edge.

    Raises
    ------
    DTypeError, ShapeError
        Not a uint8 array (H, W, 3), or one so elongated that it would be enlarged beyond 2^26 pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import features
    >>> image = np.zeros((64, 64, 3), np.uint8)
    >>> image[:, 32:] = 255, 0, 0
    >>> features.ehd(image).shape
    (80,)
    """
    return _extract(check_image(image))


def enlarged_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width of the picture that edges are detected in: the image, or enlarged to a short side of 70."""
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
    from ._kernels import edges  # numba loads at the first extraction, not at import

    original = image.shape[0], image.shape[1]
    height, width = enlarged_shape(*original)
    gray = np.empty(original, np.uint8)
    edges.gray_kernel(image, gray)
    if original != (height, width):
        small, gray = gray, np.empty((height, width), np.uint8)
        edges.enlarge_kernel(small, gray)
    out = np.empty(80, np.uint8)
    edges.ehd_kernel(gray, block_size(height, width), out)
    return out


def groups() -> FloatArray:
    """(13, 16): means over 4 columns, 4 rows, the 4 corner squares and the centre square of the 4x4 parts."""
    part = np.arange(16).reshape(4, 4)
    members = [part[:, i] for i in range(4)] + [part[i] for i in range(4)]
    members += [part[r : r + 2, c : c + 2] for r, c in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))]
    out = np.zeros((13, 16))
    for row, cells in zip(out, members, strict=True):
        row[cells.ravel()] = 0.25
    return out


def ehd_bins(values: npt.ArrayLike) -> FloatArray:
    """Compute the 150 bins of the standard's matching: 80 local, 5 global (means of the 16 parts), 65 semi-global.

    Parameters
    ----------
    values : array_like
        (N, 80) indices 0 to 7, as :func:`ehd` gives them.

    Returns
    -------
    ndarray
        float64 (N, 150) shares: the standard's representative value of each index, and means of these. Semi-global bins
        are those of 4 columns, 4 rows and 5 squares of four parts, each with its five kinds of edges.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        As :meth:`Descriptor.embed`.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import features
    >>> features.ehd_bins(np.zeros((2, 80))).shape
    (2, 150)
    """
    from ._kernels.edges import EDGE_LEVELS

    index = EHD.check_values(values).astype(np.int64).reshape(-1, 16, 5)
    local = EDGE_LEVELS[np.arange(5), index]
    grouped = np.einsum("gp,npk->ngk", groups(), local)
    return np.concatenate([a.reshape(len(index), -1) for a in (local, local.mean(axis=1), grouped)], axis=1)


def distance150(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """The standard's matching: L1 over the 150 bins, global ones five times."""
    weights = np.repeat([1.0, 5.0, 1.0], [80, 5, 65])
    return city_block(ehd_bins(queries) * weights, ehd_bins(rows) * weights)


def distance(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """Sum of absolute differences of the 80 indices."""
    steps = np.arange(1, LEVELS)

    def code(values: FloatArray) -> npt.NDArray[np.float32]:
        # thermometer code: |a - b|_1 = |a|_1 + |b|_1 - 2 <code(a), code(b)>; exact in float32, sums stay below 2^10
        return (values[:, :, None] >= steps).reshape(len(values), -1).astype(np.float32)

    common = code(queries) @ code(rows).T
    return np.asarray(queries.sum(1)[:, None] + rows.sum(1)[None] - 2.0 * common)


def _mixing() -> FloatArray:
    """(80, 80): squared differences of local and, ``GROUP_WEIGHT`` times, of group indices as those of 80 numbers.

    Group sums are linear, so both together are a quadratic form d' M d with M = I + s^2 G'G, and the squared length of
    A d with A the symmetric root of M: the groups cost no dimension.
    """
    g = groups()
    values, vectors = np.linalg.eigh(np.eye(16) + GROUP_WEIGHT**2 * (g.T @ g))
    root = (vectors * np.sqrt(values)) @ vectors.T
    # on a dyadic grid the products with integers are exact: every machine embeds alike
    return np.kron(np.rint(root * 1024) / 1024, np.eye(5))


_LOW, _HIGH = (0.0,) * 80, (LEVELS - 1.0,) * 80
_GROUPS = codes.linear("groups", _mixing(), _LOW, _HIGH)
EHD = Descriptor(
    name="ehd", version=2, dim=80, dtype=np.dtype(np.uint8), low=_LOW, high=_HIGH, native="L1",
    codes=(codes.thermometer(80, LEVELS), _GROUPS, codes.sine(80, LEVELS - 1.0, 2), codes.l2(_LOW, _HIGH, whole=True)),
    extract_fn=_extract, distance_fn=distance, fuse="groups",
    doc="MPEG-7 edge histogram, 80 indices of 3 bits",
)  # fmt: skip
EHD150 = Descriptor(
    name="ehd150", version=1, dim=80, dtype=np.dtype(np.uint8), low=_LOW, high=_HIGH, native="L1 over 150 bins",
    codes=(_GROUPS,), extract_fn=_extract, distance_fn=distance150, fuse="groups",
    doc="MPEG-7 edge histogram, matched with its global and semi-global bins",
)  # fmt: skip
