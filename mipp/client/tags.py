"""An owner's tags: for each row and cloud a keyed checksum, by which the owner knows what it uploaded.

One file a batch, in a folder beside the owner's key file, all integers little-endian::

    0  magic "mipptag1", 8 bytes | format version u32 | number of sections u32 | rows as uploaded u64
    24 batch, 16 | numbers of the sections, a byte each, 255 for none, 8 | salt, 16
    64 the sections

A section holds the tags of one cloud, by its number, or of the rows' image ids, numbered 0: u64 words in pieces of at
most 2^20, each sealed by AES-256-GCM under a key of the file, with the header as associated data and section and piece
as nonce. So a file that was changed, cut or swapped does not open, and one that is copied tells the number of rows
alone. Whoever has the owner's key file can write it, as it can write anything of the owner.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..crypto.schedule import hkdf, random_bytes
from ..errors import IntegrityError, StoreError
from ..io.durable import sync_folder, write_all, write_durably

__all__ = ["IMAGE_IDS", "TagStore"]

#: section of the tags of rows' image ids
IMAGE_IDS = 0
_MAGIC, _VERSION = b"mipptag1", 1
_HEADER = struct.Struct("<8sIIQ16s8s16s")
_SECTIONS, _NONE = 8, 255
_PIECE, _SEAL = 1 << 20, 16


@dataclass(frozen=True)
class _Header:
    """What a file begins with."""

    rows: int
    batch: bytes
    sections: tuple[int, ...]
    salt: bytes

    @property
    def packed(self) -> bytes:
        numbers = bytes(self.sections).ljust(_SECTIONS, bytes([_NONE]))
        return _HEADER.pack(_MAGIC, _VERSION, len(self.sections), self.rows, self.batch, numbers, self.salt)

    @property
    def section_bytes(self) -> int:
        return 8 * self.rows + _SEAL * -(-self.rows // _PIECE)

    @property
    def size(self) -> int:
        return _HEADER.size + len(self.sections) * self.section_bytes


class TagStore:
    """The tags of one owner's batches, sealed.

    Parameters
    ----------
    folder : Path
        Made when the first file is written, mode 0700.
    key : bytes
        :func:`mipp.crypto.schedule.audit_key`, 32 bytes. Secret.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder, self._key = folder, hkdf(key, b"mipp v1 audit tags")

    def __repr__(self) -> str:
        return f"TagStore({str(self._folder)!r}, key hidden)"

    def __reduce__(self) -> str:
        raise TypeError("tags are secret and do not pickle")

    def write(self, batch: bytes, tags: Mapping[int, np.ndarray]) -> None:
        """Write the tags of a batch, durably, all or nothing; those that it had are replaced.

        Parameters
        ----------
        batch : bytes
            Its id, 16 bytes.
        tags : mapping of int to ndarray of uint64, shape (rows,)
            By number of the cloud, or :data:`IMAGE_IDS`.

        Raises
        ------
        StoreError
            They cannot be written.
        """
        sections = tuple(sorted(tags))
        (rows,) = {len(t) for t in tags.values()}
        header = _Header(rows, batch, sections, random_bytes(16))
        cipher, packed = self._cipher(header), header.packed

        def write(fd: int) -> None:
            write_all(fd, memoryview(packed))
            for section in sections:
                words = np.ascontiguousarray(tags[section], "<u8")
                for number, start in enumerate(range(0, rows, _PIECE)):
                    plain = words[start : start + _PIECE].data.cast("B")
                    write_all(fd, memoryview(cipher.encrypt(_nonce(section, number), plain, packed)))

        if not self._folder.is_dir():
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                sync_folder(self._folder.parent)
            except OSError as error:
                raise StoreError(f"cannot make {self._folder.name}: {error.strerror}") from error
        write_durably(self._path(batch), write)

    def sections(self, batch: bytes) -> tuple[int, ...]:
        """List the sections of a batch's file; none if there is no file. They prove themselves when they are read.

        Parameters
        ----------
        batch : bytes
            Its id.

        Returns
        -------
        tuple of int
            Ascending.

        Raises
        ------
        IntegrityError
            The file is damaged, or another batch's.
        StoreError
            It cannot be read.
        """
        fd = self._open(batch)
        if fd is None:
            return ()
        try:
            return self._header(fd, batch).sections
        finally:
            os.close(fd)

    def read(self, batch: bytes, section: int, rows: int) -> np.ndarray:
        """Read one section of a batch's file.

        Parameters
        ----------
        batch : bytes
            Its id.
        section : int
            One of :meth:`sections`.
        rows : int
            Rows of the batch as it was uploaded.

        Returns
        -------
        ndarray of uint64, shape (rows,)
            Tags. Secret.

        Raises
        ------
        IntegrityError
            The file is missing, damaged, cut, another batch's, or of another number of rows.
        StoreError
            It cannot be read.
        """
        fd = self._open(batch)
        if fd is None:
            raise self._damaged(batch, "is missing")
        try:
            header = self._header(fd, batch)
            if header.rows != rows or section not in header.sections:
                raise self._damaged(batch, f"is not of {rows} rows, or lacks tags of cloud {section}")
            cipher, out = self._cipher(header), np.empty(rows, "<u8")
            at = _HEADER.size + header.sections.index(section) * header.section_bytes
            for number, start in enumerate(range(0, rows, _PIECE)):
                some = out[start : start + _PIECE]
                sealed = os.pread(fd, some.nbytes + _SEAL, at)
                at += len(sealed)
                some[:] = np.frombuffer(cipher.decrypt(_nonce(section, number), sealed, header.packed), "<u8")
            return out
        except (InvalidTag, ValueError) as error:
            if isinstance(error, IntegrityError):
                raise
            raise self._damaged(batch, "does not open") from None
        except OSError as error:
            raise StoreError(f"cannot read the tags of batch {batch.hex()}: {error.strerror}") from error
        finally:
            os.close(fd)

    def batches(self) -> set[bytes]:
        """List the batches that have a file here.

        Returns
        -------
        set of bytes
            Their ids.
        """
        try:
            names = os.listdir(self._folder)
        except OSError:
            return set()
        return {bytes.fromhex(name) for name in names if len(name) == 32 and set(name) <= set("0123456789abcdef")}

    def remove(self, batch: bytes) -> None:
        """Remove the file of a batch, if there is one; one that cannot be removed stays, which harms nothing.

        Parameters
        ----------
        batch : bytes
            Its id.
        """
        with contextlib.suppress(OSError):
            self._path(batch).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all files, and the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, batch: bytes) -> Path:
        return self._folder / batch.hex()

    def _open(self, batch: bytes) -> int | None:
        try:
            fd = os.open(self._path(batch), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read the tags of batch {batch.hex()}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._damaged(batch, "is no regular file")
        return fd

    def _header(self, fd: int, batch: bytes) -> _Header:
        """The header of a file, whose size is as it says: no memory is taken for more than the file has."""
        packed = os.pread(fd, _HEADER.size, 0)
        if len(packed) != _HEADER.size:
            raise self._damaged(batch, "is cut")
        magic, version, count, rows, named, numbers, salt = _HEADER.unpack(packed)
        if magic != _MAGIC or version != _VERSION or named != batch or count > _SECTIONS or not 0 < rows < 1 << 48:
            raise self._damaged(batch, f"is no file of its tags in format {_VERSION}")
        header = _Header(rows, batch, tuple(numbers[:count]), salt)
        if header.packed != packed or header.size != os.fstat(fd).st_size:
            raise self._damaged(batch, "is damaged or cut")
        return header

    def _cipher(self, header: _Header) -> AESGCM:
        return AESGCM(hkdf(self._key, b"file" + header.salt + header.batch))

    def _damaged(self, batch: bytes, how: str) -> IntegrityError:
        return IntegrityError(f"the file of batch {batch.hex()} in {self._folder.name} {how}; renew its tags")


def _nonce(section: int, piece: int) -> bytes:
    return section.to_bytes(4, "big") + piece.to_bytes(8, "big")
