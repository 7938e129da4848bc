"""Metadata files: CSV or JSON lines with text or values for each image."""

from __future__ import annotations

import codecs
import contextlib
import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ParameterError, plain_text
from .files import as_path, open_regular, shown, system_text
from .strict import strict_loads

__all__ = ["read_metadata", "read_rows"]

_Reader = Callable[[Path, BinaryIO, str], Iterator[tuple[int, dict[str, Any]]]]

#: bytes of a metadata file and of one of its lines, and number of lines; larger ones are refused
MAX_BYTES, LINE_BYTES, MAX_LINES = 1 << 28, 1 << 20, 1 << 22


def read_metadata(path: str | os.PathLike[str], *, key: str = "path") -> dict[str, dict[str, Any]]:
    """Read a file with metadata of images.

    A ``.csv`` file has a header line. Its column ``path`` names the image, every other column is a field of text; cells
    without text are left out. A ``.jsonl`` file has a JSON object on each line: ``path`` names the image, everything
    else is its metadata. Both are UTF-8 text, with or without a byte order mark. Empty lines are skipped.

    Parameters
    ----------
    path : str or path
        The file.
    key : str
        Column or field that names the image.

    Returns
    -------
    dict
        Path of an image, as the file has it, to its fields without ``path``; in the order of the file.

    Raises
    ------
    NotFoundError
        No such file.
    ParameterError
        Another ending, not a regular file, more than 256 MiB, 2^22 lines or 1 MiB in a line, not UTF-8 text, a NUL, no
        or two columns of a name, a row with more or fewer cells than the header, a line that is no JSON object, an
        image without path or listed twice, no rows. The message names file and line.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.io.metadata import read_metadata
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "about.csv")
    ...     _ = file.write_text(chr(10).join(["path,caption,place", "a.png,a cat,", "b.png,a bus,Rome"]))
    ...     read_metadata(file)
    {'a.png': {'caption': 'a cat'}, 'b.png': {'caption': 'a bus', 'place': 'Rome'}}
    """
    file, reader = _reader(path)
    out: dict[str, dict[str, Any]] = {}
    seen: dict[str, int] = {}
    with _opened(file) as opened:
        for line, fields in reader(file, opened, key):
            name = fields.pop(key)
            # "./a.png" and "a.png" are one image
            first = seen.setdefault(os.path.normpath(name), line)
            if first != line:
                image = plain_text(shown(Path(name)))
                raise ParameterError(f"{_place(file, line)}: image {image} is on line {first} already")
            out[name] = fields
    if not out:
        raise ParameterError(f"{shown(file)}: no rows")
    return out


def read_rows(path: str | os.PathLike[str], rows: int) -> list[dict[str, Any]]:
    """Read a file with metadata of rows of vectors, one after the other: as :func:`read_metadata`, without paths.

    Parameters
    ----------
    path : str or path
        The file.
    rows : int
        Number of rows that it must describe.

    Returns
    -------
    list of dict
        Fields of each row.

    Raises
    ------
    NotFoundError, ParameterError
        As :func:`read_metadata`; another number of rows.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.io.metadata import read_rows
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "about.csv")
    ...     _ = file.write_text(chr(10).join(["caption", "a cat", "a bus"]))
    ...     read_rows(file, 2)
    [{'caption': 'a cat'}, {'caption': 'a bus'}]
    """
    file, reader = _reader(path)
    with _opened(file) as opened:
        found = [fields for _, fields in reader(file, opened, "")]
    if len(found) != rows:
        raise ParameterError(f"{shown(file)}: {len(found)} rows, not {rows}")
    return found


def _reader(path: str | os.PathLike[str]) -> tuple[Path, _Reader]:
    file = as_path(path)
    ending = file.suffix.lower()
    if ending not in _READERS:
        raise ParameterError(f"{shown(file)}: a metadata file is called .csv or .jsonl")
    return file, _READERS[ending]


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    with open_regular(file) as (opened, size):
        if size > MAX_BYTES:
            raise ParameterError(f"{shown(file)}: {size} bytes are more than {MAX_BYTES}")
        yield opened


def _place(file: Path, line: int) -> str:
    return f"{shown(file)}, line {line}"


def _lines(file: Path, opened: BinaryIO) -> Iterator[str]:
    """Lines of a text file, their ends kept; each is checked before the next is read."""
    total = 0
    for line in range(1, MAX_LINES + 2):
        try:
            raw = opened.readline(LINE_BYTES + 1)
        except OSError as error:
            raise ParameterError(f"{shown(file)}: cannot be read ({system_text(error)})") from None
        if not raw:
            return
        total += len(raw)
        if line > MAX_LINES or total > MAX_BYTES:
            raise ParameterError(f"{shown(file)}: more than {MAX_LINES} lines or {MAX_BYTES} bytes")
        if len(raw) > LINE_BYTES:
            raise ParameterError(f"{_place(file, line)}: more than {LINE_BYTES} bytes")
        try:
            text = (raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw).decode()
        except UnicodeDecodeError:
            raise ParameterError(f"{_place(file, line)}: not UTF-8 text") from None
        if "\0" in text:
            raise ParameterError(f"{_place(file, line)}: a NUL character")
        yield text


def _csv_rows(file: Path, opened: BinaryIO, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and fields, ``key`` among them unless it is empty, of the rows of a CSV file."""
    reader = csv.reader(_lines(file, opened), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        if key and key not in names:
            raise ParameterError(f"{_place(file, 1)}: no column {key!r}")
        for name in names:
            if not name or names.count(name) > 1:
                wrong = f"several columns are called {name[:80]!r}" if name else "a column has no name"
                raise ParameterError(f"{_place(file, 1)}: {wrong}")
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                raise ParameterError(f"{_place(file, reader.line_num)}: {len(row)} cells, the header has {len(names)}")
            fields = {name: cell for name, cell in zip(names, row, strict=True) if cell.strip()}
            if key:
                fields[key] = fields.get(key, "").strip()
                if not fields[key]:
                    raise ParameterError(f"{_place(file, reader.line_num)}: no {key}")
            yield reader.line_num, fields
    except csv.Error as error:
        raise ParameterError(f"{_place(file, reader.line_num)}: not readable as CSV ({error})") from None


def _json_rows(file: Path, opened: BinaryIO, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and fields, ``key`` among them unless it is empty, of the lines of a JSONL file."""
    for line, text in enumerate(_lines(file, opened), 1):
        if not text.strip():
            continue
        try:
            fields = strict_loads(text)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise ParameterError(f"{_place(file, line)}: no JSON object whose keys are there once each")
        name = fields.get(key) if key else "a row"
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise ParameterError(f"{_place(file, line)}: no {key}")
        yield line, fields


_READERS: dict[str, _Reader] = {".csv": _csv_rows, ".jsonl": _json_rows}
