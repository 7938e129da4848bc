"""Image files in folders: which are taken, and why others are not. Opening them never waits."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import ImageError, NotFoundError

__all__ = ["LeftOut", "read_regular", "walk_images"]

#: a path and why it was left out
LeftOut = tuple[Path, str]
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Content of a regular file; a pipe or a device is refused, not waited for.

    Parameters
    ----------
    path : links are followed
    most : largest size that is read

    Raises
    ------
    NotFoundError
        No such file.
    ImageError
        Not a regular file, not readable, or larger than ``most``; the text gives the reason without the path.
    """
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(fd, "rb") as file:
            mode, size = (found := os.fstat(fd)).st_mode, found.st_size
            if not stat.S_ISREG(mode):
                raise ImageError(not_regular(mode))
            if most is not None and size > most:
                raise ImageError(f"{size:,} bytes; at most {most:,} are taken")
            content = file.read() if most is None else file.read(most + 1)
    except FileNotFoundError:
        raise NotFoundError("no such file") from None
    except IsADirectoryError:
        raise ImageError(not_regular(stat.S_IFDIR)) from None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if most is not None and len(content) > most:
        raise ImageError(f"more than {most:,} bytes")
    return content


def not_regular(mode: int) -> str:
    """Why a file of this mode is not read."""
    return f"{_KINDS.get(stat.S_IFMT(mode), 'a special file')}, not a regular file"


def walk_images(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, outside: bool = True
) -> tuple[list[Path], list[LeftOut]]:
    """Image files among ``paths``, and what was left out.

    Folders are walked and filtered by suffix; files that are named are taken whatever their suffix. Links to files and
    to folders are followed; each folder is walked once, so that a loop of links ends.

    Parameters
    ----------
    paths : files and folders
    outside : whether links are followed that lead out of the folder that was named. A link that is named is followed.

    Returns
    -------
    files : arguments in order, files of a folder sorted by path, each path once
    left_out : files with an image's suffix that are no regular files, links that lead nowhere or, without ``outside``,
        out of the folder, and folders that cannot be read; (path, reason) each

    Raises
    ------
    NotFoundError
        An argument that does not exist.
    ImageError
        An argument that is neither a folder nor a regular file.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: dict[Path, None] = {}
    left_out: list[LeftOut] = []
    for entry in map(Path, paths):
        try:
            mode = os.stat(entry).st_mode
        except (OSError, ValueError) as error:
            broken = "a link that leads nowhere" if entry.is_symlink() else "no such file or folder"
            text = broken if _missing(error) else getattr(error, "strerror", None) or str(error)
            raise NotFoundError(f"{entry}: {text}") from None
        if stat.S_ISDIR(mode):
            files = sorted(_walk(entry, None if outside else entry.resolve(), left_out))
            found.update(dict.fromkeys(files))
        elif stat.S_ISREG(mode):
            found[entry] = None
        else:
            raise ImageError(f"{entry}: {not_regular(mode)}")
    return list(found), sorted(left_out)


def _missing(error: Exception) -> bool:
    return getattr(error, "errno", None) in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def _walk(top: Path, root: Path | None, left_out: list[LeftOut]) -> Iterator[Path]:
    """Image files below ``top``; with ``root``, links out of it are left out."""
    seen: set[tuple[int, int]] = set()
    # folders without a link on the way come first, so that files keep their plainest path
    waiting, linked = [top], list[Path]()
    while waiting or linked:
        folder = (waiting or linked).pop()
        try:
            about = os.stat(folder)
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            left_out.append((folder, f"folder cannot be read ({error.strerror})"))
            continue
        for entry in entries:
            path = folder / entry.name
            try:
                link = entry.is_symlink()
                mode = os.stat(path).st_mode
                if link and root is not None and not _inside(path, root):
                    if stat.S_ISDIR(mode) or _wanted(path):
                        left_out.append((path, f"a link out of {top}"))
                    continue
            except OSError as error:
                if _wanted(path):
                    nowhere = _missing(error) and link
                    left_out.append((path, "a link that leads nowhere" if nowhere else f"{error.strerror}"))
                continue
            if stat.S_ISDIR(mode):
                (linked if link else waiting).append(path)
            elif _wanted(path):
                if stat.S_ISREG(mode):
                    yield path
                else:
                    left_out.append((path, not_regular(mode)))


def _inside(path: Path, root: Path) -> bool:
    return root in path.resolve().parents or path.resolve() == root


def _wanted(path: Path) -> bool:
    from .images import SUFFIXES

    return path.suffix.lower() in SUFFIXES
