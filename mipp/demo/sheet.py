"""Contact sheets: queries on the left, what they found on the right."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ..errors import ParameterError
from ..io.images import thumbnail

__all__ = ["Cell", "Row", "contact_sheet"]

Cell = tuple[npt.NDArray[np.uint8], Sequence[str], bool | None]
Row = tuple[npt.NDArray[np.uint8], Sequence[Cell]]
_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_MARGIN, _GAP, _HEAD, _LINE, _FRAME = 28, 14, 76, 15, 3
_PAPER, _PANEL, _INK, _FAINT = (250, 250, 248), (236, 238, 241), (28, 32, 38), (110, 116, 124)
_MATCH, _OTHER, _PLAIN, _QUERY = (46, 140, 87), (201, 104, 48), (196, 200, 206), (40, 84, 160)


def contact_sheet(
    rows: Sequence[Row],
    path: str | os.PathLike[str],
    *,
    title: str = "mipp: search over encrypted image features",
    tile: tuple[int, int] = (132, 90),
) -> None:
    """Draw queries and their hits as a PNG file.

    Parameters
    ----------
    rows : (query image, hits) each; a hit is (image, caption lines, whether it matches the query or None if unknown).
        Images are uint8 (H, W, 3). Rows may differ in length.
    path : file to write
    title : first line of the header
    tile : width and height of one picture on the sheet, at least 32

    Raises
    ------
    ParameterError
        No rows, or a tile that is too small.
    """
    if not rows:
        raise ParameterError("a contact sheet needs at least one row")
    if min(tile) < 32:
        raise ParameterError("a tile must be at least 32 x 32")
    hits = max(len(cells) for _, cells in rows)
    lines = max((len(captions) for _, cells in rows for _, captions, _ in cells), default=0)
    step_x, step_y = tile[0] + _GAP, tile[1] + 2 * _FRAME + 8 + max(1, lines) * _LINE + _GAP
    first_hit = _MARGIN + tile[0] + 3 * _GAP
    width = max(first_hit + hits * step_x - _GAP + _MARGIN, 560)
    sheet = Image.new("RGB", (width, _HEAD + len(rows) * step_y + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _header(draw, title, len(rows), any(match is not None for _, cells in rows for _, _, match in cells))
    panel = (_MARGIN - _GAP, _HEAD - 6, _MARGIN + tile[0] + _GAP, sheet.height - _MARGIN + 6)
    draw.rounded_rectangle(panel, radius=8, fill=_PANEL)
    font = _font(11)
    for number, (query, cells) in enumerate(rows):
        y = _HEAD + number * step_y + 4
        _picture(sheet, draw, query, (_MARGIN, y), tile, _QUERY)
        _caption(draw, f"query {number + 1}", _MARGIN, y + tile[1] + 7, tile[0], font, _QUERY)
        for place, (image, captions, match) in enumerate(cells):
            x = first_hit + place * step_x
            _picture(sheet, draw, image, (x, y), tile, _PLAIN if match is None else _MATCH if match else _OTHER)
            for line, text in enumerate(captions):
                top = y + tile[1] + 7 + line * _LINE
                _caption(draw, text, x, top, tile[0], font, _INK if line == 0 else _FAINT)
    sheet.save(path, format="PNG")


def _header(draw: ImageDraw.ImageDraw, title: str, queries: int, judged: bool) -> None:
    draw.text((_MARGIN, 16), _printable(title), font=_font(20), fill=_INK)
    text = f"{queries} {'query' if queries == 1 else 'queries'}; hits from left to right, nearest first"
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
    """One centred line, cut to the width of its tile."""
    text = _printable(text)
    if draw.textlength(text, font=font) > width:
        while text and draw.textlength(text + "...", font=font) > width:
            text = text[:-1]
        text += "..."
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
