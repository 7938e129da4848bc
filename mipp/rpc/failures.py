"""Errors as they are sent to another party, and as they come from one."""

from __future__ import annotations

from .. import errors
from ..errors import MippError, plain_text

__all__ = ["error_from_wire", "error_to_wire"]


def error_to_wire(error: Exception) -> tuple[str, str]:
    """Name and text of an error for a reply to another party; unexpected ones give no detail away."""
    if isinstance(error, MippError):
        return type(error).__name__, str(error)
    return "MippError", "internal error of the server"


def error_from_wire(name: str, text: str) -> MippError:
    """The error that another party replied with; a name that is unknown here gives a plain :class:`MippError`."""
    text = plain_text(text)
    kind = getattr(errors, name) if name in errors.__all__ else None
    if isinstance(kind, type) and issubclass(kind, MippError):
        return kind(text)
    return MippError(text)
