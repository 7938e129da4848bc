"""Makes an index out of another one of the same owner: another encoding, descriptor, scheme or size of records.

Images come back from the servers of the old index as the owner encrypted them, and their features are extracted anew.
Vectors come back as they were quantised, so they are quantised twice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConflictError, ImageError, NotFoundError, ParameterError
from ..io.files import as_path, read_regular
from ..io.walk import walk_images
from ..rpc import messages as m
from .added import known_again, rows_name
from .given import refused_vectors
from .image_features import index_descriptor
from .image_file import IMAGE_FILE_BYTES, Image, check_image
from .ingest import (
    IMAGE_CHUNK,
    IMAGE_CHUNK_BYTES,
    AddReport,
    Chunk,
    Progress,
    Told,
    add_chunk,
    add_images,
    names_inside,
    rows_label,
)
from .journal import Journal, image_label
from .journal_places import Copied, by_origin, runs_of
from .journal_recovery import follow_servers, own_images, rows_digest
from .owner import ImageOwner
from .records import Record
from .retry import retry_conflicts
from .row_checks import Deletions
from .row_ids import batch_rows

__all__ = ["ReencodeReport", "reencode"]

#: rows that are asked for at once with their records, and images if there are some; images, which may be large
_BLOCK, _LARGE = 256, 32


@dataclass
class ReencodeReport:
    """Report on an index that was made from another one.

    Parameters
    ----------
    added : int
        Number of rows that were added.
    skipped : int
        Number of rows that were there already, from an earlier call or with the same content.
    left_out : list of (str, str)
        Each row that was left out, by its id in the old index, and the reason. Of files, with ``originals``: the file.
    twice : bool
        Whether rows were quantised twice: vectors are, images are not.
    """

    added: int = 0
    skipped: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    twice: bool = False


@dataclass
class _Row:
    """A row of the old index, and what it came with."""

    #: in its batch, and in the parts of what a cloud gave back
    row: int
    at: int
    id: str
    record: Record | None = None
    image: tuple[str, dict[str, Any] | None, bytes] | None = None

    @property
    def path(self) -> str:
        return self.record.path if self.record is not None else self.image[0] if self.image else ""

    @property
    def metadata(self) -> Mapping[str, Any] | None:
        """Metadata of the record, which may have been annotated; without records that of the image."""
        return self.record.metadata if self.record is not None else self.image[1] if self.image else None

    @property
    def picture(self) -> bytes | None:
        """What a thumbnail is made of."""
        return self.image[2] if self.image else self.record.thumbnail if self.record is not None else None


def reencode(
    source: ImageOwner, target: ImageOwner, *, originals: str | os.PathLike[str] | None = None,
    preview_size: int | None = None, workers: int | None = None, progress: Progress | None = None,
) -> ReencodeReport:  # fmt: skip
    """Add what an owner has in one index to another index of its own, without the files that it once added.

    Call it again to resume, or to add what came to the old index since: every row is taken once, whatever was merged in
    either index meanwhile. Nothing in the old index is changed. Metadata as it was annotated, paths, and what the
    journal knows of files come along; thumbnails are made anew. What is deleted in the old index later stays.

    Images are fetched from a cloud of the old index, decrypted, and their features extracted anew. Vectors are fetched
    as they were quantised there and quantised again, so each feature is off by at most half a step of the old encoding
    and half a step of the new one; where an encoding projects or clips, what the old one lost stays lost.

    A cloud of the old index learns that all rows, image files and records are given back. The servers of the new one
    learn the same as of an upload. Whoever sees both learns that the indexes hold the same images.

    Parameters
    ----------
    source : ImageOwner
        The owner in the old index.
    target : ImageOwner
        The owner in the new index, with a journal.
    originals : str or path, optional
        Folder with files of the old index: features come from them, and no image is fetched. For images only.
    preview_size : int, optional
        Most bytes of a thumbnail in a record; default as much as fits.
    workers : int, optional
        Processes that extract features; default one per processor.
    progress : callable, optional
        Called with the number of rows that were processed since the last call.

    Returns
    -------
    ReencodeReport
        Rows that were added, were there already, or were left out, and why.

    Raises
    ------
    ParameterError
        One index is of images and the other of vectors; vectors of another dimension or metric; one index for both; an
        owner without a journal.
    NotFoundError
        A batch of the old index was merged or deleted meanwhile; call it again.
    MippError
        Servers of either index fail; call it again.

    Examples
    --------
    >>> import tempfile, numpy as np, mipp
    >>> from pathlib import Path
    >>> from mipp.client.reencoding import reencode
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     coarse, fine = mipp.Encoding("cosine", 4, bits=6), mipp.Encoding("cosine", 4, bits=8)
    ...     with mipp.Deployment.create(Path(folder) / "old", coarse) as old:
    ...         with mipp.Deployment.create(Path(folder) / "new", fine) as new:
    ...             before, after = old.create_owner("anna"), new.create_owner("anna")
    ...             ids = before.add_vectors(np.eye(4))
    ...             first, again = reencode(before, after), reencode(before, after)
    >>> first.added, first.twice, again.added, again.skipped
    (4, True, 0, 4)
    """
    _check(source, target, originals is not None)
    if originals is not None:
        return _from_files(source, target, as_path(originals), preview_size, workers, progress)
    journal = _journal(target)
    report = ReencodeReport(twice=not source.config.descriptor)
    with target.adding:
        with target.turn:
            follow_servers(target, rows_label, settled=True)
        name = journal.source_of(source.config.id + source.id)
        told: Progress = progress if progress is not None else lambda count: None
        copy = _Images if source.config.descriptor else _Vectors
        copier = copy(source, target, journal, name, report, told, preview_size, workers)
        for batch in copier.look():
            copier.batch(batch)
    return report


def _check(source: ImageOwner, target: ImageOwner, files: bool) -> None:
    old, new = source.config, target.config
    if old.id == new.id:
        raise ParameterError("the old and the new index are the same deployment")
    if bool(old.descriptor) != bool(new.descriptor):
        kinds = ("images", "vectors") if old.descriptor else ("vectors", "images")
        raise ParameterError(f"the old index holds {kinds[0]} and the new one {kinds[1]}; neither is made of the other")
    _journal(target)
    if old.descriptor:
        index_descriptor(new)
        return
    if files:
        raise ParameterError("originals are for images; add files of vectors to the new index instead")
    if old.encoding.dim != new.encoding.dim:
        raise ParameterError(f"vectors of dimension {old.encoding.dim} do not fit an index of {new.encoding.dim}")
    if old.encoding.metric != new.encoding.metric:
        raise ParameterError(
            f"rows of the metric {old.encoding.metric} are not what the metric {new.encoding.metric} compares; add the "
            "vectors to the new index instead"
        )


def _journal(owner: ImageOwner) -> Journal:
    if owner.journal is None:
        raise ParameterError(f"owner {owner.name} keeps no journal, so nothing could be resumed")
    return owner.journal


class _Copier:
    """Copies batch after batch; one kind for images, one for vectors."""

    def __init__(
        self, source: ImageOwner, target: ImageOwner, journal: Journal, name: bytes, report: ReencodeReport,
        told: Progress, preview_size: int | None, workers: int | None,
    ) -> None:  # fmt: skip
        self.source, self.target, self.journal, self.name = source, target, journal, name
        self.report, self.told, self.preview_size, self.workers = report, told, preview_size, workers
        self.done = journal.copied(name)
        #: state of the old index that batches are read at, and its deleted rows
        self.deletions: Deletions | None = None
        #: of the batch of the old index, the content that its journal knows: first position, rows, files
        self.items: dict[tuple[int, int], list[Path]] = {}
        #: positions of its live rows
        self.positions = np.empty(0, np.int64)

    def batch(self, batch: bytes) -> None:
        """Copy what was not copied yet of a batch of the old index."""
        self.items = {}
        for path, _, row, count in self.source.journal.content(batch) if self.source.journal is not None else ():
            paths = self.items.setdefault((row, count), [])
            paths += [] if path is None else [path]
        server, got = self._read_back(batch)
        journal = self.source.journal
        self.positions = got.ordinals if journal is None else journal.looked_up().positions(batch, got.ordinals)
        left = np.flatnonzero(~self._copied(got))
        self.report.skipped += len(got.ordinals) - len(left)
        self.told(len(got.ordinals) - len(left))
        if len(left):
            self.rows(batch, server, got, left)

    def look(self) -> list[bytes]:
        """The batches of the old index with live rows, as servers have them now."""
        head, batches = self.source.agreed_batches()
        live = [b.id for b in batches if b.live]
        self.deletions = self.source.deletions(live, head)
        return live

    def _read_back(self, batch: bytes) -> tuple[int, m.Shares]:
        """A batch of the old index, as it was uploaded: what a cloud makes of it would be the new index's for good."""

        def attempt() -> tuple[int, m.Shares]:
            assert self.deletions is not None  # batches are known by a look
            server, got = self.source.fetch_anywhere(batch, self.deletions.head)
            try:
                self.deletions.check(batch, server, got)
            except ConflictError:  # rows were deleted meanwhile
                self.look()
                raise
            self.source.check_back(batch, server, got)
            return server, got

        return retry_conflicts(attempt)

    def rows(self, batch: bytes, server: int, got: m.Shares, left: np.ndarray) -> None:
        """Copy these of the live rows, by their numbers among them."""
        raise NotImplementedError

    def _copied(self, got: m.Shares) -> np.ndarray:
        """Which live rows were copied by an earlier call."""
        mask = np.zeros(len(got.ordinals), bool)
        if self.done:
            for run in runs_of(np.arange(len(mask)), got.origin_batch, got.origin_row):
                for start, count in self.done.get(run.origin, ()):
                    first, end = max(start, run.start), min(start + count, run.start + run.rows)
                    if first < end:
                        mask[run.first + first - run.start : run.first + end - run.start] = True
        return mask

    def described(self, batch: bytes, got: m.Shares, at: np.ndarray) -> list[_Row]:
        """Rows with their records and images."""
        rows = [
            _Row(int(got.ordinals[i]), int(i), f"{got.origin_batch[i].tobytes().hex()}:{int(got.origin_row[i])}")
            for i in at
        ]
        if self.source.config.record_bytes:
            for row, record in zip(rows, self.source.records([(batch, row.row) for row in rows]), strict=True):
                row.record = record
        by_number = {row.row: row for row in rows}
        for number, image in own_images(self.source, batch, list(by_number), got):
            by_number[number].image = image
        return rows

    def fitting(self, rows: Iterable[_Row]) -> Iterator[_Row]:
        """Rows whose metadata and images the new index takes; the others are left out."""
        for row in rows:
            try:
                if row.image is not None:
                    check_image((row.image[0], row.image[2], row.metadata))
                if self.target.config.record_bytes:
                    self.target.plain_record(row.path, row.metadata, None)
            except ParameterError as error:
                self.leave_out(row, str(error))
            else:
                yield row

    def leave_out(self, row: _Row, why: str) -> None:
        self.report.left_out.append((row.id, why))
        self.told(1)

    def source_rows(
        self, got: m.Shares, at: Sequence[int], paths: Mapping[str, Sequence[Path]], digest: bytes = b""
    ) -> Copied:
        # by their ids: rows that follow each other there are one entry, however they are stored here
        order = np.array(at, np.int64)
        order = order[by_origin(got.origin_batch[order], got.origin_row[order])]
        runs = runs_of(np.arange(len(at)), got.origin_batch[order], got.origin_row[order])
        return Copied(self.name, runs, digest, paths)


