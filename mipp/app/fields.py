"""Values that the page sends: checked before they are used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ..errors import ParameterError

__all__ = ["Fields"]


class Fields:
    """Values of one request, by name.

    Parameters
    ----------
    values : object
        What was sent; anything but a mapping is refused, and so are numbers that are not finite and halves of surrogate
        pairs: they stand for no value, and no character.

    Raises
    ------
    ParameterError
        From every method: a value that is missing, or of another kind, or out of range.
    """

    def __init__(self, values: Any) -> None:
        if not isinstance(values, Mapping):
            raise ParameterError("a request holds a JSON object")
        try:
            json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
        except ValueError:
            raise ParameterError("a request holds finite numbers, and texts that are Unicode") from None
        self._values = values

    def text(self, name: str, default: str | None = None, *, most: int = 4096) -> str:
        value = self._values.get(name, default)
        if not isinstance(value, str) or len(value) > most:
            raise ParameterError(f"{name} must be text of at most {most} characters")
        return value

    def optional(self, name: str, *, most: int = 4096) -> str | None:
        """A text; None if it is missing or empty."""
        return None if self._values.get(name) is None else self.text(name, most=most) or None

    def whole(self, name: str, default: int | None = None, *, low: int = 0, high: int = 1 << 53) -> int:
        value = self._values.get(name, default)
        if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ParameterError(f"{name} must be a whole number from {low} to {high}")
        return value

    def number(self, name: str) -> float | None:
        """A finite number; None if it is missing or empty."""
        value = self._values.get(name)
        if value is None or value == "":
            return None
        try:
            found = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            found = math.nan
        if not math.isfinite(found):
            raise ParameterError(f"{name} must be a number")
        return found

    def flag(self, name: str) -> bool:
        value = self._values.get(name, False)
        if isinstance(value, str):
            value = {"": False, "0": False, "1": True}.get(value)
        if not isinstance(value, bool):
            raise ParameterError(f"{name} must be true or false")
        return value

    def texts(self, name: str, *, most: int = 10_000) -> list[str]:
        value = self._values.get(name, [])
        good = (
            isinstance(value, list) and len(value) <= most and all(isinstance(v, str) and len(v) < 4096 for v in value)
        )
        if not good:
            raise ParameterError(f"{name} must be a list of at most {most} texts")
        return list(value)

    def numbers(self, name: str, *, most: int = 10_000) -> list[int]:
        value = self._values.get(name, [])
        good = isinstance(value, list) and len(value) <= most and all(type(v) is int and v >= 0 for v in value)
        if not good:
            raise ParameterError(f"{name} must be a list of at most {most} numbers")
        return list(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self._values.get(name)
        if not isinstance(value, dict):
            raise ParameterError(f"{name} must be an object")
        return value
