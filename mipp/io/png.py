"""PNG files of 16 bits per channel and their transparent values, which Pillow reads in part."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Box", "deep_gray", "raw_mode", "transparent"]

#: a part of an image: left, top, right and bottom, the last two outside
Box: TypeAlias = tuple[int, int, int, int]
#: gives what belongs to a part of an image
Part: TypeAlias = Callable[[Box], npt.NDArray[Any]]

#: how Pillow spreads gray values of few bits over 0 to 255
_SPREAD = {"L;2": 85, "L;4": 17}
_DEPTH = {"1": 1, "L;2": 2, "L;4": 4, "L": 8}


def _decoded(file: io.BytesIO, raw: str) -> Image.Image:
    """Pixels of a PNG file as Pillow's decoder lays them out for another raw mode of as many bits."""
    with Image.open(file, formats=("PNG",)) as image:
        tiles: list[Any] = image.tile  # of a type of its own in newer Pillow, tuples in older
        tiles = [type(tile)(*tile[:3], raw) if hasattr(tile, "_fields") else (*tile[:3], raw) for tile in tiles]
        image.tile = tiles
        image.load()
        return image


def raw_mode(image: Image.Image) -> str:
    """The raw mode of an opened PNG image, before it is loaded; empty for other images."""
    tiles: list[Any] = getattr(image, "tile", [])
    if image.format != "PNG" or not tiles:
        return ""
    found = tiles[0][3]
    return found if isinstance(found, str) else str(found[0]) if found else ""


def deep_gray(file: io.BytesIO, raw: str) -> Callable[[Box], tuple[npt.NDArray[Any], npt.NDArray[Any]]] | None:
    """Gray and opacity of parts of a gray PNG with 16 bits and an alpha channel, or None for another raw mode."""
    if raw != "LA;16B":
        return None
    # four bytes for each pixel, as they are in the file
    image = _decoded(file, "RGBA")

    def part(box: Box) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        words = np.asarray(image.crop(box)).astype(np.uint16)
        return np.asarray(words[:, :, 0] << 8 | words[:, :, 1]), np.asarray(words[:, :, 2] << 8 | words[:, :, 3])

    return part


def transparent(image: Image.Image, file: io.BytesIO, raw: str) -> Part | None:
    """Which pixels of parts (H, W) have the one colour that a PNG file declares transparent; None if it declares none.

    Palettes are not meant: Pillow reads these right.
    """
    value = image.info.get("transparency")
    if not raw or value is None or image.mode == "P":
        return None
    if isinstance(value, int):
        # bits beyond the depth do not count
        wanted = (value & ((1 << _DEPTH.get(raw, 16)) - 1)) * _SPREAD.get(raw, 1)
        return lambda box: np.asarray(np.asarray(image.crop(box)).astype(np.int64) == wanted)
    if raw != "RGB;16B" or not isinstance(value, tuple):
        return None
    # Pillow keeps the high bytes of 16 bits
    low, colour = _decoded(file, "RGB;16L"), np.array(value, np.uint16)

    def part(box: Box) -> npt.NDArray[Any]:
        words = np.asarray(image.crop(box)).astype(np.uint16) << 8 | np.asarray(low.crop(box))
        return np.asarray((words == colour).all(axis=2))

    return part
