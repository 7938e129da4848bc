"""Several owners' images into one encrypted index; searches; decrypted hits; a check that the ranking is exact."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from .. import features, schemes
from ..client.ingest import add_images
from ..client.results import Hit, SearchResult
from ..deployment import DEFAULT_BITS, ConnectedDeployment, Deployment
from ..errors import ParameterError
from ..evaluation.evaluate import plain_scores
from ..features.encoding import descriptor_encoding
from ..io.images import load_image, thumbnail
from ..io.sheet import TILE, contact_sheet
from ..rpc.grants import offered_rankings
from .render import render_collection
from .servers import LocalServers

__all__ = ["DemoImage", "render_to", "run_demo", "spread"]

SHEET_QUERIES = 8
#: queries that are searched at a time in schemes that gain nothing from more, so that progress is seen
_AT_ONCE = 5
T = TypeVar("T")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DemoImage:
    """An image file and its label, empty if there is none."""

    path: Path
    label: str


def render_to(folder: Path, classes: int = 10, per_class: int = 40) -> list[DemoImage]:
    """Render the demo's own collection as PNG files."""
    out = []
    for name, label, pixels in render_collection(classes, per_class):
        path = folder / f"{name}.png"
        Image.fromarray(pixels).save(path, compress_level=1)
        out.append(DemoImage(path, label))
    return out


