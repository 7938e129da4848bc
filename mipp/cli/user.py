"""``mipp user`` and ``mipp search``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..client.choosing import owner_id
from ..client.results import FetchedImage, Hit, Hits, Preview
from ..client.user import DEFAULT_K, User
from ..deployment import ConnectedDeployment, Deployment
from ..errors import AccessDeniedError, ImageError, IntegrityError, ParameterError, VerificationError
from ..io.files import replace_whole
from ..rpc.limits import ORIGINAL_BLOCK
from ..schemes.base import SearchCost, seconds_on_lines
from .common import (
    deployment_option,
    invitation_option,
    json_option,
    key_bits_option,
    new_passphrase,
    opened,
    progress,
    show,
    unprotected,
    with_passphrase,
)  # fmt: skip
from .outputs import RegularFile, check_new_folder, check_output_file, printable, warn, write_table
from .owner import change_passphrase
from .passphrases import change_options, passphrase_option

_MISSING = np.full((64, 64, 3), 200, np.uint8)


#: seconds that a search waits for the check of rows that were uploaded before
_PATIENCE = 5.0
#: most images on a contact sheet
SHEET_HITS = 1000
#: hits of a range search whose names and captions are fetched
PREVIEWED = 50


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


@click.command("search")
@click.argument("user")
@click.argument("image", required=False, type=RegularFile())
@click.option("--vector", type=RegularFile(), help="File with one vector instead of an image.")
@click.option("-k", "--k", "k", type=click.IntRange(1), help="How many; default 10, or all there are if fewer.")
@click.option(
    "--fetch",
    type=click.Path(path_type=Path, file_okay=False),
    help="Decrypt the images found into this folder, new or empty; privately, unless --openly.",
)
@click.option(
    "--openly",
    is_flag=True,
    help="With --fetch, or --sheet where the deployment keeps no records: ask for images by name. That is faster, and "
    "the servers learn which images were found.",
)
@click.option("--no-preview", is_flag=True, help="Do not fetch names and captions of the images found.")
@click.option(
    "--csv", "table", type=click.Path(path_type=Path, dir_okay=False), help="Write the hits to this .csv file."
)
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a contact sheet; the suffix gives its format: .png, .jpg, .webp, .tif, .bmp.",
)
@click.option(
    "--ranking",
    type=click.Choice(["server", "user"]),
    help="server (default): the servers find the nearest and the user learns these only; user: the user gets all "
    "scores (all there is in the Paillier scheme).",
)
@click.option(
    "--threshold",
    type=float,
    help="Instead of the k nearest: all with at least this inner product or cosine, or at most this distance "
    "(squared for l2), without scores.",
)
@click.option(
    "--owner",
    "owners",
    multiple=True,
    metavar="NAME",
    help="Search this owner's images only (a name or an id); may be repeated.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Fail if rows must be left out: damaged or missing at servers, or servers differ on an owner. Default: go on.",
)
@click.option(
    "--no-verify",
    is_flag=True,
    help="With --ranking user: do not check that the servers answered as they must.",
)
@click.option("--explain-cost", is_flag=True, help="Print rounds and bytes of the search, and do not search.")
@click.option(
    "--line",
    type=(click.FloatRange(0, 60_000), click.FloatRange(0.001, 1000)),
    metavar="MS GBIT",
    help="With --explain-cost: what messages take if each machine has a line of this round trip and rate.",
)
@passphrase_option
@deployment_option
@json_option
def search_command(
    user: str,
    image: Path | None,
    vector: Path | None,
    k: int | None,
    fetch: Path | None,
    openly: bool,
    no_preview: bool,
    table: Path | None,
    sheet: Path | None,
    ranking: str | None,
    threshold: float | None,
    owners: tuple[str, ...],
    strict: bool,
    no_verify: bool,
    explain_cost: bool,
    line: tuple[float, float] | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Find the images nearest to IMAGE among those of all owners that granted USER."""
    if (image is not None and vector is not None) or (image is None and vector is None and not explain_cost):
        raise click.UsageError("give either IMAGE or --vector FILE")
    if threshold is not None and ranking == "user":
        raise click.UsageError("a threshold is for --ranking server; with all scores the user picks its own")
    if threshold is not None and k is not None:
        raise click.UsageError("give either -k or --threshold")
    if line is not None and not all(map(math.isfinite, line)):
        raise click.UsageError("--line takes milliseconds and gigabits a second, such as --line 20 1")
    if line is not None and not explain_cost:
        raise click.UsageError("--line goes with --explain-cost")
    if not explain_cost:
        _check_outputs(fetch, sheet, image, table)
    with opened(folder) as deployment:
        seeker: User = with_passphrase(lambda passphrase: deployment.user(user, passphrase))
        if explain_cost:
            kind = "threshold" if threshold is not None else ranking
            cost = seeker.cost(k, owners=owners or None, ranking=kind, verify=not no_verify)
            private = _private_cost(seeker, min(DEFAULT_K, cost["images"]) if k is None else k, kind, fetch is not None)
            taken = seconds_on_lines(cost, line[0] / 1e3, line[1] * 1e9) if line is not None else None
            told: dict[str, Any] = {**cost, **private} if taken is None else {**cost, **private, "line_seconds": taken}
            show(told, as_json, lambda: [*_cost_lines(cost, taken), *_private_lines(private)])
            return
        privately = seeker.fetches_privately
        if (fetch is not None or sheet is not None) and not openly and not privately:
            raise ParameterError(
                "nothing can be fetched privately in this deployment, which keeps no records or has one cloud; with "
                "--openly the servers learn which images were found"
            )
        query = _query(deployment, image, vector)
        deployment.wait_certified(_PATIENCE)  # rows that were uploaded before they were checked
        found: Hits | list[Hit]
        searched: int | None = None
        suspects: tuple[int, ...] = ()
        unverified = "answers to a threshold are not verified: see the threat model"
        if threshold is not None:
            found = matches = seeker.range_search(query, threshold, owners=owners or None, strict=strict)
            left_out, searched = matches.left_out, matches.searched
        else:
            result = seeker.search(
                query, k, owners=owners or None, ranking=ranking, strict=strict, verify=not no_verify
            )
            found, left_out, unverified = result.hits, result.left_out, result.unverified
            suspects = result.suspects
        hits: list[dict[str, Any]] = [
            {"id": h.id, "owner": h.owner_name, "score": h.score, "value": h.value} for h in found
        ]
        metric = deployment.config.encoding.metric
        # of a range search the first ones: how many are fetched shows how many were found
        shown = list(found) if threshold is None else list(found[:PREVIEWED])
        pad = PREVIEWED if threshold is not None else k or DEFAULT_K
        previews = _previewed(seeker, shown, pad) if privately and not no_preview else []
        for entry, preview in zip(hits, previews, strict=False):
            entry |= {"name": preview.path, "caption": preview.caption, "metadata": preview.metadata}
            if preview.error is not None:
                entry["preview_error"] = str(preview.error)
        wanted = list(found) if fetch is not None else list(found[:SHEET_HITS]) if sheet is not None and openly else []
        files: list[FetchedImage] = []
        if wanted and openly:
            files = seeker.fetch(wanted)
        elif wanted:
            files = _fetched_privately(seeker, wanted, as_json)
        if fetch is not None:
            _write_images(fetch, hits, files)
        if table is not None:
            write_table(table, hits)
        if sheet is not None and image is not None:
            pictures = [f.content if f.error is None else b"" for f in files] or [p.thumbnail for p in previews]
            _write_sheet(sheet, image, list(found), pictures, metric, deployment.config.window)
    missing = [
        {"owner": o.owner_name, "batch": o.batch.hex(), "server": o.server, "reason": o.reason} for o in left_out
    ]
    data: dict[str, Any] = {"hits": hits, "metric": metric, "left_out": missing, "verified": not unverified}
    if unverified:
        data["unverified"] = unverified
    if suspects:
        data["suspects"] = list(suspects)
    if searched is not None:
        data["searched"] = searched
    show(data, as_json, lambda: [_hit_line(i, h, metric) for i, h in enumerate(hits)])
    if searched is not None and len(hits) in (0, searched):
        which = "none" if not hits else "all"
        click.echo(f"mipp: {which} of the {searched} images searched are within the threshold {threshold:g}", err=True)
    for one in left_out:
        warn(f"left out {one}")
    if suspects:
        names = " or ".join(map(str, suspects))
        warn(f"server {names} answered wrongly; the hits are from answers of others that passed. Tell the operators")
    failed = [(hit, file.error) for hit, file in zip(found, files, strict=False) if file.error is not None]
    for failure, error in failed:
        warn(f"image {failure.id} was not fetched: {error}")
    if failed:
        raise click.exceptions.Exit(1)