class _Images(_Copier):
    """Fetches images, and extracts features anew."""

    def rows(self, batch: bytes, server: int, got: m.Shares, left: np.ndarray) -> None:
        part: list[_Row] = []
        size = 0
        step = min(_LARGE, IMAGE_CHUNK)
        for start in range(0, len(left), step):
            for row in self.fitting(self.described(batch, got, left[start : start + step])):
                if row.image is None:
                    self.leave_out(row, "no cloud gives its image back")
                    continue
                part.append(row)
                size += len(row.image[2])
            if len(part) >= IMAGE_CHUNK or size >= IMAGE_CHUNK_BYTES:
                self._add(got, part)
                part, size = [], 0
        if part:
            self._add(got, part)

    def _add(self, got: m.Shares, rows: Sequence[_Row]) -> None:
        chunk, new, others = Chunk(), dict[str, _Row](), list[tuple[str, _Row]]()
        metadata, names = dict[Path, Mapping[str, Any]](), dict[Path, str]()
        for row in rows:
            name, _, content = row.image or ("", None, b"")
            label = image_label(hashlib.sha256(content).hexdigest())
            if label in new or self.journal.has(label):
                others.append((label, row))
                continue
            new[label] = row
            path = Path(row.id) / name
            chunk.paths.append(path)
            chunk.labels.append(label)
            chunk.contents.append(content)
            names[path] = row.path
            if row.metadata is not None:
                metadata[path] = row.metadata
        held = {row.row: self.items.get((int(self.positions[row.at]), 1), []) for row in rows}

        def copied(kept: list[int]) -> Copied:
            some = [chunk.labels[i] for i in kept]
            paths = {label: held[new[label].row] for label in some}
            return self.source_rows(got, [new[label].at for label in some], paths)

        told = Told(metadata, names, self.preview_size, self.workers)
        added = AddReport()
        refused = {}
        if chunk.paths:
            refused = add_chunk(self.target, chunk, index_descriptor(self.target.config), told, None, added, copied)
        self.report.added += len(added.added)
        for label, reason in refused.items():
            self.report.left_out.append((new[label].id, reason))
        for label, row in others:
            if label in refused:
                self.report.left_out.append((row.id, refused[label]))
                continue
            self.journal.there_already(self.source_rows(got, [row.at], {label: held[row.row]}))
            self.report.skipped += 1
        self.told(len(rows))