def run_demo(
    images: Sequence[DemoImage],
    out: Path,
    *,
    owners: int = 4,
    queries: int = 50,
    k: int = 10,
    descriptor: str = features.DEFAULT,
    scheme: str = "shares",
    ranking: str | None = None,
    key_bits: int = DEFAULT_BITS,
    ring_bits: int = 32,
    bits: int = 8,
    query_bits: int = 8,
    servers: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the main job once.

    Parameters
    ----------
    images : at least two; dealt to the owners in turn
    out : folder for the contact sheet ``sheet.png`` and, new, the deployment ``deployment``
    owners, queries, k : numbers of each; queries are images of the collection, spread evenly, which find themselves
    descriptor, ring_bits, bits, query_bits : of the index
    scheme : of the deployment, ``"shares"``, ``"lattice"`` or ``"paillier"``
    ranking : who ranks, ``"server"`` or ``"user"``; default what the scheme offers first
    key_bits : of the user's Paillier key in the Paillier scheme
    servers : run each server as a process of its own, which clients reach over TLS
    progress : called with stage, step, steps

    Returns
    -------
    dict
        ``images``, ``owners``, ``queries``, ``k``, ``errors``, ``seconds`` per stage, ``bytes`` per message kind,
        ``rounds``, ``exact_match``, ``hits`` per query, ``sheet``, and ``p_at_k`` if there are labels: the share
        of the k nearest other images that carry the query's label. With ``servers`` also ``commands`` to go on with.
    """
    step = progress if progress is not None else (lambda stage, done, of: None)
    if not 1 <= owners <= len(images):
        raise ParameterError(f"{len(images)} images cannot be split over {owners} owners")
    if queries < 1 or k < 1:
        raise ParameterError("queries and k must be at least 1")
    seconds: dict[str, float] = dict.fromkeys(("extract", "encrypt", "upload", "score", "rank", "fetch"), 0.0)
    offered = tuple(r for r in offered_rankings(schemes.get(scheme).params(32)) if r != "threshold")
    by_servers = (ranking or offered[0]) == "server"
    encoding = descriptor_encoding(
        descriptor, ring_bits=ring_bits, bits=bits, query_bits=query_bits, server_ranking=by_servers
    )
    made_for = ("server",) if by_servers else ("user",)
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"descriptor": descriptor, "scheme": scheme, "rankings": made_for}
        place, local = _fresh(out), None
        deployment: Deployment | ConnectedDeployment
        if servers:
            local = stack.enter_context(LocalServers(place, encoding, **options))
            deployment = stack.enter_context(local.connect())
        else:
            deployment = stack.enter_context(Deployment.create(place, encoding, **options))
        invited = local.invitation if local is not None else (lambda kind, name: None)
        deployment.channel.bytes_sent.clear()
        user = deployment.create_user("user", key_bits=key_bits, invitation=invited("user", "user"))
        where: dict[str, tuple[bytes, int]] = {}
        errors: list[tuple[str, str]] = []
        for number in range(owners):
            name = f"owner{number + 1}"
            owner = deployment.create_owner(name, invitation=invited("owner", name))
            mine = [image.path for image in images[number::owners]]
            report = add_images(owner, mine, seconds=seconds)
            where |= dict(report.added)
            errors += report.errors
            owner.grant(user.id, rankings=[ranking or user.default_ranking])
            for stage, spent in owner.seconds.items():
                seconds[stage] += spent
            step("upload", number + 1, owners)
        present = [image for image in images if str(image.path) in where]
        if len(present) < 2:
            raise ParameterError("fewer than two images could be read: " + "; ".join(text for _, text in errors[:3]))
        k = min(k, len(present) - 1)
        chosen = spread(present, queries)

        began = time.perf_counter()
        d = features.get(descriptor)
        vectors = np.asarray(d.embed(features.extract([image.path for image in chosen], d).values))
        seconds["extract"] += time.perf_counter() - began
        found: list[SearchResult] = []
        at_once = len(chosen) if user.scheme.by_rows else _AT_ONCE
        for start in range(0, len(chosen), at_once):
            found += user.search_batch(vectors[start : start + at_once], k + 1, ranking=ranking)
            step("search", len(found), len(chosen))
        for result in found:
            for stage, spent in result.seconds.items():
                seconds[stage] += spent

        began = time.perf_counter()
        fetched = []
        for number, result in enumerate(found):
            fetched.append(user.fetch(result.hits, strict=True))
            step("fetch", number + 1, len(chosen))
        seconds["fetch"] = time.perf_counter() - began
        sent, rounds = dict(sorted(deployment.channel.bytes_sent.items())), deployment.channel.rounds

        exact = _exact(present, where, user.index().ids(), vectors, encoding, d, [r.hits for r in found])
        label_of = {where[str(image.path)]: image.label for image in present}
        others = [
            [h for h in r.hits if (h.batch, h.row) != where[str(q.path)]][:k]
            for q, r in zip(chosen, found, strict=True)
        ]
        sheet = out / "sheet.png"
        rows = []
        for q, hits, files in spread(list(zip(chosen, found, fetched, strict=True)), SHEET_QUERIES):
            cells = []
            for hit, file in list(zip(hits.hits, files, strict=True))[: min(k, 10)]:
                match = (label_of[hit.batch, hit.row] == q.label) if q.label else None
                text = [hit.owner_name, f"{encoding.metric} {hit.value:.6g}", f"score {hit.score}"]
                cells.append((thumbnail(load_image(file.content), TILE), text, match))
            rows.append((thumbnail(load_image(q.path), TILE), cells))
        contact_sheet(rows, sheet)

    outcome: dict[str, Any] = {
        "images": len(present),
        "owners": owners,
        "queries": len(chosen),
        "k": k,
        "descriptor": d.name,
        "scheme": scheme,
        "ranking": ranking or user.default_ranking,
        "errors": errors,
        "seconds": {name: round(s, 4) for name, s in seconds.items()},
        "bytes": sent,
        "rounds": rounds,
        "exact_match": exact,
        "sheet": str(sheet),
        "deployment": str(deployment.folder),
        "hits": [[_row(h) for h in hits] for hits in others],
        "query_images": [str(q.path) for q in chosen],
    }
    if local is not None:
        outcome["commands"] = local.commands()
    if all(image.label for image in present):
        good = [label_of[h.batch, h.row] == q.label for q, hits in zip(chosen, others, strict=True) for h in hits]
        outcome["p_at_k"] = round(float(np.mean(good)), 4)
    return outcome


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` items, evenly spread over all."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def _fresh(out: Path) -> Path:
    """A new folder for the deployment: a demo never touches an older one's."""
    return Path(tempfile.mkdtemp(prefix="deployment-", dir=out))


def _row(hit: Hit) -> dict[str, Any]:
    return {"id": hit.id, "owner": hit.owner_name, "score": hit.score}


def _exact(
    present: Sequence[DemoImage],
    where: dict[str, tuple[bytes, int]],
    ids: list[tuple[bytes, int]],
    vectors: np.ndarray,
    encoding: Any,
    d: Any,
    found: Sequence[Sequence[Hit]],
) -> bool:
    """Whether the encrypted hits equal the ranking of the quantised plaintext, computed again, row for row."""
    by_id = {where[str(image.path)]: image for image in present}
    ordered = [by_id[i] for i in ids]
    rows = d.embed(features.extract([image.path for image in ordered], d).values)
    scores = plain_scores(encoding, np.asarray(rows), vectors)
    for own, hits in zip(scores, found, strict=True):
        best = np.argsort(-own, kind="stable")[: len(hits)]
        if [ids[i] for i in best] != [(h.batch, h.row) for h in hits] or [int(own[i]) for i in best] != [
            h.score for h in hits
        ]:
            return False
    return True
