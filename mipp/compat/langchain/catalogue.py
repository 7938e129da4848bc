"""Which rows hold the document of an id: ids are in encrypted records, so each side keeps a list of those it has read.

A list is brought in line with the index before it is used, and reads the records of rows that are new alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ...client.choosing import Owners
from ...client.owner import ImageOwner
from ...client.results import Hit, Hits
from ...client.user import User
from ...errors import plain_text
from .documents import id_in

__all__ = ["OwnerCatalogue", "UserCatalogue"]

_log = logging.getLogger(__name__)


@dataclass
class _Batch:
    """Ids of a batch's live rows that hold documents, and the number of all its live rows."""

    live: int
    ids: dict[int, str]


@dataclass(repr=False)
class OwnerCatalogue:
    """Documents of one owner. Use it while holding ``owner.turn``."""

    owner: ImageOwner
    _batches: dict[bytes, _Batch] = field(default_factory=dict)

    def follow(self) -> None:
        """Bring the list in line with the servers, as other processes of this owner change its rows, too."""
        batches = {b.id: b for b in self.owner.batches()}
        known, self._batches = self._batches, {}
        for batch, told in batches.items():
            had = known.get(batch)
            if had is not None and had.live == told.live:
                self._batches[batch] = had
                continue
            rows = range(told.rows) if told.live == told.rows else self.owner.rows_of(batch)[0].tolist()
            if had is not None:
                ids = {row: had.ids[row] for row in rows if row in had.ids}
            else:
                records = self.owner.records([(batch, row) for row in rows]) if len(rows) else []
                found = [None if record is None else id_in(record.metadata) for record in records]
                ids = {row: name for row, name in zip(rows, found, strict=True) if name is not None}
            self._batches[batch] = _Batch(told.live, ids)

    def rows(self, names: Iterable[str] | None) -> list[tuple[bytes, int]]:
        """Rows of documents with these ids; of all documents if None."""
        wanted = None if names is None else set(names)
        return [
            (batch, row)
            for batch, known in self._batches.items()
            for row, name in known.ids.items()
            if wanted is None or name in wanted
        ]

    def added(self, rows: Iterable[tuple[bytes, int]], names: Iterable[str]) -> None:
        """Note a new batch."""
        for (batch, row), name in zip(rows, names, strict=True):
            known = self._batches.setdefault(batch, _Batch(0, {}))
            known.ids[row], known.live = name, known.live + 1


@dataclass(repr=False)
class UserCatalogue:
    """Documents that a user may see, of all its owners; an id may be several owners'."""

    user: User
    #: most records of one owner that are fetched to find an id
    most: int
    _ids: dict[tuple[bytes, bytes, int], str | None] = field(default_factory=dict)

    def find(self, names: Iterable[str], owners: Owners | None) -> list[Hit]:
        """Rows of documents of owners with these ids; where one is not known yet, all records not seen are fetched.

        An owner with too many of them is left out, and a warning names it: others are not the worse for it.
        """
        index = self.user.index(owners)
        hits = Hits.at(index, np.arange(index.total))
        if owners is None:  # rows that went are forgotten
            live = {_key(hit) for hit in hits}
            self._ids = {key: name for key, name in self._ids.items() if key in live}
        wanted = set(names)
        if wanted - {self._ids.get(_key(hit)) for hit in hits}:
            unseen: dict[bytes, list[Hit]] = {}
            for hit in hits:
                if _key(hit) not in self._ids:
                    unseen.setdefault(hit.owner, []).append(hit)
            unknown = []
            for some in unseen.values():
                if len(some) <= self.most:
                    unknown += some
                    continue
                _log.warning(
                    "documents of %s are not searched for ids: %d records would be fetched, of %d at most (most_read)",
                    plain_text(some[0].owner_name), len(some), self.most,
                )  # fmt: skip
            for hit, preview in zip(unknown, self.user.preview(unknown) if unknown else (), strict=True):
                self.note(hit, id_in(preview.metadata))
        return [hit for hit in hits if self._ids.get(_key(hit)) in wanted]

    def note(self, hit: Hit, name: str | None) -> None:
        """Keep what a row holds."""
        self._ids[_key(hit)] = name


def _key(hit: Hit) -> tuple[bytes, bytes, int]:
    return hit.owner, hit.batch, hit.row
