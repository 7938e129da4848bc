"""One file for a whole index, **secret keys of all parties included**.

An uncompressed zip: ``mipp-index.json`` (format and version) first, then the files of the index's folder. Databases are
copied by SQLite, so that the index may stay open.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import (
    DeploymentError,
    DTypeError,
    IntegrityError,
    KeyFileError,
    MippError,
    NotFoundError,
    ParameterError,
    StoreError,
)
from ...io.files import replacing
from .home import FORMAT, LOCK, VERSION, Home, temporary_folder
from .index import Index
from .kinds import of_home

__all__ = ["read_index", "write_index"]

_MANIFEST = "mipp-index.json"
_SQLITE = b"SQLite format 3\0"
_CHUNK = 1 << 20
#: bytes of an entry's header, of the sizes that one has beside them, and of the end of the directory
_HEADER, _SIZES, _LAST = 30, 20, 22


def write_index(index: Index, path: str | os.PathLike[str]) -> None:
    """Write an index into one file, mode 0600. As ``faiss.write_index``, in a format of mipp.

    **The file holds the secret keys of all owners, users and servers**: whoever has it has all rows. It replaces an
    earlier file whole or not at all. A symbolic link is followed.

    Parameters
    ----------
    index : Index
        An index of mipp.
    path : str or path
        The file.

    Raises
    ------
    ParameterError
        Not an index of mipp; a path to something other than a file, such as a pipe, a device or a folder.
    StoreError
        It cannot be written; an earlier file stays as it was.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> index = faiss.IndexFlatL2(4)
    >>> index.add(np.eye(4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     faiss.write_index(index, pathlib.Path(folder, "index.mipp"))
    ...     faiss.read_index(pathlib.Path(folder, "index.mipp")).ntotal
    4
    """
    if not isinstance(index, Index):
        raise ParameterError(f"only indexes of mipp can be written, not {type(index).__name__}")
    _path(path)
    try:
        with index.home.lock:
            index.home.save()  # raises if closed
            with replacing(path, mode=0o600, failed=StoreError) as file, zipfile.ZipFile(file, "w") as archive:
                _pack(index.home.folder, archive)
    except sqlite3.Error as error:
        raise StoreError(f"cannot write {path}: {error}") from None


def read_index(
    path: str | os.PathLike[str], flags: int = 0, *, folder: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> Index:  # fmt: skip
    """Open an index that :func:`write_index` wrote. As ``faiss.read_index``, which reads other files.

    Parameters
    ----------
    path : str or path
        The file; nobody else may read it.
    flags : int
        Flags of faiss (read-only, memory maps). They change nothing: the content is unpacked.
    folder : str or path, optional
        A new folder for the index; default a temporary one. Not in faiss.
    threads : int, optional
        Native threads, default all cores. Not in faiss.

    Returns
    -------
    Index
        Of the class that was written; an IndexIDMap becomes an IndexIDMap2.

    Raises
    ------
    NotFoundError
        No such file.
    DeploymentError
        Not an index of mipp, or one of another version.
    IntegrityError
        Damaged.
    StoreError
        It cannot be unpacked.
    KeyFileError
        Others may read the file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import mipp.compat.faiss as faiss
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     faiss.write_index(faiss.IndexFlatIP(4), pathlib.Path(folder, "index.mipp"))
    ...     faiss.read_index(pathlib.Path(folder, "index.mipp"))
    IndexFlatIP(d=4, ntotal=0)
    """
    if isinstance(flags, bool) or not isinstance(flags, (int, np.integer)):
        raise DTypeError(f"flags must be an integer, not {type(flags).__name__}")
    source = _path(path)
    if not source.is_file():
        raise NotFoundError(f"{source}: {'is no file' if os.path.lexists(source) else 'no such file'}")
    if stat.S_IMODE(source.stat().st_mode) & 0o077:
        raise KeyFileError(f"{source} holds secret keys and is readable by others; run: chmod 600 {source}")
    with _damage(source, DeploymentError, "not an index written by mipp"), zipfile.ZipFile(source) as archive:
        entries = _entries(source, archive)
        place = temporary_folder() if folder is None else _new_folder(Path(folder))
        try:
            with _damage(source, IntegrityError, "damaged"):
                for entry in entries:
                    _unpack(archive, entry, place)
            return of_home(Home(place, None, temporary=folder is None, threads=threads))
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise


@contextlib.contextmanager
def _damage(source: Path, kind: type[MippError], text: str) -> Iterator[None]:
    """Turns the errors of reading a damaged zip into ``kind``; StoreError where the system failed."""
    try:
        yield
    except MippError:
        raise
    except OSError as error:
        raise StoreError(f"cannot unpack {source}: {error.strerror}") from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError):
        raise kind(f"{source}: {text}") from None


def _path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ParameterError(
            f"an index is written to and read from a path, as its file must have mode 0600; not {type(path).__name__}"
        )
    return Path(path)


def _new_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"cannot make the folder {path}: {error.strerror}") from None
    return path


def _pack(folder: Path, archive: zipfile.ZipFile) -> None:
    archive.writestr(_info(_MANIFEST), json.dumps({"format": FORMAT, "version": VERSION}))
    for path in _files(folder):
        info = _info(path.relative_to(folder).as_posix())
        with _readable(path) as name, open(name, "rb") as file, archive.open(info, "w", force_zip64=True) as out:
            shutil.copyfileobj(file, out, _CHUNK)


def _files(folder: Path) -> Iterator[Path]:
    """Files that make up an index: not locks, SQLite's side files, and temporary files."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        aside = parts[-1] == LOCK or "sessions" in parts or any(part.startswith(".") for part in parts)
        aside = aside or path.name.endswith(("-wal", "-shm", "-journal")) or ".tmp" in path.name
        if path.is_file() and not aside:
            yield path


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """The file, or a copy of a database as it is at this moment."""
    with open(path, "rb") as file:
        database = file.read(len(_SQLITE)) == _SQLITE
    if not database:
        yield path
        return
    fd, copy = tempfile.mkstemp(prefix=".copy-", dir=path.parent)
    os.close(fd)
    try:
        with contextlib.closing(sqlite3.connect(path)) as db, contextlib.closing(sqlite3.connect(copy)) as out:
            db.backup(out)
            out.execute("PRAGMA journal_mode=DELETE")
        yield Path(copy)
    finally:
        os.unlink(copy)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # without a time
    info.external_attr = (stat.S_IFREG | 0o600) << 16
    return info


def _entries(source: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Entries to unpack; DeploymentError for a file that :func:`write_index` does not write."""
    first, *rest = archive.infolist() or [zipfile.ZipInfo("")]
    try:
        head = json.loads(archive.read(first)) if first.filename == _MANIFEST and first.file_size < 1 << 10 else None
        known = isinstance(head, dict) and head.get("format") == FORMAT
        version = head["version"] if known and head is not None else None
    except (ValueError, KeyError):
        known, version = False, None
    if not known:
        raise DeploymentError(f"{source}: not an index written by mipp")
    if version != VERSION:
        raise DeploymentError(f"{source}: the index is of another format version")
    names = {entry.filename for entry in rest}
    for entry in rest:
        path = PurePosixPath(entry.filename)
        plain = not path.is_absolute() and path.as_posix() == entry.filename and ".." not in path.parts
        if not plain or entry.is_dir() or entry.compress_type != zipfile.ZIP_STORED or "\\" in entry.filename:
            raise DeploymentError(f"{source}: has entries that no index has")
    if len(names) != len(rest) or _end(archive) != source.stat().st_size:
        raise DeploymentError(f"{source}: has entries that no index has")
    return rest


def _end(archive: zipfile.ZipFile) -> int:
    """The size of a file with the entries of an archive and nothing before, between and behind; -1 for another."""
    at = 0
    for i, entry in enumerate(archive.infolist()):
        if entry.header_offset != at or entry.compress_size != entry.file_size:
            return -1
        at += _HEADER + len(entry.filename.encode()) + (_SIZES if i else 0) + entry.file_size
    if archive.start_dir != at or archive.comment:
        return -1
    assert archive.fp is not None
    archive.fp.seek(at)
    directory = archive.fp.read()
    # bytes behind the directory are refused, as zipfile takes the last directory
    end = directory.find(b"PK\x05\x06")
    return at + end + _LAST if end >= 0 else -1


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, home: Path) -> None:
    target = home / entry.filename
    folder = home
    for part in PurePosixPath(entry.filename).parts[:-1]:
        folder = folder / part
        folder.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with archive.open(entry) as data, os.fdopen(fd, "wb") as file:
        shutil.copyfileobj(data, file, _CHUNK)
