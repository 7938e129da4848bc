"""Images made by formula, and what the reference implementation says of them.

The hash is of the RGB bytes, so that a mistake in a formula is not taken for one in a descriptor.
"""

from __future__ import annotations

import colorsys
import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def _plain(width: int, height: int, colour: tuple[int, int, int]) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


def _choose(mask: npt.NDArray[np.bool_], yes: tuple[int, int, int], no: tuple[int, int, int]) -> Pixels:
    return np.where(mask[:, :, None], np.array(yes, np.uint8), np.array(no, np.uint8))


def _noise(width: int, height: int, seed: int) -> Pixels:
    """Bits 16..23 of the linear congruential generator of the C standard's example."""
    out = bytearray()
    for _ in range(width * height * 3):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        out.append(seed >> 16 & 255)
    return np.frombuffer(bytes(out), np.uint8).reshape(height, width, 3)


def _hue_wheel() -> Pixels:
    out = np.zeros((200, 200, 3), np.uint8)
    for y in range(200):
        for x in range(200):
            hue = math.atan2(y - 100, x - 100) / (2 * math.pi) % 1.0
            rgb = colorsys.hsv_to_rgb(hue, min(1.0, math.hypot(x - 100, y - 100) / 100), 1.0)
            out[y, x] = [int(v * 255) for v in rgb]
    return out


def images() -> dict[str, Pixels]:
    """Name to uint8 (H, W, 3)."""
    y, x = np.mgrid[:128, :192]
    yy, xx = np.mgrid[:256, :256]
    black, white = (0, 0, 0), (255, 255, 255)
    red = x * 255 // 191
    return {
        "black_192x128": _plain(192, 128, black),
        "white_192x128": _plain(192, 128, white),
        "red_192x128": _plain(192, 128, (220, 30, 40)),
        "gray_ramp_256x256": np.repeat(xx[:, :, None], 3, axis=2).astype(np.uint8),
        "rgb_ramp_192x128": np.stack([red, y * 255 // 127, 255 - red], axis=2).astype(np.uint8),
        "vstripes8_192x128": _choose(x // 8 % 2 == 1, white, black),
        "hstripes8_192x128": _choose(y // 8 % 2 == 1, white, black),
        "diag_192x128": _choose((x + y) // 12 % 2 == 1, (220, 220, 220), (20, 20, 20)),
        "checker16_colour_256x256": _choose((xx // 16 + yy // 16) % 2 == 1, (20, 90, 210), (200, 60, 20)),
        "noise_192x128": _noise(192, 128, 12345),
        "noise_100x75": _noise(100, 75, 777),
        "hue_wheel_200x200": _hue_wheel(),
    }


def golden() -> dict[str, dict[str, str]]:
    """Name to ``pixels_sha256`` and the reference's values of each descriptor, numbers separated by blanks."""
    path = Path(__file__).resolve().parents[1] / "vectors" / "descriptors.json"
    return dict(json.loads(path.read_text()))
