"""Immutable files of a server: shares of a batch, packs of encrypted images, and packs of records.

All begin with a 256-byte header (all integers little-endian)::

    0  magic, 8 bytes: "mippshr1", "mippimp1" or "mipprec1"
    8  format version u32 | k u32 | dim u32 | words per row D u32 | generation u32 | zero u32
    32 rows as uploaded u64 | rows stored u64 | zero, 16 bytes
    64 parameter hash, 32 bytes | owner, 16 | batch, 16 | zero to 256

A share file goes on with ``stored x D`` words, so rows are 64-byte aligned in the file; then, for generation > 0, the
original row numbers of the stored rows (i64). It has version 2 and ends with the SHA-256 of the header and of the
SHA-256 of what is between (``io/file_hash.py``); those of version 1, from earlier releases, end as the others do.

An image pack goes on with ``stored + 1`` offsets (i64) and the files. A record pack (D bytes a record) goes on with the
stored records, the SHA-256 of each record that was uploaded, and for generation > 0 the original places of the stored
ones (i64). Both have version 1 and end with the SHA-256 of everything before.

All are written under a temporary name, synced, renamed.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import IntegrityError, MippError, StoreError
from ..io.durable import write_all, write_durably
from ..io.file_hash import HEADER_BYTES, FileHash, joined_digest
from ..io.memory import ahead, map_file
from ..params import RING_DTYPES

__all__ = [
    "HEADER_BYTES",
    "SMALL_FILE",
    "FileInfo",
    "ImagePack",
    "RecordPack",
    "ShareFile",
    "check_file",
    "read_share",
    "write_body",
    "write_images",
    "write_records",
    "write_share",
    "write_share_pieces",
]

_SHARE, _IMAGES, _RECORDS = b"mippshr1", b"mippimp1", b"mipprec1"
#: format version of new files; share files of version 1 are read
_VERSIONS = {_SHARE: 2, _IMAGES: 1, _RECORDS: 1}
_DIGEST = 32
_FIXED = struct.Struct("<8sIIIIIIQQ16x32s16s16s")
_CHUNK = 1 << 22
#: smaller files are read, larger ones mapped
SMALL_FILE = 1 << 20


@dataclass(frozen=True)
class FileInfo:
    """Facts of a file; the same are in the catalog and must agree."""

    params: bytes
    owner: bytes
    batch: bytes
    k: int
    dim: int
    width: int
    generation: int
    rows: int
    stored: int

    def header(self, magic: bytes, version: int | None = None) -> bytes:
        fixed = _FIXED.pack(
            magic,
            _VERSIONS[magic] if version is None else version,
            self.k,
            self.dim,
            self.width,
            self.generation,
            0,
            self.rows,
            self.stored,
            self.params,
            self.owner,
            self.batch,
        )
        return fixed.ljust(HEADER_BYTES, b"\0")


def write_share(
    path: Path,
    info: FileInfo,
    share: np.ndarray,
    ordinals: np.ndarray | None,
    held: int | None = None,
    words_hash: bytes | None = None,
) -> tuple[int, bytes]:
    """Write a share file durably; returns its size and checksum.

    Parameters
    ----------
    path, info : of the file
    share : (stored, D) words of the ring
    ordinals : for generation > 0 only
    held : descriptor of a file without a name that has the words, ``HEADER_BYTES`` from its beginning, and nothing
        after them: it becomes the share file, where the system can name it
    words_hash : SHA-256 of the words, if it is known
    """
    if ordinals is not None:
        return write_share_pieces(path, info, [share], ordinals)
    header, words = info.header(_SHARE), share.reshape(-1).data.cast("B") if share.nbytes else memoryview(b"")
    known = hashlib.sha256(words).digest() if words_hash is None else words_hash
    digest, size = joined_digest(header, known), HEADER_BYTES + share.nbytes + _DIGEST

    def complete(fd: int) -> None:
        os.pwrite(fd, header, 0)
        os.pwrite(fd, digest, HEADER_BYTES + share.nbytes)

    def write(fd: int) -> None:
        for part in (memoryview(header), words, memoryview(digest)):
            write_all(fd, part)

    if held is None or not write_durably(path, complete, held):
        write_durably(path, write)
    return size, digest


def write_share_pieces(
    path: Path, info: FileInfo, pieces: Iterable[np.ndarray], ordinals: np.ndarray | None
) -> tuple[int, bytes]:
    """:func:`write_share`, from consecutive rows at a time."""
    last = [] if ordinals is None else [np.ascontiguousarray(ordinals, "<i8")]
    return _write(path, itertools.chain([info.header(_SHARE)], pieces, last))


def write_images(path: Path, info: FileInfo, offsets: np.ndarray, files: Iterable[np.ndarray]) -> tuple[int, bytes]:
    """Write an image pack durably; returns its size and SHA-256."""
    return write_body(path, info, [np.ascontiguousarray(offsets, "<i8"), *files])


def write_body(path: Path, info: FileInfo, pieces: Iterable[np.ndarray]) -> tuple[int, bytes]:
    """:func:`write_images`, from the bytes after the header, piece by piece (:attr:`ImagePack.body`)."""
    return _write(path, itertools.chain([info.header(_IMAGES)], pieces))


def write_records(path: Path, info: FileInfo, pieces: Iterable[np.ndarray]) -> tuple[int, bytes]:
    """Write a record pack durably, from the bytes after the header; returns its size and SHA-256."""
    return _write(path, itertools.chain([info.header(_RECORDS)], pieces))


def _write(path: Path, parts: Iterable[bytes | np.ndarray]) -> tuple[int, bytes]:
    digest, size = FileHash(), 0

    def write(fd: int) -> None:
        nonlocal size
        for part in parts:
            view = part.reshape(-1).data if isinstance(part, np.ndarray) else memoryview(part)
            view = view.cast("B") if view.nbytes else memoryview(b"")
            for start in range(0, view.nbytes, _CHUNK):
                chunk = view[start : start + _CHUNK]
                digest.update(chunk)
                write_all(fd, chunk)
            size += view.nbytes
        write_all(fd, memoryview(digest.digest()))

    write_durably(path, write)
    return size + _DIGEST, digest.digest()


def check_file(path: Path, size: int, digest: bytes) -> str | None:
    """The fault of a file, in words that name it, or None. Reads all of it."""
    try:
        return _fault(path, size, digest)
    except OSError as error:
        return f"{path}: {error.strerror}"


def is_lost(path: Path, size: int, digest: bytes | None = None) -> bool:
    """Whether a file is not there, or has another size or, if ``digest`` is given, another checksum.

    What cannot be told now (no permission, too many open files, a disk that does not answer) is not lost.
    """
    try:
        return path.stat().st_size != size if digest is None else _fault(path, size, digest) is not None
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _fault(path: Path, size: int, digest: bytes) -> str | None:
    """The fault of a file that can be read, or None. Reads all of it."""
    actual = path.stat().st_size
    if actual != size:
        return f"{path}: {actual} bytes, expected {size}"
    found, left = FileHash(), size - _DIGEST
    with open(path, "rb") as file:
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                return f"{path}: cannot be read to its end"
            found.update(chunk)
            left -= len(chunk)
        tail = file.read(_DIGEST)
    return None if found.digest() == tail == digest else f"{path}: checksum differs, the file is damaged"


def _map(path: Path, magic: bytes, expected: FileInfo, size: int, digest: bytes, check: bool) -> np.ndarray:
    """Bytes of a checked file, mapped read-only (small ones are read instead: maps are few on a machine).

    Checking reads all of it, ahead of the hash, and leaves in memory what fits: what uses it next finds it there.
    """
    try:
        with open(path, "rb") as file:
            if (actual := os.fstat(file.fileno()).st_size) != size:
                raise IntegrityError(f"{path}: {actual} bytes, expected {size}; the file is damaged")
            data = np.frombuffer(file.read(), np.uint8) if size < SMALL_FILE else map_file(file.fileno(), path)
    except OSError as error:
        raise _unreadable(path, error, check) from error
    if check:
        found = FileHash()
        for piece in ahead([data[i : min(i + _CHUNK, size - _DIGEST)] for i in range(0, size - _DIGEST, _CHUNK)]):
            found.update(piece.data)
        _require_digest(path, found.digest(), data[-_DIGEST:].tobytes(), digest)
    _require_header(path, data[:HEADER_BYTES].tobytes(), expected, magic)
    return data


def _unreadable(path: Path, error: OSError, check: bool) -> MippError:
    text = f"cannot read {path}: {error.strerror}"
    return IntegrityError(text) if check else StoreError(text)


def _require_digest(path: Path, found: bytes, stored: bytes, expected: bytes) -> None:
    if not found == stored == expected:
        raise IntegrityError(f"{path}: checksum differs, the file is damaged")


def _require_header(path: Path, header: bytes, expected: FileInfo, magic: bytes) -> None:
    if not any(header == expected.header(magic, version) for version in range(1, _VERSIONS[magic] + 1)):
        raise IntegrityError(f"{path}: not the file that the catalog describes")


def read_share(path: Path, info: FileInfo, size: int, digest: bytes, out: np.ndarray, *, check: bool) -> None:
    """Read the rows of a small share file of generation 0 into ``out`` (stored, D), checked."""
    header, tail = bytearray(HEADER_BYTES), bytearray(_DIGEST)
    raw = out.reshape(-1).view(np.uint8)
    try:
        with open(path, "rb", buffering=0) as file:
            actual = os.fstat(file.fileno()).st_size
            if actual != size or len(raw) != size - HEADER_BYTES - _DIGEST:
                raise IntegrityError(f"{path}: {actual} bytes, expected {size}; the file is damaged")
            if os.readv(file.fileno(), [header, raw.data, tail]) != size:
                raise IntegrityError(f"{path}: cannot be read to its end")
    except OSError as error:
        raise _unreadable(path, error, check) from error
    if check:
        found = FileHash()
        found.update(header)
        found.update(raw.data)
        _require_digest(path, found.digest(), bytes(tail), digest)
    _require_header(path, bytes(header), info, _SHARE)


class ShareFile:
    """A share file, open: ``words`` (stored, D) and ``ordinals`` (stored,) or None; read-only."""

    def __init__(self, path: Path, info: FileInfo, size: int, digest: bytes, *, check: bool = True) -> None:
        data = _map(path, _SHARE, info, size, digest, check)
        dtype = RING_DTYPES[info.k]
        end = HEADER_BYTES + info.stored * info.width * dtype.itemsize
        self.words = data[HEADER_BYTES:end].view(dtype).reshape(info.stored, info.width)
        self.ordinals = data[end : end + 8 * info.stored].view("<i8") if info.generation else None


class ImagePack:
    """An image pack, open: ``file(i)`` is row i's encrypted file, None if it has none."""

    def __init__(self, path: Path, info: FileInfo, size: int, digest: bytes, *, check: bool = True) -> None:
        data = _map(path, _IMAGES, info, size, digest, check)
        start = HEADER_BYTES + 8 * (info.stored + 1)
        self.offsets = data[HEADER_BYTES:start].view("<i8")
        self._files = data[start:-_DIGEST]
        #: offsets and files, as bytes; SHA-256 of the file
        self.body, self.digest = data[HEADER_BYTES:-_DIGEST], digest
        if self.offsets[0] != 0 or (np.diff(self.offsets) < 0).any() or self.offsets[-1] != len(self._files):
            raise IntegrityError(f"{path}: offsets are damaged")

    def size(self, row: int) -> int:
        """Bytes of row ``row``'s file, 0 if it has none."""
        return int(self.offsets[row + 1] - self.offsets[row]) if 0 <= row < len(self.offsets) - 1 else 0

    def file(self, row: int) -> np.ndarray | None:
        """Row ``row``'s file, None if it has none."""
        size = self.size(row)
        return self._files[int(self.offsets[row]) :][:size] if size else None


