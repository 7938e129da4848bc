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

    No state is kept. The owner's revocations are public and only become more, so each set of them occurs in one
    stretch of time. A revocation adds an id, so the album that follows is another one than all before it: records
    written from then on are sealed under a key that the revoked user was never given, and no later revocation leads
    back to an album that the user has the key of. Servers can compute the id themselves.

    Parameters
    ----------
    owner : bytes
        Id of the owner, 16 bytes. Public.
    revoked : iterable of bytes
        Ids of all grants by which the owner ever revoked something, 16 bytes each, in any order. Public. A revocation
        stays in it when the user is given a new grant: without it the album would be an earlier one again.

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
