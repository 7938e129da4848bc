"""Files that a program relies on after a power failure: written under a temporary name, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import StoreError

__all__ = ["copy_file", "nameless_file", "replace_file", "sync_folder", "write_all", "write_durably"]


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file durably, mode 0600, all or nothing; StoreError if it cannot be written."""
    write_durably(path, lambda fd: write_all(fd, memoryview(content)))


def copy_file(source: Path, target: Path) -> None:
    """Copy a file durably to a new one, mode 0600; OSError."""
    with open(source, "rb") as old:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.fsync(fd)


def nameless_file(folder: Path) -> int:
    """Descriptor of a new file without a name, mode 0600, which ends with it unless it gets a name; OSError."""
    try:
        return os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    fd, name = tempfile.mkstemp(dir=folder, prefix="upload-")  # a file system without such files
    os.unlink(name)
    return fd


def write_durably(path: Path, write: Callable[[int], None], held: int | None = None) -> bool:
    """Write under a temporary name, sync, rename, sync the folder (made if missing).

    Parameters
    ----------
    path : of the file; one that is there is replaced
    write : gets the descriptor of the new file, mode 0600
    held : descriptor of a file without a name, on the same file system, that becomes this file; default a new one

    Returns
    -------
    bool
        False if the system cannot name ``held``; then nothing was done.

    Raises
    ------
    StoreError
        It cannot be written; what was there before stays.
    """
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        if held is None:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        elif (linked := _linked(held, temporary)) is not None:
            fd = linked
        else:
            return False
        try:
            try:
                write(fd)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise StoreError(f"cannot write {path.name}: {error.strerror}") from error
    return True


def _linked(held: int, name: Path) -> int | None:
    """Give a file its first name; another descriptor of it, None if the system cannot do that."""
    try:
        # a folder's descriptor has Python follow the link, though it counts for relative names only
        os.link(f"/proc/self/fd/{held}", name, src_dir_fd=held, follow_symlinks=True)
    except OSError:
        return None
    return os.dup(held)


def write_all(fd: int, view: memoryview) -> None:
    """Write all of ``view``, however much one call takes."""
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder``, such as one just renamed, survive a loss of power, where the system can do that.

    OSError if the disk fails; a folder that cannot be opened for reading, or a file system without this, is no error.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
