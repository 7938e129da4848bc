"""Shared by all commands: the deployment's folder, passphrases, output, progress, one-line errors."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from .. import schemes
from ..deployment import DEFAULT_BITS, ConnectedDeployment, Deployment, is_connected
from ..errors import DeploymentError, KeyFileError, ParameterError
from .outputs import printable, warn
from .passphrases import asked, given_passphrase, passphrase_file

F = TypeVar("F", bound=Callable[..., Any])
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning, FutureWarning)
#: a limit of our own refuses such images, in words
_SAID_OTHERWISE = ("DecompressionBombWarning",)
PASSPHRASE_VARIABLE = "MIPP_PASSPHRASE"


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def deployment_option(command: F) -> F:
    return click.option(
        "--deployment",
        "folder",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="MIPP_DEPLOYMENT",
        default=".",
        help="Folder of the deployment; default MIPP_DEPLOYMENT, else the current folder.",
    )(command)


class _SchemeName(click.Choice[str]):
    """Names of schemes; the earlier name of one works, with a warning."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "homomorphic":
            warn("the scheme homomorphic is called paillier now; the old name will go in the next release")
            value = "paillier"
        return super().convert(value, param, ctx)


def scheme_option(command: F, *, by_clouds: bool = False) -> F:
    """``--scheme``; ``by_clouds``: without it the number of clouds decides, and the option's value is None."""
    said = ". ".join(f"{name}: {schemes.get(name).summary}" for name in schemes.NAMES)
    return click.option(
        "--scheme",
        type=_SchemeName(schemes.NAMES),
        default=None if by_clouds else schemes.NAMES[0],
        show_default=not by_clouds,
        help=f"{said}." + (f" Default {schemes.NAMES[0]}; {schemes.of_clouds(1)} with one cloud." if by_clouds else ""),
    )(command)


def key_bits_option(command: F) -> F:
    return click.option(
        "--key-bits",
        type=click.Choice(["2048", "3072", "4096"]),
        default=str(DEFAULT_BITS),
        show_default=True,
        help="Paillier scheme: bits of the user's Paillier key.",
    )(command)


def warn_of_key_bits(scheme: str) -> None:
    """Say that ``--key-bits`` of this command does nothing in a scheme whose users have no key of a chosen size."""
    chosen = click.get_current_context().get_parameter_source("key_bits") == ParameterSource.COMMANDLINE
    if chosen and not schemes.get(scheme).sized_keys:
        warn(f"--key-bits does nothing in the {scheme} scheme: it is the size of a Paillier key")


def window_option(command: F) -> F:
    return click.option(
        "--window",
        type=(float, float),
        metavar="LOW HIGH",
        help="For gray images of more than 8 bits and DICOM: values that become black and white.",
    )(command)


def invitation_option(command: F) -> F:
    return click.option(
        "--invitation",
        metavar="TEXT",
        callback=_invitation_text,
        help="The registrar's invitation, or @FILE that holds it, where the deployment takes parties by invitation.",
    )(command)


