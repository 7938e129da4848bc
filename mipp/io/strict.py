"""JSON text of strangers: no key twice in an object, no NaN or infinity."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["strict_loads"]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is no number")
    return number


def strict_loads(text: str | bytes) -> Any:
    """Parse JSON; refuse keys that an object has twice, NaN and infinity.

    Parameters
    ----------
    text : str or bytes
        From anybody; bytes are UTF-8.

    Returns
    -------
    object
        Of dicts, lists, texts, numbers, booleans and None. It may be nested as deep as Python's reader goes.

    Raises
    ------
    ValueError
        Anything else; lists and objects nested too deep for Python's reader are included.

    Examples
    --------
    >>> from mipp.io.strict import strict_loads
    >>> strict_loads('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("lists and objects are nested too deep") from None
