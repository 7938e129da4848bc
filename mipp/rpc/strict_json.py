"""JSON of strangers: bounded size, no key twice, no NaN or infinity, no deep nesting."""

from __future__ import annotations

import json
from typing import Any

from ..errors import DeploymentError
from ..io.strict import strict_loads

__all__ = ["canonical", "read_object"]

#: objects and lists within each other; far below the depth at which Python's own reader and writer give up
_DEPTH = 16


def _is_flat(data: Any) -> bool:
    """Whether objects and lists are not too deep within each other."""
    level = [data]
    for _ in range(_DEPTH):
        level = [v for room in level for v in (room.values() if isinstance(room, dict) else room)
                 if isinstance(v, (dict, list))]  # fmt: skip
    return not level


def read_object(text: str | bytes, most: int, what: str) -> dict[str, Any]:
    """The JSON object in ``text``.

    Parameters
    ----------
    text : str or bytes
        From anybody; bytes are UTF-8.
    most : int
        Most characters or bytes.
    what : str
        Name of the thing, for the error, such as "the card".

    Raises
    ------
    DeploymentError
        It is too large, or no such object.
    """
    if len(text) > most:
        raise DeploymentError(f"{what} has more than {most} bytes")
    try:
        data = strict_loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict) or not _is_flat(data):
        raise DeploymentError(f"{what} is corrupt: it is no JSON object whose keys are there once each")
    return data


def canonical(data: Any) -> bytes:
    """The one JSON text of ``data`` that hashes and comparisons use: sorted keys, no spaces, ASCII."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
