"""``mipp server backup``, ``restore``, ``replace`` and ``repair``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..deployment.backups import back_up_server, replace_server, restore_server
from ..rpc import peer_messages as pm
from .common import json_option, show, signals
from .running import asked, server_group
from .server import folder_argument

__all__ = ["server_group"]

_FOLDER = click.Path(path_type=Path, file_okay=False)
_THERE = click.Path(path_type=Path, file_okay=False, exists=True)


@server_group.command("backup")
@folder_argument
@click.option("--to", "target", type=_FOLDER, required=True, help="New folder for the copy.")
@click.option("--keys-only", is_flag=True, help="Copy what mipp server replace needs: keys and description, no store.")
@json_option
def backup_command(folder: Path, target: Path, keys_only: bool, as_json: bool) -> None:
    """Copy the server in FOLDER, as of one moment, while it runs or not.

    The copy holds the server's secret keys: keep it as safe as the server. Files are linked where the new folder is on
    the same disk; copy it to another one to survive the disk.
    """
    with signals(lambda *_: sys.exit(1)):  # what was begun is removed
        files, missing = back_up_server(folder, target, keys_only=keys_only)
    show({"folder": str(target), "files": files, "missing": missing}, as_json, lambda: [
        *missing, f"{target}: " + ("keys and description" if keys_only else f"keys, catalog and {files} files"),
        "whoever reads it is this server (mode 0600)",
    ])  # fmt: skip


@server_group.command("restore")
@folder_argument
@click.option("--from", "backup", type=_THERE, required=True, help="Backup, or the folder of a stopped server.")
@json_option
def restore_command(folder: Path, backup: Path, as_json: bool) -> None:
    """Make a server's new FOLDER from a backup; when it runs, it takes over from the others what happened since.

    The server that was backed up must not run any more, on any machine.
    """
    problems = restore_server(backup, folder)
    show({"folder": str(folder), "problems": problems}, as_json, lambda: [
        *problems, f"{folder} is as the backup; start it with: mipp server run {folder}",
        *([f"then have those files rebuilt: mipp server repair {folder}"] if problems else []),
    ])  # fmt: skip


@server_group.command("replace")
@folder_argument
@click.option("--keys", type=_THERE, required=True, help="Backup with the lost server's keys, or its old folder.")
@json_option
def replace_command(folder: Path, keys: Path, as_json: bool) -> None:
    """Make a new FOLDER for a server whose store is lost, with its old keys and an empty store.

    When it runs it takes over everything from the others, all of which must be there; a cloud has its files rebuilt
    by them. The lost server must not run any more, on any machine.
    """
    index = replace_server(keys, folder)
    show({"folder": str(folder), "server": index}, as_json, lambda: [
        f"{folder} is server {index} with an empty store; start it with: mipp server run {folder}",
    ])  # fmt: skip


@server_group.command("repair")
@folder_argument
@json_option
def repair_command(folder: Path, as_json: bool) -> None:
    """Have the server that runs in FOLDER read all its files, and rebuild those that are lost with the other servers.

    A running server does so by itself with files that it misses; this finds damaged ones that nothing used yet.
    """
    told: pm.RepairReport = asked(folder, pm.RepairRequest())
    show({"files": told.files, "problems": told.problems}, as_json, lambda: [
        *told.problems, f"files that were rebuilt: {told.files}; that were not: {len(told.problems)}",
    ])  # fmt: skip
    if told.problems:
        sys.exit(1)
