"""Files and folders that a command writes: checked before the work, printed safely after it."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import click

from ..errors import ParameterError
from ..io.files import replace_whole

__all__ = [
    "RegularFile",
    "cell",
    "check_new_folder",
    "check_output_file",
    "check_output_folder",
    "printable",
    "warn",
    "write_table",
]


class RegularFile(click.Path):
    """A path of an existing regular file: reading a pipe or a device could wait for ever."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, exists=True, dir_okay=False)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        path = super().convert(value, parameter, context)
        if not stat.S_ISREG(os.stat(path).st_mode):
            self.fail(f"{printable(str(path))} is not a regular file", parameter, context)
        return path


def printable(text: str) -> str:
    """``text`` fit for a terminal: control characters and bytes that are not UTF-8 become escapes such as \\x1b."""
    if text.isprintable():
        return text
    known = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if _raw(text) else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in known)


def _raw(text: str) -> bool:
    """Whether surrogates in ``text``, if any, all stand for bytes of a file's name."""
    return all(not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" for c in text)


def warn(text: str) -> None:
    """One line on standard error."""
    click.echo(f"mipp: {printable(text)}", err=True)


def check_output_file(path: Path) -> None:
    """ParameterError unless ``path`` can be written: its folder is there, and it is no folder itself."""
    folder = path.parent
    if not folder.is_dir():
        raise ParameterError(f"cannot write {path}: there is no folder {folder}")
    if path.exists() and not path.is_file():
        raise ParameterError(f"cannot write {path}: it is not a regular file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ParameterError(f"cannot write {path}: the folder {folder} is not writable")


def check_output_folder(path: Path) -> None:
    """ParameterError unless ``path`` is a folder that can be written to, or can be made."""
    there = path
    while not there.exists() and there != there.parent:
        if there.is_symlink():
            raise ParameterError(f"cannot write to {path}: {there} is a link that leads nowhere")
        there = there.parent
    if not there.is_dir():
        raise ParameterError(f"cannot write to {path}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ParameterError(f"cannot write to {path}: {there} is not writable")


def check_new_folder(path: Path) -> None:
    """As :func:`check_output_folder`, and ParameterError for a folder that holds something."""
    check_output_folder(path)
    if path.is_dir() and any(path.iterdir()):
        raise ParameterError(f"{path} is not empty; name a new folder, so that results do not mix")


def write_table(path: Path, hits: list[dict[str, Any]]) -> None:
    """Write hits as CSV, for this person's eyes alone; texts of owners cannot become formulas of a spreadsheet."""
    columns = ["rank", "id", "owner", "score", "value", "name", "caption", "metadata", "file"]
    out = io.StringIO(newline="")
    # quoted, as some spreadsheets split cells at semicolons
    writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for rank, hit in enumerate(hits, 1):
        told = json.dumps(hit["metadata"], ensure_ascii=False) if hit.get("metadata") else ""
        row = {name: "" if value is None else value for name, value in {**hit, "rank": rank, "metadata": told}.items()}
        writer.writerow({name: cell(value) if isinstance(value, str) else value for name, value in row.items()})
    replace_whole(path, out.getvalue().encode("utf-8", "backslashreplace"), mode=0o600)


def cell(text: str) -> str:
    """Text of a cell: printable, and no formula."""
    shown = printable(text)
    return f"'{shown}" if shown.strip()[:1] in _FORMULAS and shown.strip() else shown


#: what spreadsheets take for the beginning of a formula; the latter are the full-width forms
_FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
