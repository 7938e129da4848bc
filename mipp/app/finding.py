"""What a user does on the page: searches, names and captions of hits, images, exports."""

from __future__ import annotations

import io
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..client.image_features import query_vector
from ..client.results import FetchedImage, Hits, LeftOut, Preview
from ..client.user import User
from ..errors import AccessDeniedError, IntegrityError, LimitError, ParameterError, VerificationError
from ..io.display import opening, picture, shown
from ..io.tables import hits_csv
from ..rpc.grants import PROBE
from ..rpc.names import safe_name
from .fields import Fields
from .jobs import Job

__all__ = [
    "PAGE",
    "Found",
    "content_of",
    "cost",
    "export",
    "fetch_originals",
    "fetch_previews",
    "left_out_lines",
    "run_search",
    "searchable",
    "small_picture",
]

#: hits whose names and thumbnails are fetched at a time; of a range search the first ones, however many there are
PAGE, RANGE_PAGE = 100, 50
#: bytes of original images that a page keeps; images that are fetched at a time, each of 64 MiB at most
MOST_ORIGINALS, _AT_ONCE = 1 << 30, 10
#: bytes of a file that is made for the browser
MOST_EXPORTED = 512 << 20
#: sides of pictures for the page
THUMBNAIL, LARGE = 256, 1600
MOST_HITS = 10_000
#: of a thumbnail
_MOST_PIXELS = 1 << 20
_CAPTION, _VALUE = 10_000, 2000
#: reasons why something was left out of a search that are told, and batches that are named for each
MOST_REASONS, _NAMED = 20, 3


@dataclass(eq=False)
class Found:
    """One search and what it found. Secret."""

    user: str
    what: str
    hits: Hits
    metric: str
    threshold: float | None
    seconds: float
    query: bytes | None
    #: pixels as a file that features come from again
    facts: dict[str, Any]
    when: float = field(default_factory=time.time)
    previews: dict[int, Preview] = field(default_factory=dict)
    pictures: dict[int, bytes | None] = field(default_factory=dict)
    originals: dict[int, FetchedImage] = field(default_factory=dict)
    #: why names and captions were not fetched
    unnamed: str = ""

    @property
    def page(self) -> int:
        return PAGE if self.threshold is None else RANGE_PAGE

    @property
    def kept(self) -> int:
        """Bytes of images that are here."""
        return sum(len(image.content) for image in list(self.originals.values()))

    def original(self, number: int) -> FetchedImage:
        """An image that was fetched; ParameterError if it was not."""
        image = self.originals.get(number)
        if image is None:
            raise ParameterError("this image was not fetched")
        if image.error is not None:
            raise image.error
        return image

    def packed_pictures(self, start: int, count: int) -> bytes:
        """Thumbnails of some hits in one piece: before each its hit's number and its length, 4 bytes each, big-endian.

        One reply for all: a hundred of their own take the page longer than a search takes.
        """
        parts = []
        for number in range(start, min(start + count, len(self.hits))):
            content = self.pictures.get(number)
            if content is not None:
                parts += [number.to_bytes(4, "big"), len(content).to_bytes(4, "big"), content]
        return b"".join(parts)

    def headline(self) -> dict[str, Any]:
        """The search in a list of searches."""
        return {"user": self.user, "what": self.what, "when": self.when, "total": len(self.hits)}

    def told(self, start: int = 0, count: int = 0) -> dict[str, Any]:
        """The search for the page, with some of its hits."""
        return {
            **self.headline(), "metric": self.metric, "threshold": self.threshold, "seconds": round(self.seconds, 3),
            "searched": self.hits.searched, "page": self.page, "unnamed": self.unnamed, "start": start,
            "hits": [self._hit(n) for n in range(start, min(start + count, len(self.hits)))], **self.facts,
        }  # fmt: skip

    def _hit(self, number: int) -> dict[str, Any]:
        hit, preview, original = self.hits[number], self.previews.get(number), self.originals.get(number)
        told: dict[str, Any] = {
            "number": number, "owner": shown(hit.owner_name, 64), "owner_id": hit.owner.hex(), "id": hit.id,
            "score": hit.score, "value": hit.value, "named": preview is not None,
            "picture": self.pictures.get(number) is not None, "original": original is not None,
        }  # fmt: skip
        if preview is not None:
            told |= {
                "name": shown(preview.path, 300),
                "caption": shown(preview.caption, _CAPTION),
                "metadata": _shown_metadata(preview),
                "problem": "" if preview.error is None else shown(str(preview.error), 500),
            }
        if original is not None and original.error is not None:
            told["problem"] = shown(str(original.error), 500)
        return told


def _shown_metadata(preview: Preview) -> list[list[str]]:
    """Names and values of metadata, as texts."""
    fields = list((preview.metadata or {}).items())[:100]
    return [[shown(str(name), 100), shown(str(value), _VALUE)] for name, value in fields]


def small_picture(thumbnail: bytes) -> bytes | None:
    """A record's thumbnail for the page; a few bytes may claim to be many pixels."""
    return picture(thumbnail, THUMBNAIL, most_pixels=_MOST_PIXELS) if thumbnail else None