def _previewed(seeker: User, hits: list[Hit], pad: int) -> list[Preview]:
    """Names and captions of hits; without them the hits are shown all the same."""
    try:
        return seeker.preview(hits, pad=pad)
    except (AccessDeniedError, IntegrityError, VerificationError) as error:
        warn(f"names and captions were not fetched: {error}")
        return []


def _fetched_privately(seeker: User, wanted: list[Hit], quiet: bool) -> list[FetchedImage]:
    """Images, with a bar that grows by thousandths of all bytes."""
    done = 0

    def told(count: int, total: int) -> None:
        nonlocal done
        before, done = done, done + count
        advance(1000 * done // total - 1000 * before // total)

    with progress("fetch", 1000, quiet) as advance:
        return seeker.fetch(wanted, private=True, progress=told)


def _hit_line(number: int, hit: dict[str, Any], metric: str) -> str:
    score = "" if hit["score"] is None else f"score {hit['score']:>10}  {metric} {hit['value']:.6g}  "
    told = "  ".join(printable(str(hit[part])) for part in ("name", "caption") if hit.get(part))
    return f"{number + 1:3d}  {hit['owner']:<16} {score}{hit['id']}{f'  {told}' if told else ''}"


def _rounds(count: int) -> str:
    return f"{count} round{'s' * (count != 1)}"


def _cost_lines(cost: SearchCost, taken: float | None) -> list[str]:
    user = cost["user"]
    lines = [
        f"ranking {cost['ranking']} over {cost['images']} images",
        f"user: {_rounds(user['rounds'])}, {user['sent']:,} bytes to and {user['received']:,} bytes from each server",
    ]
    if "servers" in cost:
        servers = cost["servers"]
        lines.append(f"  and {user['proof']:,} bytes to each cloud that prove the query in range")
        lines.append(f"servers: {servers['rounds']} rounds, each sends {max(servers['bytes'].values()):,} bytes")
        if "bound" in servers:
            bound = servers["bound"]
            lines.append(f"  at most {bound['rounds']} rounds and {max(bound['bytes'].values()):,} bytes")
    if taken is not None:
        lines.append(f"over these lines messages take {taken:.3f} s, beside what the machines compute")
    return lines


def _private_cost(seeker: User, k: int, kind: str | None, fetch: bool) -> dict[str, Any]:
    """Cost of the names and captions of the hits, and of their images, fetched privately."""
    if not seeker.fetches_privately:
        return {}
    count = PREVIEWED if kind == "threshold" else k
    told: dict[str, Any] = {"preview": seeker.preview_cost(max(count, 1))}
    if fetch:
        told["original_block"] = ORIGINAL_BLOCK
    return told


def _private_lines(told: dict[str, Any]) -> list[str]:
    if not told:
        return []
    cost = told["preview"]
    lines = [
        f"names and captions of the hits: {cost['records']} records; {cost['sent']:,} bytes to and "
        f"{cost['received']:,} bytes from each of two clouds, which read {cost['read']:,} bytes each"
    ]
    if "original_block" in told:
        lines.append(
            f"each image, privately: its size, padded to {told['original_block']:,} bytes times a power of two, from "
            "each of two clouds, which read all images of that size"
        )
    return lines


def _query(deployment: Deployment | ConnectedDeployment, image: Path | None, vector: Path | None) -> np.ndarray:
    if image is not None:
        if not deployment.config.descriptor:
            raise ParameterError("this index holds vectors; search with --vector FILE")
        from ..client.image_features import query_vector

        return query_vector(deployment.config, image)
    from ..io.vectors import load_vector

    return load_vector(vector if vector is not None else Path())


def _check_outputs(fetch: Path | None, sheet: Path | None, image: Path | None, table: Path | None) -> None:
    """ParameterError for outputs that could not be written after the search."""
    if table is not None:
        if table.suffix.lower() != ".csv":
            raise ParameterError(f"{table}: a table of hits is called .csv")
        check_output_file(table)
    if fetch is not None:
        check_new_folder(fetch)
    if sheet is not None:
        from ..io.sheet import sheet_format

        if image is None:
            raise ParameterError("a contact sheet needs a query image")
        sheet_format(sheet)
        check_output_file(sheet)
        if sheet.exists() and sheet.samefile(image):
            raise ParameterError(f"the contact sheet would overwrite the query {image}; name another file")


def _write_images(folder: Path, hits: list[dict[str, Any]], files: list[FetchedImage]) -> None:
    """Write what was fetched, for this person's eyes alone, and note in each hit where it is."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for rank, (hit, file) in enumerate(zip(hits, files, strict=True)):
        if file.error is not None:
            hit["error"] = str(file.error)
            continue
        target = folder / f"{rank + 1:03d}-{file.name}"
        replace_whole(target, file.content, mode=0o600)
        hit["file"] = str(target)


def _write_sheet(
    path: Path,
    image: Path,
    hits: list[Hit],
    pictures: list[bytes],
    metric: str,
    window: tuple[float, float] | None,
) -> None:
    from ..io.images import load_image
    from ..io.sheet import contact_sheet, distinct_names

    names = distinct_names({h.owner: h.owner_name for h in hits})
    cells = []
    for number, (h, content) in enumerate(zip(hits[:SHEET_HITS], pictures, strict=False)):
        try:
            picture = load_image(content, window=window) if content else None
        except ImageError:  # the owner's file is what it is; the rest goes on
            picture = None
        lines = [f"{number + 1}", names[h.owner]]
        lines += ["match"] if h.score is None or h.value is None else [f"{metric} {h.value:.6g}", f"score {h.score}"]
        if picture is None:
            lines.append("not available")
        cells.append((_MISSING if picture is None else picture, lines, None))
    title = None if len(hits) <= SHEET_HITS else f"mipp: the first {SHEET_HITS} of {len(hits)} images found"
    contact_sheet([(load_image(image, window=window), cells)], path, title=title)