class _Vectors(_Copier):
    """Reads rows back and encodes them again."""

    def rows(self, batch: bytes, server: int, got: m.Shares, left: np.ndarray) -> None:
        decoded = self.source.config.encoding.decode_rows(self.source.opened(got, server, batch))
        most = batch_rows(self.target.config)
        for item, at in self._by_item(got, left):
            part, size = list[_Row](), 0
            for start in range(0, len(at), _BLOCK):
                rows = list(self.fitting(self.described(batch, got, at[start : start + _BLOCK])))
                part += rows
                size += sum(len(row.image[2]) for row in rows if row.image is not None)
                if len(part) + _BLOCK > most or size >= IMAGE_CHUNK_BYTES:
                    self._add(got, decoded, part, item)
                    part, size = [], 0
            if part:
                self._add(got, decoded, part, item)

    def _by_item(self, got: m.Shares, left: np.ndarray) -> Iterator[tuple[list[Path], np.ndarray]]:
        """Rows to copy, by what the old journal knows as one content, and the files that hold it."""
        items = sorted(self.items.items())
        left = left[np.argsort(self.positions[left], kind="stable")]
        numbers = self.positions[left]
        which = np.searchsorted([row for (row, _), _ in items], numbers, side="right") - 1
        for n in np.unique(which):
            at = left[which == n]
            if n < 0:
                yield [], at
                continue
            (row, count), paths = items[int(n)]
            inside = self.positions[at] < row + count
            yield paths, at[inside]
            yield [], at[~inside]

    def _add(self, got: m.Shares, decoded: np.ndarray, rows: Sequence[_Row], paths: Sequence[Path]) -> None:
        target, encoding = self.target, self.target.config.encoding
        reasons = refused_vectors(encoding.encode_rows, decoded[[row.at for row in rows]])
        for row, why in zip(rows, reasons, strict=True):
            if why:
                self.leave_out(row, why)
        rows = [row for row, why in zip(rows, reasons, strict=True) if not why]
        if not rows:
            return
        encoded = encoding.encode_rows(decoded[[row.at for row in rows]])
        order = target.stored_order(encoded)
        if order is not None:
            encoded, rows = encoded[order], [rows[i] for i in order]
        text = rows_digest(encoded)
        # where the old index may have laid rows out, the order of their file is not known
        name = rows_name(text, order if self.source.config.clusters is None else None)
        digest = bytes.fromhex(name)
        # the same rows may be there several times, each with a number of its own
        label = rows_label(name, self.journal.copies_of(self.name, digest))
        copied = self.source_rows(got, [row.at for row in rows], {label: paths}, digest)
        with target.turn:
            if self.journal.has(label) or (order is not None and known_again(self.journal, label, text)):
                self.journal.there_already(copied)
                self.report.skipped += len(rows)
            else:
                images: list[Image | None] | None = None
                if any(row.image is not None for row in rows):
                    images = [None if r.image is None else (r.image[0], r.image[2], r.metadata) for r in rows]
                plains = None
                if target.config.record_bytes:
                    plains = [target.plain_record(r.path, r.metadata, r.picture, self.preview_size) for r in rows]
                target.store_rows(encoded, images, [label], plains, copied)
                self.report.added += len(rows)
        self.told(len(rows))


