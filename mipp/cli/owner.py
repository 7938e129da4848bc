"""``mipp owner``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..client.auditing import CloudAudit
from ..client.given import expiry_seconds, user_id
from ..client.image_ids import image_rows
from ..client.owner import ImageOwner
from ..deployment import ConnectedDeployment, Deployment
from ..errors import ParameterError
from ..io.files import replace_whole
from ..rpc.grants import time_text
from .common import (
    deployment_option,
    invitation_option,
    json_option,
    new_passphrase,
    opened,
    own_text,
    progress,
    show,
    unprotected,
    warn_of_others,
    with_passphrase,
)  # fmt: skip
from .outputs import RegularFile, printable, warn
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


def _checking(done: int, total: int) -> None:
    click.echo(f"mipp: the servers have checked {done:,} of {total:,} rows", err=True)


@owner_group.command("add")
@click.argument("name")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--vectors", type=RegularFile(), help=".npy, .fvecs or .bvecs file.")
@click.option(
    "--metadata",
    type=RegularFile(),
    help=".csv or .jsonl with a column or field path, the file inside what is added; with --vectors a line a row.",
)
@click.option("--preview-size", type=click.IntRange(0), help="Most bytes of a thumbnail; default as much as fits.")
@click.option("--follow-links", is_flag=True, help="Also add what links in folders name outside of these folders.")
@click.option("--workers", type=click.IntRange(1), help="Threads that decode and extract; default all cores.")
@passphrase_option
@deployment_option
@json_option
def add_command(
    name: str,
    images: tuple[Path, ...],
    vectors: Path | None,
    metadata: Path | None,
    preview_size: int | None,
    follow_links: bool,
    workers: int | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Extract, encode, encrypt and upload IMAGES (files or folders) or a file of vectors.

    Call it again to resume: content that is there already is skipped, also under another name. The rows of a file
    that was changed are replaced. Links that lead out of a folder are left out (--follow-links adds them). Exit code 1
    if a file was left out.
    """
    from ..client.ingest import add_images, add_vectors, names_inside
    from ..io.metadata import read_metadata, read_rows
    from ..io.vectors import load_vectors
    from ..io.walk import walk_images

    if bool(images) == (vectors is not None):
        raise click.UsageError("give either IMAGES or --vectors FILE")
    left_out: list[tuple[Path, str]] = []
    others: list[Path] = []
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        owner.checking = None if as_json else _checking
        if vectors is not None:
            if deployment.config.descriptor:
                raise ParameterError(f"this index holds {deployment.config.descriptor} features of images; add images")
            data = load_vectors(vectors)
            fields = None if metadata is None else read_rows(metadata, len(data))
            with progress("add", len(data), as_json) as advance:
                report = add_vectors(owner, vectors, data, metadata=fields, progress=advance)
        else:
            paths, left_out = walk_images(images, outside=follow_links, others=others)
            warn_of_others(others)
            if not paths:
                raise ParameterError(
                    "; ".join(
                        [
                            f"no image files in {', '.join(map(str, images))}",
                            *(f"{path}: {text}" for path, text in left_out),
                        ]
                    )
                )
            names = names_inside(images, paths)
            told = {} if metadata is None else read_metadata(metadata)
            if unknown := sorted(told.keys() - set(names.values())):
                raise ParameterError(f"{metadata} names {unknown[0]}, which is not among the files that are added")
            of_path = {path: told[name] for path, name in names.items() if name in told}
            with progress("add", len(paths), as_json) as advance:
                report = add_images(
                    owner, paths, metadata=of_path, names=names, preview_size=preview_size, workers=workers,
                    progress=advance,
                )  # fmt: skip
            if there := len(of_path.keys() - {Path(file) for file, _ in [*report.added, *report.errors]}):
                warn(f"{there} files with metadata were there already, so it was not changed: see mipp owner annotate")
    ids = [{"file": file, "id": f"{batch.hex()}:{row}"} for file, (batch, row) in report.added]
    errors = [{"file": str(path), "error": text} for path, text in left_out]
    errors += [{"file": file, "error": own_text(file, text)} for file, text in report.errors]
    outcome = {
        "added": len(ids), "skipped": report.skipped, "replaced": report.replaced, "errors": errors, "ids": ids,
        "no_images": [str(path) for path in others],
    }  # fmt: skip
    show(outcome, as_json, lambda: [
        *(f"left out {e['file']}: {e['error']}" for e in errors),
        f"{len(ids)} added, {report.skipped} already there, {len(errors)} left out"
        + (f", {report.replaced} replaced" if report.replaced else ""),
    ])  # fmt: skip
    if errors:
        raise click.exceptions.Exit(1)


