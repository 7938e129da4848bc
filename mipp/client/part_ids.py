"""Ids of the rows of a part of a file of vectors, in the order of the file, whether it was added now or earlier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .journal import Journal
from .row_ids import AddedRun

__all__ = ["PartIds", "added_ids", "known_ids"]


class PartIds(NamedTuple):
    """Ids of rows of a file: row ``rows[n]`` of the file has the id ``(batches[which[n]], numbers[n])``. Public.

    ``rows``, ``which`` and ``numbers`` are int64, (n,); ``rows`` ascend. Rows that were deleted are left out.
    """

    rows: np.ndarray
    batches: list[bytes]
    which: np.ndarray
    numbers: np.ndarray


def added_ids(run: AddedRun) -> PartIds:
    """Ids of rows that were added now.

    Parameters
    ----------
    run : AddedRun
        The rows.

    Returns
    -------
    PartIds
        Their ids.
    """
    behind = np.arange(run.rows) if run.places is None else np.array(run.places, np.int64)
    return PartIds(run.start + np.arange(run.rows), [run.batch], np.zeros(run.rows, np.int64), run.first + behind)


def known_ids(journal: Journal, label: str, start: int, count: int, order: np.ndarray | None) -> PartIds:
    """Lasting ids of rows that were there already.

    Parameters
    ----------
    journal : Journal
        The owner's journal.
    label : str
        Label that it has them under.
    start, count : int
        Number of the first row in the file, and how many there are.
    order : ndarray of int64, (count,), optional
        Number, from ``start`` on, of the row that is stored first, second and so on, if that is another order.

    Returns
    -------
    PartIds
        Their ids, as far as the journal tells which row is which.
    """
    batches: list[bytes] = []
    stored, which, numbers = [], [], []
    runs, found, dead = journal.rows_of_label(label)
    for run in runs:
        if run.origin not in batches:
            batches.append(run.origin)
        stored.append(run.first + np.arange(run.rows))
        which.append(np.full(run.rows, batches.index(run.origin)))
        numbers.append(run.start + np.arange(run.rows))
    ids = [np.concatenate(parts) if parts else np.empty(0, np.int64) for parts in (stored, which, numbers)]
    place = ids[0]
    if found != count:
        # rows were deleted before a merge: those that are left have the numbers of their upload
        place = ids[2] if len(batches) == 1 else np.full(len(place), count)
    known = (place < count) & ~np.isin(ids[0], dead)
    rows = start + (place[known] if order is None else order[place[known]])
    by_row = np.argsort(rows)
    return PartIds(rows[by_row], batches, ids[1][known][by_row], ids[2][known][by_row])
