"""Files and folders that a command writes: checked before the work, printed safely after it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import click

from ..errors import ParameterError
from ..io.files import replace_whole
from ..io.tables import hits_csv, printable

__all__ = [
    "RegularFile",
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
    """Write hits as CSV, for this person's eyes alone."""
    replace_whole(path, hits_csv(hits), mode=0o600)
