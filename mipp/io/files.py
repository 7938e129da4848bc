"""Reading and writing files that users name: regular files only, so that no pipe blocks and no device fills memory."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import DTypeError, MippError, NotFoundError, ParameterError
from .durable import sync_folder

__all__ = ["as_path", "open_regular", "read_regular", "reading", "replace_whole", "replacing", "shown", "system_text"]

_SHOWN = 200


def as_path(name: str | os.PathLike[str]) -> Path:
    """Check the name of a file.

    Parameters
    ----------
    name : str or path
        The name.

    Returns
    -------
    Path

    Raises
    ------
    DTypeError
        Neither a path nor text.

    Examples
    --------
    >>> as_path("a/b.npy").name
    'b.npy'
    """
    if not isinstance(name, (str, os.PathLike)) or not isinstance(os.fspath(name), str):
        raise DTypeError(f"a file is named by a path or text, not by {type(name).__name__}")
    return Path(name)


def shown(path: Path) -> str:
    """Shorten the name of a file for a message: its last 200 characters, where names differ.

    Parameters
    ----------
    path : Path
        The name.

    Returns
    -------
    str

    Examples
    --------
    >>> shown(Path("x" * 300))[:6]
    '...xxx'
    """
    text = str(path)
    return text if len(text) <= _SHOWN else "..." + text[-_SHOWN:]


def system_text(error: Exception) -> str:
    """Say why a system call failed, without the file's name.

    Parameters
    ----------
    error : Exception
        The error that it raised.

    Returns
    -------
    str

    Examples
    --------
    >>> system_text(FileNotFoundError(2, "No such file or directory", "a.txt"))
    'No such file or directory'
    """
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def open_regular(path: Path, *, refused: type[MippError] = ParameterError) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file; it is closed at the end of the block.

    Pipes, sockets and devices are recognised without waiting for them.

    Parameters
    ----------
    path : Path
        The file.
    refused : type of MippError
        Raised for what cannot be read.

    Yields
    ------
    file : file
        Open for reading bytes.
    size : int
        Its size in bytes.

    Raises
    ------
    NotFoundError
        No such file.
    refused
        A folder, a pipe, a device, a name that the system does not take, a file that may not be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as made, open_regular(Path(made.name)) as (file, size):
    ...     size
    0
    """
    try:
        # a pipe without a writer would block
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise NotFoundError(f"{shown(path)}: no such file") from None
    except (OSError, ValueError) as error:
        # Windows opens no folder
        text = "a folder, not a file" if os.path.isdir(path) else system_text(error)
        raise refused(f"{shown(path)}: cannot be read ({text})") from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        kind = "a folder, not a file" if stat.S_ISDIR(status.st_mode) else "not a file but a pipe or device"
        raise refused(f"{shown(path)}: cannot be read ({kind})")
    with os.fdopen(handle, "rb") as file:
        yield file, status.st_size


def read_regular(path: Path, most: int, *, refused: type[MippError] = ParameterError) -> bytes:
    """Read a regular file of limited size.

    Parameters
    ----------
    path : Path
        The file.
    most : int
        Largest allowed size in bytes.
    refused : type of MippError
        Raised for what cannot be read.

    Returns
    -------
    bytes
        The content.

    Raises
    ------
    NotFoundError
        No such file.
    refused
        As :func:`open_regular`; a file of more than ``most`` bytes.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"abc")
    ...     file.flush()
    ...     read_regular(Path(file.name), 100)
    b'abc'
    """
    with open_regular(path, refused=refused) as (file, size):
        if size > most:
            raise refused(f"{shown(path)}: {size} bytes are more than {most}")
        out = io.BytesIO()
        try:
            # a file in /proc has size 0 and content
            while len(part := file.read(min(most + 1 - out.tell(), 1 << 24))):
                out.write(part)
                if out.tell() > most:
                    raise refused(f"{shown(path)}: more than {most} bytes")
        except OSError as error:
            raise refused(f"{shown(path)}: cannot be read ({system_text(error)})") from None
    return out.getvalue()


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn errors of a library that reads a file into ParameterError; those of mipp stay as they are.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it should be, for the message.

    Yields
    ------
    None
        Nothing; the block reads.

    Raises
    ------
    ParameterError
        For any other error of the block.

    Examples
    --------
    >>> with reading(Path("a.h5"), "HDF5 file"):
    ...     raise OSError("bad magic")
    Traceback (most recent call last):
        ...
    mipp.errors.ParameterError: a.h5: not a readable HDF5 file (bad magic)
    """
    try:
        yield
    except (MippError, MemoryError):
        raise
    except Exception as error:
        # such libraries raise almost any type on damaged files
        text = " ".join(str(error).split())[:_SHOWN]
        raise ParameterError(f"{shown(path)}: not a readable {what} ({text})") from None


@contextmanager
def replacing(
    path: str | os.PathLike[str], *, mode: int = 0o666, failed: type[MippError] = ParameterError
) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of ``path`` when the block ends; if the block raises, nothing changes.

    The file is written beside ``path`` under a temporary name, synced, and renamed; then the folder is synced. A
    symbolic link is followed.

    Parameters
    ----------
    path : str or path
        Where the file will be. What is there must be a regular file.
    mode : int
        Permissions of the new file, less the process's mask.
    failed : type of MippError
        Raised where the system refuses to write.

    Yields
    ------
    file
        The new file, open for writing bytes.

    Raises
    ------
    ParameterError
        ``path`` is a folder, a pipe, a device, or a loop of symbolic links.
    failed
        The file cannot be written, as on a full disk.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.txt")
    ...     with replacing(path) as file:
    ...         _ = file.write(b"whole")
    ...     path.read_bytes()
    b'whole'
    """
    target = Path(path)
    try:
        target = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(target).st_mode):
                raise ParameterError(f"{shown(target)}: cannot be written (not a regular file)")
        temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except MippError:
        raise
    except (OSError, ValueError) as error:
        raise failed(f"{shown(target)}: cannot be written ({system_text(error)})") from None
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, MippError):
            raise failed(f"{shown(target)}: cannot be written ({system_text(error)})") from None
        raise


def replace_whole(path: str | os.PathLike[str], content: bytes | memoryview, *, mode: int = 0o666) -> None:
    """Write a file that a person named: all of it, or the earlier file stays. A symbolic link is followed.

    Parameters
    ----------
    path : str or path
        The file; replaced if it exists.
    content : bytes or memoryview
        All of the file.
    mode : int
        Permissions of the new file, less the process's mask.

    Raises
    ------
    ParameterError
        A folder, pipe or device; a file that cannot be written, as on a full disk.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.txt")
    ...     replace_whole(path, b"whole")
    ...     path.read_bytes()
    b'whole'
    """
    with replacing(path, mode=mode) as file:
        file.write(content)
