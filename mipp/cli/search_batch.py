"""``mipp search`` with many queries: they are searched in blocks, so memory does not grow with their number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..client.given import refused_vectors
from ..client.nearest import Nearest
from ..client.results import Hits, LeftOut, Preview
from ..client.user import User
from ..deployment import ConnectedDeployment, Deployment
from ..errors import AccessDeniedError, IntegrityError, ParameterError, VerificationError
from ..rpc.grants import PROBE
from .batch_outputs import SUFFIXES, Found, Queries, written
from .common import own_text, progress
from .found import NO_CLUSTERS
from .outputs import check_output_file, warn
from .owner import load_owner

__all__ = ["BatchOptions", "check_batch_output", "require_names", "search_many", "stored_queries"]

#: queries that are searched at a time: what goes under one header where the user ranks, so that the servers read each
#: row as often as they would for all queries at once, and less where the servers rank, which is slower
BLOCK = {"user": 1 << 12, "server": 1 << 10}
#: images whose features are extracted at a time
_EXTRACTED = 1 << 8
#: hits whose records are fetched at a time
_PREVIEWED = 1 << 10
#: seconds that a batch waits for the check of rows that were uploaded before
_PATIENCE = 5.0


@dataclass(frozen=True)
class BatchOptions:
    """How a batch searches: arguments of :meth:`mipp.User.nearest`, and whether records are fetched."""

    k: int | None
    owners: tuple[str, ...] | None
    ranking: str | None
    strict: bool
    verify: bool
    previews: bool
    probe: bool = False


@dataclass
class _Told:
    """What was said of a batch so far."""

    queries: int = 0
    hits: int = 0
    unverified: str = ""
    unclustered: bool = False
    suspects: set[int] = field(default_factory=set)
    left_out: dict[LeftOut, None] = field(default_factory=dict)
    failed: list[tuple[str | int, str]] = field(default_factory=list)


def check_batch_output(out: Path | None, inputs: Sequence[Path], previews: bool) -> None:
    """ParameterError for a file that could not be written after the search, or that is one of the queries."""
    if out is None:
        return
    if out.suffix.lower() not in SUFFIXES:
        raise ParameterError(f"{out}: hits of many queries are written as {', '.join(SUFFIXES)}")
    if previews and out.suffix.lower() == ".npz":
        raise ParameterError(f"{out}: arrays hold no names and captions; write --previews to .csv or .jsonl")
    check_output_file(out)
    if out.exists() and any(out.samefile(path) for path in inputs):
        raise ParameterError(f"{out} holds queries of this search; name another file")


def stored_queries(deployment: Deployment | ConnectedDeployment, ids: Sequence[str], of: str | None) -> np.ndarray:
    """Features of stored images of an owner whose key file is here."""
    if of not in deployment.owners():
        raise ParameterError(f"an image of {of} can be searched for where the owner's key file is, and it is not here")
    return load_owner(deployment, of).features_of(ids)


def require_names(seeker: User) -> None:
    """ParameterError where no names and captions can be fetched."""
    if not seeker.fetches_privately:
        raise ParameterError("this deployment keeps no records, or has one cloud: there are no names and captions")


def search_many(
    deployment: Deployment | ConnectedDeployment, seeker: User, images: Sequence[Path], vectors: np.ndarray | None,
    stored: tuple[Sequence[str], str | None], options: BatchOptions, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Search with many queries; write or print the hits as they come.

    Raises
    ------
    click.exceptions.Exit
        Code 1 after all others were searched, if a query could not be.
    """
    if options.previews:
        require_names(seeker)
    ranking = seeker.default_ranking if options.ranking is None else options.ranking
    size, told = BLOCK.get(ranking, BLOCK["server"]), _Told()
    if images:
        from ..client.image_features import index_descriptor

        index_descriptor(deployment.config)  # an index of vectors is refused before the first image is read
        total, blocks = len(images), _of_images(deployment, images, size, told)
    elif vectors is not None:
        total, blocks = len(vectors), _of_vectors(vectors, size)
    else:
        ids, of = stored
        found = stored_queries(deployment, ids, of)
        total, blocks = len(ids), iter([(list(ids), found)])
    deployment.wait_certified(_PATIENCE)
    _check_quotas(seeker, options, ranking, total, size)
    metric = deployment.config.encoding.metric
    with (
        written(out, metric, options.previews, as_json) as output,
        progress("search", total, as_json or out is None) as advance,
    ):
        for names, some in blocks:
            names, some = _usable(deployment, names, some, told)
            if len(names):
                nearest = seeker.nearest(
                    some, options.k, owners=options.owners, ranking=options.ranking, strict=options.strict,
                    verify=options.verify, probe=options.probe,
                )  # fmt: skip
                _note(told, nearest)
                for part in _parts(seeker, names, nearest, options):
                    output.add(part)
            advance(len(names))
        if not told.queries:
            raise ParameterError("none of the queries can be searched")
        output.told(told.queries, told.unverified)
    _report(told, metric, out, as_json)


def _of_vectors(data: np.ndarray, size: int) -> Iterator[tuple[Queries, np.ndarray]]:
    """Blocks of row numbers and vectors."""
    for start in range(0, len(data), size):
        some = np.asarray(data[start : start + size])
        yield range(start, start + len(some)), some


