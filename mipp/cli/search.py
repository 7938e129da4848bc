"""``mipp search``: one query, with all that can be made of its hits. Many queries are in ``search_batch.py``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..client.results import FetchedImage, Hit, Hits, Preview
from ..client.user import DEFAULT_K, User
from ..deployment import ConnectedDeployment, Deployment
from ..encoding.ranges import checked_threshold
from ..errors import AccessDeniedError, IntegrityError, ParameterError, VerificationError
from ..io.vectors import SUFFIXES as VECTOR_SUFFIXES
from ..schemes.base import seconds_on_lines
from .common import deployment_option, json_option, opened, progress, show, with_passphrase
from .found import (
    NO_CLUSTERS,
    PREVIEWED,
    SHEET_HITS,
    check_outputs,
    cost_lines,
    print_hits,
    private_cost,
    private_lines,
    write_images,
    write_sheet,
)  # fmt: skip
from .outputs import RegularFile, warn, write_table
from .passphrases import passphrase_option
from .search_batch import BatchOptions, check_batch_output, require_names, search_many, stored_queries

#: seconds that a search waits for the check of rows that were uploaded before
_PATIENCE = 5.0


@click.command("search")
@click.argument("user")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGE]...")
@click.option("--vector", type=RegularFile(), help="File with one vector instead of an image.")
@click.option(
    "--vectors",
    type=RegularFile(),
    help=f"File of many query vectors: {', '.join(VECTOR_SUFFIXES)} (of HDF5 the dataset test, else train).",
)
@click.option(
    "--id",
    "ids",
    multiple=True,
    metavar="BATCH:ROW",
    help="Search with a stored image of --of OWNER, whose key file is in this folder; may be repeated. The servers "
    "learn that the owner asked for that batch back.",
)
@click.option("--of", "of", metavar="OWNER", help="With --id: the owner that stored the image.")
@click.option("-k", "--k", "k", type=click.IntRange(1), help="How many; default 10, or all there are if fewer.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the hits of all queries to this file: .csv, .jsonl or .npz (arrays).",
)
@click.option(
    "--previews", is_flag=True, help="With many queries: fetch names and captions, too; each hit costs a record."
)
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
    "scores (all there is with one cloud).",
)
@click.option(
    "--probe",
    is_flag=True,
    help="In an index with clusters, with --ranking server: look at the nearest cluster of each group only. Servers "
    "send each other a few times less, and some of the nearest may be missed.",
)
@click.option(
    "--threshold",
    type=float,
    help="Instead of the k nearest: all with at least this inner product or cosine, or at most this distance "
    "(squared for l2), without scores; with --ranking user by the user, with scores.",
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
@click.option(
    "--explain-cost",
    is_flag=True,
    help="Print rounds and bytes of the search, and its memory and disk where the scheme tells them (shares); do not "
    "search.",
)
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
    images: tuple[Path, ...],
    vector: Path | None,
    vectors: Path | None,
    ids: tuple[str, ...],
    of: str | None,
    k: int | None,
    out: Path | None,
    previews: bool,
    fetch: Path | None,
    openly: bool,
    no_preview: bool,
    table: Path | None,
    sheet: Path | None,
    ranking: str | None,
    probe: bool,
    threshold: float | None,
    owners: tuple[str, ...],
    strict: bool,
    no_verify: bool,
    explain_cost: bool,
    line: tuple[float, float] | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Find the images nearest to IMAGE among those of all owners that granted USER.

    Several IMAGEs, --vectors, several --id or --out make a batch: one row for each hit, and with --json one JSON object
    a line. With two clouds that is faster than one by one. A broken image is reported and left out (exit code 1).
    """
    if len(images) == 1:  # of several, those that cannot be read are left out
        RegularFile().convert(str(images[0]), None, click.get_current_context(silent=True))
    given = [bool(images), vector is not None, vectors is not None, bool(ids)]
    if sum(given) > 1 or (not any(given) and not explain_cost):
        raise click.UsageError("give either IMAGE or --vector FILE, --vectors FILE or --id BATCH:ROW")
    if bool(ids) != (of is not None):
        raise click.UsageError("--id BATCH:ROW goes with --of OWNER")
    if threshold is not None and k is not None:
        raise click.UsageError("give either -k or --threshold")
    if probe and threshold is not None:
        raise click.UsageError("--probe finds the k nearest; a threshold is of all rows")
    if line is not None and not all(map(math.isfinite, line)):
        raise click.UsageError("--line takes milliseconds and gigabits a second, such as --line 20 1")
    if line is not None and not explain_cost:
        raise click.UsageError("--line goes with --explain-cost")
    batch = len(images) > 1 or len(ids) > 1 or vectors is not None or out is not None
    single = {
        "--fetch": fetch is not None, "--openly": openly, "--sheet": sheet is not None, "--csv": table is not None,
        "--threshold": threshold is not None, "--no-preview": no_preview,
    }  # fmt: skip
    if batch and (wrong := next((name for name, set_ in single.items() if set_), None)):
        instead = {
            "--csv": "; write hits with --out FILE.csv",
            "--no-preview": "; a batch fetches names with --previews",
        }
        raise click.UsageError(f"{wrong} is for one query, without --out{instead.get(wrong, '')}")
    if previews and no_preview:
        raise click.UsageError("give either --previews or --no-preview")
    image = images[0] if images else None
    if not explain_cost and batch:
        check_batch_output(out, [*images, *(p for p in (vector, vectors) if p is not None)], previews)
    elif not explain_cost:
        check_outputs(fetch, sheet, image, table)
    several = None if vectors is None else _loaded(vectors, several=True)
    with opened(folder) as deployment:
        seeker: User = with_passphrase(lambda passphrase: deployment.user(user, passphrase))
        if explain_cost:
            kind = "threshold" if threshold is not None and ranking != "user" else ranking
            count = max(1, len(images), len(ids), 0 if several is None else len(several))
            _check_asked(deployment, vector, several, threshold)
            cost = seeker.cost(k, owners=owners or None, ranking=kind, queries=count, verify=not no_verify, probe=probe)
            hits_each = PREVIEWED if threshold is not None else min(DEFAULT_K, cost["images"]) if k is None else k
            private = (
                {}
                if batch and not previews
                else private_cost(seeker, hits_each * count, fetch is not None and not openly)
            )
            taken = seconds_on_lines(cost, line[0] / 1e3, line[1] * 1e9) if line is not None else None
            told: dict[str, Any] = {**cost, "queries": count, **private}
            if taken is not None:
                told["line_seconds"] = taken
            by_name = openly and fetch is not None
            show(told, as_json, lambda: [*cost_lines(cost, taken, count), *private_lines(private, openly=by_name)])
            return
        if batch:
            several = _loaded(vector, several=False) if vector is not None else several
            options = BatchOptions(k, owners or None, ranking, strict, not no_verify, previews, probe)
            search_many(deployment, seeker, images, several, (ids, of), options, out, as_json)
            return
        if previews:
            require_names(seeker)
        privately = seeker.fetches_privately
        if (fetch is not None or sheet is not None) and not openly and not privately:
            raise ParameterError(
                "nothing can be fetched privately in this deployment, which keeps no records or has one cloud; with "
                "--openly the servers learn which images were found"
            )
        query = stored_queries(deployment, ids, of)[0] if of is not None else _query(deployment, image, vector)
        deployment.wait_certified(_PATIENCE)  # rows that were uploaded before they were checked
        found: Hits | list[Hit]
        searched: int | None = None
        suspects: tuple[int, ...] = ()
        clustered: int | None = None
        if threshold is not None:
            by = "user" if ranking == "user" else None
            found = matches = seeker.range_search(
                query, threshold, owners=owners or None, strict=strict, ranking=by, verify=not no_verify
            )
            left_out, searched, unverified = matches.left_out, matches.searched, matches.unverified
        else:
            result = seeker.search(
                query, k, owners=owners or None, ranking=ranking, strict=strict, verify=not no_verify, probe=probe
            )
            found, left_out, unverified = result.hits, result.left_out, result.unverified
            suspects, clustered = result.suspects, result.clustered
        hits: list[dict[str, Any]] = [
            {"id": h.id, "owner": h.owner_name, "score": h.score, "value": h.value} for h in found
        ]
        metric = deployment.config.encoding.metric
        # of a range search the first ones: how many are fetched shows how many were found
        shown = list(found) if threshold is None else list(found[:PREVIEWED])
        pad = PREVIEWED if threshold is not None else k or DEFAULT_K
        records = _previewed(seeker, shown, pad) if privately and not no_preview else []
        for entry, preview in zip(hits, records, strict=False):
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
            write_images(fetch, hits, files)
        if table is not None:
            write_table(table, hits)
        if sheet is not None and image is not None:
            pictures = [f.content if f.error is None else b"" for f in files] or [p.thumbnail for p in records]
            write_sheet(sheet, image, list(found), pictures, metric, deployment.config.window)
    missing = [
        {"owner": o.owner_name, "batch": o.batch.hex(), "server": o.server, "reason": o.reason} for o in left_out
    ]
    data: dict[str, Any] = {"hits": hits, "metric": metric, "left_out": missing, "verified": not unverified}
    if unverified:
        data["unverified"] = unverified
    if suspects:
        data["suspects"] = list(suspects)
    if clustered is not None:
        data["clustered"] = clustered
    if searched is not None:
        data["searched"] = searched
    if as_json:
        click.echo(json.dumps(data))
    else:
        print_hits(hits, metric, ranked=threshold is None or any(hit["score"] is not None for hit in hits))
    if searched is not None and len(hits) in (0, searched):
        which = "none" if not hits else "all"
        click.echo(f"mipp: {which} of the {searched} images searched are within the threshold {threshold:g}", err=True)
    if clustered == 0:
        warn(NO_CLUSTERS)
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