@owner_group.command("annotate")
@click.argument("name")
@click.argument("image", required=False)
@click.option("--set", "values", multiple=True, metavar="FIELD=TEXT", help="A field of IMAGE; may be repeated.")
@click.option(
    "--metadata", type=RegularFile(), help=".csv or .jsonl with a column or field id: images, and all their fields."
)
@passphrase_option
@deployment_option
@json_option
def annotate_command(
    name: str, image: str | None, values: tuple[str, ...], metadata: Path | None, folder: Path, as_json: bool
) -> None:
    """Replace the metadata of IMAGE (an id, see mipp owner images), or of the images that --metadata names.

    Fields of IMAGE that --set does not name stay as they are; a field without text is removed.
    """
    from ..io.metadata import read_metadata

    if (image is None) == (metadata is None) or bool(values) != (image is not None):
        raise click.UsageError("give IMAGE with --set, or --metadata FILE")
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        if image is not None:
            (record,) = owner.records([image])
            fields = dict((record.metadata if record is not None else None) or {})
            for value in values:
                field, equals, text = value.partition("=")
                if not equals or not field:
                    raise click.UsageError(f"--set takes FIELD=TEXT, not {value!r}")
                fields[field] = text
            told = {image: {field: text for field, text in fields.items() if text != ""}}
        else:
            told = read_metadata(metadata, key="id") if metadata is not None else {}
        count = owner.annotate(told)
    show({"annotated": count}, as_json, lambda: [f"{count} annotated"])


@owner_group.command("images")
@click.argument("name")
@passphrase_option
@deployment_option
@json_option
def images_command(name: str, folder: Path, as_json: bool) -> None:
    """List this owner's images: the id of each, and the file that it was last seen at."""
    with opened(folder) as deployment:
        found = load_owner(deployment, name).images()
    data = [{"id": image.id, "file": None if image.path is None else str(image.path)} for image in found]
    show({"images": data}, as_json, lambda: [f"{d['id']}  {printable(d['file'] or '')}".rstrip() for d in data])


@owner_group.command("records")
@click.argument("name")
@click.argument("images", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the thumbnails.")
@passphrase_option
@deployment_option
@json_option
def records_command(name: str, images: tuple[str, ...], out: Path | None, folder: Path, as_json: bool) -> None:
    """Show the records of IMAGES: path, metadata, size of the thumbnail."""
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        records = owner.records(list(images))
    shown = []
    for (batch, row), record in zip(image_rows(list(images)), records, strict=True):
        entry: dict[str, Any] = {"id": f"{batch.hex()}:{row}"}
        if record is not None:
            entry |= {"path": record.path, "metadata": record.metadata, "thumbnail_bytes": len(record.thumbnail)}
            if out is not None and record.thumbnail:
                out.mkdir(parents=True, exist_ok=True, mode=0o700)
                target = out / f"{batch.hex()}-{row}.webp"
                replace_whole(target, record.thumbnail, mode=0o600)
                entry["thumbnail"] = str(target)
        shown.append(entry)
    show({"records": shown}, as_json, lambda: [
        f"{e['id']}  {printable(e['path'])}  {printable(json.dumps(e['metadata'] or {}, ensure_ascii=False))}"
        if "path" in e else f"{e['id']}  (no record)" for e in shown
    ])  # fmt: skip


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
    type=click.Choice(["server", "user", "threshold"]),
    multiple=True,
    help="Allowed ranking; may be repeated. server (default): the servers find the nearest and USER learns these only. "
    "user (default in the Paillier scheme): USER gets ALL exact scores, and can solve for the features with a few "
    "dozen queries. threshold: USER learns which images reach a score that it chooses; repeated, it tells scores.",
)
@click.option("--max-k", type=click.IntRange(0), default=0, help="Largest k; 0: any. Only with --ranking server alone.")
@click.option(
    "--scores/--no-scores",
    default=True,
    help="Whether ranking by the servers gives scores; --no-scores only with --ranking server alone.",
)
@click.option("--quota", type=click.IntRange(0), default=0, help="Number of queries; 0: any.")
@click.option(
    "--min-rows", type=click.IntRange(0), default=0, help="Fewest rows of this owner that a query must cover."
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


@owner_group.command("delete")
@click.argument("name")
@click.argument("ids", nargs=-1, required=True)
@passphrase_option
@deployment_option
@json_option
def delete_command(name: str, ids: tuple[str, ...], folder: Path, as_json: bool) -> None:
    """Delete images by id (batch:row, as search prints them)."""
    with opened(folder) as deployment:
        deleted = load_owner(deployment, name).delete(list(ids))
    before = len(set(image_rows(ids))) - deleted
    data = {"owner": name, "deleted": deleted, "already_gone": before}
    show(data, as_json, lambda: [f"{deleted} deleted" + (f", {before} already gone" if before else "")])


@owner_group.command("compact")
@click.argument("name")
@click.option(
    "--merge-below", type=click.IntRange(0), default=1 << 16, show_default=True, help="Merge batches with fewer rows."
)
@passphrase_option
@deployment_option
@json_option
def compact_command(name: str, merge_below: int, folder: Path, as_json: bool) -> None:
    """Merge small batches under fresh keystream, and free what was deleted. Ids in merged batches change."""
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
    show(data, as_json, lambda: [*made, *(line for c in report.clouds for line in _audit_lines(c))])
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
