"""What an owner does on the page: adds folders, lists, annotates and deletes images, grants, revokes, audits."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..client import ingest
from ..client.given import expiry_seconds
from ..client.owner import ImageOwner
from ..errors import DTypeError, ParameterError
from ..io.display import shown
from ..io.walk import walk_images
from .fields import Fields
from .finding import small_picture
from .jobs import Job

__all__ = ["ROWS", "add_folder", "annotate", "audit", "delete", "folders", "give", "grants", "images"]

#: images of a list that are shown at a time; folders that are offered
ROWS, MOST_FOLDERS = 60, 200


def folders(text: str) -> dict[str, Any]:
    """Folders of this machine that a person can choose from.

    Parameters
    ----------
    text : str
        A folder; empty for the home folder.

    Returns
    -------
    dict
        ``path`` with links resolved, ``parent``, ``folders`` (names, sorted), ``files``: number of other entries.
    """
    path = Path(text).expanduser() if text else Path.home()
    if not path.is_absolute() or "\0" in text:
        raise ParameterError("name a folder by its whole path")
    try:
        path = path.resolve()
        with os.scandir(path) as entries:
            listed = [(e.name, e.is_dir()) for e in entries if not e.name.startswith(".")]
    except NotADirectoryError:
        raise ParameterError(f"{shown(str(path), 500)} is not a folder") from None
    except OSError as error:
        raise ParameterError(f"{shown(str(path), 500)} cannot be read: {error.strerror}") from None
    inside = sorted(name for name, folder in listed if folder and name.isprintable())
    return {
        "path": str(path), "parent": str(path.parent), "folders": inside[:MOST_FOLDERS],
        "more": max(0, len(inside) - MOST_FOLDERS), "files": sum(not folder for _, folder in listed),
    }  # fmt: skip


def add_folder(job: Job, owner: ImageOwner, folder: str) -> dict[str, Any]:
    """Add the images of a folder; content that is there already is skipped. Cancelling keeps what was added.

    Parameters
    ----------
    job : Job
        Counts files.
    owner : ImageOwner
        Whose images they become.
    folder : str
        Whole path of a folder, or of one image.

    Returns
    -------
    dict
        Numbers of images ``added``, ``skipped``, ``replaced``, and ``errors`` (file and reason, the first hundred).
    """
    path = Path(folder).expanduser()
    if not path.is_absolute() or "\0" in folder:
        raise ParameterError("name a folder by its whole path")
    others: list[Path] = []
    job.text = "looking for images"
    files, left_out = walk_images([path], outside=False, others=others)
    if not files:
        raise ParameterError(f"there are no images in {shown(str(path), 500)}")
    job.total = len(files)
    job.text = "adding"
    names = ingest.names_inside([path], files)
    report = ingest.add_images(owner, files, names=names, chunk=16, progress=job.step)
    errors = [(str(file), reason) for file, reason in left_out] + report.errors
    return {
        "added": len(report.added), "skipped": report.skipped, "replaced": report.replaced, "others": len(others),
        "failed": len(errors), "errors": [[shown(file, 300), shown(reason, 300)] for file, reason in errors[:100]],
    }  # fmt: skip


def images(job: Job, owner: ImageOwner, start: int, wanted: str) -> dict[str, Any]:
    """List some of an owner's images, with names, captions and thumbnails of their records.

    Parameters
    ----------
    job : Job
        Not counted.
    owner : ImageOwner
        Whose images.
    start : int
        Number of the first one.
    wanted : str
        Part of a path, in any case; empty for all.

    Returns
    -------
    dict
        ``total``, ``start`` and ``images``.
    """
    found = owner.images()
    if wanted:
        found = [one for one in found if one.path is not None and wanted.casefold() in str(one.path).casefold()]
    some = found[start : start + ROWS]
    told: list[dict[str, Any]] = [
        {"id": one.id, "path": "" if one.path is None else shown(str(one.path), 500)} for one in some
    ]
    job.check()
    if some and owner.config.record_bytes:
        for entry, record in zip(told, owner.records([one.id for one in some]), strict=True):
            if record is None:
                continue
            fields = record.metadata or {}
            entry["metadata"] = [[shown(str(n), 100), shown(str(v), 2000)] for n, v in fields.items()]
            thumb = small_picture(record.thumbnail)
            if thumb is not None:
                entry["thumbnail"] = base64.b64encode(thumb).decode()
    return {"total": len(found), "start": start, "images": told, "records": bool(owner.config.record_bytes)}


def annotate(owner: ImageOwner, identity: str, fields: dict[str, Any]) -> int:
    """Set fields of one image's metadata; an empty text removes a field, others stay as they are."""
    if not all(isinstance(n, str) and n and isinstance(v, str) for n, v in fields.items()):
        raise ParameterError("fields of metadata have a name, and a text")
    (record,) = owner.records([identity])
    kept = dict((record.metadata if record is not None else None) or {}) | fields
    return owner.annotate({identity: {name: value for name, value in kept.items() if value != ""}})


def delete(owner: ImageOwner, ids: Sequence[str]) -> int:
    """Delete images; their number."""
    if not ids:
        raise ParameterError("choose at least one image")
    return owner.delete(list(ids))


def grants(owner: ImageOwner, names: dict[str, str]) -> list[dict[str, Any]]:
    """An owner's grants; ``names``: names of users by id, where they are known."""
    return [
        {
            "user": g.user.hex(), "name": names.get(g.user.hex(), ""), "rankings": list(g.rankings), "max_k": g.max_k,
            "scores": g.scores, "quota": g.quota, "used": g.used, "min_rows": g.min_rows, "revoked": g.revoked,
            "expiry": g.expiry, "ended": bool(g.expiry and g.expiry <= time.time()),
        }
        for g in owner.grants()
    ]  # fmt: skip


def give(owner: ImageOwner, fields: Fields) -> None:
    """Grant a user what the fields say: ``user`` (name or id), ``rankings``, ``expiry``, ``quota``, ``max_k``,
    ``min_rows``, ``scores``."""
    limits = {name: fields.whole(name, 0) for name in ("quota", "max_k", "min_rows")}
    try:
        expiry = expiry_seconds(fields.text("expiry", "0", most=64) or "0")
    except DTypeError as error:
        raise ParameterError(str(error)) from None
    owner.grant(
        fields.text("user", most=128), expiry=expiry, rankings=fields.texts("rankings") or None,
        scores=fields.flag("scores"), **limits,
    )  # fmt: skip


def audit(owner: ImageOwner, sample: float) -> dict[str, Any]:
    """Audit all clouds; what was found out, in sentences."""
    report = owner.audit(sample)
    clouds = [
        {
            "server": c.server, "ok": c.ok, "rows": c.rows, "batches": c.batches, "problem": shown(c.problem, 500),
            "differing": len(c.differing), "lost": len(c.lost), "not_audited": len(c.not_audited),
        }
        for c in report.clouds
    ]  # fmt: skip
    return {"ok": report.ok, "sample": report.sample, "live": report.live, "clouds": clouds}
