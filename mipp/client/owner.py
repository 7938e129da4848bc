"""The image owner: adds image files and lists them; rows, audits and grants are in other files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DTypeError, ParameterError
from ..io.files import as_path
from ..io.walk import walk_images
from . import ingest
from .auditing import AuditingOwner, AuditReport, CloudAudit
from .given import whole_number
from .granting import GrantInfo
from .journal_recovery import follow_servers
from .reading import StoredBatch

__all__ = ["AuditReport", "CloudAudit", "GrantInfo", "ImageOwner", "OwnedImage", "StoredBatch"]


@dataclass(frozen=True)
class OwnedImage:
    """An image that an owner has in the index, and the file that holds it.

    Parameters
    ----------
    path : Path or None
        File that the image was last seen at; None if the journal knows none, as when the image was read back from the
        servers.
    batch : bytes
        Id of the image's batch, 16 bytes.
    row : int
        Row of the image in its batch.
    """

    path: Path | None
    batch: bytes
    row: int

    @property
    def id(self) -> str:
        """The image's id as text: the batch in 32 hex digits, a colon, the row."""
        return f"{self.batch.hex()}:{self.row}"


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
            Files that were added, with their ids; the number of files that were there already; files that were left
            out, and why.

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

    def images(self) -> list[OwnedImage]:
        """List the images that this owner has in the index, with the paths that the journal knows.

        Batches that the journal does not know are read back from a cloud first.

        Returns
        -------
        list of OwnedImage
            In row order. An image that several files hold is listed with each path. Files of vectors are not listed,
            but one of a single row is. Rows of :meth:`add_vectors` are listed if they have a label each.

        Raises
        ------
        ParameterError
            This owner keeps no journal.
        """
        if self.journal is None:
            raise ParameterError("this owner keeps no journal, so it cannot list its images; see batches()")
        with self.turn:
            follow_servers(self, ingest.rows_label)
            places = {b.id: n for n, b in enumerate(self.batches())}
            found = [OwnedImage(path, batch, row) for path, batch, row in self.journal.images()]
        return sorted(found, key=lambda i: (places.get(i.batch, len(places)), i.row, str(i.path)))
