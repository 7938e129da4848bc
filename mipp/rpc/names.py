"""Names of parties and of files. Both come from strangers, so both are checked before anything prints or opens them."""

from __future__ import annotations

import unicodedata

from ..errors import ParameterError

__all__ = ["check_name", "is_id", "known_name", "safe_name"]

_NAME_CHARACTERS, _NAME_BYTES = 64, 200
_FILE_CHARACTERS, _FILE_BYTES, _EXTENSION = 100, 200, 16
_RESERVED = {
    "con", "prn", "aux", "nul", "conin$", "conout$", "clock$",
    *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"),
}  # fmt: skip
_UNSAFE = '<>:"|?*'


def _reserved(name: str) -> bool:
    """Whether Windows reads ``name`` as a device."""
    return name.split(".")[0].rstrip(" ").casefold() in _RESERVED


def is_id(name: str) -> bool:
    """Whether a text is an id as people write it: 32 hex digits."""
    return len(name) == 32 and all(c in "0123456789abcdefABCDEF" for c in name)


def check_name(name: str) -> str:
    """Check a party's public name; returns it NFC-normalised.

    A name has 1 to 64 letters, digits and ``. _ - @``, at most 200 bytes of UTF-8. It neither begins nor ends with a
    dot, is not reserved on Windows (``con``, ``nul``), and does not look like an id (32 hex digits).

    Raises
    ------
    ParameterError
        Any other name.
    """
    if not isinstance(name, str):
        raise ParameterError(f"a name is text, not {type(name).__name__}")
    name = str(name)
    if not 1 <= len(name) <= _NAME_CHARACTERS or name[0] == "." or name[-1] == ".":
        raise ParameterError("a name has 1 to 64 characters and neither begins nor ends with a dot")
    if not name.isprintable() or not all(c.isalnum() or c in "._-@" for c in unicodedata.normalize("NFC", name)):
        raise ParameterError(f"a name is made of letters, digits and . _ - @, not {name!r}")
    name = unicodedata.normalize("NFC", name)
    if len(name) > _NAME_CHARACTERS or len(name.encode()) > _NAME_BYTES:
        raise ParameterError(f"a name has at most {_NAME_CHARACTERS} characters and {_NAME_BYTES} bytes of UTF-8")
    if _reserved(name):
        raise ParameterError(f"the name {name!r} is reserved on some systems; choose another")
    if is_id(name):
        raise ParameterError("a name of 32 hex digits looks like an id; choose another")
    return name


def known_name(name: str, party: bytes) -> str:
    """A party's name as a server reports it, or the id in hex when that name is malformed."""
    try:
        return name if check_name(name) == name else party.hex()
    except ParameterError:
        return party.hex()


def safe_name(text: str) -> str:
    """A file name made from any text; safe to print and to create on every common file system.

    The result is one path component of 1 to 100 characters and at most 200 bytes of UTF-8. It has no control, format
    (bidirectional), private or unassigned characters, no white space other than plain spaces, no separators or
    characters that Windows forbids, no leading dot, dash or space and no trailing dot or space; names of Windows
    devices get a leading underscore. Cutting keeps a short extension. ``safe_name`` of its result changes nothing.
    """
    parts = [part for part in text.replace("\\", "/").split("/") if part.strip(". ")]
    kept = "".join(c for c in (parts[-1] if parts else "") if c == " " or unicodedata.category(c)[0] not in "CZ")
    name = unicodedata.normalize("NFC", kept)
    name = "".join("_" if c in _UNSAFE else c for c in name).lstrip(".- ").rstrip(". ")
    if _reserved(name):
        name = "_" + name
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem or len(extension) >= _EXTENSION:
        stem, extension = name, ""
    else:
        extension = dot + extension
    if len(name) > _FILE_CHARACTERS or len(name.encode()) > _FILE_BYTES:
        stem = stem[: _FILE_CHARACTERS - len(extension)]
        while len(stem.encode()) > _FILE_BYTES - len(extension.encode()):
            stem = stem[:-1]
        name = (stem.rstrip(". ") + extension).rstrip(". ")
    return name or "image"
