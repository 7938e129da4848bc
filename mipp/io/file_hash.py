"""The checksum that ends a server's files: SHA-256 of all before it, or of a header and the SHA-256 of the rest.

The second kind is that of share files of format 2. The words of a share come with their SHA-256, which the owner signed
and the server compared, so that such a file is written without hashing it again.
"""

from __future__ import annotations

import hashlib

__all__ = ["HEADER_BYTES", "FileHash", "joined_digest"]

#: bytes of a file's header
HEADER_BYTES = 256
#: beginnings of files whose header and rest are hashed apart
_APART = (b"mippshr1\2\0\0\0",)


class FileHash:
    """Checksum of a file whose bytes come piece by piece, from the first on.

    Examples
    --------
    >>> import hashlib
    >>> from mipp.io.file_hash import FileHash
    >>> found = FileHash()
    >>> for piece in (b"some ", b"bytes"):
    ...     found.update(piece)
    >>> found.digest() == hashlib.sha256(b"some bytes").digest()
    True
    """

    def __init__(self) -> None:
        self._head, self._rest = b"", hashlib.sha256()

    def update(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Parameters
        ----------
        piece : bytes
            In any sizes.
        """
        view = memoryview(piece).cast("B")
        lacking = HEADER_BYTES - len(self._head)
        if lacking > 0:
            self._head += view[:lacking]
            view = view[lacking:]
            if len(self._head) == HEADER_BYTES and not self._head.startswith(_APART):
                self._rest.update(self._head)
        self._rest.update(view)

    def digest(self) -> bytes:
        """Give the checksum of what has come.

        Returns
        -------
        bytes
            32 bytes.
        """
        if len(self._head) < HEADER_BYTES:
            return hashlib.sha256(self._head).digest()
        if self._head.startswith(_APART):
            return joined_digest(self._head, self._rest.digest())
        return self._rest.digest()


def joined_digest(header: bytes, rest: bytes) -> bytes:
    """Checksum of a file whose header and rest are hashed apart.

    Parameters
    ----------
    header : bytes
        The file's first 256 bytes.
    rest : bytes
        SHA-256 of the bytes between the header and the checksum.

    Returns
    -------
    bytes
        32 bytes.

    Examples
    --------
    >>> import hashlib
    >>> from mipp.io.file_hash import FileHash, joined_digest
    >>> header, found = b"mippshr1".ljust(256, bytes(1)), FileHash()
    >>> header = header[:8] + bytes([2, 0, 0, 0]) + header[12:]
    >>> found.update(header + b"words")
    >>> found.digest() == joined_digest(header, hashlib.sha256(b"words").digest())
    True
    """
    return hashlib.sha256(header + rest).digest()
