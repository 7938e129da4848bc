"""Contact sheets: queries on the left, what they found on the right."""

from __future__ import annotations

import io
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, features

from ..errors import ParameterError
from .files import replace_whole
from .images import thumbnail

__all__ = ["TILE", "Cell", "Row", "contact_sheet", "distinct_names", "sheet_format"]

Cell = tuple[npt.NDArray[np.uint8], Sequence[str], bool | None]
Row = tuple[npt.NDArray[np.uint8], Sequence[Cell]]
_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

#: width and height of one picture on a sheet
TILE = 132, 90
#: formats by suffix, and the longest side of those that limit it
_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
}  # fmt: skip
_LONGEST = {"WEBP": 16383, "JPEG": 65500, "BMP": 32767}
#: of a sheet: 300 MB in memory
_MOST_PIXELS = 100_000_000
#: hits of a query in a line, more only if there are more than a hundred
_COLUMNS = 10
_TITLE = "mipp: search over encrypted image features"
_MARGIN, _GAP, _HEAD, _LINE, _FRAME = 28, 14, 76, 15, 3
_PAPER, _PANEL, _INK, _FAINT = (250, 250, 248), (236, 238, 241), (28, 32, 38), (110, 116, 124)
_MATCH, _OTHER, _PLAIN, _QUERY = (46, 140, 87), (201, 104, 48), (196, 200, 206), (40, 84, 160)


def sheet_format(path: str | os.PathLike[str]) -> str:
    """Format of a contact sheet by its file's suffix; ParameterError for a suffix that names none."""
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    name = _FORMATS.get(suffix)
    if name is None or (name == "WEBP" and not features.check("webp")):
        known = ", ".join(_FORMATS)
        raise ParameterError(f"a contact sheet's suffix is one of {known}, not {suffix or 'none'!r}")
    return name


def distinct_names(names: Mapping[bytes, str]) -> dict[bytes, str]:
    """Names by id, as a sheet can draw them; those that it would draw alike get some of their id."""
    drawn = {key: _printable(name) for key, name in names.items()}
    times = Counter(drawn.values())
    return {key: name if times[name] == 1 else f"{name} ({key.hex()[:8]})" for key, name in drawn.items()}


def contact_sheet(
    rows: Sequence[Row],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    tile: tuple[int, int] = TILE,
) -> None:
    """Draw queries and their hits as an image file. Captions that are too long go on in the next line.

    Parameters
    ----------
    rows : (query image, hits) each; a hit is (image, caption lines, whether it matches the query or None if unknown).
        Images are uint8 (H, W, 3). Rows may differ in length. More than ten hits of a query go on below.
    path : file to write; its suffix gives the format (:func:`sheet_format`). All of it is written, or nothing
    title : first line of the header
    tile : width and height of one picture on the sheet, at least 32

    Raises
    ------
    ParameterError
        No rows, a tile that is too small, an unknown suffix, or more pictures than fit in a file of that format.
    """
    if not rows:
        raise ParameterError("a contact sheet needs at least one row")
    if min(tile) < 32:
        raise ParameterError("a tile must be at least 32 x 32")
    form = sheet_format(path)
    font = _font(11)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    most = max(len(cells) for _, cells in rows)
    columns = min(most, max(_COLUMNS, math.isqrt(most)))
    wrapped = [[_wrap(measure, captions, tile[0], font) for _, captions, _ in cells] for _, cells in rows]
    # a line of tiles is as high as its longest caption
    heights = [
        [
            tile[1] + 2 * _FRAME + 8 + max((len(c) for c in captions[i : i + columns]), default=1) * _LINE + _GAP
            for i in range(0, max(1, len(captions)), max(1, columns))
        ]
        for captions in wrapped
    ]
    step_x = tile[0] + _GAP
    first_hit = _MARGIN + tile[0] + 3 * _GAP
    size = max(first_hit + columns * step_x - _GAP + _MARGIN, 560), _HEAD + sum(map(sum, heights)) + _MARGIN
    if max(size) > _LONGEST.get(form, 1 << 16) or size[0] * size[1] > _MOST_PIXELS:
        raise ParameterError(f"{most} hits make a sheet of {size[0]} x {size[1]} pixels, too large for one file")
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    _header(draw, title or _TITLE, len(rows), any(match is not None for _, cells in rows for _, _, match in cells))
    panel = (_MARGIN - _GAP, _HEAD - 6, _MARGIN + tile[0] + _GAP, sheet.height - _MARGIN + 6)
    draw.rounded_rectangle(panel, radius=8, fill=_PANEL)
    y = _HEAD + 4
    for number, (query, cells) in enumerate(rows):
        _picture(sheet, draw, query, (_MARGIN, y), tile, _QUERY)
        _caption(draw, f"query {number + 1}", _MARGIN, y + tile[1] + 7, tile[0], font, _QUERY)
        for place, (image, _, match) in enumerate(cells):
            line, column = divmod(place, columns)
            x, top = first_hit + column * step_x, y + sum(heights[number][:line])
            _picture(sheet, draw, image, (x, top), tile, _PLAIN if match is None else _MATCH if match else _OTHER)
            for i, text in enumerate(wrapped[number][place]):
                at = top + tile[1] + 7 + i * _LINE
                _caption(draw, text, x, at, tile[0], font, _INK if i == 0 else _FAINT)
        y += sum(heights[number])
    _save(sheet, path, form)


