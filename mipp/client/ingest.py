"""Adds image files to an index in chunks; resumes after an interruption. Vectors are in ``streaming.py``."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import cpu, features
from ..errors import ImageError, NotFoundError, ParameterError
from ..io.files import read_regular, shown
from ..io.patterns import place_of
from .added import AddReport, Progress, drop_replaced, follow, lost_rows, rows_label
from .given import refused_vectors
from .image_features import image_reason, index_descriptor
from .image_file import IMAGE_FILE_BYTES, Image, check_image
from .journal import image_label
from .journal_places import Copied
from .recording import RecordOwner
from .streaming import add_vectors

__all__ = [
    "AddReport",
    "Chunk",
    "Progress",
    "Told",
    "add_chunk",
    "add_images",
    "add_vectors",
    "drop_replaced",
    "names_inside",
    "rows_label",
]

IMAGE_CHUNK = 128
#: files that are held in memory at once
IMAGE_CHUNK_BYTES = 1 << 28


@dataclass
class Chunk:
    """Files that are added together, and the paths of files whose content is there already."""

    paths: list[Path] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    #: labels of the content of each file, also of files whose content is there already
    claims: dict[Path, list[str]] = field(default_factory=dict)
    #: files with the content of one in ``paths``
    copies: list[tuple[Path, str]] = field(default_factory=list)
    seen: int = 0


@dataclass(frozen=True)
class Told:
    """Metadata of files, and paths of files in their records; most bytes of a thumbnail; threads."""

    metadata: dict[Path, Mapping[str, Any]]
    names: dict[Path, str]
    preview_size: int | None
    workers: int | None

    def name(self, path: Path) -> str:
        return self.names.get(path, path.name)

    def records(self, owner: RecordOwner, paths: list[Path], contents: list[bytes]) -> list[bytes] | None:
        """Plaintexts of records of files; None where the deployment keeps none."""
        if not owner.config.record_bytes:
            return None

        def made(path: Path, content: bytes) -> bytes:
            return owner.plain_record(self.name(path), self.metadata.get(path), content, self.preview_size)

        with ThreadPoolExecutor(self.workers or cpu.threads()) as pool:
            return list(pool.map(made, paths, contents))


def names_inside(paths: Iterable[Path], files: Iterable[Path]) -> dict[Path, str]:
    """Path of each file inside the folder among ``paths`` that holds it, with ``/``; of a named file its name."""
    folders = sorted((p for p in paths if p.is_dir()), key=lambda p: -len(p.parts))
    found = {}
    for file in files:
        folder = next((f for f in folders if file.is_relative_to(f)), file.parent)
        found[file] = file.relative_to(folder).as_posix()
    return found


def add_images(
    owner: RecordOwner,
    paths: Sequence[Path],
    *,
    metadata: Mapping[Path, Mapping[str, Any]] | None = None,
    names: Mapping[Path, str] | None = None,
    preview_size: int | None = None,
    workers: int | None = None,
    chunk: int = IMAGE_CHUNK,
    progress: Progress | None = None,
    seconds: dict[str, float] | None = None,
) -> AddReport:
    """Extract, encode, encrypt and upload image files in chunks.

    Content that the owner has already is skipped, whatever the file's name, so the same call resumes an interrupted
    one, and moved or copied files are not added again. A file whose content changed since it was added is added, and
    then the rows of its old content are deleted, unless another file holds it. A broken file is reported and left out.
    One process at a time adds for an owner (``owner.adding``).

    Parameters
    ----------
    owner : RecordOwner
        The owner.
    paths : sequence of Path
        Files.
    metadata : mapping of Path to mapping, optional
        Metadata that is encrypted with an image; all of it is checked before anything is sent. Secret.
    names : mapping of Path to str, optional
        Path of each file in its record; default its name. Secret.
    preview_size : int, optional
        Most bytes of a thumbnail; default as much as fits into a record.
    workers : int, optional
        Processes that extract features; default one per processor.
    chunk : int
        Files in a chunk; fewer if they are large.
    progress : callable, optional
        Called with the number of files that were processed since the last call.
    seconds : dict, optional
        The seconds that extraction takes are added to its item ``extract``.

    Returns
    -------
    AddReport
        Files that were added, were there already, or were left out.
    """
    descriptor = index_descriptor(owner.config)
    told = Told(dict(metadata or {}), dict(names or {}), preview_size, workers)
    for path, fields in told.metadata.items():
        check_image(("", b"", fields))
        if owner.config.record_bytes:
            try:
                owner.plain_record(told.name(path), fields, None)
            except ParameterError as error:
                raise ParameterError(f"{told.name(path)}: {error}") from None
    report = AddReport()
    with owner.adding:
        follow(owner)
        there: set[str] = set()  # what this call added
        for part in _chunks(paths, chunk, owner, there, report):
            refused = add_chunk(owner, part, descriptor, told, seconds, report) if part.paths else {}
            there.update(label for label in part.labels if label not in refused)
            files = [*zip(part.paths, part.labels, strict=True), *part.copies]
            report.errors += [(str(path), refused[label]) for path, label in files if label in refused]
            report.skipped += sum(label not in refused for _, label in part.copies)
            if owner.journal is not None and part.claims:
                with owner.turn:
                    owner.journal.claim({p: texts for p, texts in part.claims.items() if owner.journal.has(texts[0])})
            if progress is not None:
                progress(part.seen)
        report.replaced += drop_replaced(owner)
        report.lost = lost_rows(owner, paths) if report.skipped else 0
    return report


def _chunks(
    paths: Sequence[Path], most: int, owner: RecordOwner, there: set[str], report: AddReport
) -> Iterator[Chunk]:
    """Read each file once; files whose content is there already, or came before in this call, are only noted."""
    part, size = Chunk(), 0
    for path in paths:
        part.seen += 1
        try:
            content = read_regular(path, IMAGE_FILE_BYTES, refused=ImageError)
        except (ImageError, NotFoundError) as error:
            report.errors.append((str(path), str(error).removeprefix(f"{shown(path)}: ")))
        else:
            label = image_label(hashlib.sha256(content).hexdigest())
            part.claims[place_of(path)] = [label]
            if label in there or (owner.journal is not None and owner.journal.has(label)):
                report.skipped += 1
            elif label in part.labels:
                part.copies.append((path, label))
            else:
                part.paths.append(path)
                part.labels.append(label)
                part.contents.append(content)
                size += len(content)
        if part.seen >= most or size >= IMAGE_CHUNK_BYTES:
            yield part
            part, size = Chunk(), 0
    if part.seen:
        yield part


def add_chunk(
    owner: RecordOwner,
    part: Chunk,
    descriptor: features.Descriptor,
    told: Told,
    seconds: dict[str, float] | None,
    report: AddReport,
    copied: Callable[[list[int]], Copied] | None = None,
) -> dict[str, str]:
    """Add the new files of a chunk.

    Parameters
    ----------
    owner : RecordOwner
        The owner.
    part : Chunk
        The files.
    descriptor : Descriptor
        Of the index.
    told : Told
        What is known of the files.
    seconds : dict, optional
        As of :func:`add_images`.
    report : AddReport
        What was added is noted there.
    copied : callable, optional
        Rows of another index that some files of the chunk, by their numbers, are from.

    Returns
    -------
    dict of str to str
        Labels of files that are left out, with the reasons.
    """
    began = time.perf_counter()
    # from the bytes that are uploaded, as the file may change meanwhile
    got = features.extract(part.contents, descriptor, workers=told.workers, window=owner.config.window)
    if seconds is not None:
        seconds["extract"] = seconds.get("extract", 0.0) + time.perf_counter() - began
    refused = {part.labels[i]: image_reason(text) for i, _, text in got.errors}
    kept = [int(i) for i in got.kept]
    if not kept:
        return refused
    values = descriptor.embed(got.values)
    good = []
    for n, text in enumerate(refused_vectors(owner.config.encoding.encode_rows, values)):
        if text:
            refused[part.labels[kept[n]]] = text
        else:
            good.append(n)
    with owner.turn:  # another process may be adding the same content
        new = [n for n in good if owner.journal is None or not owner.journal.has(part.labels[kept[n]])]
        report.skipped += len(good) - len(new)
        kept = [kept[n] for n in new]
        if kept:
            rows = owner.config.encoding.encode_rows(values[new])
            order = owner.stored_order(rows)
            if order is not None:  # all that is made of a row goes with it
                rows, kept = rows[order], [kept[i] for i in order]
            images: list[Image] = [
                (part.paths[i].name, part.contents[i], told.metadata.get(part.paths[i])) for i in kept
            ]
            records = told.records(owner, [part.paths[i] for i in kept], [part.contents[i] for i in kept])
            source = None if copied is None else copied(kept)
            ids = owner.store_rows(rows, images, [part.labels[i] for i in kept], records, source)
            report.note([(str(part.paths[i]), image) for i, image in sorted(zip(kept, ids, strict=True))])
    return refused
