"""Compiled kernels of the descriptors. Private: arguments are checked by the callers.

They release the GIL and are cached on disk; with ``NUMBA_DISABLE_JIT=1`` the same code runs as plain Python, so sums of
pixels are widened by hand.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

ZIGZAG = np.array([0, 1, 8, 16, 9, 2], np.int64)
EDGE_THRESHOLD = 11.0
#: representative shares of the 8 indices, by kind of edge
EDGE_LEVELS = np.array(
    [
        [0.010867, 0.057915, 0.099526, 0.144849, 0.195573, 0.260504, 0.358031, 0.530128],
        [0.012266, 0.069934, 0.125879, 0.182307, 0.243396, 0.314563, 0.411728, 0.564319],
        [0.004193, 0.025852, 0.046860, 0.068519, 0.093286, 0.123490, 0.161505, 0.228960],
        [0.004174, 0.025924, 0.046232, 0.067163, 0.089655, 0.115391, 0.151904, 0.217745],
        [0.006778, 0.051667, 0.108650, 0.166257, 0.224226, 0.285691, 0.356375, 0.450972],
    ]
)
# rounded to seven digits as in the experimentation model: that decides halves, common in the first coefficient
COSINES = np.round(
    [[math.cos((2 * x + 1) * u * math.pi / 16) * (0.5 if u else math.sqrt(0.125)) for x in range(8)] for u in range(8)],
    7,
)


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def _quantise_ac(i: int) -> int:
    i = min(max(i, -256), 239)
    size = abs(i)
    if size > 127:
        size = 64 + size // 4
    elif size > 63:
        size = 32 + size // 2
    return 132 + (size if i >= 0 else -size)


@njit(nogil=True, cache=True)
def _divide(a: int, b: int) -> int:
    """Integer division toward zero, as the definition has it."""
    return a // b if a >= 0 else -(-a // b)


@njit(nogil=True, cache=True)
def _starts(side: int) -> Ints:
    """First pixel of each of the 8 blocks of a side, and the end: the block of pixel x is int(x / (side / 8))."""
    out = np.zeros(9, np.int64)
    for block in range(1, 9):
        out[block] = (block * side + 7) // 8
    return out


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def cld_kernel(image: Pixels, out: Pixels) -> None:
    """Colour layout (6, 3, 3) of uint8 (H, W, 3) into uint8 (12,)."""
    sums = np.zeros((8, 8, 4), np.int64)
    _block_sums(image, sums)
    half = np.zeros((8, 3))
    position = 0
    for channel in range(3):
        # only the coefficients of zigzag 0..5 are needed: frequencies 0..2 in each direction
        for y in range(8):
            for u in range(3):
                s = 0.0
                for x in range(8):
                    s += COSINES[u, x] * (sums[y, x, channel] // sums[y, x, 3])
                half[y, u] = s
        for i in range(6 if channel == 0 else 3):
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


@njit(nogil=True, cache=True)
def gray_kernel(image: Pixels, gray: Pixels) -> None:
    """floor((R + G + B) / 3) of uint8 (H, W, 3) into uint8 (H, W)."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            total = np.uint32(image[y, x, 0]) + np.uint32(image[y, x, 1]) + np.uint32(image[y, x, 2])
            gray[y, x] = np.uint8(total // np.uint32(3))


@njit(nogil=True, cache=True)
def enlarge_kernel(small: Pixels, large: Pixels) -> None:
    """Bilinear enlargement, uint8 (h, w) into uint8 (H, W), rounded half up.

    Pixel (y, x) of the result lies at (y, x) / scale of the original; edges are repeated.
    """
    h, w = small.shape
    height, width = large.shape
    scale = 70.0 / min(h, w)
    for y in range(height):
        y0 = min(int(y / scale), h - 1)
        y1 = min(y0 + 1, h - 1)
        down = y / scale - math.floor(y / scale)
        for x in range(width):
            x0 = min(int(x / scale), w - 1)
            x1 = min(x0 + 1, w - 1)
            right = x / scale - math.floor(x / scale)
            top = small[y0, x0] + right * (float(small[y0, x1]) - float(small[y0, x0]))
            bottom = small[y1, x0] + right * (float(small[y1, x1]) - float(small[y1, x0]))
            large[y, x] = int(top + down * (bottom - top) + 0.5)


@njit(nogil=True, cache=True)
def _edge(a0: float, a1: float, a2: float, a3: float) -> int:
    """Kind 0..4 of the strongest edge of a block from the means of its quarters, -1 if it is below the threshold.

    Means are rounded before they are compared: what are ties in exact arithmetic falls as in the experimentation model.
    """
    root = math.sqrt(2.0)
    kind = 0
    best = abs((a0 + a2) - (a1 + a3))
    strength = abs((a0 + a1) - (a2 + a3))
    if strength > best:
        kind, best = 1, strength
    strength = root * abs(a0 - a3)
    if strength > best:
        kind, best = 2, strength
    strength = root * abs(a1 - a2)
    if strength > best:
        kind, best = 3, strength
    strength = 2.0 * abs(((a0 - a1) - a2) + a3)
    if strength > best:
        kind, best = 4, strength
    return -1 if best < EDGE_THRESHOLD else kind


@njit(nogil=True, cache=True)
def ehd_kernel(gray: Pixels, block: int, out: Pixels) -> None:
    """Edge histogram of uint8 (H, W) with blocks of ``block`` pixels into uint8 (80,)."""
    height, width = gray.shape
    half = block // 2
    counts = np.zeros((16, 5), np.int64)
    blocks = np.zeros(16, np.int64)
    columns = np.zeros((2, width), np.int32)
    pixels = float(half * half)
    for y in range(0, height - block + 1, block):
        for part in range(2):
            columns[part, :] = 0
            for line in range(y + part * half, y + (part + 1) * half):
                for x in range(width):
                    columns[part, x] += np.int32(gray[line, x])
        for x in range(0, width - block + 1, block):
            a0, a1, a2, a3 = 0, 0, 0, 0
            for i in range(x, x + half):
                a0 += columns[0, i]
                a1 += columns[0, i + half]
                a2 += columns[1, i]
                a3 += columns[1, i + half]
            cell = 4 * x // width + 4 * (4 * y // height)
            blocks[cell] += 1
            kind = _edge(a0 / pixels, a1 / pixels, a2 / pixels, a3 / pixels)
            if kind >= 0:
                counts[cell, kind] += 1
    for cell in range(16):
        for kind in range(5):
            share = counts[cell, kind] / blocks[cell] if blocks[cell] > 0 else 0.0
            index = 0
            while index < 7 and share > (EDGE_LEVELS[kind, index] + EDGE_LEVELS[kind, index + 1]) / 2:
                index += 1
            out[cell * 5 + kind] = index
