"""Compiled kernels of the colour histograms: HSV bins, scalable colour, colour structure, colour moments."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# with hue = num / d in 0..6: hue bin floor(floor(42.5 num / d) / 16) = floor(85 num / (32 d)); multiples of 1 / (32 d)
# are at least 1.2e-4 apart, so that a float32 product with a small allowance gives the exact floor
_HUE_FACTOR = np.concatenate([[0.0], 85.0 / (32.0 * np.arange(1, 256))]).astype(np.float32)
_ALLOWANCE = np.float32(3e-5)


@njit(nogil=True, cache=True)
def hsv_bins_kernel(image: Pixels, counts: Ints) -> None:
    """Counts (256,) of the 16 x 4 x 4 bins of hue, saturation and value, index v * 64 + s * 16 + h.

    Hue is scaled to 0..255 and cut by 16, saturation and value by 64. Hue of gray is 0; of red with green equal to blue
    it is 360 degrees, so bin 15, as in the experimentation model.
    """
    height, width = image.shape[0], image.shape[1]
    row = np.empty(width, np.int32)
    # neighbouring pixels are often of one bin; two tables keep their increments from waiting for each other
    odd = np.zeros(256, np.int64)
    for y in range(height):
        for x in range(width):
            r, g, b = np.int32(image[y, x, 0]), np.int32(image[y, x, 1]), np.int32(image[y, x, 2])
            value = max(r, max(g, b))
            d = value - min(r, min(g, b))
            top_r = value == r
            top_g = value == g
            difference = g - b if top_r else (b - r if top_g else r - g)
            shift = (np.int32(6) if g <= b else np.int32(0)) if top_r else (np.int32(2) if top_g else np.int32(4))
            num = np.float32(difference + shift * d)
            hue = np.int32(num * _HUE_FACTOR[d] + _ALLOWANCE)
            full = np.int32(255) * d
            s = (
                np.int32(full >= np.int32(64) * value)
                + np.int32(full >= np.int32(128) * value)
                + np.int32(full >= np.int32(192) * value)
            )
            s = s if value > 0 else np.int32(0)
            row[x] = ((value >> 6) << 6) + (s << 4) + hue
        for x in range(0, width - 1, 2):
            counts[row[x]] += 1
            odd[row[x + 1]] += 1
        if width % 2:
            counts[row[width - 1]] += 1
    for i in range(256):
        counts[i] += odd[i]


@njit(nogil=True, cache=True)
def scd_quantise_kernel(counts: Ints, out: Ints) -> None:
    """Shares of the 256 bins in 11 bits, then non-linearly in 4 bits."""
    total = counts.sum()
    for i in range(256):
        share = math.floor(2047.0 * counts[i] / total + 0.49999)
        out[i] = 15 if share > 818.8 else int(15.0 * (share / 818.8) ** 0.4 + 0.5)


@njit(nogil=True, cache=True)
def haar_kernel(bins: Ints, first: Ints, second: Ints, cells: Ints, table: Ints, out: npt.NDArray[np.int16]) -> None:
    """Haar transform of 256 bins, which it overwrites, into the first ``len(out)`` coefficients, quantised.

    Pair k replaces bin ``first[k]`` by the sum and ``second[k]`` by the second less the first; coefficient c is what is
    left in bin ``cells[c]``, less its offset, clipped to its maximum (rows of ``table``).
    """
    for k in range(255):
        a, b = bins[first[k]], bins[second[k]]
        bins[first[k]] = a + b
        bins[second[k]] = b - a
    for c in range(len(out)):
        limit = table[c, 1]
        out[c] = min(max(bins[cells[c]] - table[c, 0], -limit), limit)


@njit(nogil=True, cache=True)
def hmmd_cells_kernel(image: Pixels, step: int, cells: Pixels) -> None:
    """Cell 0..255 in hue, sum and difference of every ``step``-th pixel in both directions."""
    for y in range(cells.shape[0]):
        for x in range(cells.shape[1]):
            r = np.int64(image[y * step, x * step, 0])
            g = np.int64(image[y * step, x * step, 1])
            b = np.int64(image[y * step, x * step, 2])
            top, bottom = max(r, max(g, b)), min(r, min(g, b))
            d = top - bottom
            middle = (top + bottom + 1) >> 1
            if d < 6:
                # one hue: 32 levels of the sum
                cells[y, x] = 224 + min(middle * 32 // 255, 31)
                continue
            if top == r:
                hue = (g - b) / d + (6.0 if g < b else 0.0)
            elif top == g:
                hue = 2.0 + (b - r) / d
            else:
                hue = 4.0 + (r - g) / d
            degrees = int(hue * 60.0 + 0.5)
            if degrees >= 360:
                degrees = 0
            if d < 20:
                base, hues, sums, low = 192, 4, 8, 6
            elif d < 60:
                base, hues, sums, low = 128, 16, 4, 20
            elif d < 110:
                base, hues, sums, low = 64, 16, 4, 60
            else:
                base, hues, sums, low = 0, 16, 4, 110
            level = (2 * middle - low) * sums // (2 * (255 - low))
            level = min(max(level, 0), sums - 1)
            cells[y, x] = base + degrees * hues // 360 * sums + level


@njit(nogil=True, cache=True)
def structure_kernel(cells: Pixels, rows: int, columns: int, counts: Ints) -> None:
    """For each cell value, how many of the ``rows`` x ``columns`` positions of an 8x8 element have it inside; (256,).

    For one row of positions, a value in column x is inside those from x - 7 to x: the union of such intervals is
    counted from left to right, with ``free[c]`` the first position not yet counted for c.
    """
    free = np.empty(256, np.int64)
    for y in range(rows):
        free[:] = 0
        for x in range(columns + 7):
            end = min(x, columns - 1) + 1
            start = max(x - 7, 0)
            for i in range(8):
                c = cells[y + i, x]
                begin = max(free[c], start)
                if end > begin:
                    counts[c] += end - begin
                    free[c] = end


@njit(nogil=True, cache=True)
def csd_quantise_kernel(counts: Ints, positions: int, out: Pixels) -> None:
    """Non-linear 8-bit quantisation of the shares ``counts / positions``."""
    for i in range(len(out)):
        v = counts[i] / positions
        if v < 1e-12:
            q = 0
        elif v < 0.037:
            q = 1 + int((v - 1e-12) * 25 / (0.037 - 1e-12))
        elif v < 0.08:
            q = 26 + int((v - 0.037) * 20 / (0.08 - 0.037))
        elif v < 0.195:
            q = 46 + int((v - 0.08) * 35 / (0.195 - 0.08))
        elif v < 0.32:
            q = 81 + int((v - 0.195) * 35 / (0.32 - 0.195))
        else:
            q = 116 + int((v - 0.32) * 140 / (1.0 - 0.32))
        out[i] = min(q, 255)


@njit(nogil=True, cache=True)
def moments_kernel(image: Pixels, grid: int, out: Floats) -> None:
    """Mean, deviation and root of the third moment of Y, Cb, Cr in each of grid x grid parts, (grid, grid, 3, 3).

    Colours are integers in 1/256 of a level, so the sums of first and second powers are exact.
    """
    height, width = image.shape[0], image.shape[1]
    values = np.empty(3, np.int64)
    for gy in range(grid):
        y0 = gy * height // grid
        y1 = max((gy + 1) * height // grid, y0 + 1)
        for gx in range(grid):
            x0 = gx * width // grid
            x1 = max((gx + 1) * width // grid, x0 + 1)
            first, second = np.zeros(3, np.int64), np.zeros(3, np.int64)
            count = (y1 - y0) * (x1 - x0)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    _ycc(image, y, x, values)
                    for c in range(3):
                        first[c] += values[c]
                        second[c] += values[c] * values[c]
            mean = first / count
            third = np.zeros(3)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    _ycc(image, y, x, values)
                    for c in range(3):
                        t = values[c] - mean[c]
                        third[c] += t * t * t
            for c in range(3):
                variance = max(second[c] / count - mean[c] * mean[c], 0.0)
                root = third[c] / count
                out[gy, gx, c, 0] = mean[c] / 65280.0
                out[gy, gx, c, 1] = math.sqrt(variance) / 65280.0
                out[gy, gx, c, 2] = math.copysign(abs(root) ** (1.0 / 3.0), root) / 65280.0


@njit(nogil=True, cache=True)
def _ycc(image: Pixels, y: int, x: int, out: Ints) -> None:
    r, g, b = np.int64(image[y, x, 0]), np.int64(image[y, x, 1]), np.int64(image[y, x, 2])
    out[0] = 77 * r + 150 * g + 29 * b
    out[1] = 32640 - 43 * r - 85 * g + 128 * b
    out[2] = 32640 + 128 * r - 107 * g - 21 * b
