"""``mipp user``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..client.choosing import owner_id
from ..client.user import User
from ..rpc.grants import time_text
from .common import (
    deployment_option,
    invitation_option,
    json_option,
    key_bits_option,
    new_passphrase,
    opened,
    show,
    unprotected,
    warn_of_key_bits,
    with_passphrase,
)  # fmt: skip
from .outputs import warn
from .owner import change_passphrase
from .passphrases import change_options, passphrase_option
from .tables import print_csv, print_table


@click.group("user")
def user_group() -> None:
    """A user's commands."""


@user_group.command("create")
@click.argument("name")
@click.option("--passphrase", is_flag=True, help="Protect the key file; asks, or takes MIPP_PASSPHRASE.")
@passphrase_option
@key_bits_option
@invitation_option
@deployment_option
@json_option
def create_command(
    name: str, passphrase: bool, key_bits: str, invitation: str | None, folder: Path, as_json: bool
) -> None:
    """Make a user with keys of its own; owners then grant to it."""
    with opened(folder) as deployment:
        warn_of_key_bits(deployment.config.params.scheme)
        given = new_passphrase(passphrase)
        user = deployment.create_user(name, given, key_bits=int(key_bits), invitation=invitation)
        path = folder / "users" / f"{user.name}.key"
        show(
            {"name": name, "id": user.id.hex(), "key_file": str(path)},
            as_json,
            lambda: [f"user {name}: {path}", *unprotected(given, "all that owners grant this user")],
        )


@user_group.command("passphrase")
@click.argument("name")
@change_options
@deployment_option
@json_option
def passphrase_command(name: str, remove: bool, folder: Path, as_json: bool) -> None:
    """Change, set or --remove the passphrase of this user's key file; the keys stay the same."""
    change_passphrase(folder, "user", name, remove, as_json)


@user_group.command("block")
@click.argument("user")
@click.argument("owners", nargs=-1, required=True, metavar="OWNER...")
@deployment_option
@json_option
def block_command(user: str, owners: tuple[str, ...], folder: Path, as_json: bool) -> None:
    """Never search what OWNER (a name or an id) holds, whatever it grants USER."""
    _change_blocked(user, owners, folder, as_json, True)


@user_group.command("unblock")
@click.argument("user")
@click.argument("owners", nargs=-1, required=True, metavar="OWNER...")
@deployment_option
@json_option
def unblock_command(user: str, owners: tuple[str, ...], folder: Path, as_json: bool) -> None:
    """Search what OWNER (a name or an id) holds again."""
    _change_blocked(user, owners, folder, as_json, False)


@user_group.command("blocked")
@click.argument("user")
@deployment_option
@json_option
def blocked_command(user: str, folder: Path, as_json: bool) -> None:
    """List the owners that USER blocks."""
    _change_blocked(user, (), folder, as_json, True)


def _change_blocked(user: str, owners: tuple[str, ...], folder: Path, as_json: bool, block: bool) -> None:
    with opened(folder) as deployment:
        names: dict[bytes, str] = with_passphrase(lambda passphrase: deployment.owner_names(user, passphrase))
        blocked = deployment.change_blocked(user, [owner_id(o, names) for o in owners], block=block)
    listed = [{"id": i.hex(), "owner": names.get(i, i.hex())} for i in sorted(blocked)]
    show(
        {"user": user, "blocked": listed},
        as_json,
        lambda: [f"blocked: {b['owner']} {b['id']}" for b in listed] or [f"{user} blocks no owner"],
    )


_GRANT_COLUMNS = (
    "owner", "state", "rows", "rankings", "max_k", "scores", "quota", "left", "min_rows", "expiry", "blocked", "id",
    "problem",
)  # fmt: skip


@user_group.command("grants")
@click.argument("user")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@passphrase_option
@deployment_option
@json_option
def grants_command(user: str, as_csv: bool, folder: Path, as_json: bool) -> None:
    """List what USER may search: each owner's newest grant, with its limits and what is left of its quota.

    Revoked and expired grants are listed, too. Asking counts against no quota; the servers learn that USER asked.
    """
    if as_csv and as_json:
        raise click.UsageError("give either --csv or --json")
    with opened(folder) as deployment:
        seeker: User = with_passphrase(lambda passphrase: deployment.user(user, passphrase))
        grants, suspended = seeker.grants(), seeker.suspended_grants
    rows = [
        [
            g.owner_name, g.state, g.rows, " ".join(g.rankings), g.max_k or None, g.scores,
            g.quota or None, g.left, g.min_rows or None, time_text(g.expiry) if g.expiry else None, g.blocked,
            g.owner.hex(), g.problem,
        ]
        for g in grants
    ]  # fmt: skip
    if as_json:
        listed = [
            {"owner": g.owner_name, "id": g.owner.hex()}
            | {name: value for name, value in dataclasses.asdict(g).items() if name not in ("owner", "owner_name")}
            for g in grants
        ]
        click.echo(json.dumps({"user": user, "grants": listed, "suspended": suspended}))
    elif as_csv:
        print_csv(_GRANT_COLUMNS, rows)
    else:
        _print_grants(user, rows)
    if suspended:
        warn(f"{suspended} more grants are suspended since all servers were restored from backups: owners grant again")


def _print_grants(user: str, rows: Sequence[Sequence[Any]]) -> None:
    """A table in words, without the columns that are empty throughout."""
    unlimited = {"max_k": "any", "quota": "any", "expiry": "never"}

    def word(name: str, value: Any, state: str) -> Any:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return unlimited.get(name) if value is None and state != "revoked" else value

    words = [[word(name, v, row[1]) for name, v in zip(_GRANT_COLUMNS, row, strict=True)] for row in rows]
    kept = [
        n for n, name in enumerate(_GRANT_COLUMNS)
        if name not in ("min_rows", "problem", "blocked") or any(row[n] for row in rows)
    ]  # fmt: skip
    if not rows:
        click.echo(f"no owner has granted {user} anything")
    print_table([_GRANT_COLUMNS[n].replace("_", " ") for n in kept], [[row[n] for n in kept] for row in words])
