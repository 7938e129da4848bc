"""``mipp owner``: grants, given, taken back and listed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ..client.given import expiry_seconds, user_id
from ..client.granting import GrantInfo
from ..client.owner import ImageOwner
from ..errors import NotFoundError
from ..rpc.grants import time_text
from .common import deployment_option, json_option, opened, show
from .owner import load_owner, owner_group
from .passphrases import passphrase_option
from .tables import print_csv, print_table


@owner_group.command("grant")
@click.argument("name")
@click.argument("user")
@click.option(
    "--expiry",
    default="0",
    show_default=True,
    metavar="TIME",
    help='Unix seconds, a date ("2030-01-31", "2030-01-31T12:00+01:00"; UTC without an offset), or a span from now '
    '("12h", "30d", "2w"). 0: never.',
)
@click.option(
    "--ranking",
    "rankings",
    type=click.Choice(["server", "probe", "user", "threshold"]),
    multiple=True,
    help="Allowed ranking; may be repeated. server (default): the servers find the nearest and USER learns these only. "
    "probe: in an index with clusters, searches with --probe; by many of them USER gets far more rows for one example "
    "than --max-k. user (default with one cloud): USER gets ALL exact scores, and can solve for the features "
    "with a few dozen queries. threshold: USER learns which images reach a score that it chooses; repeated, it tells "
    "scores.",
)
@click.option(
    "--max-k", type=click.IntRange(0), default=0, help="Largest k; 0: any. Not with --ranking user or threshold."
)
@click.option(
    "--scores/--no-scores",
    default=True,
    help="Whether ranking by the servers gives scores; --no-scores not with --ranking user or threshold.",
)
@click.option("--quota", type=click.IntRange(0), default=0, help="Number of queries; 0: any.")
@click.option(
    "--min-rows",
    type=click.IntRange(0),
    default=0,
    help="Fewest rows of this owner that a query must cover; with --probe, whatever clusters it chooses.",
)
@passphrase_option
@deployment_option
@json_option
def grant_command(
    name: str, user: str, folder: Path, as_json: bool, rankings: tuple[str, ...], expiry: str, **limits: Any
) -> None:
    """Let USER search and fetch this owner's images. Replaces an earlier grant, with its quota and limits."""
    until = expiry_seconds(expiry)
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        granted = user_id(user, owner.find_user)
        owner.grant(granted, rankings=rankings or None, expiry=until, **limits)
        grant = next(g for g in owner.grants() if g.user == granted)
    ends = f" until {time_text(until)}" if until else ""
    bounds = {"quota": grant.quota, "largest k": grant.max_k, "least rows": grant.min_rows}
    given = [f"ranking: {', '.join(grant.rankings)}", *(f"{text} {value}" for text, value in bounds.items() if value)]
    given += [] if grant.scores else ["no scores"]
    show(
        {"owner": name, "user": user, "granted": True, "expiry": until, "rankings": list(grant.rankings)},
        as_json,
        lambda: [f"{user} may search the images of {name}{ends}; {', '.join(given)}"],
    )


@owner_group.command("revoke")
@click.argument("name")
@click.argument("user")
@passphrase_option
@deployment_option
@json_option
def revoke_command(name: str, user: str, folder: Path, as_json: bool) -> None:
    """Take USER's grant back, from its next query on."""
    with opened(folder) as deployment:
        load_owner(deployment, name).revoke(user)
    show(
        {"owner": name, "user": user, "granted": False},
        as_json,
        lambda: [f"{user} may no longer search the images of {name}"],
    )


@owner_group.command("grants")
@click.argument("name")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@passphrase_option
@deployment_option
@json_option
def grants_command(name: str, as_csv: bool, folder: Path, as_json: bool) -> None:
    """List this owner's grants: to whom, what they allow, until when, and whether they were revoked.

    Users are named whose key files are here; others are shown by id.
    """
    if as_json and as_csv:
        raise click.UsageError("give either --json or --csv")
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        names = _names(owner, deployment.users())
        found = owner.grants()
    data = [
        {
            "user": names.get(g.user), "id": g.user.hex(), "state": _state(g), "expiry": g.expiry,
            "rankings": list(g.rankings), "quota": g.quota, "used": g.used, "max_k": g.max_k, "min_rows": g.min_rows,
            "scores": g.scores, "revoked": g.revoked, "version": g.version,
        }
        for g in found
    ]  # fmt: skip
    columns = ["user", "id", "state", "until", "rankings", "quota", "used", "max k", "min rows", "scores"]
    rows = [
        [
            names.get(g.user), g.user.hex(), _state(g), time_text(g.expiry) if g.expiry else "",
            ", ".join(g.rankings), g.quota or None, g.used, g.max_k or None, g.min_rows or None,
            None if g.revoked else "yes" if g.scores else "no",
        ]
        for g in found
    ]  # fmt: skip
    if as_csv:
        print_csv(columns, rows)
    elif as_json:
        show({"owner": name, "grants": data}, True, list)
    elif rows:
        print_table(columns, rows)
    else:
        click.echo(f"owner {name} grants nobody anything")


def _state(grant: GrantInfo) -> str:
    if grant.revoked:
        return "revoked"
    return "expired" if grant.expiry and grant.expiry <= time.time() else "valid"


def _names(owner: ImageOwner, users: list[str]) -> dict[bytes, str]:
    """Names of users by id, of those whose key files are in this folder."""
    found = {}
    for name in users:
        try:
            found[user_id(name, owner.find_user)] = name
        except NotFoundError:  # a key file that the servers do not know
            continue
    return found
