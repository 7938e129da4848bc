"""The image owner: adds image files and lists them; rows and grants are in ``rows.py`` and ``granting.py``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ParameterError
from ..io.walk import walk_images
from . import ingest
from .granting import GrantInfo
from .journal_recovery import follow_servers
from .rows import RowOwner, StoredBatch

__all__ = ["GrantInfo", "ImageOwner", "OwnedImage", "StoredBatch"]


@dataclass(frozen=True)
class OwnedImage:
    """An image that an owner has in the index: where it was last seen, and its id.

    ``path`` is None if the journal knows no file that holds it, as when it was read back from the servers.
    """

    path: Path | None
    batch: bytes
    row: int

    @property
    def id(self) -> str:
        """``batchhex:row``"""
        return f"{self.batch.hex()}:{self.row}"


class ImageOwner(RowOwner):
    """An owner of images in one deployment.

    Made by :meth:`mipp.Deployment.create_owner` and :meth:`mipp.Deployment.owner`; parameters as of
    :class:`~mipp.client.rows.RowOwner`. Learns nothing about other owners' images. What it uploads is masked by
    keystream that never repeats.

    Examples
    --------
    >>> import tempfile, numpy as np, mipp
    >>> with mipp.Deployment.create(tempfile.mkdtemp() + "/index", mipp.Encoding("cosine", 8)) as deployment:
    ...     owner = deployment.create_owner("anna")
    ...     added = owner.add_vectors(np.eye(8), [(f"{i}.png", b"...") for i in range(8)])
    ...     owner.grant(deployment.create_user("ulla"))
    ...     len(added), owner.batches()[0].live
    (8, 8)
    """

    def add_images(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        metadata: Mapping[Any, Mapping[str, Any]] | None = None,
        follow_links: bool = False,
        workers: int | None = None,
        progress: ingest.Progress | None = None,
    ) -> ingest.AddReport:
        """Add image files: extract features, encode, encrypt and upload; the same as ``mipp owner add``.

        Content that this owner has already is skipped, so an interrupted call is resumed by the same call. A file whose
        content changed since it was added replaces its old content. A file that cannot be read is reported and left
        out; the rest goes on.

        Parameters
        ----------
        paths : str, path or sequence of them
            Files, and folders that are searched for image files. Secret: servers learn no name and no content.
        metadata : mapping, optional
            By path, what is kept encrypted with an image and given back by :meth:`mipp.User.fetch`: a mapping of text
            to what JSON can hold, at most 60 KiB. Only for files that are added by this call. Secret.
        follow_links : bool
            Whether links are followed that lead out of a folder that was named.
        workers : int, optional
            Processes that extract features; default one per processor.
        progress : callable, optional
            Called with the number of files that were gone through since the last call.

        Returns
        -------
        AddReport
            What was added, how much was there already, and what was left out and why.

        Raises
        ------
        ParameterError
            An index of vectors; metadata that names no file among ``paths``, or that JSON cannot hold.
        DeploymentError
            An index whose features are of another version than this program's.
        NotFoundError, ImageError
            A path that does not exist, or is neither a file nor a folder.
        StoreError
            The servers could not keep a batch; those before it are there.
        """
        files, left_out = walk_images(paths, outside=follow_links)
        by_path = {Path(path): what for path, what in (metadata or {}).items()}
        if unknown := sorted(str(p) for p in by_path.keys() - set(files)):
            raise ParameterError(f"metadata names {unknown[0]}, which is not among the files that are added")
        report = ingest.add_images(self, files, metadata=by_path, workers=workers, progress=progress)
        report.errors += [(str(path), reason) for path, reason in left_out]
        return report

    def images(self) -> list[OwnedImage]:
        """The images that this owner has in the index, in row order, with the paths that the journal knows.

        Batches that the journal does not know are read back from a cloud first.

        Returns
        -------
        list of OwnedImage
            One for each image; one that several files hold is listed with each path. Rows of vectors are not listed.

        Raises
        ------
        ParameterError
            This owner keeps no journal.
        """
        if self.journal is None:
            raise ParameterError("this owner keeps no journal, so it does not know what it added; see batches()")
        with self.turn:
            follow_servers(self, ingest.rows_label)
            places = {b.id: n for n, b in enumerate(self.batches())}
            found = [OwnedImage(path, batch, row) for path, batch, row in self.journal.images()]
        return sorted(found, key=lambda i: (places.get(i.batch, len(places)), i.row, str(i.path)))
