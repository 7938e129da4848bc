"""``mipp owner``."""

from __future__ import annotations

from pathlib import Path

import click

from ..client.auditing import CloudAudit
from ..client.owner import ImageOwner
from ..client.reading import way_out
from ..deployment import ConnectedDeployment, Deployment
from .common import (
    deployment_option,
    invitation_option,
    json_option,
    new_passphrase,
    opened,
    show,
    unprotected,
    with_passphrase,
)  # fmt: skip
from .outputs import warn
from .passphrases import change_options, changed_passphrases, passphrase_option


@click.group("owner")
def owner_group() -> None:
    """An image owner's commands."""


def load_owner(deployment: Deployment | ConnectedDeployment, name: str) -> ImageOwner:
    def waiting() -> None:
        warn(f"another process is adding images of owner {name}; waiting until it is done")

    told = len(deployment.notes)
    owner: ImageOwner = with_passphrase(lambda passphrase: deployment.owner(name, passphrase, waiting=waiting))
    for note in deployment.notes[told:]:
        warn(note)
    return owner


@owner_group.command("create")
@click.argument("name")
@click.option("--passphrase", is_flag=True, help="Protect the key file; asks, or takes MIPP_PASSPHRASE.")
@passphrase_option
@invitation_option
@deployment_option
@json_option
def create_command(name: str, passphrase: bool, invitation: str | None, folder: Path, as_json: bool) -> None:
    """Make an owner with keys of its own."""
    with opened(folder) as deployment:
        given = new_passphrase(passphrase)
        owner = deployment.create_owner(name, given, invitation=invitation)
        path = folder / "owners" / f"{owner.name}.key"
        show(
            {"name": name, "id": owner.id.hex(), "key_file": str(path)},
            as_json,
            lambda: [
                f"owner {name}: {path}",
                *unprotected(
                    given, "all images and features of this owner, and with the journal the paths of its files"
                ),
            ],
        )


@owner_group.command("reseal")
@click.argument("name")
@passphrase_option
@deployment_option
@json_option
def reseal_command(name: str, folder: Path, as_json: bool) -> None:
    """Seal this owner's secrets to the servers' newest keys: for a server that lost its earlier ones, or a new cloud.

    The keys of the owner, its rows and its grants stay the same. A cloud that joined stores the owner's rows from then
    on: the other servers hand it their parts, from which it makes its shares.
    """
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        deployment.reseal(owner)
        epochs = {server: keys.epoch for server, keys in sorted(owner.key_set().servers.items())}
        show(
            {"name": name, "id": owner.id.hex(), "key_epochs": epochs},
            as_json,
            lambda: [
                f"the secrets of owner {name} are sealed to the servers' newest keys (epochs "
                f"{', '.join(map(str, epochs.values()))})"
            ],
        )


@owner_group.command("passphrase")
@click.argument("name")
@change_options
@deployment_option
@json_option
def passphrase_command(name: str, remove: bool, folder: Path, as_json: bool) -> None:
    """Change, set or --remove the passphrase of this owner's key file; the keys stay the same."""
    change_passphrase(folder, "owner", name, remove, as_json)


def change_passphrase(folder: Path, kind: str, name: str, remove: bool, as_json: bool) -> None:
    """The same for owners and users."""
    with opened(folder) as deployment:
        before = deployment.has_passphrase(kind, name)
        old, new = changed_passphrases(before, remove)
        if before or new is not None:
            deployment.change_passphrase(kind, name, old, new)
    what = (
        "has no passphrase" if not before and remove else "changed" if before and new else "set" if new else "removed"
    )
    data = {kind: name, "passphrase": new is not None}
    show(data, as_json, lambda: [f"{kind} {name}: {what if what.startswith('has') else f'passphrase {what}'}"])


@owner_group.command("compact")
@click.argument("name")
@click.option(
    "--merge-below", type=click.IntRange(0),
    help="Merge batches with fewer rows; default 65,536, or what a batch with clusters needs, if that is more.",
)  # fmt: skip
@passphrase_option
@deployment_option
@json_option
def compact_command(name: str, merge_below: int | None, folder: Path, as_json: bool) -> None:
    """Merge small batches under fresh keystream, and free what was deleted. Ids go on naming their images.

    A batch with live rows that no cloud can read stays as it is. Everything else is done; then an error names it, and
    the exit code is 1.
    """
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        gone = owner.compact(merge_below=merge_below)
        left = len(owner.batches())
    show({"owner": name, "merged": gone, "batches": left}, as_json, lambda: [f"{gone} batches went, {left} are left"])