def searchable(user: User) -> list[dict[str, Any]]:
    """Owners that a user may search now, with their live rows, and what each allows."""
    return [
        {
            "id": g.owner.hex(), "name": shown(g.name, 64), "rows": _rows(g), "max_k": g.max_k,
            "rankings": list(g.rankings),
        }
        for g in user.index().owners
    ]  # fmt: skip


def _rows(owner: Any) -> int:
    return int(owner.rows.sum()) - len(owner.dead_row)


def cost(user: User, fields: Fields) -> dict[str, Any]:
    """What a search would cost: bytes and rounds of it, and of the names and thumbnails of its hits."""
    threshold, owners = fields.number("threshold"), fields.texts("owners") or None
    ranking, probe = ("threshold", False) if threshold is not None else _ranking(fields)
    k = min(fields.whole("k", PAGE, low=1, high=MOST_HITS), user.index(owners).total)
    told = user.cost(max(k, 1), owners=owners, ranking=ranking, probe=probe)
    servers = max(told["servers"]["bytes"].values()) if "servers" in told else 0
    made = {
        "images": told["images"], "ranking": told["ranking"], "sent": told["user"]["sent"],
        "received": told["user"]["received"], "servers": servers, "records": 0, "record_bytes": 0, "read": 0,
    }  # fmt: skip
    if user.fetches_privately:
        previews = user.preview_cost(RANGE_PAGE if threshold is not None else min(max(k, 1), PAGE))
        made |= {
            "records": previews["records"], "record_bytes": previews["sent"] + previews["received"],
            "read": previews["read"],
        }  # fmt: skip
    return made


def _ranking(fields: Fields) -> tuple[str | None, bool]:
    """Who ranks, and whether only the nearest clusters are looked at: to the page that is a way of ranking."""
    ranking = fields.optional("ranking", most=16)
    return ("server", True) if ranking == PROBE else (ranking, False)


def content_of(job: Job, user: User, found: Found, number: int, openly: bool, kept: Callable[[], int]) -> bytes:
    """The image file of a hit, fetched if it is not here."""
    fetch_originals(job, user, found, [number], openly, kept)
    return found.original(number).content


def run_search(
    job: Job, user: User, content: bytes, fields: Fields, keep: Callable[[Found], int], ready: Callable[[], Any]
) -> int:
    """Search by an image file, then fetch names and thumbnails of the first hits.

    Parameters
    ----------
    job : Job
        Its result becomes the search's number as soon as the hits are there.
    user : User
        Who searches.
    content : bytes
        The image file. Secret.
    fields : Fields
        ``k``, ``ranking``, ``threshold``, ``owners`` (ids), ``named``: whether to fetch names and thumbnails.
    keep : callable
        Remembers the search.
    ready : callable
        Waits for rows that were uploaded before they were checked.

    Returns
    -------
    int
        Number of the search.
    """
    threshold, owners = fields.number("threshold"), fields.texts("owners") or None
    ranking, probe = _ranking(fields)
    k = fields.whole("k", 100, low=1, high=MOST_HITS)
    job.text = "reading the image"
    with opening(content):  # it may be another owner's image
        query = query_vector(user.config, content)
    job.check()
    job.text = "searching"
    ready()
    began = time.perf_counter()
    facts: dict[str, Any] = {"suspects": []}
    if threshold is not None:
        hits = user.range_search(query, threshold, owners=owners)
        left_out, facts["unverified"] = hits.left_out, "answers to a threshold are not verified"
    else:
        k = min(k, user.index(owners).total)
        if k < 1:
            raise ParameterError("the owners that you may search have no images")
        result = user.search(query, k, owners=owners, ranking=ranking, probe=probe)
        hits, left_out = result.hits, result.left_out
        facts |= {"unverified": result.unverified, "suspects": list(result.suspects)}
        facts["clustered"] = result.clustered
    seconds = time.perf_counter() - began
    job.check()
    # the lines alone are kept: servers that lie may name many batches
    facts["left_out"], hits.left_out = left_out_lines(left_out), ()
    what = "the nearest" if threshold is None else f"within {threshold:g}"
    found = Found(
        user.name,
        what,
        hits,
        user.config.encoding.metric,
        threshold,
        seconds,
        picture(content, THUMBNAIL, window=user.config.window),
        facts,
    )
    job.result = number = keep(found)
    if fields.flag("named") and hits:
        fetch_previews(job, user, found, 0)
    return number


