"""The image owner: adds image files and lists them; rows, audits and grants are in other files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DTypeError, NotFoundError, ParameterError
from ..io.files import as_path
from ..io.patterns import place_of
from ..io.streams import open_rows
from ..io.walk import walk_images
from . import ingest, streaming
from .auditing import AuditingOwner, AuditReport, CloudAudit
from .given import whole_number
from .granting import GrantInfo
from .journal import Journal
from .journal_recovery import follow_servers
from .reading import StoredBatch

__all__ = ["AuditReport", "CloudAudit", "GrantInfo", "ImageOwner", "OwnedImage", "OwnedVectors", "StoredBatch"]


@dataclass(frozen=True)
class OwnedImage:
    """An image that an owner has in the index, and the file that holds it.

    Parameters
    ----------
    path : Path or None
        File that the image was last seen at; None if the journal knows none, as when the image was read back from the
        servers.
    batch : bytes
        Id of the batch that the image is in now, 16 bytes.
    row : int
        Row of the image in that batch.
    origin : tuple of (bytes, int), optional
        Batch and row that the image was first uploaded under; default those of now.
    added : int or None
        When it was sent, in Unix seconds; None if the journal does not know, as when it was read back from the servers.
    """

    path: Path | None
    batch: bytes
    row: int
    origin: tuple[bytes, int] | None = None
    added: int | None = None

    @property
    def id(self) -> str:
        """The image's id as text, which lasts: the batch it was first uploaded in, in 32 hex digits, a colon, the row.

        Merges of batches change ``batch`` and ``row``, and never the id.
        """
        batch, row = self.origin or (self.batch, self.row)
        return f"{batch.hex()}:{row}"


@dataclass(frozen=True)
class OwnedVectors:
    """A file of vectors that an owner has in the index.

    Parameters
    ----------
    path : Path or None
        The file, as it was last seen; None for rows of which the journal knows no file.
    rows : int
        Rows of the file that are not deleted.
    batches : tuple of bytes
        Batches that hold them now.
    added : int or None
        When the first of them was sent, in Unix seconds; None if the journal does not know.
    """

    path: Path | None
    rows: int
    batches: tuple[bytes, ...]
    added: int | None = None


class ImageOwner(AuditingOwner):
    """An owner of images in one deployment: adds, lists and deletes them, and grants users access.

    Made by :meth:`mipp.Deployment.create_owner` and :meth:`mipp.Deployment.owner`. It learns nothing about other
    owners' images. Servers get its rows masked by keystream that never repeats, so one server learns their number and
    sizes only; image files are encrypted, each under its own key.

    Parameters
    ----------
    name : str
        Public.
    config : DeploymentConfig
        Public description of the deployment.
    channel : Channel
        To the servers.
    root : bytes
        32 bytes that all keys of this owner are derived from. Secret.
    sign_seed : bytes
        Seed of the Ed25519 identity, 32 bytes. Secret.
    registration : bytes
        16 random bytes, new for each registration. Public.
    invitation : bytes, optional
        The registrar's invitation, for a deployment that takes owners by invitation. A password until it is used.
    threads : int, optional
        Native threads; default all cores.
    journal : Journal, optional
        The owner's own record of the files that it added; without it adding cannot be resumed.
    tags : OwnerTags, optional
        Checksums of what the owner uploaded; without them it cannot audit clouds.
    turn : context manager, optional
        Lock that is held while a change is made, shared by the owner's threads and processes.
    adding : context manager, optional
        Lock that is held while files are added, shared likewise.

    Examples
    --------
    >>> import tempfile, numpy as np, mipp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 8)) as deployment:
    ...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
    ...         ids = anna.add_vectors(np.eye(8), [(f"{i}.png", b"...") for i in range(8)])
    ...         anna.grant(ulla, expiry="30d", quota=100)
    ...         deleted = anna.delete(ids[:3])
    ...         batch = anna.batches()[0]
    >>> deleted, batch.rows, batch.live
    (3, 8, 5)
    """

    def add_images(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        metadata: Mapping[Any, Mapping[str, Any]] | None = None,
        preview_size: int | None = None,
        follow_links: bool = False,
        workers: int | None = None,
        progress: ingest.Progress | None = None,
    ) -> ingest.AddReport:
        """Add image files: extract features, encode, encrypt and upload; the same as ``mipp owner add``.

        Content that this owner has already is skipped, so the same call resumes one that was interrupted. A file whose
        content changed since it was added replaces its old content. A file that cannot be read is reported and left
        out.

        Parameters
        ----------
        paths : str, path or sequence of them
            Files, and folders to search for image files. Secret: servers learn no name and no content, but how many
            bytes each encrypted file has.
        metadata : mapping, optional
            By path, a mapping of text to values that JSON can hold, at most 60 KiB. It is encrypted with the image, and
            :meth:`mipp.User.fetch` returns it. Only for files that this call adds. Where the deployment keeps records,
            it is in the image's record, too, and must fit there. Secret.
        preview_size : int, optional
            Most bytes of the thumbnail in a record; default as much as fits. 0: no thumbnails.
        follow_links : bool
            Whether to follow links that lead out of a folder among ``paths``.
        workers : int, optional
            Processes that extract features; default one per processor.
        progress : callable, optional
            Called with the number of files that were processed since the last call.

        Returns
        -------
        AddReport
            Files that were added, with their ids; the number of files that were there already, and of their rows that
            are lost; files that were left out, and why.

        Raises
        ------
        ParameterError
            An index of vectors; metadata that names no file among ``paths``, or that JSON cannot hold.
        DeploymentError
            An index whose features are of another version than this program's.
        NotFoundError, ImageError
            A path that does not exist, or is neither a file nor a folder.
        StoreError
            The servers could not keep a batch; the batches before it are there.
        DTypeError
            Paths or metadata of another type.

        Examples
        --------
        >>> import tempfile, mipp
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from mipp.features.encoding import descriptor_encoding
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     photos = Path(folder) / "photos"
        ...     photos.mkdir()
        ...     for colour in ("red", "green", "blue"):
        ...         Image.new("RGB", (32, 32), colour).save(photos / f"{colour}.png")
        ...     encoding = descriptor_encoding("cld", server_ranking=True)
        ...     with mipp.Deployment.create(Path(folder) / "index", encoding, descriptor="cld") as deployment:
        ...         anna = deployment.create_owner("anna")
        ...         first, again = anna.add_images(photos, workers=1), anna.add_images(photos, workers=1)
        ...         names = [image.path.name for image in anna.images()]
        >>> len(first.added), again.skipped, names
        (3, 3, ['blue.png', 'green.png', 'red.png'])
        """
        if metadata is not None and not isinstance(metadata, Mapping):
            raise DTypeError(f"metadata is a mapping by path, not {type(metadata).__name__}")
        if not isinstance(paths, (str, os.PathLike)) and isinstance(paths, Iterable):
            paths = list(paths)
        files, left_out = walk_images(paths, outside=follow_links)
        given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        names = ingest.names_inside(map(as_path, given), files)
        by_path = {as_path(path): fields for path, fields in (metadata or {}).items()}
        if unknown := sorted(str(p) for p in by_path.keys() - set(files)):
            raise ParameterError(f"metadata names {unknown[0]}, which is not among the files that are added")
        if preview_size is not None and not 0 <= whole_number(preview_size, "preview_size") <= self.config.record_bytes:
            raise ParameterError(f"thumbnails have 0 to {self.config.record_bytes} bytes in this deployment")
        report = ingest.add_images(
            self, files, metadata=by_path, names=names, preview_size=preview_size, workers=workers, progress=progress
        )
        report.errors += [(str(path), reason) for path, reason in left_out]
        touched = {path for path, _ in report.added} | {path for path, _ in report.errors}
        report.errors += [
            (str(path), "it is in the index already, so its metadata was not changed")
            for path in by_path if str(path) not in touched
        ]  # fmt: skip
        return report

    def add_stream(
        self,
        source: str | os.PathLike[str] | Iterable[np.ndarray],
        *,
        columns: Sequence[str] = (),
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        check: bool = False,
        progress: ingest.Progress | None = None,
    ) -> ingest.AddReport:
        """Add vectors from a file of any size, or from arrays that a program makes, in the memory of two batches.

        Batches have about 64 MiB for each cloud. A batch is encoded and checked before it is sent, and is on all
        servers for good before the next one. The same call goes on where an earlier one was interrupted: a batch whose
        content this owner has already is skipped, also from another source. Batches that a file held before and does
        not hold any more are deleted at the end, once its new ones are there. One process at a time adds for an owner.

        Parameters
        ----------
        source : str, path or iterable of ndarray, (n, dim)
            A file as of :func:`mipp.io.vectors.load_vectors`; or arrays, such as a generator makes, of any number of
            rows each. To go on, a program must give the same rows in the same order again. Secret.
        columns : sequence of str
            Of a Parquet or Arrow file, the column of lists, or the columns of numbers, to read.
        metadata : sequence of mapping or None, optional
            Of each row of a file, for its record; only of rows that this call adds. All of it is checked before the
            first batch is sent. Secret.
        check : bool
            Whether to check all rows of a file before the first batch is sent; it is read twice.
        progress : callable, optional
            Called with the number of rows that were processed since the last call.

        Returns
        -------
        AddReport
            Rows that were added, number of rows that were there already and that were replaced, bytes and seconds.

        Raises
        ------
        EncodingError, ScoreRangeError
            A row that the encoding refuses, which the message names; the batches before it are there.
        ShapeError, DTypeError
            Vectors of another dimension; no real numbers.
        ParameterError
            An index of images; metadata of another number of rows, or with arrays; a file that changes while it is
            read, or is none of vectors.
        StoreError
            The servers could not keep a batch; the batches before it are there.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
        ...         anna = deployment.create_owner("anna")
        ...         first = anna.add_stream(np.eye(4)[n : n + 2] for n in (0, 2))
        ...         again = anna.add_stream([np.eye(4)])
        >>> len(first.added), again.skipped
        (4, 4)
        """
        if self.config.descriptor:
            raise ParameterError(f"this index holds {self.config.descriptor} features of images; add images")
        if isinstance(source, (str, os.PathLike)):
            with open_rows(source, columns) as stream:
                return streaming.add_file(self, stream, metadata=metadata, check=check, progress=progress)
        if isinstance(source, (bytes, bytearray, Mapping)) or not isinstance(source, Iterable):
            raise DTypeError(f"vectors come from a path or from arrays, not from {type(source).__name__}")
        if metadata is not None or check or columns:
            raise ParameterError("columns, metadata and check are for files")
        arrays = [source] if isinstance(source, np.ndarray) else source
        return streaming.add_blocks(self, arrays, progress=progress)

    def images(self) -> list[OwnedImage]:
        """List the images that this owner has in the index, with the paths that the journal knows.

        Batches that the journal does not know are read back from a cloud first.

        Returns
        -------
        list of OwnedImage
            In row order. An image that several files hold is listed with each path. Files of vectors are not listed,
            but one of a single row is (:meth:`vectors`). Rows of :meth:`add_vectors` are listed if they have a label
            each.

        Raises
        ------
        ParameterError
            This owner keeps no journal.
        """
        with self.turn:
            journal, places = self._followed()
            rows = [(path, batch, row) for path, batch, row in journal.images() if batch in places]
            rows.sort(key=lambda i: (places[i[1]], i[2], str(i[0])))
            origins = journal.lasting((batch, row) for _, batch, row in rows)
            times = journal.times()
        found = []
        for path, batch, row in rows:
            origin = origins.get((batch, row), (batch, row))
            found.append(OwnedImage(path, batch, row, origin, times.get(origin[0])))
        return found

    def vectors(self) -> list[OwnedVectors]:
        """List the files of vectors that this owner has in the index.

        Batches that the journal does not know are read back from a cloud first. The key centre is asked which rows are
        deleted.

        Returns
        -------
        list of OwnedVectors
            By path; rows of which no file is known come last, together.

        Raises
        ------
        ParameterError
            This owner keeps no journal.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
        ...         anna = deployment.create_owner("anna")
        ...         ids = anna.add_vectors(np.eye(4), labels=["all four"])
        ...         deleted = anna.delete(ids[:1])
        ...         [file] = anna.vectors()
        >>> file.path, file.rows
        (None, 3)
        """
        with self.turn:
            journal, places = self._followed()
            dead = self._deletions()
            files: dict[Path | None, tuple[int, dict[bytes, None], list[int]]] = {}
            times, look = journal.times(), journal.looked_up()
            dead = {batch: look.positions(batch, rows) for batch, rows in dead.items()}
            for path, batch, row, count in journal.content():
                if batch not in places:
                    continue
                gone = dead.get(batch)
                left = count if gone is None else count - int(((gone >= row) & (gone < row + count)).sum())
                rows, batches, sent = files.get(path, (0, {}, []))
                batches[batch] = None
                first = batch, look.row(batch, row)
                origin = journal.lasting([first]).get(first, first)
                sent += [times[origin[0]]] if origin[0] in times else []
                files[path] = rows + left, batches, sent
        return [
            OwnedVectors(path, rows, tuple(batches), min(sent, default=None))
            for path, (rows, batches, sent) in sorted(files.items(), key=lambda f: (f[0] is None, str(f[0])))
        ]

    def files(self) -> list[Path]:
        """List the files that the journal knows to hold content which this owner has in the index.

        Returns
        -------
        list of Path
            Absolute, sorted: folders with links resolved. Secret.

        Raises
        ------
        ParameterError
            This owner keeps no journal.
        """
        return self._kept_journal().paths()

    def delete_files(self, paths: Sequence[str | os.PathLike[str]]) -> tuple[int, int]:
        """Delete the images, or the vectors, of files. Content that another file holds stays.

        A process that is killed meanwhile loses nothing: the same call, or the next one that adds, goes on.

        Parameters
        ----------
        paths : sequence of str or path
            Files that :meth:`files` lists, absolute or from the current folder; they need not be on the disk.

        Returns
        -------
        deleted : int
            Number of rows that were deleted.
        kept : int
            Number of these files whose content another file holds.

        Raises
        ------
        NotFoundError
            The journal does not know one of the files; nothing is deleted.
        ParameterError
            This owner keeps no journal.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
        ...         anna = deployment.create_owner("anna")
        ...         report = mipp.client.ingest.add_vectors(anna, Path("/data/four.npy"), np.eye(4))
        ...         deleted, kept = anna.delete_files(["/data/four.npy"])
        >>> deleted, kept
        (4, 0)
        """
        journal = self._kept_journal()
        places = [place_of(as_path(path)) for path in paths]
        with self.adding, self.turn:
            known = set(journal.paths())
            for place in places:
                if place not in known:
                    raise NotFoundError(f"no file of owner {self.name} is {place}")
            kept = journal.release(places)
            return ingest.drop_replaced(self), kept

    def batch_times(self) -> dict[bytes, int]:
        """When batches were sent, as far as the journal knows.

        Returns
        -------
        dict of bytes to int
            Unix seconds, by batch id: also of batches that were merged away, and of a merged batch when that was.
        """
        return {} if self.journal is None else self.journal.times()

    def _followed(self) -> tuple[Journal, dict[bytes, int]]:
        """The journal in line with the servers, and the order of batches. Call it while holding ``turn``."""
        journal = self._kept_journal()
        follow_servers(self, ingest.rows_label)
        return journal, {b.id: n for n, b in enumerate(self.batches())}

    def _kept_journal(self) -> Journal:
        if self.journal is None:
            raise ParameterError("this owner keeps no journal, so it cannot list its images; see batches()")
        return self.journal

    def _deletions(self) -> dict[bytes, np.ndarray]:
        """Deleted rows of batches with some, as the key centre tells."""
        head, batches = self._state()
        some = [b.id for b in batches if 0 < b.live < b.rows]
        return self.known_deletions(self.config.params.key_centres[-1], some, head)[1] if some else {}
