"""Checks of metadata of images, in encrypted image files and in records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import ParameterError

__all__ = ["METADATA_DEPTH", "largest_field", "metadata_text", "too_deep"]

#: levels of lists and mappings in metadata
METADATA_DEPTH = 32


def metadata_text(metadata: Any, most: int) -> str:
    """Metadata as JSON, of ASCII characters; empty for None.

    ParameterError unless it is a mapping that JSON can hold, in ``most`` bytes.
    """
    if metadata is None:
        return ""
    if not isinstance(metadata, Mapping):
        raise ParameterError(f"metadata of an image is a mapping, not {type(metadata).__name__}")
    if not all(isinstance(name, str) for name in metadata):
        raise ParameterError("fields of an image's metadata are named by text")
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(f"metadata of an image must be values that JSON can hold: {error}") from None
    if len(text) > most:
        raise ParameterError(
            f"metadata of an image has {len(text)} bytes as JSON, at most {most} are kept; the largest field "
            f"is {largest_field(metadata)!r}"
        )
    if too_deep(metadata):
        raise ParameterError(f"metadata of an image is nested at most {METADATA_DEPTH} levels deep")
    return text


def largest_field(fields: Mapping[str, Any]) -> str:
    """Name of the field with the longest JSON text, at most 80 characters of it."""
    return str(max(fields, key=lambda name: len(json.dumps(fields[name]))))[:80]


def too_deep(value: Any) -> bool:
    """Whether lists and mappings are nested deeper than metadata may be: copies and pickles of it would fail."""
    level = [value]
    for _ in range(METADATA_DEPTH + 1):
        level = [
            inner for outer in level if isinstance(outer, (Mapping, list, tuple))
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
        ]  # fmt: skip
        if not level:
            return False
    return True
