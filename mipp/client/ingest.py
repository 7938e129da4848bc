"""Adds image files and files of vectors to an index in chunks; resumes after an interruption."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import cpu, features
from ..errors import ImageError, MippError, NotFoundError, ParameterError
from ..io.files import read_regular, shown
from ..io.patterns import place_of
from .given import refused_vectors
from .image_features import image_reason, index_descriptor
from .image_file import IMAGE_FILE_BYTES, Image, check_image
from .journal import image_label, part_label
from .journal_places import Copied
from .journal_recovery import follow_servers, rows_digest, settle_journal
from .recording import RecordOwner

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
VECTOR_CHUNK_BYTES = 1 << 26
#: rows that one delete names, about; parts of vectors are not split
_DELETED_ROWS = 1 << 16
Progress = Callable[[int], None]


@dataclass
class AddReport:
    """Report on a call that added files.

    Parameters
    ----------
    added : list of (str, (bytes, int))
        Each file that was added, and the id of its image: batch id and row.
    skipped : int
        Number of files whose content was there already; of vectors, the number of rows.
    errors : list of (str, str)
        Each file that was left out, and the reason.
    replaced : int
        Number of rows that were deleted because their files changed.
    """

    added: list[tuple[str, tuple[bytes, int]]] = field(default_factory=list)
    skipped: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    replaced: int = 0


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
        _follow(owner)
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
            images: list[Image] = [
                (part.paths[i].name, part.contents[i], told.metadata.get(part.paths[i])) for i in kept
            ]
            rows = owner.config.encoding.encode_rows(values[new])
            records = told.records(owner, [part.paths[i] for i in kept], [part.contents[i] for i in kept])
            source = None if copied is None else copied(kept)
            ids = owner.store_rows(rows, images, [part.labels[i] for i in kept], records, source)
            report.added += [(str(part.paths[i]), image) for i, image in zip(kept, ids, strict=True)]
    return refused


def _follow(owner: RecordOwner) -> None:
    with owner.turn:
        follow_servers(owner, rows_label)


def rows_label(digest: str, number: int) -> str:
    """Label of a part of vectors: digest of its encoded rows, and its number among parts with the same rows."""
    return f"rows {digest} {number}"


def drop_replaced(owner: RecordOwner) -> int:
    """Delete the rows of content that files held before, and that no file holds now.

    Parameters
    ----------
    owner : RecordOwner
        The owner; without a journal nothing happens.

    Returns
    -------
    int
        Number of rows that were deleted.
    """
    if owner.journal is None:
        return 0
    deleted = 0
    with owner.turn:
        settle_journal(owner)
        items = owner.journal.replaced()
        while items:
            ids: list[tuple[bytes, int]] = []
            while items and len(ids) < _DELETED_ROWS:
                batch, row, count = items.pop()
                ids += [(batch, row + i) for i in range(count)]
            deleted += owner.delete(ids)
    return deleted


def add_vectors(
    owner: RecordOwner,
    path: Path,
    data: np.ndarray,
    *,
    metadata: Sequence[Mapping[str, Any] | None] | None = None,
    progress: Progress | None = None,
) -> AddReport:
    """Add the vectors of a file in chunks of about 64 MiB of shares; resumable like :func:`add_images`.

    Chunks that the owner has already are skipped, also from another file. Chunks that the file held before and does not
    hold any more are deleted at the end.

    Parameters
    ----------
    owner : RecordOwner
        The owner.
    path : Path
        The file, for the journal and the report.
    data : ndarray, (N, dim)
        Its vectors, as :func:`mipp.io.vectors.load_vectors` gives them. All are checked against the encoding before the
        first chunk is sent. Secret.
    metadata : sequence of mapping or None, optional
        Of each row, for its record; only of rows that this call adds. All of it is checked before the first chunk is
        sent. Secret.
    progress : callable, optional
        Called with the number of rows that were processed since the last call.

    Returns
    -------
    AddReport
        One entry for each row.
    """
    encoding, params = owner.config.encoding, owner.config.params
    row_bytes = params.padded(encoding.encoded_dim) * params.ring_bits // 8
    if metadata is not None:
        if len(metadata) != len(data):
            raise ParameterError(f"{len(data)} rows need as many entries of metadata, not {len(metadata)}")
        for fields in metadata:
            owner.records_for(None, [fields], 1)
        row_bytes += owner.config.record_bytes
    chunk = max(1, min(VECTOR_CHUNK_BYTES // row_bytes, 1 << 18))
    digest = hashlib.sha256()
    labels: list[str] = []
    for start in range(0, len(data), chunk):
        part = np.ascontiguousarray(data[start : start + chunk])
        try:
            encoded = encoding.encode_rows(part)
        except MippError as error:
            raise type(error)(f"{path}, rows {start} to {start + len(part) - 1}: {error}") from None
        digest.update(part.data.cast("B"))
        same = rows_digest(encoded)
        number = 0
        while rows_label(same, number) in labels:  # a file may hold the same rows several times
            number += 1
        labels.append(rows_label(same, number))
    report = AddReport()
    with owner.adding:
        _follow(owner)
        for start, label in zip(range(0, len(data), chunk), labels, strict=True):
            part = np.ascontiguousarray(data[start : start + chunk])
            # label in journals of the first version
            former = part_label(digest.hexdigest(), start, len(part))
            with owner.turn:  # another process may be adding the same rows
                known = owner.journal is not None and (owner.journal.has(label) or owner.journal.has(former))
                some = None if metadata is None else metadata[start : start + len(part)]
                ids = [] if known else owner.add_vectors(part, labels=[label], metadata=some)
            if known:
                report.skipped += len(part)
            else:
                report.added += [(f"{path}:{start + i}", image) for i, image in enumerate(ids)]
            if progress is not None:
                progress(len(part))
        if owner.journal is not None:
            with owner.turn:
                owner.journal.claim({place_of(path): labels})
            report.replaced += drop_replaced(owner)
    return report
