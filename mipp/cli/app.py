"""``mipp app``: the page in the browser."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from urllib.request import pathname2url

import click

from .common import deployment_option, opened, signals

#: a page on disk that leads to the link: a link on a browser's command line could be read by others of this machine
_LEAD = '<!doctype html><meta http-equiv="refresh" content="0;url={link}"><a href="{link}">Open mipp</a>\n'


@click.command("app")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of this machine; default, and safest: a free one."
)
@click.option("--no-browser", is_flag=True, help="Print the link, and open no browser.")
@click.option(
    "--idle-minutes",
    type=click.FloatRange(1, 100_000),
    default=30.0,
    show_default=True,
    help="End after so many minutes in which no page asked anything.",
)
@deployment_option
def app_command(port: int, no_browser: bool, idle_minutes: float, folder: Path) -> None:
    """Open a page in the browser: search, compare and fetch images; add images, annotate, grant, audit.

    It is served on this machine alone, to whoever opens the link that is printed: each link opens one page, once. Enter
    prints another one. Owners and users are those with key files in the deployment's folder. Ctrl-C, the page's Close
    button, or no open page for some time end it, and everything that was found is forgotten.
    """
    from ..app import AppServer

    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    with opened(folder) as deployment, signals(stop):
        page = AppServer(deployment, port=port, idle_minutes=idle_minutes)
        page.start()
        try:
            click.echo(f"open this link, once: {page.link()}")
            with contextlib.ExitStack() as stack:
                if not no_browser:
                    stack.enter_context(_browser(page.link()))
                while not stopping.is_set() and not page.wait(0.25):
                    if _entered():
                        click.echo(f"another link, once: {page.link()}")
        finally:
            page.stop()
    click.echo("closed")


@contextlib.contextmanager
def _browser(link: str) -> Iterator[None]:
    """Open a person's browser at a link, through a file that only this person can read."""
    import webbrowser

    with tempfile.TemporaryDirectory(prefix="mipp-app-") as folder:  # mode 0700
        path = Path(folder) / "open.html"
        path.write_text(_LEAD.format(link=link))
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(f"file://{pathname2url(os.fspath(path))}")
        yield


def _entered() -> bool:
    """Whether a person pressed Enter at the terminal."""
    try:
        if not sys.stdin.isatty() or not select.select([sys.stdin], [], [], 0)[0]:
            return False
        return bool(sys.stdin.readline())
    except (OSError, ValueError):
        return False