def left_out_lines(left_out: Sequence[LeftOut]) -> list[str]:
    """What was left out, one line for each owner, server and reason: few lines, whatever servers say.

    Parameters
    ----------
    left_out : sequence of LeftOut
        Of a search.

    Returns
    -------
    list of str
        At most :data:`MOST_REASONS` lines, and one that counts the rest. Texts of servers are cut.
    """
    groups: dict[tuple[bytes, int, str, bool], list[LeftOut]] = {}
    counts: Counter[tuple[bytes, int, str, bool]] = Counter()
    further = 0
    for one in left_out:
        kind = one.owner, one.server, one.reason, bool(one.batch)
        if kind not in groups and len(groups) >= MOST_REASONS:
            further += 1
            continue
        some = groups.setdefault(kind, [])
        counts[kind] += 1
        if len(some) < _NAMED:
            some.append(one)
    lines = []
    for kind, some in groups.items():
        first, count = some[0], counts[kind]
        if count == 1 or not first.batch:
            lines.append(shown(str(first), 500))
            continue
        where = f" (server {first.server})" if first.server else ""
        named = ", ".join(one.batch.hex() for one in some) + (", ..." if count > len(some) else "")
        owner, reason = shown(first.owner_name, 64), shown(first.reason, 300)
        lines.append(f"{count:,} batches of owner {owner}: {reason}{where}: {named}")
    if further:
        lines.append(f"{further:,} more, for other reasons")
    return lines


def fetch_previews(job: Job, user: User, found: Found, start: int) -> None:
    """Fetch names, captions and thumbnails of one page of hits; what cannot be fetched is said, the hits stay.

    Of a range search always as many records are fetched: their number would show how many hits there are.
    """
    if not user.fetches_privately:
        found.unnamed = "this deployment keeps no records that could be fetched privately"
        return
    places = [n for n in range(start, min(start + found.page, len(found.hits))) if n not in found.previews]
    if not places:
        return
    job.text = "fetching names and pictures"
    try:
        pad = found.page if found.threshold is not None else 0
        previews = user.preview([found.hits[n] for n in places], pad=pad)
    except (AccessDeniedError, IntegrityError, VerificationError) as error:
        found.unnamed = shown(f"names and pictures were not fetched: {error}", 1000)
        return
    job.check()
    with ThreadPoolExecutor(2) as pool:
        pictures = list(pool.map(lambda preview: small_picture(preview.thumbnail), previews))
    found.pictures |= dict(zip(places, pictures, strict=True))
    found.previews |= dict(zip(places, previews, strict=True))
    found.unnamed = ""


def fetch_originals(
    job: Job, user: User, found: Found, numbers: Sequence[int], openly: bool, kept: Callable[[], int]
) -> None:
    """Fetch the image files of some hits, privately unless ``openly``; each that fails is noted on its hit.

    Parameters
    ----------
    job : Job
        Counts images, and ends between two requests once it was cancelled.
    user : User
        Who fetches.
    found : Found
        The search.
    numbers : sequence of int
        Numbers of hits.
    openly : bool
        Whether servers may learn which images are fetched.
    kept : callable
        Bytes of images that the page keeps.
    """
    wanted = [n for n in dict.fromkeys(numbers) if n not in found.originals or found.originals[n].error is not None]
    if any(n >= len(found.hits) for n in wanted):
        raise ParameterError("there is no such hit")
    job.text = "fetching images" + (" openly" if openly else "")
    job.total = len(wanted)
    for first in range(0, len(wanted), _AT_ONCE):
        if kept() >= MOST_ORIGINALS:
            raise LimitError("the page holds as many images as fit; save them, and forget some searches")
        some = wanted[first : first + _AT_ONCE]
        hits = [found.hits[n] for n in some]
        images = user.fetch(hits) if openly else user.fetch(hits, private=True, progress=lambda *_: job.check())
        found.originals |= dict(zip(some, images, strict=True))
        job.step(len(some))


def export(
    job: Job, user: User, found: Found, numbers: Sequence[int], kind: str, openly: bool, kept: Callable[[], int]
) -> None:
    """Make a table (``csv``), or an archive of the table and the images (``zip``), of some hits.

    LimitError for more than :data:`MOST_EXPORTED` bytes.
    """
    if kind not in ("csv", "zip"):
        raise ParameterError("an export is csv or zip")
    chosen = list(dict.fromkeys(numbers))
    if not chosen or any(n >= len(found.hits) for n in chosen):
        raise ParameterError("choose at least one hit")
    if kind == "zip":
        fetch_originals(job, user, found, chosen, openly, kept)
    rows, files = [], []
    for n in chosen:
        hit, preview, image = found.hits[n], found.previews.get(n), found.originals.get(n)
        row: dict[str, Any] = {
            "rank": n + 1, "id": hit.id, "owner": hit.owner_name, "score": hit.score, "value": hit.value
        }  # fmt: skip
        if preview is not None:
            row |= {"name": preview.path, "caption": preview.caption, "metadata": preview.metadata}
        if kind == "zip" and image is not None and image.error is None:
            row["file"] = safe_name(f"{n + 1:04d}-{image.name}")
            files.append((row["file"], image.content))
        rows.append(row)
    table = hits_csv(rows)
    if len(table) + sum(len(content) for _, content in files) > MOST_EXPORTED:
        raise LimitError(f"an export has at most {MOST_EXPORTED >> 20} MiB; choose fewer hits")
    if kind == "csv":
        job.file = "hits.csv", "text/csv; charset=utf-8", table
        return
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # images are compressed already
        archive.writestr("hits.csv", table)
        for name, content in files:
            job.check()
            archive.writestr(name, content)
    job.file = "hits.zip", "application/zip", out.getvalue()