def _from_files(
    source: ImageOwner, target: ImageOwner, folder: Path, preview_size: int | None, workers: int | None,
    progress: Progress | None,
) -> ReencodeReport:  # fmt: skip
    """Add the files of a folder whose content the old index has, with the metadata that they have there."""
    journal = _journal(source)
    with source.turn:
        follow_servers(source, rows_label)
    files, left_out = walk_images([folder])
    names, places = names_inside([folder], files), dict[Path, tuple[bytes, int]]()
    report = ReencodeReport(left_out=[(str(path), why) for path, why in left_out])
    for path in files:
        try:
            content = read_regular(path, IMAGE_FILE_BYTES, refused=ImageError)
        except (ImageError, NotFoundError) as error:
            report.left_out.append((str(path), str(error)))
            continue
        if found := journal.places(image_label(hashlib.sha256(content).hexdigest())):
            places[path] = found[0]
    metadata = dict[Path, Mapping[str, Any]]()
    if source.config.record_bytes:
        for path, record in zip(places, source.records(list(places.values())), strict=True):
            if record is not None and record.metadata is not None:
                metadata[path] = record.metadata
            if record is not None and record.path:
                names[path] = record.path
    for path, fields in list(metadata.items()):
        try:
            check_image(("", b"", fields))
            if target.config.record_bytes:
                target.plain_record(names[path], fields, None)
        except ParameterError as error:
            report.left_out.append((str(path), str(error)))
            del places[path], metadata[path]
    done = add_images(
        target, list(places), metadata=metadata, names=names, preview_size=preview_size, workers=workers,
        progress=progress,
    )  # fmt: skip
    report.added, report.skipped = len(done.added), done.skipped
    report.left_out += done.errors
    found_places = set(places.values())
    missing = {i.id for i in source.images() if (i.batch, i.row) not in found_places}
    report.left_out += [(name, f"no file in {folder} holds it") for name in sorted(missing)]
    return report
