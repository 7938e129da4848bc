"""Label files: which image shows what."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from ..errors import NotFoundError, ParameterError

__all__ = ["load_labels", "load_row_labels"]


def load_labels(path: str | os.PathLike[str]) -> list[tuple[Path, str]]:
    """Read a CSV file with columns ``path`` and ``label``; others are ignored. Paths are relative to the file's folder.

    Paths may be links to files, also to the same file. The file is UTF-8 text; a path whose bytes are not UTF-8 is
    taken as it is if there is such a file.

    Returns
    -------
    list
        (path of an existing file, label, not empty), in the order of the file.

    Raises
    ------
    NotFoundError
        No such CSV file, or a listed image that does not exist; the message says on which line.
    ParameterError
        Not UTF-8 text, a missing column, an empty path or label, an image listed twice, no rows.
    """
    file = Path(path)
    out: list[tuple[Path, str]] = []
    seen: dict[Path, int] = {}
    for line, (name, label) in _rows(file, ("path", "label")):
        image = file.parent / name
        try:
            regular = image.is_file()
        except ValueError:  # a null character
            regular = False
        if not regular:
            if name.isprintable():
                raise NotFoundError(f"{file}, line {line}: no image {name}")
            raise ParameterError(f"{file}, line {line}: not UTF-8 text, or no image {name!r}")
        # a name, not the file that a link leads to: two names of one file are two images
        first = seen.setdefault(image.parent.resolve() / image.name, line)
        if first != line:
            raise ParameterError(f"{file}, line {line}: image {name} is on line {first} already")
        out.append((image, label))
    return out


def load_row_labels(path: str | os.PathLike[str]) -> list[str]:
    """Read the column ``label`` of a CSV file, for vectors row by row. Errors as of :func:`load_labels`."""
    return [label for _, (label,) in _rows(Path(path), ("label",))]


def _is_text(value: str) -> bool:
    """Whether no byte of ``value`` was other than UTF-8."""
    return not any("\ud800" <= c <= "\udfff" for c in value)


def _rows(file: Path, columns: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    """Line number and values, none empty, of some columns of a CSV file."""
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file")
    out = []
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream)
            for column in columns:
                if column not in (reader.fieldnames or ()):
                    raise ParameterError(f"{file}, line 1: no column {column!r}")
            for row in reader:
                values = tuple((row[column] or "").strip() for column in columns)
                if not all(values):
                    raise ParameterError(f"{file}, line {reader.line_num}: no {columns[values.index('')]}")
                if not all(map(_is_text, values[columns[0] == "path" :])):
                    raise ParameterError(f"{file}, line {reader.line_num}: not UTF-8 text")
                out.append((reader.line_num, values))
    except (csv.Error, OSError) as error:
        raise ParameterError(f"{file}: not a readable CSV file ({error})") from None
    if not out:
        raise ParameterError(f"{file}: no rows")
    return out
