"""Image files in folders: which are taken, and why others are left out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import DTypeError, ImageError, NotFoundError
from .files import as_path
from .recognise import SUFFIXES, is_image_file

__all__ = ["LeftOut", "walk_images"]

#: a path and why it was left out
LeftOut = tuple[Path, str]
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def not_regular(mode: int) -> str:
    """Why a file of this mode is not read."""
    return f"{_KINDS.get(stat.S_IFMT(mode), 'a special file')}, not a regular file"


def walk_images(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    outside: bool = True,
    others: list[Path] | None = None,
) -> tuple[list[Path], list[LeftOut]]:
    """Find image files among paths, and list the files left out.

    Of a folder, files that :func:`mipp.io.recognise.is_image_file` accepts are taken; a named file is taken always.
    Links to files and to folders are followed; each folder is walked once, so that a loop of links ends.

    Parameters
    ----------
    paths : str, path, or iterable of them
        Files and folders.
    outside : bool
        Whether links are followed that lead out of the folder that was named. A link that is named is followed.
    others : list, optional
        Files of folders that are not images are appended to it.

    Returns
    -------
    files : list of Path
        Arguments in order, files of a folder sorted by path, each path once.
    left_out : list of tuple
        (path, reason) of files with an image's suffix that are not regular files, of links that lead nowhere or,
        without ``outside``, out of the folder, and of folders that cannot be read.

    Raises
    ------
    NotFoundError
        An argument that does not exist.
    ImageError
        An argument that is neither a folder nor a regular file.
    DTypeError
        An argument that is neither a path nor text, or no sequence of them.

    Examples
    --------
    >>> import os, pathlib, tempfile
    >>> from mipp.io.walk import walk_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "a.png").touch()
    ...     os.symlink("nowhere", pathlib.Path(folder, "b.png"))
    ...     files, left_out = walk_images(folder)
    >>> [path.name for path in files], [(path.name, reason) for path, reason in left_out]
    (['a.png'], [('b.png', 'a link that leads nowhere')])
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: dict[Path, None] = {}
    left_out: list[LeftOut] = []
    if not isinstance(paths, Iterable):
        raise DTypeError(f"files are named by paths or text, one or several, not by {type(paths).__name__}")
    for entry in map(as_path, paths):
        try:
            mode = os.stat(entry).st_mode
        except (OSError, ValueError) as error:
            broken = "a link that leads nowhere" if entry.is_symlink() else "no such file or folder"
            text = broken if _missing(error) else getattr(error, "strerror", None) or str(error)
            raise NotFoundError(f"{entry}: {text}") from None
        if stat.S_ISDIR(mode):
            files = sorted(_walk(entry, None if outside else entry.resolve(), left_out, others))
            found.update(dict.fromkeys(files))
        elif stat.S_ISREG(mode):
            found[entry] = None
        else:
            raise ImageError(f"{entry}: {not_regular(mode)}")
    return list(found), sorted(left_out)


def _missing(error: Exception) -> bool:
    return getattr(error, "errno", None) in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def _walk(top: Path, root: Path | None, left_out: list[LeftOut], others: list[Path] | None) -> Iterator[Path]:
    """Image files below ``top``; with ``root``, links out of it are left out."""

    def named(path: Path) -> bool:
        """Whether a file that cannot be looked into would be taken for an image."""
        return path.suffix.lower() in SUFFIXES

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
                    if stat.S_ISDIR(mode) or named(path):
                        left_out.append((path, f"a link out of {top}"))
                    continue
            except OSError as error:
                if named(path):
                    nowhere = _missing(error) and link
                    left_out.append((path, "a link that leads nowhere" if nowhere else f"{error.strerror}"))
                continue
            if stat.S_ISDIR(mode):
                (linked if link else waiting).append(path)
            elif not stat.S_ISREG(mode):
                if named(path):
                    left_out.append((path, not_regular(mode)))
                elif others is not None:
                    others.append(path)
            elif is_image_file(path):
                yield path
            elif others is not None:
                others.append(path)


def _inside(path: Path, root: Path) -> bool:
    return root in path.resolve().parents or path.resolve() == root
