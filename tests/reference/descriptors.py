"""Slow, obvious colour layout and edge histogram, pixel by pixel in plain Python, from the definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence

Image = Sequence[Sequence[Sequence[int]]]

_ZIGZAG = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2)]
_SHARES = {
    "vertical": "0.010867 0.057915 0.099526 0.144849 0.195573 0.260504 0.358031 0.530128",
    "horizontal": "0.012266 0.069934 0.125879 0.182307 0.243396 0.314563 0.411728 0.564319",
    "45": "0.004193 0.025852 0.046860 0.068519 0.093286 0.123490 0.161505 0.228960",
    "135": "0.004174 0.025924 0.046232 0.067163 0.089655 0.115391 0.151904 0.217745",
    "none": "0.006778 0.051667 0.108650 0.166257 0.224226 0.285691 0.356375 0.450972",
}


def _basis(frequency: int, position: int) -> float:
    """Cosine basis to the seven digits of the experimentation model."""
    return round(
        math.sqrt(1 / 8) if frequency == 0 else 0.5 * math.cos((2 * position + 1) * frequency * math.pi / 16), 7
    )


def _toward_zero(a: int, b: int) -> int:
    return int(a / b)


def _y_dc(i: int) -> int:
    if i > 191:
        return 112 + (i - 192) // 4
    if i > 159:
        return 96 + (i - 160) // 2
    if i > 95:
        return 32 + (i - 96)
    if i > 63:
        return 16 + (i - 64) // 2
    return i // 4


def _c_dc(i: int) -> int:
    if i > 191:
        return 63
    for low, base, step in ((160, 56, 4), (144, 48, 2), (112, 16, 1), (96, 8, 2), (64, 0, 4)):
        if i >= low:
            return base + (i - low) // step
    return 0


def _ac(i: int) -> int:
    i = max(-256, min(239, i))
    size = abs(i)
    if size > 127:
        size = 64 + size // 4
    elif size > 63:
        size = 32 + size // 2
    return 132 + int(math.copysign(size, i))


def cld(image: Image) -> list[int]:
    """Twelve coefficients of ``image[y][x] = (r, g, b)``; both sides at least 8."""
    height, width = len(image), len(image[0])
    sums = [[[0, 0, 0] for _ in range(8)] for _ in range(8)]
    counts = [[0] * 8 for _ in range(8)]
    for y in range(height):
        for x in range(width):
            r, g, b = (int(v) for v in image[y][x])
            yy = (0.299 * r + 0.587 * g + 0.114 * b) / 256
            block = sums[int(y / (height / 8))][int(x / (width / 8))]
            block[0] += int(219 * yy + 16.5)
            block[1] += int(224 * 0.564 * (b / 256 - yy) + 128.5)
            block[2] += int(224 * 0.713 * (r / 256 - yy) + 128.5)
            counts[int(y / (height / 8))][int(x / (width / 8))] += 1
    out = []
    for channel, keep in ((0, 6), (1, 3), (2, 3)):
        means = [[sums[y][x][channel] // counts[y][x] for x in range(8)] for y in range(8)]
        for place, (v, u) in enumerate(_ZIGZAG[:keep]):
            rows = [sum(_basis(u, x) * means[y][x] for x in range(8)) for y in range(8)]
            c = math.floor(sum(_basis(v, y) * rows[y] for y in range(8)) + 0.499999)
            if place == 0:
                out.append(_y_dc(_toward_zero(c, 8)) >> 1 if channel == 0 else _c_dc(_toward_zero(c, 8)))
            else:
                out.append(_ac(_toward_zero(c, 2) if channel == 0 else c) >> 3)
    return out


def _enlarge(gray: list[list[int]]) -> list[list[int]]:
    height, width = len(gray), len(gray[0])
    scale = 70.0 / min(height, width)

    def pixel(y: int, x: int) -> int:
        return gray[min(y, height - 1)][min(x, width - 1)]

    out = []
    for j in range(int(height * scale + 0.5)):
        row = []
        for i in range(int(width * scale + 0.5)):
            y, x = math.floor(j / scale), math.floor(i / scale)
            fy, fx = j / scale - y, i / scale - x
            top = pixel(y, x) + fx * (pixel(y, x + 1) - pixel(y, x))
            bottom = pixel(y + 1, x) + fx * (pixel(y + 1, x + 1) - pixel(y + 1, x))
            row.append(int(top + fy * (bottom - top) + 0.5))
        out.append(row)
    return out


def ehd(image: Image) -> list[int]:
    """Eighty indices of ``image[y][x] = (r, g, b)``; neither side more than 20 times the other."""
    gray = [[sum(int(v) for v in pixel) // 3 for pixel in row] for row in image]
    if min(len(gray), len(gray[0])) < 70:
        gray = _enlarge(gray)
    height, width = len(gray), len(gray[0])
    block = max(2, int(math.sqrt(width * height // 1100) / 2) * 2)
    half = block // 2
    counts = [dict.fromkeys(_SHARES, 0) for _ in range(16)]
    blocks = [0] * 16
    for y in range(0, height, block):
        for x in range(0, width, block):
            if y > height - block or x > width - block:
                continue
            means = []
            for top, left in ((y, x), (y, x + half), (y + half, x), (y + half, x + half)):
                inside = [gray[top + j][left + i] for j in range(half) for i in range(half)]
                means.append(sum(inside) / (half * half))
            a0, a1, a2, a3 = means
            strengths = {
                "vertical": abs((a0 + a2) - (a1 + a3)),
                "horizontal": abs((a0 + a1) - (a2 + a3)),
                "45": math.sqrt(2) * abs(a0 - a3),
                "135": math.sqrt(2) * abs(a1 - a2),
                "none": 2 * abs(a0 - a1 - a2 + a3),
            }
            part = int(4 * x / width) + 4 * int(4 * y / height)
            blocks[part] += 1
            kind = max(strengths, key=lambda name: strengths[name])
            if strengths[kind] >= 11:
                counts[part][kind] += 1
    out = []
    for part in range(16):
        for kind, text in _SHARES.items():
            levels = [float(v) for v in text.split()]
            share = counts[part][kind] / blocks[part]
            out.append(next((j for j in range(7) if share <= (levels[j] + levels[j + 1]) / 2), 7))
    return out
