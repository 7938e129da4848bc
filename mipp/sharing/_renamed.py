"""Keyword arguments that one release accepts under their old names."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["renamed"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def renamed(**names: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Accept old keyword names (``old="new"``) with a DeprecationWarning."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def wrapper(*args: Any, **given: Any) -> _R:
            for old in names.keys() & given.keys():
                text = f"{function.__qualname__}({old}=...) becomes {names[old]}="
                warnings.warn(text, DeprecationWarning, stacklevel=2)
                given[names[old]] = given.pop(old)
            return function(*args, **given)

        return wrapper

    return decorate
