"""What a search of one query prints and writes: hits, costs, images, a contact sheet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..client.results import FetchedImage, Hit
from ..client.user import User
from ..errors import ImageError, ParameterError
from ..io.files import replace_whole
from ..rpc.limits import ORIGINAL_BLOCK
from ..schemes.base import SearchCost
from .outputs import check_new_folder, check_output_file, printable
from .tables import print_table

__all__ = [
    "NO_CLUSTERS",
    "PREVIEWED",
    "SHEET_HITS",
    "check_outputs",
    "cost_lines",
    "hit_table",
    "print_hits",
    "private_cost",
    "private_lines",
    "write_images",
    "write_sheet",
]

_MISSING = np.full((64, 64, 3), 200, np.uint8)

#: most images on a contact sheet
SHEET_HITS = 1000
#: hits of a range search whose names and captions are fetched
PREVIEWED = 50


def print_hits(hits: list[dict[str, Any]], metric: str, *, ranked: bool = True) -> None:
    """A table on a terminal; elsewhere the lines that scripts read. Hits in no order of nearness have no numbers."""
    if not sys.stdout.isatty():
        for number, hit in enumerate(hits):
            click.echo(printable(_hit_line(number if ranked else None, hit, metric)))
        return
    hit_table([{"rank": number, **hit} if ranked else hit for number, hit in enumerate(hits, 1)], metric)


def hit_table(hits: list[dict[str, Any]], metric: str) -> None:
    """Hits of one query or of several as a table; columns that are empty throughout are left out."""
    first = [part for part in ("query", "rank") if any(part in hit for hit in hits)]
    scored = any(hit["score"] is not None for hit in hits)
    told = [part for part in ("name", "caption") if any(hit.get(part) for hit in hits)]
    columns = [*first, "owner", *(["score", metric] if scored else []), "id", *told]
    rows = [
        [
            *(hit[part] for part in first), hit["owner"],
            *([hit["score"], _value(hit["value"])] if scored else []), hit["id"], *(hit.get(part) for part in told),
        ]
        for hit in hits
    ]  # fmt: skip
    print_table(columns, rows)


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _hit_line(number: int | None, hit: dict[str, Any], metric: str) -> str:
    score = "" if hit["score"] is None else f"score {hit['score']:>10}  {metric} {hit['value']:.6g}  "
    told = "  ".join(printable(str(hit[part])) for part in ("name", "caption") if hit.get(part))
    first = "  -" if number is None else f"{number + 1:3d}"
    return f"{first}  {hit['owner']:<16} {score}{hit['id']}{f'  {told}' if told else ''}"


def _rounds(count: int) -> str:
    return f"{count:,} round{'s' * (count != 1)}"


#: of a search with --probe that ranks all rows
NO_CLUSTERS = "no batch is large enough for clusters, so all rows are ranked; mipp owner compact merges small batches"


def cost_lines(cost: SearchCost, taken: float | None, queries: int) -> list[str]:
    user = cost["user"]
    lines = [
        f"ranking {cost['ranking']} over {cost['images']:,} images" + (f", {queries:,} queries" if queries > 1 else ""),
        f"user: {_rounds(user['rounds'])}, {user['sent']:,} bytes to and {user['received']:,} bytes from each server",
    ]
    if "once" in user:
        lines.append(f"  and once, before a user's first search, {user['once']:,} bytes of its key to each server")
    if "clustered" in cost:
        lines.append(
            f"clusters: {cost['clustered']:,} rows lie in them; all others are ranked"
            if cost["clustered"]
            else f"warning: {NO_CLUSTERS}"
        )
    if "servers" in cost:
        servers = cost["servers"]
        lines.append(f"  and {user['proof']:,} bytes to each cloud that prove the query in range")
        lines.append(f"servers: {servers['rounds']:,} rounds, each sends {max(servers['bytes'].values()):,} bytes")
        if "bound" in servers:
            bound = servers["bound"]
            lines.append(f"  at most {bound['rounds']:,} rounds and {max(bound['bytes'].values()):,} bytes")
    if "memory" in cost:
        memory = cost["memory"]
        lines += [
            f"disk: each cloud reads {memory['read']:,} bytes of rows, as far as its memory does not hold them",
            f"memory: a server holds {memory['server']:,} bytes at once, the user {memory['user']:,} bytes",
        ]
    if taken is not None:
        lines.append(f"over these lines messages take {taken:.3f} s, beside what the machines compute")
    return lines


def private_cost(seeker: User, count: int, fetch: bool) -> dict[str, Any]:
    """Cost of the names and captions of so many hits, and of their images, fetched privately."""
    if not seeker.fetches_privately:
        return {}
    told: dict[str, Any] = {"preview": seeker.preview_cost(max(count, 1))}
    if fetch:
        told["original_block"] = ORIGINAL_BLOCK
    return told


def private_lines(told: dict[str, Any], *, openly: bool) -> list[str]:
    """What names, captions and images cost. ``openly``: images are fetched by name."""
    by_name = ["each image, openly: its size; the servers learn which images were found"] if openly else []
    if not told:
        return by_name
    cost = told["preview"]
    lines = [
        f"names and captions of the hits: {cost['records']:,} records; {cost['sent']:,} bytes to and "
        f"{cost['received']:,} bytes from each of two clouds, which read {cost['read']:,} bytes each"
    ]
    if "original_block" in told:
        lines.append(
            f"each image, privately: its size, padded to {told['original_block']:,} bytes times a power of two, from "
            "each of two clouds, which read all images of that size"
        )
    return [*lines, *by_name]


def check_outputs(fetch: Path | None, sheet: Path | None, image: Path | None, table: Path | None) -> None:
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


def write_images(folder: Path, hits: list[dict[str, Any]], files: list[FetchedImage]) -> None:
    """Write what was fetched, for this person's eyes alone, and note in each hit where it is."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for rank, (hit, file) in enumerate(zip(hits, files, strict=True)):
        if file.error is not None:
            hit["error"] = str(file.error)
            continue
        target = folder / f"{rank + 1:03d}-{file.name}"
        replace_whole(target, file.content, mode=0o600)
        hit["file"] = str(target)


def write_sheet(
    path: Path,
    image: Path,
    hits: list[Hit],
    pictures: list[bytes],
    metric: str,
    window: tuple[float, float] | None,
) -> None:
    """The query and what was found for it, as one picture."""
    from ..io.images import load_image, thumbnail
    from ..io.sheet import TILE, contact_sheet, distinct_names

    names = distinct_names({h.owner: h.owner_name for h in hits})
    cells = []
    for number, (h, content) in enumerate(zip(hits[:SHEET_HITS], pictures, strict=False)):
        try:
            # as the sheet shows it: a thousand large images would not fit into memory together
            picture = thumbnail(load_image(content, window=window), TILE) if content else None
        except ImageError:  # the owner's file is what it is; the rest goes on
            picture = None
        lines = [f"{number + 1}", names[h.owner]]
        lines += ["match"] if h.score is None or h.value is None else [f"{metric} {h.value:.6g}", f"score {h.score}"]
        if picture is None:
            lines.append("not available")
        cells.append((_MISSING if picture is None else picture, lines, None))
    title = None if len(hits) <= SHEET_HITS else f"mipp: the first {SHEET_HITS} of {len(hits)} images found"
    contact_sheet([(load_image(image, window=window), cells)], path, title=title)
