"""Compiled kernels of the colour layout. Private: arguments are checked by the callers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ._compile import kernel

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

# fmt: off
ZIGZAG = np.array([
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
], np.int64)
# fmt: on
# rounded to seven digits as in the experimentation model: that decides halves, common in the first coefficient
COSINES = np.round(
    [[math.cos((2 * x + 1) * u * math.pi / 16) * (0.5 if u else math.sqrt(0.125)) for x in range(8)] for u in range(8)],
    7,
)


@kernel()
def _quantise_y_dc(i: int) -> int:
    if i > 191:
        return 112 + (i - 192) // 4
    if i > 159:
        return 96 + (i - 160) // 2
    if i > 95:
        return 32 + (i - 96)
    if i > 63:
        return 16 + (i - 64) // 2
    return max(i, 0) // 4


@kernel()
def _quantise_c_dc(i: int) -> int:
    if i > 191:
        return 63
    if i > 159:
        return 56 + (i - 160) // 4
    if i > 143:
        return 48 + (i - 144) // 2
    if i > 111:
        return 16 + (i - 112)
    if i > 95:
        return 8 + (i - 96) // 2
    if i > 63:
        return (i - 64) // 4
    return 0


@kernel()
def _quantise_ac(i: int) -> int:
    i = min(max(i, -256), 239)
    size = abs(i)
    if size > 127:
        size = 64 + size // 4
    elif size > 63:
        size = 32 + size // 2
    return 132 + (size if i >= 0 else -size)


@kernel()
def _divide(a: int, b: int) -> int:
    """Integer division toward zero, as the definition has it."""
    return a // b if a >= 0 else -(-a // b)


@kernel()
def _starts(side: int) -> Ints:
    """First pixel of each of the 8 blocks of a side, and the end: the block of pixel x is int(x / (side / 8))."""
    out = np.zeros(9, np.int64)
    for block in range(1, 9):
        out[block] = (block * side + 7) // 8
    return out


@kernel()
def _block_sums(image: Pixels, sums: Ints) -> None:
    """Sums of integer Y, Cb, Cr over the pixels of each block; sums is int64 (8, 8, 4), its last entry the count."""
    height, width = image.shape[0], image.shape[1]
    rows, columns = _starts(height), _starts(width)
    for by in range(8):
        # a side shorter than 8 leaves blocks without pixels of their own: these take the pixel that covers them
        y0, y1 = rows[by], rows[by + 1]
        if y0 == y1:
            y0 = by * height // 8
            y1 = y0 + 1
        for bx in range(8):
            x0, x1 = columns[bx], columns[bx + 1]
            if x0 == x1:
                x0 = bx * width // 8
                x1 = x0 + 1
            sum_y: Any
            sum_b: Any
            sum_r: Any
            sum_y, sum_b, sum_r = 0, 0, 0
            for y in range(y0, y1):
                row_y, row_b, row_r = np.int32(0), np.int32(0), np.int32(0)
                for x in range(x0, x1):
                    red, green = np.float64(image[y, x, 0]), np.float64(image[y, x, 1])
                    blue = np.float64(image[y, x, 2])
                    luma = (0.299 * red + 0.587 * green + 0.114 * blue) / 256.0
                    row_y += np.int32(219.0 * luma + 16.5)
                    row_b += np.int32(224.0 * 0.564 * (blue / 256.0 - luma) + 128.5)
                    row_r += np.int32(224.0 * 0.713 * (red / 256.0 - luma) + 128.5)
                sum_y += row_y
                sum_b += row_b
                sum_r += row_r
            sums[by, bx, 0] = sum_y
            sums[by, bx, 1] = sum_b
            sums[by, bx, 2] = sum_r
            sums[by, bx, 3] = (y1 - y0) * (x1 - x0)


@kernel()
def cld_kernel(image: Pixels, y_count: int, c_count: int, out: Pixels) -> None:
    """Colour layout of uint8 (H, W, 3) into uint8 (y_count + 2 c_count,)."""
    sums = np.zeros((8, 8, 4), np.int64)
    _block_sums(image, sums)
    half = np.zeros((8, 8))
    position = 0
    for channel in range(3):
        count = y_count if channel == 0 else c_count
        # highest horizontal frequency among the coefficients wanted
        last = 0
        for i in range(count):
            last = max(last, ZIGZAG[i] % 8)
        for y in range(8):
            for u in range(last + 1):
                s = 0.0
                for x in range(8):
                    s += COSINES[u, x] * (sums[y, x, channel] // sums[y, x, 3])
                half[y, u] = s
        for i in range(count):
            v, u = ZIGZAG[i] // 8, ZIGZAG[i] % 8
            s = 0.0
            for y in range(8):
                s += COSINES[v, y] * half[y, u]
            c = math.floor(s + 0.499999)
            if i == 0:
                q = _quantise_y_dc(_divide(c, 8)) >> 1 if channel == 0 else _quantise_c_dc(_divide(c, 8))
            else:
                q = _quantise_ac(_divide(c, 2) if channel == 0 else c) >> 3
            out[position] = q
            position += 1
