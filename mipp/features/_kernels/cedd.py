"""Compiled kernel of CEDD. Private: arguments are checked by the caller."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ._compile import kernel

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

# trapezia: 0 up to the first number, rising to the second, 1 up to the third, falling to the fourth
_HUES = np.array([
    [0, 0, 5, 10], [5, 10, 35, 50], [35, 50, 70, 85], [70, 85, 150, 165],
    [150, 165, 195, 205], [195, 205, 265, 280], [265, 280, 315, 330], [315, 330, 360, 360],
], np.float64)  # fmt: skip
_SATURATIONS = np.array([[0, 0, 10, 75], [10, 75, 255, 255]], np.float64)
_VALUES = np.array([[0, 0, 10, 75], [10, 75, 180, 220], [180, 220, 255, 255]], np.float64)
_SHADES = np.array([[0, 0, 68, 188], [68, 188, 255, 255]], np.float64)
#: white, gray, black are 0, 1, 2; then red, orange, yellow, green, cyan, blue, magenta, red again
_COLOURS = np.array([3, 4, 5, 6, 7, 8, 9, 3], np.int64)
_ROOT2 = math.sqrt(2.0)


@kernel()
def _member(x: float, trapezium: Floats) -> float:
    a, b, c, d = trapezium[0], trapezium[1], trapezium[2], trapezium[3]
    if b <= x <= c:
        return 1.0
    if a <= x < b:
        return (x - a) / (b - a)
    if c < x <= d:
        return (x - c) / (c - d) + 1.0
    return 0.0


@kernel()
def _hue(r: int, g: int, b: int, top: int, d: int) -> int:
    """Degrees 0..359, from 0, 119, 239 and 359 as in the author's code."""
    if d == 0:
        return 0
    if top == r and g >= b:
        return int(60 * (g - b) / d)
    if top == r:
        return int(359 + 60 * (g - b) / d)
    if top == g:
        return int(119 + 60 * (b - r) / d)
    return int(239 + 60 * (r - g) / d)


@kernel()
def _fuzzy(hue: int, s: int, v: int, ten: Floats, out: Floats) -> None:
    """Memberships (24,) of a colour: 10 bins by 48 rules, then three shades of each of the seven hues."""
    ten[:] = 0.0
    for i in range(8):
        h = _member(hue, _HUES[i])
        if h == 0.0:
            continue
        for j in range(2):
            hs = min(h, _member(s, _SATURATIONS[j]))
            for k in range(3):
                bin_ = 2 if k == 0 else (2 - k if j == 0 else _COLOURS[i])
                ten[bin_] += min(hs, _member(v, _VALUES[k]))
    pale, full = _member(s, _SHADES[0]), _member(s, _SHADES[1])
    dark, bright = _member(v, _SHADES[0]), _member(v, _SHADES[1])
    for i in range(3):
        out[i] = ten[i]
    for i in range(7):
        out[3 + 3 * i] = ten[3 + i] * min(pale, bright)
        out[4 + 3 * i] = ten[3 + i] * min(full, bright)
        out[5 + 3 * i] = ten[3 + i] * (min(pale, dark) + min(full, dark))


@kernel()
def cedd_kernel(image: Pixels, rows: int, columns: int, step_y: int, step_x: int, out: Floats) -> None:
    """Sums (6, 24) over ``rows`` x ``columns`` blocks: kind of edge by fuzzy colour of the block."""
    area = np.zeros(4)
    ten, colour = np.zeros(10), np.zeros(24)
    pixels = step_x * step_y
    for by in range(rows):
        for bx in range(columns):
            area[:] = 0.0
            r: Any
            g: Any
            b: Any
            r, g, b = 0, 0, 0
            for i in range(step_y):
                for j in range(step_x):
                    y, x = by * step_y + i, bx * step_x + j
                    red, green, blue = np.int64(image[y, x, 0]), np.int64(image[y, x, 1]), np.int64(image[y, x, 2])
                    r += red
                    g += green
                    b += blue
                    part = (2 if i >= step_y // 2 else 0) + (1 if j >= step_x // 2 else 0)
                    area[part] += 0.299 * red + 0.587 * green + 0.114 * blue
            r, g, b = r // pixels, g // pixels, b // pixels
            for i in range(4):
                area[i] = math.floor(area[i] * (4.0 / pixels))
            top, bottom = max(r, max(g, b)), min(r, min(g, b))
            saturation = 255 * (top - bottom) // top if top > 0 else 0
            _fuzzy(_hue(r, g, b, top, top - bottom), saturation, top, ten, colour)
            a0, a1, a2, a3 = area[0], area[1], area[2], area[3]
            none = abs(2 * a0 - 2 * a1 - 2 * a2 + 2 * a3)
            horizontal, vertical = abs(a0 + a1 - a2 - a3), abs(a0 - a1 + a2 - a3)
            diagonal, other = abs(_ROOT2 * a0 - _ROOT2 * a3), abs(_ROOT2 * a1 - _ROOT2 * a2)
            strongest = max(none, max(max(horizontal, vertical), max(diagonal, other)))
            if strongest < 14:
                out[0] += colour
                continue
            if none / strongest > 0.68:
                out[1] += colour
            if horizontal / strongest > 0.98:
                out[2] += colour
            if vertical / strongest > 0.98:
                out[3] += colour
            if diagonal / strongest > 0.98:
                out[4] += colour
            if other / strongest > 0.98:
                out[5] += colour