def _save(sheet: Image.Image, path: str | os.PathLike[str], form: str) -> None:
    """Write the whole file or nothing; readable by this person alone, as it shows decrypted images."""
    content = io.BytesIO()
    sheet.save(content, format=form, **({"quality": 90} if form in ("JPEG", "WEBP") else {}))
    replace_whole(path, content.getvalue(), mode=0o600)


def _wrap(draw: ImageDraw.ImageDraw, captions: Sequence[str], width: int, font: _Font) -> list[str]:
    """Caption lines, each cut into pieces that fit a tile."""
    out = []
    for text in map(_printable, captions):
        while len(text) > 1 and draw.textlength(text, font=font) > width:
            cut = len(text) - 1
            while cut > 1 and draw.textlength(text[:cut], font=font) > width:
                cut -= 1
            out.append(text[:cut])
            text = text[cut:]
        out.append(text)
    return out


def _header(draw: ImageDraw.ImageDraw, title: str, queries: int, judged: bool) -> None:
    draw.text((_MARGIN, 16), _printable(title), font=_font(20), fill=_INK)
    text = f"{queries} {'query' if queries == 1 else 'queries'}; hits from left to right, line by line, nearest first"
    draw.text((_MARGIN, 45), text, font=_font(12), fill=_FAINT)
    if judged:
        x = _MARGIN + draw.textlength(text, font=_font(12)) + 26
        for colour, word in ((_MATCH, "same class"), (_OTHER, "other class")):
            draw.rounded_rectangle((x, 48, x + 11, 59), radius=3, fill=colour)
            draw.text((x + 17, 45), word, font=_font(12), fill=_FAINT)
            x += 17 + draw.textlength(word, font=_font(12)) + 20


def _picture(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, image: npt.NDArray[np.uint8], corner: tuple[int, int],
    tile: tuple[int, int], frame: tuple[int, int, int],
) -> None:  # fmt: skip
    small = thumbnail(image, tile)
    x = corner[0] + (tile[0] - small.shape[1]) // 2
    y = corner[1] + (tile[1] - small.shape[0]) // 2
    box = (x - _FRAME, y - _FRAME, x + small.shape[1] + _FRAME - 1, y + small.shape[0] + _FRAME - 1)
    draw.rounded_rectangle(box, radius=4, fill=frame)
    sheet.paste(Image.fromarray(small), (x, y))


def _caption(
    draw: ImageDraw.ImageDraw, text: str, x: int, y: int, width: int, font: _Font, fill: tuple[int, int, int]
) -> None:
    """One centred line."""
    draw.text((x + (width - draw.textlength(text, font=font)) / 2, y), text, font=font, fill=fill)


def _font(size: int) -> _Font:
    # without FreeType, Pillow has one bitmap font and refuses a size
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):
        return ImageFont.load_default()


def _printable(text: str) -> str:
    # the bitmap font has Latin-1 only
    return "".join(c if c.isprintable() else "?" for c in text).encode("latin-1", "replace").decode("latin-1")
