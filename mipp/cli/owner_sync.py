"""``mipp owner sync``: an owner's images follow a folder, once or for as long as the command runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click

from ..client.syncing import FolderFollower
from ..errors import BusyError, NotFoundError, StaleSnapshotError, StoreError, UnreachableError
from .common import deployment_option, json_option, opened, progress, signals, warn_of_others
from .outputs import warn
from .owner import load_owner, owner_group
from .owner_images import show_added
from .passphrases import passphrase_option

#: failures that may pass: a watch tries again
_PASSING = (BusyError, NotFoundError, StaleSnapshotError, StoreError, UnreachableError)
#: longest wait between two tries, in seconds
_LONGEST = 300.0


@owner_group.command("sync")
@click.argument("name")
@click.argument("source", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C: look again and again.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: time between two looks.",
)
@click.option(
    "--settle",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="A file that changed within this time is looked at twice, and left for the next pass if it still changes.",
)
@click.option("--allow-empty", is_flag=True, help="Delete all images of FOLDER if none of their files is there.")
@click.option("--preview-size", type=click.IntRange(0), help="Most bytes of a thumbnail; default as much as fits.")
@click.option("--follow-links", is_flag=True, help="Also add what links in FOLDER name outside of it.")
@click.option("--workers", type=click.IntRange(1), help="Threads that decode and extract; default all cores.")
@passphrase_option
@deployment_option
@json_option
def sync_command(
    name: str, source: Path, watch: bool, interval: float, settle: float, allow_empty: bool, preview_size: int | None,
    follow_links: bool, workers: int | None, folder: Path, as_json: bool,
) -> None:  # fmt: skip
    """Make this owner's images follow FOLDER: add new files, replace changed ones, delete those that are gone.

    Only images whose files were inside FOLDER are deleted, and never content that another file holds; a file that was
    moved inside FOLDER keeps its image. A FOLDER that is missing is refused. So is one in which none of the files is
    that the index has of it, unless they were only moved: it may be a disk that is not mounted, or another one. Call it
    again after an interruption. Exit code 1 if a file was left out. With --watch it looks again every --interval
    seconds, deletes what is missing twice, and tries again when servers fail.
    """
    with opened(folder) as deployment:
        follower = FolderFollower(
            load_owner(deployment, name), source, allow_empty=allow_empty, settle=settle, twice=watch,
            follow_links=follow_links, preview_size=preview_size, workers=workers,
        )  # fmt: skip
        if watch:
            with _ended_by_signals():
                _watch(follower, interval, as_json)
        elif _pass(follower, as_json, always=True):
            raise click.exceptions.Exit(1)


def _pass(follower: FolderFollower, as_json: bool, *, always: bool) -> bool:
    """One pass, said if something changed or ``always``; whether a file was left out."""
    look = follower.look()
    with progress("sync", len(look.ready), as_json) as advance:
        done = follower.step(look, advance)
    if not always and not done.changed:
        return False
    if always:
        warn_of_others(look.others)
    waiting = [str(path) for path in look.waiting]
    more: dict[str, Any] = {"deleted": done.deleted, "kept": done.kept, "waiting": waiting}
    words = f", {done.deleted} deleted"
    words += f", {done.kept} kept, as other files have the same content" if done.kept else ""
    words += f", {len(waiting)} still being written" if waiting else ""
    return show_added(done.report, look.left_out if always else [], look.others, as_json, more, words)


def _watch(follower: FolderFollower, interval: float, as_json: bool) -> None:
    """Pass after pass, until it is interrupted."""
    failures, first = 0, True
    while True:
        wait = interval
        try:
            _pass(follower, as_json, always=first)
            failures, first = 0, False
        except _PASSING as error:
            failures += 1
            wait = max(interval, min(interval * 2 ** min(failures, 30), _LONGEST))
            warn(f"{error}; trying again in {wait:.0f} s")
        time.sleep(wait)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the work inside, without a failure: what was begun, the next call goes on with."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        with signals(stop):
            yield
    except KeyboardInterrupt:
        warn("stopped; the next mipp owner sync goes on from here")
