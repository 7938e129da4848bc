"""``mipp warm-up``, and notices of the library about slow first uses and files left out."""

from __future__ import annotations

import logging
import time

import click

from .. import features
from ..features import DEFAULT
from .common import json_option, show

__all__ = ["show_notices", "warm_up_command"]

_NOTICES = ("mipp.features", "mipp.io")


class _Echo(logging.Handler):
    """One line on stderr for each record."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"mipp: {record.getMessage()}", err=True)


def show_notices() -> None:
    """Let what the library logs of features and files appear on stderr. Calling it again changes nothing."""
    for name in _NOTICES:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        if not any(isinstance(handler, _Echo) for handler in logger.handlers):
            logger.addHandler(_Echo())


@click.command("warm-up")
@click.option("--descriptor", default=DEFAULT, show_default=True, help="Features of images, parts joined by +.")
@json_option
def warm_up_command(descriptor: str, as_json: bool) -> None:
    """Compile the functions that extract DESCRIPTOR ahead of the first use, which else takes some seconds more."""
    start = time.perf_counter()
    compiled = features.warm_up(descriptor)
    seconds = time.perf_counter() - start
    show(
        {"descriptor": descriptor, "compiled": compiled, "seconds": seconds},
        as_json,
        lambda: [f"{descriptor}: {compiled} functions compiled, {seconds:.1f} s"],
    )
