"""Label files: CSV files with a label for each image or row."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from ..errors import NotFoundError, ParameterError
from .files import as_path, open_regular, shown

__all__ = ["load_labels", "load_row_labels"]

#: larger label files are refused
MAX_BYTES = 1 << 28


def load_labels(path: str | os.PathLike[str]) -> list[tuple[Path, str]]:
    """Read a CSV file with columns ``path`` and ``label``; other columns are ignored.

    Paths are relative to the file's folder. They may be links to files, also to the same file. The file is UTF-8 text;
    a path whose bytes are not UTF-8 is taken as it is if there is such a file.

    Parameters
    ----------
    path : str or path
        The CSV file.

    Returns
    -------
    list of tuple
        (path of an existing file, label, not empty), in the order of the file.

    Raises
    ------
    NotFoundError
        No such CSV file, or a listed image that does not exist; the message names the line.
    ParameterError
        Not a regular file, more than 256 MiB, not UTF-8 text, a missing column, an empty path or label, an image listed
        twice, no rows.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.io.labels import load_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "a.png").touch()
    ...     file = pathlib.Path(folder, "labels.csv")
    ...     _ = file.write_text("path,label" + chr(10) + "a.png,cat")
    ...     [(path.name, label) for path, label in load_labels(file)]
    [('a.png', 'cat')]
    """
    file = as_path(path)
    out: list[tuple[Path, str]] = []
    seen: dict[Path, int] = {}
    for line, (name, label) in _rows(file, ("path", "label")):
        image = file.parent / name
        if not os.path.isfile(image):  # False for names that no system takes
            if not _is_text(name):
                raise ParameterError(f"{shown(file)}, line {line}: not UTF-8 text, or no image {name!a}")
            raise NotFoundError(f"{shown(file)}, line {line}: no image {shown(Path(name))}")
        # a name, not the file that a link leads to: two names of one file are two images
        first = seen.setdefault(image.parent.resolve() / image.name, line)
        if first != line:
            raise ParameterError(f"{shown(file)}, line {line}: image {shown(Path(name))} is on line {first} already")
        out.append((image, label))
    return out


def load_row_labels(path: str | os.PathLike[str]) -> list[str]:
    """Read the column ``label`` of a CSV file, for vectors row by row.

    Parameters
    ----------
    path : str or path
        The CSV file.

    Returns
    -------
    list of str
        Labels in the order of the file, none empty.

    Raises
    ------
    NotFoundError, ParameterError
        As :func:`load_labels`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.io.labels import load_row_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "labels.csv")
    ...     _ = file.write_text(chr(10).join(["label", "cat", "dog"]))
    ...     load_row_labels(file)
    ['cat', 'dog']
    """
    return [label for _, (label,) in _rows(as_path(path), ("label",))]


def _is_text(value: str) -> bool:
    """Whether every byte of ``value`` was UTF-8."""
    return not any("\ud800" <= c <= "\udfff" for c in value)


def _rows(file: Path, columns: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    """Line number and values, none empty, of some columns of a CSV file."""
    out = []
    try:
        with open_regular(file) as (opened, size):
            if size > MAX_BYTES:
                raise ParameterError(f"{shown(file)}: {size} bytes are more than {MAX_BYTES}")
            reader = csv.DictReader(
                io.TextIOWrapper(opened, encoding="utf-8-sig", errors="surrogateescape", newline="")
            )
            for column in columns:
                if (reader.fieldnames or []).count(column) > 1:
                    raise ParameterError(f"{shown(file)}, line 1: several columns are called {column!r}")
                if column not in (reader.fieldnames or ()):
                    raise ParameterError(f"{shown(file)}, line 1: no column {column!r}")
            for row in reader:
                values = tuple((row[column] or "").strip() for column in columns)
                if not all(values):
                    raise ParameterError(f"{shown(file)}, line {reader.line_num}: no {columns[values.index('')]}")
                if not all(map(_is_text, values[columns[0] == "path" :])):
                    raise ParameterError(f"{shown(file)}, line {reader.line_num}: not UTF-8 text")
                out.append((reader.line_num, values))
    except (csv.Error, OSError) as error:
        raise ParameterError(f"{shown(file)}: not a readable CSV file ({error})") from None
    if not out:
        raise ParameterError(f"{shown(file)}: no rows")
    return out