def _query(deployment: Deployment | ConnectedDeployment, image: Path | None, vector: Path | None) -> np.ndarray:
    if image is not None:
        if not deployment.config.descriptor:
            raise ParameterError("this index holds vectors; search with --vector FILE")
        from ..client.image_features import query_vector

        return query_vector(deployment.config, image)
    return _loaded(vector if vector is not None else Path(), several=False)[0]


def _check_asked(
    deployment: Deployment | ConnectedDeployment, vector: Path | None, several: np.ndarray | None,
    threshold: float | None,
) -> None:  # fmt: skip
    """Refuse for ``--explain-cost`` what the search itself would refuse of a vector or a threshold."""
    encoding = deployment.config.encoding
    given = _loaded(vector, several=False) if vector is not None else several
    if given is not None and given.shape[1] != encoding.dim:
        raise ParameterError(f"the queries have {given.shape[1]} features; this index takes {encoding.dim}")
    if threshold is not None:
        checked_threshold(encoding, threshold, deployment.config.largest_distance)


def _loaded(path: Path, *, several: bool) -> np.ndarray:
    """Query vectors of a file, (B, dim); without ``several`` it must hold one."""
    from ..io.vectors import load_queries, load_vector

    # those of many that are not finite are left out one by one
    return load_queries(path, finite=False) if several else load_vector(path)[None]


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
