"""Albums: an owner's records are sealed under the key of its album, which changes with every revocation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ..errors import ParameterError

__all__ = ["album_of"]

ALBUM_BYTES = 16
_ID_BYTES = 16


def album_of(owner: bytes, revoked: Iterable[bytes]) -> bytes:
    """Id of an owner's album: the first 16 bytes of SHA-256("mipp v1 album id" | owner | sorted ids of revocations).

    No state is kept: revocations are on record at the servers, and the album follows from them. A user has keys only of
    albums from before its revocation, and the ids of those were made without the id of that revocation. While it is
    in force, its id is in the set; so the album is none that the user has a key of, whatever is granted or revoked to
    others meanwhile. A user who is granted something again and revoked again gets a revocation with a new id.

    Parameters
    ----------
    owner : bytes
        Id of the owner, 16 bytes. Public.
    revoked : iterable of bytes
        Ids of all the owner's revocations that are in force, 16 bytes each, in any order. Public.

    Returns
    -------
    bytes
        16 bytes. Public.

    Raises
    ------
    ParameterError
        An id has another length.

    Examples
    --------
    >>> from mipp.client.albums import album_of
    >>> first = album_of(b"o" * 16, [])
    >>> second = album_of(b"o" * 16, [b"a" * 16])
    >>> first == second, second == album_of(b"o" * 16, [b"a" * 16, b"a" * 16])
    (False, True)
    """
    ids = sorted(set(revoked))
    # ids of one length: otherwise two sets could have one text
    if any(len(part) != _ID_BYTES for part in (owner, *ids)):
        raise ParameterError(f"ids of an owner and of its revocations have {_ID_BYTES} bytes")
    return hashlib.sha256(b"mipp v1 album id" + owner + b"".join(ids)).digest()[:ALBUM_BYTES]
