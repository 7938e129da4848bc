"""Slow, obvious colour and texture descriptors in plain Python, from the definitions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

Image = Sequence[Sequence[Sequence[int]]]


def _pixels(image: Image) -> list[tuple[int, int, int]]:
    return [(int(p[0]), int(p[1]), int(p[2])) for row in image for p in row]


def hsv_bin(r: int, g: int, b: int) -> int:
    """Bin of one colour, with exact fractions."""
    top, d = max(r, g, b), max(r, g, b) - min(r, g, b)
    if d == 0:
        degrees = Fraction(0)
    elif top == r:
        degrees = 60 * Fraction(g - b, d) if g > b else 360 + 60 * Fraction(g - b, d)
    elif top == g:
        degrees = 120 + 60 * Fraction(b - r, d)
    else:
        degrees = 240 + 60 * Fraction(r - g, d)
    hue = math.floor(degrees * 255 / 360)
    saturation = math.floor(255 * Fraction(d, top)) if top else 0
    return top // 64 * 64 + saturation // 64 * 16 + hue // 16


def hsv_counts(image: Image) -> list[int]:
    """Counts of the 256 bins."""
    found = Counter(hsv_bin(*p) for p in _pixels(image))
    return [found[i] for i in range(256)]


def scd_levels(image: Image) -> list[int]:
    """The 256 four-bit values that the Haar transform starts from."""
    counts = hsv_counts(image)
    out = []
    for n in counts:
        share = math.floor(2047.0 * n / sum(counts) + 0.49999)
        out.append(15 if share > 818.8 else int(15 * (share / 818.8) ** 0.4 + 0.5))
    return out


def hmmd_cell(r: int, g: int, b: int) -> int:
    """Cell 0..255 of one colour."""
    top, low = max(r, g, b), min(r, g, b)
    d = top - low
    hue = 0.0
    if d:
        if top == r:
            hue = 60 * (g - b) / d + (360 if g < b else 0)
        elif top == g:
            hue = 120 + 60 * (b - r) / d
        else:
            hue = 240 + 60 * (r - g) / d
    degrees, middle = int(hue + 0.5) % 360, int((top + low) / 2 + 0.5)
    for floor, base, hues, sums in (
        (110, 0, 16, 4),
        (60, 64, 16, 4),
        (20, 128, 16, 4),
        (6, 192, 4, 8),
        (0, 224, 1, 32),
    ):
        if d >= floor:
            level = math.floor((middle - 0.5 * floor) * sums / (255 - floor))
            return base + int(degrees / 360 * hues) * sums + min(max(level, 0), sums - 1)
    raise AssertionError


def csd256(image: Image, step: int) -> list[int]:
    """The 256-bin colour structure, position by position."""
    height, width = len(image), len(image[0])
    counts: Counter[int] = Counter()
    positions = 0
    for y in range(0, height - 8 * step + 1, step):
        for x in range(0, width - 8 * step + 1, step):
            inside = {
                hmmd_cell(*(int(v) for v in image[y + step * j][x + step * i])) for j in range(8) for i in range(8)
            }
            counts.update(inside)
            positions += 1
    cuts, levels = (0, 1e-12, 0.037, 0.08, 0.195, 0.32, 1.0), (1, 25, 20, 35, 35, 140)
    out = []
    for cell in range(256):
        share, base = counts[cell] / positions, 0
        for i in range(6):
            if share < cuts[i + 1] or i == 5:
                out.append(min(255, base + int((share - cuts[i]) * levels[i] / (cuts[i + 1] - cuts[i]))))
                break
            base += levels[i]
    return out


def lbp(image: Image) -> list[Fraction]:
    """Shares of the 59 uniform patterns."""
    gray = [[(77 * int(p[0]) + 150 * int(p[1]) + 29 * int(p[2]) + 128) >> 8 for p in row] for row in image]
    ring = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    uniform = [p for p in range(256) if sum((p >> i & 1) != (p >> (i + 1) % 8 & 1) for i in range(8)) <= 2]
    counts: Counter[int] = Counter()
    for y in range(1, len(gray) - 1):
        for x in range(1, len(gray[0]) - 1):
            pattern = sum((gray[y + dy][x + dx] >= gray[y][x]) << i for i, (dy, dx) in enumerate(ring))
            counts[uniform.index(pattern) if pattern in uniform else 58] += 1
    return [Fraction(counts[i], sum(counts.values())) for i in range(59)]


def hog(gray: Sequence[Sequence[float]], cell: int) -> list[float]:
    """Oriented gradients of a gray image: 9 orientations, 2x2 cells a block, L2-Hys."""
    size = len(gray) // cell
    cells = [[[0.0] * 9 for _ in range(size)] for _ in range(size)]
    last = len(gray) - 1
    for y in range(len(gray)):
        for x in range(len(gray)):
            gy = gray[y + 1][x] - gray[y - 1][x] if 0 < y < last else 0.0
            gx = gray[y][x + 1] - gray[y][x - 1] if 0 < x < last else 0.0
            angle = math.degrees(math.atan2(gy, gx)) % 180
            cells[y // cell][x // cell][min(int(angle / 20), 8)] += math.hypot(gy, gx) / cell**2
    out: list[float] = []
    for y in range(size - 1):
        for x in range(size - 1):
            block = [v for j in (y, y + 1) for i in (x, x + 1) for v in cells[j][i]]
            norm = math.sqrt(sum(v * v for v in block) + 1e-10)
            block = [min(v / norm, 0.2) for v in block]
            norm = math.sqrt(sum(v * v for v in block) + 1e-10)
            out += [v / norm for v in block]
    return out


def moments(image: Image, grid: int) -> list[float]:
    """Mean, deviation, signed cube root of the third moment, per part and channel."""
    out: list[float] = []
    height, width = len(image), len(image[0])
    for gy in range(grid):
        for gx in range(grid):
            part = [
                (int(p[0]), int(p[1]), int(p[2]))
                for row in image[gy * height // grid : (gy + 1) * height // grid]
                for p in row[gx * width // grid : (gx + 1) * width // grid]
            ]
            for weights, shift in (((77, 150, 29), 0), ((-43, -85, 128), 32640), ((128, -107, -21), 32640)):
                values = [(sum(w * v for w, v in zip(weights, p, strict=True)) + shift) / 65280 for p in part]
                mean = sum(values) / len(values)
                third = sum((v - mean) ** 3 for v in values) / len(values)
                out += [
                    mean,
                    math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)),
                    math.copysign(abs(third) ** (1 / 3), third),
                ]
    return out