def _of_images(
    deployment: Deployment | ConnectedDeployment, images: Sequence[Path], size: int, told: _Told
) -> Iterator[tuple[Queries, np.ndarray]]:
    """Blocks of names and features; images that cannot be read are noted."""
    from ..client.image_features import query_vectors

    names: list[str] = []
    parts: list[np.ndarray] = []
    for start in range(0, len(images), _EXTRACTED):
        some = images[start : start + _EXTRACTED]
        vectors, kept, errors = query_vectors(deployment.config, some)
        _fail(told, [(str(some[i]), own_text(str(some[i]), text)) for i, text in errors])
        names += [str(some[i]) for i in kept]
        parts.append(vectors)
        if len(names) >= size or start + _EXTRACTED >= len(images):
            yield names, np.concatenate(parts)
            names, parts = [], []


def _usable(
    deployment: Deployment | ConnectedDeployment, names: Queries, vectors: np.ndarray, told: _Told
) -> tuple[Queries, np.ndarray]:
    """The queries that the encoding takes; others are noted."""
    encoding = deployment.config.encoding
    if vectors.ndim != 2 or vectors.shape[1] != encoding.dim:
        raise ParameterError(f"the queries have {vectors.shape[-1]} features; this index takes {encoding.dim}")
    reasons = refused_vectors(encoding.encode_queries, vectors) if len(names) else []
    if not any(reasons):
        return names, vectors
    _fail(told, [(name, reason) for name, reason in zip(names, reasons, strict=True) if reason])
    kept = [n for n, reason in enumerate(reasons) if not reason]
    return [names[n] for n in kept], vectors[kept]


def _fail(told: _Told, failed: Sequence[tuple[str | int, str]]) -> None:
    """Say at once which queries are left out, and remember them."""
    for name, reason in failed:
        warn(f"left out query {name}: {reason}")
    told.failed += failed


def _check_quotas(seeker: User, options: BatchOptions, ranking: str, total: int, size: int) -> None:
    """Where an owner's quota ends before the batch: refused if it was named, or no other owner answers; else said."""
    blocks = -(-total // size)
    needed = total + (blocks if ranking == "user" and options.verify and not seeker.scheme.unverified else 0)
    named = PROBE if options.probe else ranking
    able = [owner for owner in seeker.index(options.owners).owners if named in owner.rankings]
    # the largest quota first: if all are too small, that is the one to name
    short = sorted((o for o in able if 0 <= o.left < needed), key=lambda o: (-o.left, o.name))
    for owner in short:
        text = (
            f"the grant of owner {owner.name} allows {owner.left:,} more quer{'y' if owner.left == 1 else 'ies'}; "
            f"this batch counts as {needed:,}"
            if owner.left
            else f"the quota of the grant of owner {owner.name} is used up; the owner grants again"
        )
        if options.owners is not None:
            raise AccessDeniedError(text)
        if len(short) == len(able):
            fewer = "; search with fewer at a time" if owner.left else ""
            raise AccessDeniedError(f"{text}, and no other owner's grant allows them all{fewer}")
        warn(f"{text}; those that go beyond it, and the block of up to {size:,} that they are in, go on without it")


def _note(told: _Told, nearest: Nearest) -> None:
    told.queries += len(nearest.rows)
    told.hits += int((nearest.rows >= 0).sum())
    told.unverified = told.unverified or nearest.unverified
    told.unclustered = nearest.clustered == 0
    told.suspects |= set(nearest.suspects)
    told.left_out |= dict.fromkeys(nearest.left_out)


def _parts(seeker: User, names: Queries, nearest: Nearest, options: BatchOptions) -> Iterator[Found]:
    """What a block found: whole, or with records as many queries at a time as are fetched at once."""
    whole = Found.of(names, nearest)
    if not options.previews:
        yield whole
        return
    width = nearest.rows.shape[1]
    step = max(1, _PREVIEWED // max(1, width))
    for start in range(0, len(names), step):
        part, rows = whole.part(start, start + step), nearest.rows[start : start + step]
        yield part.with_previews(_previewed(seeker, Hits.at(nearest.index, rows[rows >= 0]), rows.size))


def _previewed(seeker: User, hits: Hits, pad: int) -> list[Preview]:
    """The records of hits, or nothing: hits are written without names all the same."""
    try:
        return list(seeker.preview(hits, pad=pad))
    except (AccessDeniedError, IntegrityError, VerificationError) as error:
        warn(f"names and captions were not fetched: {error}")
        return []


def _report(told: _Told, metric: str, out: Path | None, as_json: bool) -> None:
    """Say what became of the batch, and end with code 1 if a query failed."""
    if out is not None and as_json:
        data: dict[str, Any] = {
            "out": str(out), "queries": told.queries, "hits": told.hits, "metric": metric,
            "verified": not told.unverified,
            "failed": [{"query": name, "reason": reason} for name, reason in told.failed],
            "left_out": [
                {"owner": o.owner_name, "batch": o.batch.hex(), "server": o.server, "reason": o.reason}
                for o in told.left_out
            ],
        }  # fmt: skip
        if told.unverified:
            data["unverified"] = told.unverified
        if told.suspects:
            data["suspects"] = sorted(told.suspects)
        click.echo(json.dumps(data))
    elif out is not None:
        click.echo(f"{told.queries:,} queries, {told.hits:,} hits: {out}")
    if told.unclustered:
        warn(NO_CLUSTERS)
    for one in told.left_out:
        warn(f"left out {one}")
    if told.suspects:
        names = " or ".join(map(str, sorted(told.suspects)))
        warn(f"server {names} answered wrongly; the hits are from answers of others that passed. Tell the operators")
    if told.failed:
        warn(f"{len(told.failed)} of {told.queries + len(told.failed)} queries were left out")
        raise click.exceptions.Exit(1)
