"""Compiled kernels of the edge histogram. Private: arguments are checked by the callers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ._compile import kernel

Pixels = npt.NDArray[np.uint8]

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


@kernel()
def gray_kernel(image: Pixels, gray: Pixels) -> None:
    """floor((R + G + B) / 3) of uint8 (H, W, 3) into uint8 (H, W)."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            total = np.uint32(image[y, x, 0]) + np.uint32(image[y, x, 1]) + np.uint32(image[y, x, 2])
            gray[y, x] = np.uint8(total // np.uint32(3))


@kernel()
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


@kernel()
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


@kernel()
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
