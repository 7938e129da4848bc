"""Typed errors of mipp.

Every error inherits :class:`MippError` and the built-in type that fits, so that callers can catch either. Messages say
what was expected; they never hold keys, features, queries or scores.

Examples
--------
>>> import mipp
>>> try:
...     mipp.Params(ring_bits=33)
... except mipp.errors.ParameterError as error:
...     print(error, isinstance(error, ValueError))
ring_bits must be 16, 32 or 64, not 33 True
"""

from __future__ import annotations

#: name of this project on package indexes, where `mipp` is another project
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
    "MissingKeyError",
    "NativeError",
    "NativeMemoryError",
    "NonceReuseError",
    "NotFoundError",
    "OutOfRangeError",
    "ParameterError",
    "PlaintextRangeError",
    "ProtocolError",
    "RegistrationError",
    "ScoreRangeError",
    "ShapeError",
    "StaleKeysError",
    "StaleSnapshotError",
    "StoreError",
    "UnknownNameError",
    "UnreachableError",
    "VerificationError",
    "missing_extra",
    "plain_text",
]


class MippError(Exception):
    """Base class of all errors that mipp raises on purpose.

    Attributes
    ----------
    server : int
        Number of the server that refused, or that this machine could not reach; 0 for errors of this program.
    """

    server: int = 0


class ParameterError(MippError, ValueError):
    """A value is out of range, or parameters do not fit together."""


class DTypeError(MippError, TypeError):
    """An array or argument has the wrong type."""


class ShapeError(MippError, ValueError):
    """An array has the wrong rank, length or memory layout."""


class EncodingError(MippError, ValueError):
    """Features cannot be encoded: NaN, infinities, or a norm beyond the bound."""


class PlaintextRangeError(MippError, OverflowError):
    """A number, or a possible result, is too large for a Paillier plaintext or for a slot of one."""


class ScoreRangeError(EncodingError):
    """A score could leave the ring, so the encoding, the row or the query is refused."""


class OutOfRangeError(ScoreRangeError):
    """The servers found a row or a query beyond the encoding's bounds; an honest client would have refused it."""


class CpuError(MippError, RuntimeError):
    """A processor level was forced that this machine or this build lacks."""


class NativeError(MippError, RuntimeError):
    """A native kernel failed for a reason that is a bug in mipp."""


class NativeMemoryError(MippError, MemoryError):
    """A native kernel could not get memory."""


class KeyFileError(MippError, ValueError):
    """A key file is missing, corrupt or readable by others, or its passphrase is wrong."""


class AuthenticationError(MippError, PermissionError):
    """A signature, sealed box or authenticated ciphertext does not verify."""


class AccessDeniedError(MippError, PermissionError):
    """A server refuses a request: there is no grant, the grant is stale or used up, or its rules forbid the query."""


class BusyError(MippError, RuntimeError):
    """A server has too many requests; try again later. Clients retry by themselves for some seconds."""


class StaleSnapshotError(MippError, RuntimeError):
    """The index has changed since the snapshot that a query names; retry with a new snapshot."""


class VerificationError(MippError, RuntimeError):
    """Servers' answers contradict each other, or what the owner uploaded: one of them is wrong. Nothing is used.

    Attributes
    ----------
    suspects : tuple of int
        Where several sets of servers were asked and all answered wrongly: the servers that belong to all of them.
    owners : tuple of str
        Of a private fetch: names of the owners of records that do not open, of which one may have stored them so.
    """

    suspects: tuple[int, ...] = ()
    owners: tuple[str, ...] = ()


class StaleKeysError(StaleSnapshotError):
    """A request names keys of servers that are not valid any more, or not known yet; retry with the newest ones."""


class ProtocolError(MippError, RuntimeError):
    """A protocol between servers was aborted: a peer failed, was silent, or sent an unexpected message."""


class RegistrationError(ProtocolError):
    """Some servers registered a party and others did not; open the party again to have it completed."""


class UnreachableError(ProtocolError, ConnectionError):
    """A server cannot be reached, or the connection to it broke; nothing is known about what it did."""


class IntegrityError(MippError, ValueError):
    """A stored file is damaged: its content is not the one that was written."""


class StoreError(MippError, OSError):
    """The store could not read or write; the operation has had no effect."""


class ConflictError(StoreError):
    """Another change of the same owner came first; retry on the new state."""


class LimitError(MippError, ValueError):
    """A request exceeds what a server gives at once, or a party exceeds the limits of its card."""


class NonceReuseError(StoreError):
    """A batch nonce came again with other content."""


class NotFoundError(MippError, LookupError):
    """An owner, user, batch or image is unknown."""


class MissingKeyError(NotFoundError):
    """A server does not have the evaluation key of a user who asks; clients bring it by themselves."""


class UnknownNameError(NotFoundError, ParameterError):
    """No party has this name (an object or an id is accepted, too)."""


class DeploymentError(MippError, ValueError):
    """A folder is not a deployment, or has another format or other parameters."""


class MessageError(MippError, ValueError):
    """A message is malformed, or has another format version."""


class ImageError(MippError, ValueError):
    """A file is not a readable image."""


class MissingExtraError(MippError, ImportError):
    """An optional library is not installed; the message names the extra to install."""


def missing_extra(need: str, extra: str) -> MissingExtraError:
    """Make the error for a missing optional library, with the command that installs it.

    Parameters
    ----------
    need : str
        A clause such as "plots need matplotlib".
    extra : str
        Name of the extra.

    Returns
    -------
    MissingExtraError
        The error, to be raised.

    Examples
    --------
    >>> from mipp.errors import missing_extra
    >>> print(missing_extra("plots need matplotlib", "plot"))
    plots need matplotlib: pip install 'mipp-retrieval[plot]', or '.[plot]' in a checkout
    """
    return MissingExtraError(f"{need}: pip install '{DISTRIBUTION}[{extra}]', or '.[{extra}]' in a checkout")


def plain_text(text: str) -> str:
    """Make another party's text safe for a terminal: at most 500 characters, all printable.

    Parameters
    ----------
    text : str
        Text of another party.

    Returns
    -------
    str
        The text, with ``?`` for characters that are not printable.

    Examples
    --------
    >>> from mipp.errors import plain_text
    >>> plain_text("red" + chr(27) + "[31m")
    'red?[31m'
    """
    return "".join(c if c.isprintable() else "?" for c in text[:500])
