"""Shared by adding images and vectors: the report, the journal brought up to date, replaced rows deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import MippError
from ..io.patterns import place_of
from .journal import Journal
from .journal_recovery import follow_servers, settle_journal
from .rows import RowOwner

__all__ = [
    "AddReport",
    "Progress",
    "drop_replaced",
    "follow",
    "known_again",
    "lost_rows",
    "rows_label",
    "rows_name",
]

#: rows that one delete names, about; parts of vectors are not split
_DELETED_ROWS = 1 << 16
Progress = Callable[[int], None]


@dataclass
class AddReport:
    """Report on a call that added files.

    Parameters
    ----------
    added : sequence of (str, (bytes, int))
        Each file that was added, and the id of its image: batch id and row. Of vectors ``file:row`` and the row's id,
        as :class:`~mipp.client.row_ids.FileRows`, which makes no object a row.
    skipped : int
        Number of files whose content was there already; of vectors, the number of rows.
    errors : list of (str, str)
        Each file that was left out, and the reason.
    replaced : int
        Number of rows that were deleted because their files changed.
    read_bytes : int
        Bytes of vectors that were read, as they are in memory; 0 for images.
    seconds : float
        How long adding vectors took; 0 for images.
    lost : int or None
        Number of live rows of these files that every cloud has lost, so that searches leave them out
        (:meth:`~mipp.client.reading.ReadingOwner.lost_batches`). They count as there already. None if not all clouds
        could be asked.
    """

    added: Sequence[tuple[str, tuple[bytes, int]]] = field(default_factory=list)
    skipped: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    replaced: int = 0
    read_bytes: int = 0
    seconds: float = 0.0
    lost: int | None = 0

    def note(self, files: Sequence[tuple[str, tuple[bytes, int]]]) -> None:
        """Note image files that were added.

        Parameters
        ----------
        files : sequence of (str, (bytes, int))
            As of ``added``.
        """
        if not isinstance(self.added, list):
            self.added = list(self.added)
        self.added.extend(files)


def follow(owner: RowOwner) -> None:
    """Bring an owner's journal in line with the servers, before files are added."""
    with owner.turn:
        follow_servers(owner, rows_label, settled=True)


def rows_name(digest: str, order: np.ndarray | None) -> str:
    """Name of the content of a part of vectors.

    Parameters
    ----------
    digest : str
        SHA-256 of the encoded rows as they are stored, in hex.
    order : ndarray of int, (N,), optional
        Number in its file of the row that is stored first, second and so on, if that is another order: files with
        the same rows in two orders can be stored alike, but metadata goes with the order of the file.

    Returns
    -------
    str
        The digest, and that of the order. :func:`bytes.fromhex` takes it.
    """
    return digest if order is None else f"{digest} {hashlib.sha256(order.astype('<u4').tobytes()).hexdigest()}"


def rows_label(name: str, number: int) -> str:
    """Label of a part of vectors: its content (:func:`rows_name`), and its number among parts of the same content."""
    return f"rows {name} {number}"


def known_again(journal: Journal, label: str, digest: str) -> bool:
    """Whether a part of vectors is among those that were read back from the servers, which do not know a file's order.

    From then on the journal has it under ``label``, so that it is known by its order, too.

    Parameters
    ----------
    journal : Journal
        The journal, which has no content of that label.
    label : str
        Label of the part.
    digest : str
        SHA-256 of its encoded rows as they are stored, in hex.

    Returns
    -------
    bool
        Whether there is one.
    """
    number = 0
    while journal.has(rows_label(digest, number)):
        number += 1
    if number:
        # the first: batches were read back in the order in which they were added
        journal.rename(rows_label(digest, 0), label)
        for n in range(1, number):
            journal.rename(rows_label(digest, n), rows_label(digest, n - 1))
    return number > 0


def lost_rows(owner: RowOwner, paths: Iterable[Path]) -> int | None:
    """Count the live rows of files that every cloud has lost.

    Nothing is raised for it: the files are in the index, whatever the clouds say now.

    Parameters
    ----------
    owner : RowOwner
        The owner; without a journal nothing is known of files.
    paths : iterable of Path
        Files; of one that the journal last saw elsewhere nothing is counted. Secret.

    Returns
    -------
    int or None
        Number of rows; None if a cloud could not be asked, or refused.
    """
    journal = owner.journal
    try:
        lost = [] if journal is None else owner.lost_batches()
    except MippError:
        return None
    if journal is None or not lost:
        return 0
    places, count = {place_of(path) for path in paths}, 0
    for batch in lost:
        dead, end = journal.dead(batch.id), 0
        for path, _, first, rows in journal.content(batch.id):  # in order; content of several files comes several times
            if path in places:
                first, last = max(first, end), first + rows
                count += max(0, last - first - int(np.diff(np.searchsorted(dead, [first, max(first, last)]))[0]))
                end = max(end, last)
    return count


def drop_replaced(owner: RowOwner) -> int:
    """Delete the rows of content that files held before, and that no file holds now.

    Parameters
    ----------
    owner : RowOwner
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
                batch, rows = items.pop()
                ids += [(batch, row) for row in rows.tolist()]
            deleted += owner.delete(ids)
    return deleted