class RecordPack:
    """A record pack, open.

    ``records`` (stored, D) bytes, ``hashes`` (rows, 32) of all records that were uploaded, ``ordinals`` (stored,), the
    places of the stored ones, or None for all; read-only. ``path``, ``size`` and ``digest`` are of its file.
    """

    def __init__(self, path: Path, info: FileInfo, size: int, digest: bytes, *, check: bool = True) -> None:
        data = _map(path, _RECORDS, info, size, digest, check)
        at = HEADER_BYTES + info.stored * info.width
        end = at + 32 * info.rows
        if size != end + (8 * info.stored if info.generation else 0) + _DIGEST:
            raise IntegrityError(f"{path}: {size} bytes are not those of {info.stored} records")
        self.records = data[HEADER_BYTES:at].reshape(info.stored, info.width)
        self.hashes = data[at:end].reshape(info.rows, 32)
        self.ordinals = data[end:-_DIGEST].view("<i8") if info.generation else None
        #: all after the header, as bytes; SHA-256 of the file
        self.body, self.digest = data[HEADER_BYTES:-_DIGEST], digest
        self.path, self.size = path, size

    def stored_at(self, places: np.ndarray) -> np.ndarray:
        """Where records with these places are stored, -1 for those that are not."""
        if self.ordinals is None:
            return np.where((places >= 0) & (places < len(self.records)), places, -1)
        at = np.searchsorted(self.ordinals, places)
        known = at < len(self.ordinals)
        known[known] = self.ordinals[at[known]] == places[known]
        return np.where(known, at, -1)
