"""``mipp user`` and ``mipp search``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from ..deployment import Deployment
from ..errors import ImageError, NotFoundError, ParameterError
from ..roles.choosing import owner_id
from ..roles.found import FetchedImage, Hit, Hits
from ..roles.user import User
from .common import deployment_option, json_option, key_bits_option, new_passphrase, opened, show, with_passphrase

_MISSING = np.full((64, 64, 3), 200, np.uint8)


#: seconds that a search waits for the check of rows that were uploaded before
_PATIENCE = 5.0


@click.group("user")
def user_group() -> None:
    """A user's commands."""


@user_group.command("create")
@click.argument("name")
@click.option("--passphrase", is_flag=True, help="Protect the key file; asks, or takes MIPP_PASSPHRASE.")
@key_bits_option
@deployment_option
@json_option
def create_command(name: str, passphrase: bool, key_bits: str, folder: Path, as_json: bool) -> None:
    """Make a user with keys of its own; owners then grant to it."""
    with opened(folder) as deployment:
        user = deployment.create_user(name, new_passphrase(passphrase), key_bits=int(key_bits))
        path = folder / "users" / f"{user.name}.key"
        show({"name": name, "id": user.id.hex(), "key_file": str(path)}, as_json, lambda: [f"user {name}: {path}"])


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
        names = {bytes.fromhex(o["id"]): o["name"] for o in deployment.status()["owners"]}
        blocked = deployment.change_blocked(user, [owner_id(o, names) for o in owners], block=block)
    listed = [{"id": i.hex(), "owner": names.get(i, i.hex())} for i in sorted(blocked)]
    show(
        {"user": user, "blocked": listed},
        as_json,
        lambda: [f"blocked: {b['owner']} {b['id']}" for b in listed] or [f"{user} blocks no owner"],
    )


@click.command("search")
@click.argument("user")
@click.argument("image", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--vector",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with one vector instead of an image.",
)
@click.option("-k", "--k", "k", type=click.IntRange(1), help="How many; default 10, or all there are if fewer.")
@click.option(
    "--fetch", type=click.Path(path_type=Path, file_okay=False), help="Decrypt the images found into this folder."
)
@click.option("--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Write a contact sheet PNG.")
@click.option(
    "--ranking",
    type=click.Choice(["server", "user"]),
    help="server (default): the servers find the nearest and the user learns these only; user: the user gets all "
    "scores (all there is in the homomorphic scheme).",
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
    help="Fail if a batch is damaged or missing at a server, or servers differ on an owner; default: go on without.",
)
@click.option("--explain-cost", is_flag=True, help="Print rounds and bytes of the search, and do not search.")
@deployment_option
@json_option
def search_command(
    user: str,
    image: Path | None,
    vector: Path | None,
    k: int | None,
    fetch: Path | None,
    sheet: Path | None,
    ranking: str | None,
    threshold: float | None,
    owners: tuple[str, ...],
    strict: bool,
    explain_cost: bool,
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
    with opened(folder) as deployment:
        seeker: User = with_passphrase(lambda passphrase: deployment.user(user, passphrase))
        if explain_cost:
            cost = seeker.cost(k, owners=owners or None, ranking="threshold" if threshold is not None else ranking)
            show(cost, as_json, lambda: _cost_lines(cost))
            return
        query = _query(deployment, image, vector)
        deployment.wait_certified(_PATIENCE)  # rows that were uploaded before they were checked
        found: Hits | list[Hit]
        searched: int | None = None
        if threshold is not None:
            found = matches = seeker.match(query, threshold, owners=owners or None, strict=strict)
            left_out, searched = matches.left_out, matches.searched
        else:
            result = seeker.search(query, k, owners=owners or None, ranking=ranking, strict=strict)
            found, left_out = result.hits, result.left_out
        hits = [{"id": h.id, "owner": h.owner_name, "score": h.score, "value": h.value} for h in found]
        files: list[FetchedImage] = seeker.fetch(found) if fetch is not None or sheet is not None else []
        if fetch is not None:
            fetch.mkdir(parents=True, exist_ok=True)
            for rank, (hit, file) in enumerate(zip(hits, files, strict=True)):
                if file.error is not None:
                    hit["error"] = str(file.error)
                    continue
                target = fetch / f"{rank + 1:03d}-{file.name}"
                target.write_bytes(file.content)
                hit["file"] = str(target)
        if sheet is not None:
            _write_sheet(sheet, image, found, files, deployment.config.window)
    metric = deployment.config.encoding.metric
    missing = [
        {"owner": o.owner_name, "batch": o.batch.hex(), "server": o.server, "reason": o.reason} for o in left_out
    ]
    data: dict[str, Any] = {"hits": hits, "metric": metric, "left_out": missing}
    if searched is not None:
        data["searched"] = searched
    show(data, as_json, lambda: [_hit_line(i, h, metric) for i, h in enumerate(hits)])
    if searched is not None and len(hits) in (0, searched):
        which = "none" if not hits else "all"
        click.echo(f"mipp: {which} of the {searched} images searched are within the threshold {threshold:g}", err=True)
    for one in left_out:
        click.echo(f"mipp: left out {one}", err=True)
    failed = [(hit, file.error) for hit, file in zip(found, files, strict=False) if file.error is not None]
    for failure, error in failed:
        click.echo(f"mipp: image {failure.id} was not fetched: {error}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _hit_line(number: int, hit: dict[str, Any], metric: str) -> str:
    score = "" if hit["score"] is None else f"score {hit['score']:>10}  {metric} {hit['value']:.6g}  "
    return f"{number + 1:3d}  {hit['owner']:<16} {score}{hit['id']}"


def _cost_lines(cost: dict[str, Any]) -> list[str]:
    user = cost["user"]
    lines = [
        f"ranking {cost['ranking']} over {cost['images']} images",
        f"user: {user['rounds']} round, {user['sent']:,} bytes to and {user['received']:,} bytes from each server",
    ]
    if "servers" in cost:
        servers = cost["servers"]
        lines.append(f"  and {user['proof']:,} bytes to each cloud that prove the query in range")
        lines.append(f"servers: {servers['rounds']} rounds, each sends {max(servers['bytes'].values()):,} bytes")
        if "bound" in servers:
            bound = servers["bound"]
            lines.append(f"  at most {bound['rounds']} rounds and {max(bound['bytes'].values()):,} bytes")
    return lines


def _query(deployment: Deployment, image: Path | None, vector: Path | None) -> np.ndarray:
    if image is not None:
        if not deployment.config.descriptor:
            raise ParameterError("this index holds vectors; search with --vector FILE")
        from ..deployment.ingest import query_vector

        return query_vector(deployment.config, image)
    from ..io.vectors import load_vector

    return load_vector(vector if vector is not None else Path())


def _write_sheet(
    path: Path, image: Path | None, hits: list[Hit], files: list[FetchedImage], window: tuple[float, float] | None
) -> None:
    from ..demo.sheet import contact_sheet
    from ..io.images import load_image

    if image is None:
        raise NotFoundError("a contact sheet needs a query image")
    cells = []
    for h, file in zip(hits, files, strict=True):
        try:
            picture = load_image(file.content, window=window) if file.error is None else None
        except ImageError:  # the owner's file is what it is; the rest goes on
            picture = None
        shown = _MISSING if picture is None else picture
        text = "not available" if picture is None else "match" if h.score is None else f"score {h.score}"
        cells.append((shown, [h.owner_name, text], None))
    contact_sheet([(load_image(image, window=window), cells)], path)
