"""Compiled kernels of local binary patterns and oriented gradients. Private: arguments are checked by the callers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ._compile import kernel

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@kernel()
def luma_kernel(image: Pixels, gray: Pixels) -> None:
    """(77 R + 150 G + 29 B + 128) >> 8 of uint8 (H, W, 3) into uint8 (H, W): Rec. 601 luma in 8 bits."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            r, g, b = np.uint32(image[y, x, 0]), np.uint32(image[y, x, 1]), np.uint32(image[y, x, 2])
            gray[y, x] = np.uint8((np.uint32(77) * r + np.uint32(150) * g + np.uint32(29) * b + np.uint32(128)) >> 8)


@kernel()
def lbp_kernel(gray: Pixels, bins: Pixels, counts: Ints) -> None:
    """Counts (59,) of the patterns of the inner pixels; ``bins`` (256,) maps a pattern to its bin.

    Bit i of a pattern is set where neighbour i, clockwise from the top left, is not darker than the pixel.
    """
    height, width = gray.shape
    patterns = np.empty(width, np.uint8)
    raw = np.zeros((2, 256), np.int64)
    for y in range(1, height - 1):
        above, here, below = gray[y - 1], gray[y], gray[y + 1]
        for x in range(1, width - 1):
            c = here[x]
            patterns[x] = np.uint8(
                np.uint8(above[x - 1] >= c)
                | (np.uint8(above[x] >= c) << np.uint8(1))
                | (np.uint8(above[x + 1] >= c) << np.uint8(2))
                | (np.uint8(here[x + 1] >= c) << np.uint8(3))
                | (np.uint8(below[x + 1] >= c) << np.uint8(4))
                | (np.uint8(below[x] >= c) << np.uint8(5))
                | (np.uint8(below[x - 1] >= c) << np.uint8(6))
                | (np.uint8(here[x - 1] >= c) << np.uint8(7))
            )
        for x in range(1, width - 1):
            raw[x & 1, patterns[x]] += 1
    for i in range(256):
        counts[bins[i]] += raw[0, i] + raw[1, i]


@kernel()
def shrink_kernel(image: Pixels, out: Floats) -> None:
    """Area means of the luma (0.299 R + 0.587 G + 0.114 B) of uint8 (H, W, 3) into float64 (h, w), larger or smaller.

    A pixel that lies across a border is shared by the parts in proportion, so each part is a true mean.
    """
    height, width = image.shape[0], image.shape[1]
    h, w = out.shape
    row = np.zeros(w)
    out[:, :] = 0.0
    for y in range(height):
        row[:] = 0.0
        for x in range(width):
            r, g, b = np.float64(image[y, x, 0]), np.float64(image[y, x, 1]), np.float64(image[y, x, 2])
            v = 0.299 * r + 0.587 * g + 0.114 * b
            # in units of 1 / (width w): the pixel covers x w .. (x + 1) w, part j covers j width .. (j + 1) width
            begin, end = x * w, (x + 1) * w
            j = begin // width
            while begin < end:
                stop = min(end, (j + 1) * width)
                row[j] += v * (stop - begin)
                begin = stop
                j += 1
        begin, end = y * h, (y + 1) * h
        i = begin // height
        while begin < end:
            stop = min(end, (i + 1) * height)
            for j in range(w):
                out[i, j] += row[j] * (stop - begin)
            begin = stop
            i += 1
    out /= float(height) * float(width)


@kernel()
def hog_kernel(gray: Floats, cell: int, orientations: int, out: npt.NDArray[np.float32]) -> None:
    """Oriented gradients of float64 (H, W): cells of ``cell`` pixels, blocks of 2x2 cells, L2-Hys norm."""
    height, width = gray.shape
    rows, columns = height // cell, width // cell
    cells = np.zeros((rows, columns, orientations))
    per_bin = 180.0 / orientations
    for y in range(rows * cell):
        for x in range(columns * cell):
            gy = gray[y + 1, x] - gray[y - 1, x] if 0 < y < height - 1 else 0.0
            gx = gray[y, x + 1] - gray[y, x - 1] if 0 < x < width - 1 else 0.0
            strength = math.sqrt(gy * gy + gx * gx)
            if strength == 0.0:
                continue
            angle = math.degrees(math.atan2(gy, gx))
            if angle < 0.0:
                angle += 180.0
            if angle >= 180.0:
                angle -= 180.0
            bin_ = min(int(angle / per_bin), orientations - 1)
            cells[y // cell, x // cell, bin_] += strength
    cells /= cell * cell
    position = 0
    for y in range(rows - 1):
        for x in range(columns - 1):
            total = 1e-10
            for i in range(2):
                for j in range(2):
                    for o in range(orientations):
                        total += cells[y + i, x + j, o] ** 2
            first = math.sqrt(total)
            total = 1e-10
            for i in range(2):
                for j in range(2):
                    for o in range(orientations):
                        total += min(cells[y + i, x + j, o] / first, 0.2) ** 2
            second = math.sqrt(total)
            for i in range(2):
                for j in range(2):
                    for o in range(orientations):
                        out[position] = min(cells[y + i, x + j, o] / first, 0.2) / second
                        position += 1
