"""Typed errors of mipp.

Every error inherits :class:`MippError` and the built-in type that fits, so that callers can catch either.
Messages say what was expected; they never hold keys, features, queries or scores.
"""

from __future__ import annotations

#: what package indexes call this project; `mipp` there is another one
DISTRIBUTION = "mipp-retrieval"

__all__ = [
    "DISTRIBUTION",
    "AccessDeniedError",
    "AuthenticationError",
    "BusyError",
    "ConflictError",
    "CpuError",
    "DTypeError",
    "DeploymentError",
    "EncodingError",
    "ImageError",
    "IntegrityError",
    "KeyFileError",
    "LimitError",
    "MessageError",
    "MippError",
    "MissingExtraError",
    "NativeError",
    "NativeMemoryError",
    "NonceReuseError",
    "NotFoundError",
    "OutOfRangeError",
    "ParameterError",
    "PlaintextRangeError",
    "ProtocolError",
    "ScoreRangeError",
    "ShapeError",
    "StaleSnapshotError",
    "StoreError",
    "UnknownNameError",
    "missing_extra",
    "plain_text",
]


class MippError(Exception):
    """Base of all errors that mipp raises on purpose."""


class ParameterError(MippError, ValueError):
    """A value outside its allowed range, or parameters that do not fit together."""


class DTypeError(MippError, TypeError):
    """An array or argument of the wrong type."""


class ShapeError(MippError, ValueError):
    """An array of the wrong rank, length or memory layout."""


class EncodingError(MippError, ValueError):
    """Features that cannot be encoded: NaN, infinities, a norm beyond the bound."""


class PlaintextRangeError(MippError, OverflowError):
    """A number too large for a Paillier plaintext or a slot of one, or a result that may have become so."""


class ScoreRangeError(EncodingError):
    """A score could leave the ring: the encoding, the row or the query is refused."""


class OutOfRangeError(ScoreRangeError):
    """The servers found a row or a query beyond the encoding's bounds, which its owner's or user's client refuses."""


class CpuError(MippError, RuntimeError):
    """A processor level was forced that this machine, or this build, lacks."""


class NativeError(MippError, RuntimeError):
    """A native kernel failed for a reason that is a bug in mipp."""


class NativeMemoryError(MippError, MemoryError):
    """A native kernel could not get memory."""


class KeyFileError(MippError, ValueError):
    """A key file that is missing, corrupt, readable by others, or whose passphrase is wrong."""


class AuthenticationError(MippError, PermissionError):
    """A signature, seal or authenticated ciphertext that does not verify."""


class AccessDeniedError(MippError, PermissionError):
    """A server refuses: no grant, a stale or exhausted grant, or a query that its rules forbid."""


class BusyError(MippError, RuntimeError):
    """A server has too many requests at once; try again later. Clients retry by themselves for some seconds."""


class StaleSnapshotError(MippError, RuntimeError):
    """The index changed since the snapshot that a query names; ask for a new one and retry."""


class ProtocolError(MippError, RuntimeError):
    """A protocol between servers was aborted: a peer failed, was silent, or sent what does not belong there."""


class IntegrityError(MippError, ValueError):
    """A stored file whose content is not what was written."""


class StoreError(MippError, OSError):
    """The store could not read or write; nothing of the operation is visible."""


class ConflictError(StoreError):
    """Another change of the same owner came first, so this one has no place any more; try again on the new state."""


class LimitError(MippError, ValueError):
    """A request that asks for more than a server gives at once, or a party beyond the limits of its card."""


class NonceReuseError(StoreError):
    """A batch nonce that this server has seen with other content."""


class NotFoundError(MippError, LookupError):
    """An unknown owner, user, batch or image."""


class UnknownNameError(NotFoundError, ParameterError):
    """A name that nobody has, where an object or an id would do, too."""


class DeploymentError(MippError, ValueError):
    """A folder that is no deployment, or one of another format or parameters."""


class MessageError(MippError, ValueError):
    """A malformed message, or one of another format version."""


class ImageError(MippError, ValueError):
    """A file that is no readable image."""


class MissingExtraError(MippError, ImportError):
    """A library that only some uses need is not installed; the message names the extra."""


def missing_extra(need: str, extra: str) -> MissingExtraError:
    """The error for ``need``, a clause such as "plots need matplotlib", with the command that installs ``extra``."""
    return MissingExtraError(f"{need}: pip install '{DISTRIBUTION}[{extra}]'")


def plain_text(text: str) -> str:
    """Another party's text, fit for a terminal: printable characters only, and at most 500 of them."""
    return "".join(c if c.isprintable() else "?" for c in text[:500])
