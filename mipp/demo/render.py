"""A collection of images made by formula: classes differ in layout and texture, their images in everything else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..errors import ParameterError

__all__ = ["CLASSES", "render_collection"]

Plane = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


class _Canvas:
    """Coordinates (x 0..aspect, y 0..1) of an image, its random stream, and what classes draw with."""

    def __init__(self, width: int, height: int, rng: np.random.Generator, hue: float) -> None:
        self.rng, self.hue, self.aspect = rng, hue, width / height
        self.y, self.x = np.mgrid[:height, :width] / height
        self.pixel = 1.0 / height

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def colour(
        self, shift: float = 0.0, saturation: tuple[float, float] = (0.35, 0.8), value: tuple[float, float] = (0.4, 0.9)
    ) -> Plane:
        """A random colour around the class's hue, as RGB 0..1."""
        hue = self.hue + shift + self.uniform(-0.09, 0.09)
        return _hsv(np.array(hue), np.array(self.uniform(*saturation)), np.array(self.uniform(*value)))

    def blend(self, a: Plane, b: Plane, weight: Plane) -> Plane:
        return np.asarray(a * (1.0 - weight[..., None]) + b * weight[..., None])

    def edge(self, signed: Plane) -> Plane:
        """0 outside, 1 inside of a signed distance, smooth over one pixel."""
        return np.clip(signed / self.pixel + 0.5, 0.0, 1.0)

    def noise(self, cells: int) -> Plane:
        """Smooth noise 0..1 with ``cells`` bumps per image height."""
        wide = int(cells * self.aspect) + 2
        grid = self.rng.random((cells + 2, wide + 1))
        gy, gx = self.y * cells, self.x * cells
        y0, x0 = gy.astype(np.int64), gx.astype(np.int64)
        fy, fx = _smooth(gy - y0), _smooth(gx - x0)
        top = grid[y0, x0] * (1 - fx) + grid[y0, x0 + 1] * fx
        bottom = grid[y0 + 1, x0] * (1 - fx) + grid[y0 + 1, x0 + 1] * fx
        return np.asarray(top * (1 - fy) + bottom * fy)

    def stripes(self, angle: float, count: float) -> Plane:
        """Stripes 0..1, ``count`` pairs per image height, ``angle`` in radians from vertical stripes."""
        along = (self.x * np.cos(angle) + self.y * np.sin(angle)) * count + self.uniform(0, 1)
        return self.edge((0.25 - np.abs(along % 1.0 - 0.5)) / count)


def _smooth(t: Plane) -> Plane:
    return np.asarray(t * t * (3 - 2 * t))


def _hsv(hue: Plane, saturation: Plane, value: Plane) -> Plane:
    """RGB 0..1 of hue (in turns), saturation and value; the result has one axis more."""
    turn = (hue[..., None] * 6.0 + np.array([5.0, 3.0, 1.0])) % 6.0
    part = np.clip(np.minimum(turn, 4.0 - turn), 0.0, 1.0)
    return np.asarray(value[..., None] * (1.0 - saturation[..., None] * part))


def _sunset(c: _Canvas) -> Plane:
    horizon = c.uniform(0.5, 0.75)
    sky = c.blend(c.colour(0.0, value=(0.35, 0.6)), c.colour(0.06, value=(0.8, 1.0)), np.clip(c.y / horizon, 0, 1))
    out = c.blend(sky, c.colour(0.0, value=(0.15, 0.35)), c.edge(c.y - horizon))
    cx, cy, r = c.uniform(0.2, c.aspect - 0.2), horizon - c.uniform(0.05, 0.25), c.uniform(0.07, 0.15)
    sun = c.edge(r - np.hypot(c.x - cx, c.y - cy)) * c.edge(horizon - c.y)
    return c.blend(out, c.colour(0.08, (0.2, 0.5), (0.95, 1.0)), sun)


def _hills(c: _Canvas) -> Plane:
    out = c.blend(c.colour(0.3, (0.3, 0.6), (0.7, 0.95)), c.colour(0.3, (0.05, 0.3), (0.8, 1.0)), c.y)
    for layer in range(3):
        ridge = 0.45 + 0.18 * layer + 0.08 * np.sin(c.x * c.uniform(3, 7) + c.uniform(0, 6.3)) + c.uniform(-0.05, 0.05)
        out = c.blend(out, c.colour(0.0, (0.4, 0.8), (0.65 - 0.15 * layer, 0.75 - 0.15 * layer)), c.edge(c.y - ridge))
    return out


def _stripes(c: _Canvas) -> Plane:
    return c.blend(c.colour(), c.colour(0.15), c.stripes(c.uniform(-0.12, 0.12), c.uniform(5, 10)))


def _slats(c: _Canvas) -> Plane:
    return c.blend(c.colour(), c.colour(0.15), c.stripes(np.pi / 2 + c.uniform(-0.12, 0.12), c.uniform(5, 10)))


def _diagonals(c: _Canvas) -> Plane:
    return c.blend(c.colour(), c.colour(0.15), c.stripes(np.pi / 4 + c.uniform(-0.15, 0.15), c.uniform(4, 9)))


def _tiles(c: _Canvas) -> Plane:
    count, tilt = c.uniform(4, 8), c.uniform(-0.1, 0.1)
    a, b = c.stripes(tilt, count / 2), c.stripes(np.pi / 2 + tilt, count / 2)
    return c.blend(c.colour(), c.colour(0.2), np.abs(a - b))


