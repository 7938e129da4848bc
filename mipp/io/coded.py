"""How many pixels a decoder will make, before it makes them: heads of containers may claim fewer."""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["coded_pixels", "decoded_pixels"]

#: tags of TIFF: a tile is decoded whole, however little of it is in the image
_TILE_WIDTH, _TILE_LENGTH = 322, 323
#: beginnings of a JPEG 2000 codestream (JP2 files have it in a box), and of a JPEG or JPEG-LS file
_J2K, _JPEG = b"\xff\x4f\xff\x51", b"\xff\xd8"
#: markers of JPEG that are followed by a frame's size: SOF0 to SOF15 but for three other markers, and JPEG-LS
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
#: markers that stand alone
_ALONE = {0x01, *range(0xD0, 0xD9)}


def decoded_pixels(image: Any) -> int:
    """Pixels that Pillow's decoder makes of an opened image, at least its own.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened, and not loaded; of a format of :func:`mipp.io.recognise.formats`.

    Returns
    -------
    int

    Examples
    --------
    >>> from PIL import Image
    >>> from mipp.io.coded import decoded_pixels
    >>> decoded_pixels(Image.new("L", (30, 20)))
    600
    """
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    whole = all(isinstance(side, int) for side in tile)
    return max(image.width * image.height, tile[0] * tile[1] if whole else 0)


def coded_pixels(content: bytes) -> int:
    """Pixels that a JPEG, JPEG-LS or JPEG 2000 file or codestream declares, the most of all its declarations.

    Parameters
    ----------
    content : bytes
        Anybody's.

    Returns
    -------
    int
        0 for another kind of file, or a damaged one.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> from mipp.io.coded import coded_pixels
    >>> content = io.BytesIO()
    >>> Image.new("L", (30, 20)).save(content, "JPEG")
    >>> coded_pixels(content.getvalue())
    600
    """
    most = 0
    try:
        place = content.find(_J2K)
        while place >= 0:
            right, bottom, left, top = struct.unpack_from(">4I", content, place + 8)
            most = max(most, (right - left) * (bottom - top))
            place = content.find(_J2K, place + 1)
        place = 2 if content.startswith(_JPEG) else len(content)
        while place < len(content):
            if content[place] != 0xFF:  # coded data: the next marker
                place = content.find(b"\xff", place)
                if place < 0:
                    break
                continue
            marker = content[place + 1]
            if marker in (0x00, 0xFF) or marker in _ALONE:
                place += 1 if marker == 0xFF else 2
                continue
            if marker in _FRAMES:
                height, width = struct.unpack_from(">HH", content, place + 5)
                most = max(most, height * width)
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    except (struct.error, IndexError):
        pass  # it ends in the middle
    return most