def _invitation_text(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None or not value.startswith("@"):
        return value
    try:
        with open(value[1:], "rb") as file:
            return file.read(4096).decode("ascii", "replace")
    except OSError as error:
        raise ParameterError(f"cannot read the invitation in {value[1:]}: {error.strerror}") from None


def labelled(labels: Path, images: Path | None) -> list[tuple[Path, str]]:
    """Paths and labels of a label file, only those inside the folder ``images`` if one is given.

    It is the listed path that lies there; where a link leads does not matter. Says how many are left out, and
    ParameterError if that is all of them.
    """
    from ..io.labels import load_labels

    items = load_labels(labels)
    if images is None:
        return items
    real = images.resolve()
    is_it = functools.cache(lambda folder: folder.resolve() == real)
    inside: list[tuple[Path, str]] = []
    outside: list[tuple[Path, str]] = []
    for path, label in items:
        here = (
            any(map(is_it, Path(os.path.abspath(path)).parents)) or real in (path.parent.resolve() / path.name).parents
        )
        (inside if here else outside).append((path, label))
    if outside and not inside:
        raise ParameterError(f"no image of {labels} lies in {images}; the first one is {outside[0][0]}")
    if outside:
        warn(
            f"left out {len(outside)} of the {len(items)} images of {labels}: they do not lie in {images}; the first "
            f"one is {outside[0][0]}"
        )
    return inside


def walked(paths: Path | Sequence[Path], *, outside: bool = True) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Image files of folders and what was left out, as :func:`mipp.io.walk.walk_images`; says what was left out."""
    from ..io.walk import walk_images

    others: list[Path] = []
    files, left_out = walk_images(paths, outside=outside, others=others)
    for path, reason in left_out:
        warn(f"left out {path}: {reason}")
    warn_of_others(others)
    return files, left_out


def warn_of_others(others: Sequence[Path]) -> None:
    """Say how many files of folders are no images, and name some."""
    if others:
        named = ", ".join(path.name for path in others[:3]) + (", ..." if len(others) > 3 else "")
        warn(f"{len(others)} other file{'s' * (len(others) > 1)} left out, no images: {named}")


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Deployment | ConnectedDeployment]:
    """A deployment of either kind, embedded or over a network."""
    kind = Deployment.connect if is_connected(folder) else Deployment.open
    with kind(folder) as deployment:
        for note in deployment.notes:
            warn(note)
        yield deployment


@contextlib.contextmanager
def opened_embedded(folder: Path, what: str) -> Iterator[Deployment]:
    """An embedded deployment; of another kind, DeploymentError that says what its operators do instead."""
    if is_connected(folder):
        raise DeploymentError(f"{folder} is connected to servers over a network; each operator runs: {what}")
    with opened(folder) as deployment:
        assert isinstance(deployment, Deployment)
        yield deployment


@contextlib.contextmanager
def signals(act: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """``act`` answers Ctrl-C and SIGTERM while the block runs; what answered them before does so again after it."""
    before = {number: signal.signal(number, act) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


def with_passphrase(load: Callable[[str | None], Any]) -> Any:
    """Call ``load`` without a passphrase, then with a file's, the environment's or one asked for."""
    try:
        loaded = load(None)
        if passphrase_file() is not None:
            warn("the key file has no passphrase")
        return loaded
    except KeyFileError as error:
        if "needs its passphrase" not in str(error):
            raise
    given = given_passphrase()
    return load(asked("Passphrase", PASSPHRASE_VARIABLE, "--passphrase-file") if given is None else given)


def new_passphrase(wanted: bool) -> str | None:
    """A passphrase for a new key file, if it is ``wanted`` or a file with it is named; from there, the environment, or
    asked for twice."""
    if not wanted and passphrase_file() is None:
        return None
    given = given_passphrase()
    return asked("Passphrase", PASSPHRASE_VARIABLE, "--passphrase-file", twice=True) if given is None else given


def unprotected(passphrase: str | None, what: str) -> list[str]:
    """Warning for a person who made a key file without a passphrase."""
    return (
        [] if passphrase else [f"no passphrase: whoever reads this file has {what} (mode 0600; --passphrase seals it)"]
    )


def own_text(file: str, text: str) -> str:
    """The fault of a file, without the file's name in front: the line that says it begins with that."""
    for name in (file, Path(file).name):
        text = text.removeprefix(f"{name}: ")
    return text


@contextlib.contextmanager
def collected_warnings() -> Iterator[None]:
    """Keep warnings of libraries off the terminal; one line at the end says which there were.

    Their texts are left out: those of parsers can hold content of files. ``python -W`` and ``PYTHONWARNINGS`` show all.
    """
    if sys.warnoptions:
        yield
        return
    kinds: dict[str, int] = {}

    def collect(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        of_numba = category.__module__.split(".")[0] == "numba"
        if not of_numba and not issubclass(category, _FOR_DEVELOPERS) and category.__name__ not in _SAID_OTHERWISE:
            kinds[category.__name__] = kinds.get(category.__name__, 0) + 1

    quiet = logging.NullHandler()  # without any handler the root logger prints
    logging.getLogger().addHandler(quiet)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = collect
            yield
    finally:
        logging.getLogger().removeHandler(quiet)
        if kinds:
            said = ", ".join(f"{count} x {name}" if count > 1 else name for name, count in sorted(kinds.items()))
            click.echo(f"mipp: a library warned ({said}); PYTHONWARNINGS=default shows the texts", err=True)


def show(data: Mapping[str, Any], as_json: bool, lines: Callable[[], list[str]]) -> None:
    """Print ``data`` as JSON, or the lines for a person."""
    if as_json:
        click.echo(json.dumps(data))
    else:
        for line in lines():
            click.echo(printable(line))


@contextlib.contextmanager
def progress(label: str, total: int, quiet: bool, row_bytes: float = 0) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; nothing when that is no terminal, or ``quiet``.

    With ``row_bytes``, the bytes of one of ``total`` rows, it shows rows and MiB a second.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} rows/s, {speed * row_bytes / (1 << 20):,.1f} MiB/s")

    columns = [*Progress.get_default_columns(), *([Rate()] if row_bytes else [])]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.update(task, advance=n)
