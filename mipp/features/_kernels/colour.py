"""Compiled kernels of the colour histograms: HSV bins, scalable colour, colour structure, colour moments."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ._compile import kernel

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


# divisions as C has them: a check for zero would keep the loop from being vectorised
@kernel(error_model="numpy")
def _hsv_bins(row: Pixels, bins: Pixels) -> None:
    """Bins of one row: ``row`` (3 W,) as r, g, b, r, .., ``bins`` (W,).

    With hue = num / d in 0..6, the hue bin is floor(floor(42.5 num / d) / 16) = floor(85 num / (32 d)). A rounded
    float32 quotient of integers below 2^24 is never rounded up to an integer here: it is at least 1 / 8160 away from
    the next.
    """
    for x in range(len(bins)):
        r, g, b = np.int32(row[3 * x]), np.int32(row[3 * x + 1]), np.int32(row[3 * x + 2])
        value = max(r, max(g, b))
        d = value - min(r, min(g, b))
        top_r = value == r
        top_g = value == g
        difference = g - b if top_r else (b - r if top_g else r - g)
        shift = (np.int32(6) if g <= b else np.int32(0)) if top_r else (np.int32(2) if top_g else np.int32(4))
        num = difference + shift * d
        hue = np.int32(np.float32(np.int32(85) * num) / np.float32(np.int32(32) * max(d, np.int32(1))))
        full = np.int32(255) * d
        s = (
            np.int32(full >= np.int32(64) * value)
            + np.int32(full >= np.int32(128) * value)
            + np.int32(full >= np.int32(192) * value)
        )
        s = s if value > 0 else np.int32(0)
        bins[x] = np.uint8(((value >> np.int32(6)) << np.int32(6)) + (s << np.int32(4)) + hue)


@kernel()
def hsv_bins_kernel(image: Pixels, counts: Ints) -> None:
    """Counts (256,) of the 16 x 4 x 4 bins of hue, saturation and value, index v * 64 + s * 16 + h.

    Hue is scaled to 0..255 and cut by 16, saturation and value by 64. Hue of gray is 0; of red with green equal to blue
    it is 360 degrees, so bin 15, as in the experimentation model.
    """
    height, width = image.shape[0], image.shape[1]
    rows = image.reshape(height, 3 * width)
    bins = np.empty(width, np.uint8)
    # neighbouring pixels are often of one bin; four tables keep their increments from waiting for each other
    tables = np.zeros((4, 256), np.int64)
    for y in range(height):
        _hsv_bins(rows[y], bins)
        for x in range(0, width - 3, 4):
            tables[0, bins[x]] += 1
            tables[1, bins[x + 1]] += 1
            tables[2, bins[x + 2]] += 1
            tables[3, bins[x + 3]] += 1
        for x in range(width - width % 4, width):
            tables[0, bins[x]] += 1
    for i in range(256):
        counts[i] = tables[0, i] + tables[1, i] + tables[2, i] + tables[3, i]


@kernel()
def scd_quantise_kernel(counts: Ints, out: Ints) -> None:
    """Shares of the 256 bins in 11 bits, then non-linearly in 4 bits."""
    total = counts.sum()
    for i in range(256):
        share = math.floor(2047.0 * counts[i] / total + 0.49999)
        out[i] = 15 if share > 818.8 else int(15.0 * (share / 818.8) ** 0.4 + 0.5)


@kernel()
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


@kernel(error_model="numpy")
def _hmmd_row(row: Pixels, cells: Pixels) -> None:
    """Cells 0..255 in hue, sum and difference of one row: ``row`` (3 W,) as r, g, b, r, .., ``cells`` (W,).

    Without branches, so that it is vectorised. The hue is computed in double precision in the order of the
    experimentation model, which decides where exact halves fall; the other quotients are of small integers and exact in
    float32.
    """
    for x in range(len(cells)):
        r, g, b = np.int32(row[3 * x]), np.int32(row[3 * x + 1]), np.int32(row[3 * x + 2])
        top = max(r, max(g, b))
        d = top - min(r, min(g, b))
        middle = (np.int32(2) * top - d + np.int32(1)) >> np.int32(1)
        difference = g - b if top == r else (b - r if top == g else r - g)
        sector = (np.int32(6) if g < b else np.int32(0)) if top == r else (np.int32(2) if top == g else np.int32(4))
        hue = np.float64(sector) + np.float64(difference) / np.float64(max(d, np.int32(1)))
        degrees = np.int32(hue * 60.0 + 0.5)
        degrees = degrees if degrees < 360 else np.int32(0)
        # ranges of the difference, and in each: first cell, hues, sums, smallest difference
        wide, far = d >= 20, d >= 6
        base = np.int32(0) if d >= 110 else np.int32(64) if d >= 60 else np.int32(128)
        base = base if wide else np.int32(192) if far else np.int32(224)
        hues = np.int32(16) if wide else np.int32(4) if far else np.int32(1)
        sums = np.int32(4) if wide else np.int32(8) if far else np.int32(32)
        low = np.int32(110) if d >= 110 else np.int32(60) if d >= 60 else np.int32(20)
        low = low if wide else np.int32(6) if far else np.int32(0)
        level = np.int32(
            np.float32((np.int32(2) * middle - low) * sums) / np.float32(np.int32(2) * (np.int32(255) - low))
        )
        level = min(max(level, np.int32(0)), sums - np.int32(1))
        cells[x] = np.uint8(base + np.int32(np.float32(degrees * hues) / np.float32(360.0)) * sums + level)


@kernel()
def hmmd_cells_kernel(image: Pixels, step: int, cells: Pixels) -> None:
    """Cells of every ``step``-th pixel in both directions, into uint8 (columns, rows), in the order of their use."""
    columns, rows = cells.shape
    pixels, line = np.empty(3 * columns, np.uint8), np.empty(columns, np.uint8)
    for y in range(rows):
        for x in range(columns):
            for c in range(3):
                pixels[3 * x + c] = image[y * step, x * step, c]
        _hmmd_row(pixels, line)
        for x in range(columns):
            cells[x, y] = line[x]


@kernel()
def structure_kernel(cells: Pixels, rows: int, columns: int, counts: Ints) -> None:
    """For each cell value, how many of the ``rows`` x ``columns`` positions of an 8x8 element have it inside; (256,).

    ``cells`` is (columns + 7, rows + 7). For one row of positions, a value in column x is inside those from x - 7 to x:
    the union of such intervals is counted from left to right; ``free[c]`` is the first position not counted yet.
    """
    free = np.empty(256, np.int32)
    found = np.zeros(256, np.int32)
    for y in range(rows):
        free[:] = 0
        for x in range(columns + 7):
            end = np.int32(min(x, columns - 1) + 1)
            start = np.int32(max(x - 7, 0))
            for i in range(8):
                c = cells[x, y + i]
                found[c] += end - min(max(free[c], start), end)
                free[c] = end
        # emptied before 32 bits could overflow
        if y % 1024 == 1023 or y == rows - 1:
            for c in range(256):
                counts[c] += found[c]
                found[c] = 0


@kernel()
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


@kernel()
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


@kernel()
def _ycc(image: Pixels, y: int, x: int, out: Ints) -> None:
    r, g, b = np.int64(image[y, x, 0]), np.int64(image[y, x, 1]), np.int64(image[y, x, 2])
    out[0] = 77 * r + 150 * g + 29 * b
    out[1] = 32640 - 43 * r - 85 * g + 128 * b
    out[2] = 32640 + 128 * r - 107 * g - 21 * b
