"""Images made by formula, and what the reference implementation says of them.

The values were computed with the adapted MPEG-7 experimentation model (mubastan/mpeg7fex, commit 41605b75); the hash is
of the RGB bytes, so that a mistake in a formula is not taken for one in a descriptor.
"""

from __future__ import annotations

import colorsys
import math

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


#: name: (SHA-256 of the RGB bytes, CLD (6, 3, 3), EHD as digits, five for each of the 16 parts)
GOLDEN = {
    "black_192x128": (
        "484eaa327eae22dd9073858b0599e43fb5e06cabfbc8de88c83763edcb8d2446",
        (2, 16, 16, 16, 16, 16, 32, 16, 16, 32, 16, 16),
        "00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000",
    ),
    "white_192x128": (
        "592bf32120590af1d1791d3341772a813f0ef90b24765630164c5b311f080ff8",
        (61, 16, 16, 16, 16, 16, 32, 16, 16, 32, 16, 16),
        "00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000",
    ),
    "red_192x128": (
        "f34a7394c9381c7ff560ac57e6b1fbef08e0565f208a192b73ee805fee5ad849",
        (14, 16, 16, 16, 16, 16, 12, 16, 16, 63, 16, 16),
        "00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000",
    ),
    "gray_ramp_256x256": (
        "fb5f204ed84efa48484d193e260fcb573938c9153d852300b8f0cdf58cc2b85b",
        (30, 0, 16, 16, 16, 16, 32, 16, 16, 32, 16, 16),
        "00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000",
    ),
    "rgb_ramp_192x128": (
        "2bcd7098ff5f1e3400141d369d293dba44d86524e5fe97ea4207b9ea5c2344ef",
        (30, 10, 4, 16, 16, 16, 32, 31, 29, 31, 0, 31),
        "00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000",
    ),
    "vstripes8_192x128": (
        "85582dd7aaefff8b49a5845951c09f2740c10c96889ece778afcf80056ecf9fc",
        (30, 13, 16, 16, 16, 16, 32, 16, 16, 32, 16, 16),
        "00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000",
    ),
    "hstripes8_192x128": (
        "b9e3a1584e44f1dbe43ea57c3489927dacd83522a5bcaa395c5454d0a79efd66",
        (30, 16, 16, 16, 16, 16, 32, 16, 16, 32, 16, 16),
        "00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000 00000",
    ),
    "diag_192x128": (
        "3fde7c0c1f2a68d5b9e33e825dbbec422be940d177d4a30b0a685badc44e518d",
        (27, 16, 16, 16, 16, 16, 32, 16, 16, 32, 16, 16),
        "00700 00700 00700 00700 00700 00700 00700 00700 00700 00700 00700 00700 00700 00700 00700 00700",
    ),
    "checker16_colour_256x256": (
        "a3c4efa53e65e252ec5ffe0a30c1c84107a240f0d80b3bbfe46b6d733252238a",
        (15, 16, 16, 16, 16, 16, 44, 16, 16, 44, 16, 16),
        "43001 43001 34001 34001 43001 43001 34001 34001 42001 42001 33001 33001 42001 42001 33001 33001",
    ),
    "noise_192x128": (
        "4431a4e57265e411c3d3058ac86f55c42a038399fea45fa5683b86ddab4fe9a9",
        (30, 16, 16, 16, 16, 16, 31, 16, 16, 31, 16, 16),
        "23337 32457 22247 21347 31557 21567 31447 22247 01477 22457 32347 31547 22447 31557 32457 41267",
    ),
    "noise_100x75": (
        "6c4da6776534e632969dbe02bb47171f4ae7fdc8861b97787e5943441516f4d2",
        (30, 16, 17, 16, 16, 16, 30, 16, 15, 30, 16, 16),
        "22457 11757 42447 21357 12457 22647 21467 21557 22457 22457 12547 41357 32637 31657 32567 22647",
    ),
    "hue_wheel_200x200": (
        "aa5e348f7672fa5187180465ef5f51127dca1f1097fba4f46236edb97205c468",
        (44, 15, 5, 8, 16, 8, 32, 29, 31, 31, 0, 29),
        "00000 00000 00000 00000 00000 00000 00000 00000 00000 00010 00000 00000 00000 00010 00000 00000",
    ),
}
