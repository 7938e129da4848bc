"""Makes an owner's images follow a folder: new files are added, changed ones replaced, those that are gone deleted."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import MippError, NotFoundError, ParameterError
from ..io.files import as_path, read_regular
from ..io.limits import MAX_BYTES
from ..io.walk import walk_images
from . import ingest
from .journal import image_label, is_gone
from .owner import ImageOwner

__all__ = ["FolderFollower", "Look", "SyncReport"]

#: size, times of change of content and of the entry in nanoseconds, number of the file
_State = tuple[int, int, int, int]


@dataclass
class Look:
    """What a folder held at one moment, as :meth:`FolderFollower.look` found it.

    Parameters
    ----------
    ready : list of Path
        Files that are new or changed since the last pass, and do not change now.
    waiting : list of Path
        Files that changed while they were looked at; the next pass takes them.
    gone : list of Path
        Files of the folder that the journal knows, and that are not there any more.
    left_out : list of (Path, str)
        What cannot be taken, and why.
    others : list of Path
        Files that are no images.
    """

    ready: list[Path] = field(default_factory=list)
    waiting: list[Path] = field(default_factory=list)
    gone: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    #: all image files, and the states of those that are ready
    files: list[Path] = field(default_factory=list)
    states: dict[Path, _State] = field(default_factory=dict)


@dataclass
class SyncReport:
    """Report on one pass over a folder.

    Parameters
    ----------
    report : AddReport
        What was added and replaced, and files that were left out.
    deleted : int
        Number of images that were deleted because their files are gone.
    kept : int
        Number of files that are gone, and whose content another file holds.
    """

    report: ingest.AddReport
    deleted: int = 0
    kept: int = 0

    @property
    def changed(self) -> bool:
        """Whether the index, or the list of files that cannot be taken, changed."""
        return bool(self.report.added or self.report.errors or self.report.replaced or self.deleted or self.kept)


class FolderFollower:
    """Makes the images of an owner follow a folder, pass by pass. Each pass may end at any point and be made again.

    Only images whose file the journal knows inside the folder are ever deleted, and only once the file is gone: not if
    it was moved, and another file inside holds its content, nor if a file elsewhere does. Only a regular file holds
    content, also through links. What files held before the journal was lost is not known, so it stays. An image that
    was deleted from the index is added again while its file is there.

    Parameters
    ----------
    owner : ImageOwner
        The owner, with a journal.
    folder : str or path
        The folder. Secret: servers learn no name.
    allow_empty : bool
        Whether a folder that is missing or holds no file that the index has of it deletes all images that came from it.
        Else it is refused, unless all these files were moved: it may be a disk that is not mounted, or another one.
    settle : float
        Seconds for which a file must not have changed; a younger one is looked at twice.
    twice : bool
        Whether a file must be missing in two passes before its image is deleted, as some programs replace files by
        deleting them first. For a caller that makes pass after pass.
    follow_links : bool
        Whether to follow links that lead out of the folder. Images of files elsewhere that are reached so are added,
        and not deleted while the links are there.
    preview_size, workers : int, optional
        As of :meth:`ImageOwner.add_images`.

    Examples
    --------
    >>> import tempfile, mipp
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from mipp.client.syncing import FolderFollower
    >>> from mipp.features.encoding import descriptor_encoding
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     photos = Path(folder) / "photos"
    ...     photos.mkdir()
    ...     for colour in ("red", "green"):
    ...         Image.new("RGB", (32, 32), colour).save(photos / f"{colour}.png")
    ...     encoding = descriptor_encoding("cld", server_ranking=True)
    ...     with mipp.Deployment.create(Path(folder) / "index", encoding, descriptor="cld") as deployment:
    ...         follower = FolderFollower(deployment.create_owner("anna"), photos, settle=0, workers=1)
    ...         first = follower.step(follower.look())
    ...         (photos / "red.png").unlink()
    ...         second = follower.step(follower.look())
    >>> len(first.report.added), second.deleted, second.report.skipped
    (2, 1, 0)
    """

    def __init__(
        self, owner: ImageOwner, folder: str | os.PathLike[str], *, allow_empty: bool = False, settle: float = 2.0,
        twice: bool = False, follow_links: bool = False, preview_size: int | None = None, workers: int | None = None,
    ) -> None:  # fmt: skip
        if owner.journal is None:
            raise ParameterError("this owner keeps no journal, so its images cannot follow a folder")
        self._owner, self._folder = owner, as_path(folder)
        self._root = self._folder.resolve()
        self._allow_empty, self._settle, self._twice = allow_empty, settle, twice
        self._links, self._preview, self._workers = follow_links, preview_size, workers
        #: files that passes took, as they were then
        self._known: dict[Path, _State] = {}
        #: files that were missing in the last pass
        self._missing: set[Path] = set()
        #: labels of files that were read only to see whether they were moved
        self._labels: dict[Path, tuple[_State, str]] = {}

    def look(self) -> Look:
        """Look at the folder; nothing is sent. Waits for a moment if files changed just now.

        Returns
        -------
        Look
            For :meth:`step`.

        Raises
        ------
        NotFoundError
            The folder is missing, or holds no image although the index has some of it, or holds others only.
        ParameterError
            It is no folder.
        """
        found, journal = Look(), self._owner.journal
        assert journal is not None
        try:
            if not stat.S_ISDIR(os.stat(self._folder).st_mode):
                raise ParameterError(f"{self._folder} is no folder")
        except OSError as error:
            inside = self._inside()
            if not self._allow_empty or not is_gone(self._folder):
                text = error.strerror or "it cannot be read"
                raise self._refused(f"{self._folder}: {text}", len(inside)) from None
        else:
            found.files, found.left_out = walk_images([self._folder], outside=self._links, others=found.others)
            inside = self._inside()
            if not found.files and inside and not self._allow_empty:
                raise self._refused(f"{self._folder} holds no images", len(inside))
        states = _states(found.files)
        new = {path: state for path, state in states.items() if self._known.get(path) != state}
        after = self._settled(new)
        found.ready = [path for path in new if after.get(path) == new[path]]
        found.waiting = [path for path in new if path in after and after[path] != new[path]]
        found.states = {path: new[path] for path in found.ready}
        missing = {path for path in inside if self._went(path)}
        if inside and len(missing) == len(inside) and found.files and not self._allow_empty:
            labels = [self._label(path, found.states[path]) for path in found.ready]
            if not journal.all_held(inside, [label for label in labels if label]):
                raise self._refused(f"{self._folder} holds other images, and none of its files is there", len(inside))
        found.gone = sorted(missing & self._missing if self._twice else missing)
        self._missing = missing
        self._known = {path: state for path, state in self._known.items() if path in states}
        return found

    def step(self, look: Look, progress: ingest.Progress | None = None) -> SyncReport:
        """Make the index follow: add and replace first, then delete, so that nothing is missing meanwhile.

        Parameters
        ----------
        look : Look
            What the folder holds.
        progress : callable, optional
            Called with the number of files that were processed since the last call.

        Returns
        -------
        SyncReport
            What was done.

        Raises
        ------
        NotFoundError
            All files went while they were added, as when a disk is taken away; nothing was deleted.
        MippError
            As of :meth:`ImageOwner.add_images`; the next pass goes on.
        """
        owner, journal = self._owner, self._owner.journal
        assert journal is not None
        done = SyncReport(ingest.AddReport())
        with owner.adding:
            if look.ready:
                names = ingest.names_inside([self._folder], look.ready)
                done.report = ingest.add_images(
                    owner, look.ready, names=names, preview_size=self._preview, workers=self._workers, progress=progress
                )
            gone = self._still_gone(look)
            with owner.turn:
                done.kept = journal.release(gone)
                done.deleted = ingest.drop_replaced(owner)
        self._known |= look.states
        return done

    def _still_gone(self, look: Look) -> list[Path]:
        """Files that are still gone, of those that the journal still knows; refuses if all others went as well."""
        if not look.gone:
            return []
        known = set(self._inside())
        gone = [path for path in look.gone if path in known and self._went(path)]
        if gone and not self._allow_empty and not any(not is_gone(path) for path in look.files):
            raise self._refused(f"all files of {self._folder} are gone", len(known))
        return gone

    def _went(self, path: Path) -> bool:
        """Whether a file is gone; one elsewhere that a link names is none of the folder's, and never counts as gone."""
        if path.is_symlink() and self._root not in Path(os.path.realpath(path)).parents:  # of a loop, too
            return False
        return is_gone(path)

    def _label(self, path: Path, state: _State) -> str | None:
        """The label of a file's content; None if it cannot be read."""
        if self._labels.get(path, (None, None))[0] != state:
            try:
                content = read_regular(path, MAX_BYTES)
            except (MippError, OSError):
                return None
            self._labels[path] = state, image_label(hashlib.sha256(content).hexdigest())
        return self._labels[path][1]

    def _inside(self) -> list[Path]:
        """Files of the folder that the journal knows."""
        journal = self._owner.journal
        return [] if journal is None else [path for path in journal.paths() if self._root in path.parents]

    def _refused(self, what: str, inside: int) -> NotFoundError:
        if not inside:
            return NotFoundError(what)
        return NotFoundError(
            f"{what}; is it mounted? Nothing was deleted of the {inside} files of it that the index has; "
            "--allow-empty (allow_empty) deletes them"
        )

    def _settled(self, new: Mapping[Path, _State]) -> dict[Path, _State]:
        """States of files once they had time to change."""
        since = time.time_ns() - int(self._settle * 1e9)
        young = {path for path, state in new.items() if max(state[1:3]) > since}
        if not young or not self._settle:
            return dict(new)
        time.sleep(self._settle)
        return {path: state for path, state in new.items() if path not in young} | _states(young)


def _states(paths: Iterable[Path]) -> dict[Path, _State]:
    """States of the files that are there."""
    found = {}
    for path in paths:
        try:
            about = os.stat(path)
        except OSError:
            continue
        found[path] = about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino
    return found
