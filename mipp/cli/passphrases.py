"""Where passphrases come from: a file or standard input, the environment, or the terminal; and changing them."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import KeyFileError
from .outputs import warn

__all__ = ["change_options", "changed_passphrases", "given_passphrase", "passphrase_option"]

F = TypeVar("F", bound=Callable[..., Any])
#: a passphrase is a line, not a file
_MOST = 4096
_OLD, _NEW = "mipp.passphrase_file", "mipp.new_passphrase_file"
_OLD_VARIABLE, _NEW_VARIABLE = "MIPP_PASSPHRASE", "MIPP_NEW_PASSPHRASE"
_FILE = click.Path(dir_okay=False, allow_dash=True)


def _remember(key: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is not None:
            context.meta[key] = value
        return value

    return keep


def passphrase_option(command: F) -> F:
    """``--passphrase-file FILE`` for a command that reads or makes a key file; read when it is needed."""
    return click.option(
        "--passphrase-file",
        type=_FILE,
        metavar="FILE",
        expose_value=False,
        callback=_remember(_OLD),
        help="File with the key file's passphrase as its only line, - for the next line of standard input; default "
        "MIPP_PASSPHRASE, else it is asked for.",
    )(command)


def change_options(command: F) -> F:
    """Options of a command that changes a passphrase."""
    for option in (
        click.option("--remove", is_flag=True, help="Leave the key file without a passphrase, in the clear."),
        click.option(
            "--new-passphrase-file",
            type=_FILE,
            metavar="FILE",
            expose_value=False,
            callback=_remember(_NEW),
            help="File with the new passphrase as its only line, - for the next line of standard input (after the "
            "old one, if both come from there); default MIPP_NEW_PASSPHRASE, else it is asked for twice.",
        ),
        passphrase_option,
    ):
        command = option(command)
    return command


def given_passphrase() -> str | None:
    """The passphrase of ``--passphrase-file`` or of the environment; None if there is neither."""
    return _given(_OLD, _OLD_VARIABLE)


def passphrase_file() -> str | None:
    """The passphrase in the file that ``--passphrase-file`` names, or None."""
    return _named(_OLD)


def changed_passphrases(protected: bool, remove: bool) -> tuple[str | None, str | None]:
    """The old passphrase, None if the key file is not ``protected``, and the new one, None to ``remove`` it."""
    old = new = None
    if protected:
        old = _given(_OLD, _OLD_VARIABLE)
        if old is None:
            old = asked("Passphrase", _OLD_VARIABLE, "--passphrase-file")
    elif _named(_OLD) is not None:
        warn("the key file has no passphrase yet")
    if not remove:
        new = _given(_NEW, _NEW_VARIABLE)
        if new is None:
            new = asked("New passphrase", _NEW_VARIABLE, "--new-passphrase-file", twice=True)
    elif _named(_NEW) is not None:
        raise click.UsageError("give either --remove or --new-passphrase-file")
    return old, new


def asked(prompt: str, variable: str, option: str, *, twice: bool = False) -> str:
    """A passphrase from the terminal; KeyFileError where there is none."""
    if not sys.stdin.isatty():
        text = "there is no terminal to ask for the passphrase" if twice else "the key file needs its passphrase"
        raise KeyFileError(f"{text}; set {variable}, or give {option} FILE")
    return str(click.prompt(prompt, hide_input=True, confirmation_prompt=twice, err=True))


def _named(key: str) -> str | None:
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(key)


def _given(key: str, variable: str) -> str | None:
    name = _named(key)
    if name is None:
        return os.environ.get(variable)
    return _from_stdin() if name == "-" else _from_file(Path(name))


def _from_stdin() -> str:
    """The next line of standard input."""
    return _line(sys.stdin.buffer.readline(_MOST + 2), "standard input")


def _from_file(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
                warn(f"passphrase file {path} is readable by others; run: chmod 600 {path}")
            line = file.readline(_MOST + 2)
            if line.endswith(b"\n") and file.read(1):
                raise KeyFileError(f"passphrase file {path} holds more than one line")
    except OSError as error:
        raise KeyFileError(f"cannot read passphrase file {path}: {error.strerror}") from None
    return _line(line, str(path))


def _line(raw: bytes, source: str) -> str:
    """A line's text without its end."""
    line = raw[:-1] if raw.endswith(b"\n") else raw
    line = line[:-1] if line.endswith(b"\r") else line
    if not line:
        raise KeyFileError(f"the passphrase in {source} is empty")
    if len(line) > _MOST:
        raise KeyFileError(f"the passphrase in {source} has more than {_MOST} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise KeyFileError(f"the passphrase in {source} is not UTF-8 text") from None
