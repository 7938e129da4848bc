"""Ids of images from callers: text, pairs or hits, one or several."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ..errors import ParameterError
from ..rpc.limits import MAX_ROW
from ..rpc.names import is_id
from .given import whole_number

__all__ = ["image_rows", "rows_by_batch", "several_images"]

_NUMBER = re.compile("[0-9]{1,15}")
_IMAGE_ID = "an image id is (batch id of 16 bytes, row), text of 32 hex digits, a colon and the row, or a hit"


def image_rows(ids: Any) -> list[tuple[bytes, int]]:
    """Pairs (batch id, row) of image ids, given as pairs, text ``batchhex:row`` or hits, one or several."""
    out = []
    for i in several_images(ids):
        try:
            if isinstance(i, str):
                digits, number = i.split(":")
                if not is_id(digits) or _NUMBER.fullmatch(number) is None:
                    raise ParameterError(_IMAGE_ID)
                batch, row = bytes.fromhex(digits), int(number)
            elif hasattr(i, "batch") and hasattr(i, "row"):
                batch, row = i.batch, i.row
            else:
                batch, row = i
            if not isinstance(batch, (bytes, bytearray)):
                raise ParameterError(_IMAGE_ID)
            # a fraction, a truth value or a decimal is another's mistake: rounded, it would name another image
            batch, row = bytes(batch), whole_number(row, "the row of an image id")
        except (ValueError, TypeError):  # of ParameterError, too
            raise ParameterError(_IMAGE_ID) from None
        if len(batch) != 16 or not 0 <= row < MAX_ROW:
            raise ParameterError(_IMAGE_ID)
        out.append((batch, row))
    return out


def several_images(ids: Any) -> list[Any]:
    """A list of image ids or hits, given one or several."""
    if hasattr(ids, "hits"):
        return list(ids.hits)
    if isinstance(ids, str) or hasattr(ids, "batch"):
        return [ids]
    if isinstance(ids, tuple) and len(ids) == 2 and isinstance(ids[0], (bytes, bytearray)):
        return [ids]
    if not isinstance(ids, Iterable) or isinstance(ids, (bytes, bytearray)):
        raise ParameterError(_IMAGE_ID)
    return list(ids)


def rows_by_batch(places: Iterable[tuple[bytes, int]]) -> dict[bytes, list[int]]:
    """Rows of each batch, of pairs (batch id, row), in their order."""
    found: dict[bytes, list[int]] = {}
    for batch, row in places:
        found.setdefault(batch, []).append(row)
    return found
