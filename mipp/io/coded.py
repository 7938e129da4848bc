"""How many pixels a decoder will make, before it makes them: heads of containers may claim fewer."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

__all__ = ["coded_pixels", "decoded_pixels", "rle_bytes"]

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


def rle_bytes(frame: bytes, most: int) -> int:
    """Bytes that the longest segment of a DICOM frame in RLE decodes to (PS3.5 annex G), counted run by run.

    Parameters
    ----------
    frame : bytes
        Anybody's.
    most : int
        Counting ends above it.

    Returns
    -------
    int
        0 for a frame without a header. Above ``most`` the count is not complete.

    Examples
    --------
    >>> import struct
    >>> from mipp.io.coded import rle_bytes
    >>> header = struct.pack("<16I", 1, 64, *[0] * 14)
    >>> rle_bytes(header + bytes([2]) + b"abc" + bytes([0x81, 7]), 1000)  # three bytes as they are, and 128 times 7
    131
    """
    if len(frame) < 64:
        return 0
    count, *starts = struct.unpack_from("<16I", frame)
    bounds = [*starts[:count], len(frame)]
    longest = 0
    for begin, end in pairwise(bounds):
        longest = max(longest, _rle_segment(frame, begin, min(end, len(frame)), most))
        if longest > most:
            break
    return longest


def _rle_segment(frame: bytes, place: int, end: int, most: int) -> int:
    """Bytes that one segment decodes to; a decoder that meets the end in a run takes what is there."""
    size = 0
    while place < end and size <= most:
        head = frame[place]
        if head < 128:
            size += min(head + 1, end - place - 1)
            place += head + 2
        elif head > 128:
            size += 257 - head if place + 1 < end else 0
            place += 2
        else:
            place += 1
    return size
