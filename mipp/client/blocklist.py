"""List of the owners that a user blocks: a small JSON file that stays with the user; servers never see it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import NotFoundError, StoreError
from ..io.durable import replace_file

__all__ = ["changed_blocked", "read_blocked", "write_blocked"]

_FORMAT = {"format": "mipp blocked owners", "version": 1}


def read_blocked(path: Path) -> frozenset[bytes]:
    """Read the ids of the blocked owners; none if there is no file.

    Raises
    ------
    StoreError
        The file cannot be read or is corrupt. Going on would search owners that the user blocked.
    """
    corrupt = StoreError(f"the list of blocked owners {path} is corrupt; remove it and block the owners again")
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return frozenset()
    except UnicodeDecodeError:
        raise corrupt from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    try:
        data: Any = json.loads(text)
        known = {name: data[name] for name in _FORMAT} == _FORMAT
        ids = frozenset(bytes.fromhex(i) for i in data["owners"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise corrupt from None
    if not known or any(len(i) != 16 for i in ids):
        raise corrupt
    return ids


def changed_blocked(blocked: frozenset[bytes], ids: Iterable[bytes], *, block: bool) -> frozenset[bytes]:
    """``blocked`` with these ids added (``block``) or removed; NotFoundError for a removed id that is not in it."""
    named = frozenset(ids)
    if block:
        return blocked | named
    if named - blocked:
        raise NotFoundError("not blocked: " + ", ".join(sorted(i.hex() for i in named - blocked)))
    return blocked - named


def write_blocked(path: Path, ids: Iterable[bytes]) -> None:
    """Replace the file as a whole, mode 0600; StoreError if it cannot be written."""
    text = json.dumps({**_FORMAT, "owners": sorted(i.hex() for i in ids)}, indent=1) + "\n"
    replace_file(path, text.encode("ascii"))
