"""Texts and pictures of strangers, made fit for a page that a person looks at."""

from __future__ import annotations

import io
import unicodedata

from PIL import Image

from ..errors import ImageError
from .images import load_image, thumbnail

__all__ = ["picture", "shown"]


def shown(text: str, most: int = 200) -> str:
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "�" for c in cut)


def picture(content: bytes, side: int) -> bytes | None:
    try:
        pixels = thumbnail(load_image(content), (side, side))
    except ImageError:
        return None
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=88)
    return out.getvalue()