def _part(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """A part of a whole: ``1%`` or ``0.01``."""
    text = value.strip()
    try:
        part = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        part = 0.0
    if not 0 < part <= 1:
        raise click.BadParameter(f"{value!r} is no part, such as 1% or 0.01")
    return part


@owner_group.command("audit")
@click.argument("name")
@click.option(
    "--sample", callback=_part, default="100%", show_default=True, metavar="PART", help="Part of the rows to check: 1%."
)
@click.option(
    "--renew",
    is_flag=True,
    help="First make the tags that this folder lacks, from what the clouds hold: batches are "
    "downloaded, and the clouds compared with each other.",
)
@passphrase_option
@deployment_option
@json_option
def audit_command(name: str, sample: float, renew: bool, folder: Path, as_json: bool) -> None:
    """Have every cloud prove that it still holds this owner's rows as they were uploaded.

    A few words travel, no rows. The folder's tags, made at upload, say what is right. Exit code 1 if a cloud differs,
    has lost rows or cannot be audited, if the folder has no tags of a batch, or if nothing was checked. A passed audit
    does not say that a cloud answers searches honestly, nor anything about image files.
    """
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        renewed = owner.renew_tags() if renew else []
        report = owner.audit(sample)
    clouds = [
        {
            "server": c.server, "ok": c.ok, "rows": c.rows, "batches": c.batches,
            "differing": [b.hex() for b in c.differing], "lost": [b.hex() for b in c.lost],
            "not_audited": {b.hex(): why for b, why in c.not_audited.items()}, "problem": c.problem,
        }
        for c in report.clouds
    ]  # fmt: skip
    data = {
        "owner": name, "ok": report.ok, "sample": report.sample, "live": report.live,
        "renewed": [b.hex() for b in renewed], "clouds": clouds,
    }  # fmt: skip
    made = [f"tags of {len(renewed)} batches were made"] if renew else []
    # what one cloud still has is rebuilt from there
    lost = set.intersection(*(set(c.lost) for c in report.clouds)) if report.clouds else set()
    advice = [f"no cloud can read {len(lost)} of the batches any more: {way_out(name)}"] if lost else []
    show(data, as_json, lambda: [*made, *(line for c in report.clouds for line in _audit_lines(c)), *advice])
    if not report.ok:
        raise click.exceptions.Exit(1)


def _audit_lines(cloud: CloudAudit) -> list[str]:
    """What an audit found out about one cloud."""
    lines = [f"cloud {cloud.server}: batch {b.hex()} DIFFERS from what was uploaded" for b in cloud.differing]
    lines += [f"cloud {cloud.server}: batch {b.hex()} is damaged or missing there" for b in cloud.lost]
    lines += [f"cloud {cloud.server}: batch {b.hex()} was not audited: {why}" for b, why in cloud.not_audited.items()]
    if cloud.problem:
        lines.append(f"cloud {cloud.server}: {cloud.problem}")
    checked = f"{cloud.rows:,} rows of {cloud.batches} batches are as they were uploaded"
    return [*lines, f"cloud {cloud.server}: {checked if cloud.rows else 'nothing was checked'}"]


@owner_group.command("forget")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@passphrase_option
@deployment_option
@json_option
def forget_command(name: str, yes: bool, folder: Path, as_json: bool) -> None:
    """Delete this owner's keys, shares and image files on all servers, for good."""
    if not yes:
        click.confirm(f"Forget owner {name} and all its images?", abort=True, err=True)
    with opened(folder) as deployment:
        load_owner(deployment, name).forget()
    text = [
        f"owner {name} is forgotten; its queries stopped",
        "the features are gone for good once the keys, their backups and this owner's key file are destroyed "
        "and at most one cloud's copy of the share files survives",
    ]
    show({"owner": name, "forgotten": True}, as_json, lambda: text)