def _discs(c: _Canvas) -> Plane:
    out = c.blend(c.colour(0.0, (0.1, 0.35), (0.75, 1.0)), c.colour(0.05, (0.1, 0.35), (0.75, 1.0)), c.y)
    for _ in range(int(c.uniform(6, 11))):
        cx, cy, r = c.uniform(0, c.aspect), c.uniform(0, 1), c.uniform(0.06, 0.17)
        out = c.blend(out, c.colour(c.uniform(0, 0.25)), c.edge(r - np.hypot(c.x - cx, c.y - cy)))
    return out


def _rings(c: _Canvas) -> Plane:
    cx, cy = c.aspect / 2 + c.uniform(-0.2, 0.2), 0.5 + c.uniform(-0.15, 0.15)
    radius = np.hypot(c.x - cx, c.y - cy) * c.uniform(5, 9) + c.uniform(0, 1)
    bands = c.edge((0.25 - np.abs(radius % 1.0 - 0.5)) / 7)
    return c.blend(c.colour(), c.colour(0.3), bands)


def _clouds(c: _Canvas) -> Plane:
    weight = 0.6 * c.noise(3) + 0.3 * c.noise(7) + 0.1 * c.noise(15)
    return c.blend(c.colour(0.0, (0.4, 0.8), (0.5, 0.8)), c.colour(0.0, (0.0, 0.15), (0.85, 1.0)), _smooth(weight))


def _gravel(c: _Canvas) -> Plane:
    grain = 0.6 * c.noise(24) + 0.4 * c.noise(48)
    weight = np.clip((grain - 0.5) * c.uniform(2.0, 3.5) + 0.5, 0, 1)
    return c.blend(c.colour(0.0, (0.1, 0.45), (0.15, 0.4)), c.colour(0.05, (0.1, 0.4), (0.6, 0.95)), weight)


def _skyline(c: _Canvas) -> Plane:
    out = c.blend(c.colour(0.0, value=(0.25, 0.5)), c.colour(0.1, value=(0.6, 0.9)), c.y)
    left = -0.05
    while left < c.aspect:
        width, top = c.uniform(0.1, 0.22), c.uniform(0.25, 0.7)
        inside = c.edge(np.minimum(c.x - left, left + width - c.x)) * c.edge(c.y - top)
        out = c.blend(out, c.colour(0.0, (0.1, 0.4), (0.1, 0.3)), inside)
        window = c.uniform(0.035, 0.05)
        lit = ((c.x - left) / window % 1.0 > 0.45) & ((c.y - top) / window % 1.0 > 0.5)
        room = (c.x > left + 0.01) & (c.x < left + width - 0.015) & (c.y > top + 0.01)
        out = c.blend(out, c.colour(0.08, (0.2, 0.5), (0.75, 1.0)), (lit & room).astype(np.float64))
        left += width + c.uniform(-0.02, 0.03)
    return out


def _spectrum(c: _Canvas) -> Plane:
    angle, turns = c.uniform(-0.5, 0.5), c.uniform(0.6, 1.1)
    hue = c.hue + (c.x * np.cos(angle) + c.y * np.sin(angle)) / c.aspect * turns + c.uniform(-0.1, 0.1)
    shade = 0.55 + 0.4 * c.y if c.rng.random() < 0.5 else 0.95 - 0.4 * c.y
    return _hsv(hue, np.full_like(hue, c.uniform(0.45, 0.8)), shade)


# hues are shared between neighbours on purpose: neither colour nor edges alone tell all classes apart
_CLASSES: dict[str, tuple[Callable[[_Canvas], Plane], float]] = {
    "sunset": (_sunset, 0.03), "hills": (_hills, 0.28), "stripes": (_stripes, 0.60), "discs": (_discs, 0.10),
    "tiles": (_tiles, 0.02), "clouds": (_clouds, 0.58), "diagonals": (_diagonals, 0.62), "rings": (_rings, 0.80),
    "gravel": (_gravel, 0.08), "skyline": (_skyline, 0.64), "slats": (_slats, 0.05), "spectrum": (_spectrum, 0.80),
}  # fmt: skip

#: names of the classes, in order
CLASSES = tuple(_CLASSES)


def render_collection(
    classes: int = 10, per_class: int = 40, size: tuple[int, int] = (192, 128), seed: int = 1
) -> list[tuple[str, str, Pixels]]:
    """Render images, the same on every machine for the same arguments up to rounding of a pixel.

    Parameters
    ----------
    classes : 1 to 12, the first of :data:`CLASSES`
    per_class : images of each class
    size : width and height, at least 16 pixels each
    seed : not negative

    Returns
    -------
    list
        (name such as ``hills_007``, label, uint8 (H, W, 3)), class after class.

    Raises
    ------
    ParameterError
        A number out of range.
    """
    width, height = size
    if not 1 <= classes <= len(CLASSES):
        raise ParameterError(f"classes must be 1 to {len(CLASSES)}")
    if per_class < 1 or min(width, height) < 16 or seed < 0:
        raise ParameterError("per_class must be at least 1, size at least 16 x 16, seed not negative")
    out = []
    for number, (label, (draw, hue)) in enumerate(list(_CLASSES.items())[:classes]):
        for index in range(per_class):
            canvas = _Canvas(width, height, np.random.default_rng([seed, number, index]), hue)
            light = canvas.uniform(0.8, 1.05)
            picture = draw(canvas) * light + (canvas.rng.random((height, width, 1)) - 0.5) * 0.03
            out.append((f"{label}_{index:03d}", label, np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)))
    return out
