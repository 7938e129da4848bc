"""Where an owner's images are now: lasting ids, and places of earlier times, turned into places that servers know."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from ..errors import IntegrityError, MippError, NotFoundError, StoreError, UnreachableError
from ..rpc import messages as m
from .journal import Journal
from .journal_places import Pair
from .reading import ReadingOwner, StoredBatch
from .row_checks import Deletions, OwnerTags
from .tags import IMAGE_IDS

__all__ = ["PlacingOwner"]


class PlacingOwner(ReadingOwner):
    """The part of :class:`~mipp.client.owner.ImageOwner` that finds images by ids that were true once."""

    #: the owner's own record of the files that it added, or None
    journal: Journal | None
    #: checksums of what the owner uploaded, or None
    tags: OwnerTags | None

    def places_now(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Find the present places of images. Servers learn nothing by it, but that batches are listed.

        Parameters
        ----------
        pairs : iterable of (bytes, int)
            Lasting ids, or places of images now or before a merge.

        Returns
        -------
        list of (bytes, int)
            The place of each; a pair that names no image stays as it is.
        """
        given = list(pairs)
        listed = self.batches()
        live = {b.id for b in listed}
        if self.journal is None or live.issuperset(batch for batch, _ in given):
            return given
        found = self.journal.present(given, live)
        if len(found) < len(set(given)) and self.learn_origins(listed):
            found = self.journal.present(given, live)
        return [found.get(pair, pair) for pair in given]

    def learn_origins(self, listed: Iterable[StoredBatch]) -> int:
        """Read from the servers where rows came from, of batches of which the journal does not know it.

        That is once after the journal was lost, or was made by an earlier version. A batch whose tags say that it was
        never merged is not read.

        Parameters
        ----------
        listed : iterable of StoredBatch
            This owner's batches.

        Returns
        -------
        int
            Number of batches of which it is known now.
        """
        if self.journal is None:
            return 0
        rows = {b.id: b.rows for b in listed if b.live}
        learned = 0
        for batch in self.journal.unread(rows):
            if self._never_merged(batch):
                self.journal.own_ids(batch, rows[batch])
            else:
                try:
                    self.note_origins(batch, *self.fetch_anywhere(batch))
                except (StoreError, IntegrityError, NotFoundError):  # no cloud can read it now
                    continue
            learned += 1
        return learned

    def note_origins(self, batch: bytes, server: int, got: m.Shares) -> None:
        """Note in the journal where the rows of a batch came from, as a cloud gave it back.

        Its word alone counts nothing: an id could be made to name another image, which the owner would delete instead.
        Where there are no tags and another cloud is away, nothing is noted, and the next call tries again.

        Parameters
        ----------
        batch : bytes
            Id of the batch.
        server : int
            Number of the cloud.
        got : message
            Its live rows.

        Raises
        ------
        VerificationError
            The batch's tags, or another cloud, say that the cloud tells other rows, or other ids of them.
        IntegrityError
            The file of tags is damaged.
        """
        try:
            self.check_back(batch, server, got)
        except UnreachableError:
            return
        self.note_checked_origins(batch, got)

    def note_checked_origins(self, batch: bytes, got: m.Shares) -> None:
        """:meth:`note_origins` of what :meth:`check_back` passed.

        Parameters
        ----------
        batch : bytes
            Id of the batch.
        got : message
            Its live rows.
        """
        if self.journal is not None:
            self.journal.came_from(batch, got.ordinals, got.origin_batch, got.origin_row, got.rows)

    @abstractmethod
    def deletions(self, batches: Sequence[bytes], head: m.Head) -> Deletions:
        """Ask which rows are deleted, as :meth:`mipp.client.merging.MergingOwner.deletions` does."""

    @abstractmethod
    def check_back(self, batch: bytes, server: int, got: m.Shares) -> None:
        """Check rows that a cloud gave back, as :meth:`mipp.client.merging.MergingOwner.check_back` does."""

    def _never_merged(self, batch: bytes) -> bool:
        """Whether the tags of a batch say that its rows have ids of their own."""
        try:
            sections = self.tags.store.sections(batch) if self.tags is not None else ()
        except MippError:  # damaged: the servers are asked
            return False
        return bool(sections) and IMAGE_IDS not in sections
