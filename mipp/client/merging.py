"""Merging of an owner's batches: fetched, checked, decrypted, uploaded as one under fresh keystream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..crypto import box, schedule
from ..errors import ConflictError, MessageError, MippError, NotFoundError, StoreError, UnreachableError
from ..rpc import messages as m
from ..rpc.associated_data import audit_seal_info
from ..rpc.limits import MAX_AUDIT_BATCHES, MAX_AUDIT_BYTES, MAX_AUDIT_ROWS
from ..rpc.wire import decode, unpack_frames
from ..sharing.audits import MODULUS, SEED_BYTES
from .added import rows_label
from .given import whole_number
from .journal_places import Moving
from .journal_recovery import follow_servers
from .reading import StoredBatch, way_out
from .recording import RecordOwner
from .retry import retry_busy, retry_conflicts
from .row_checks import Deletions, check_same_rows

__all__ = ["MergingOwner", "audit_groups", "deleted_of"]

#: live rows below which a batch is merged, unless the caller or the clusters of the index need more
_MERGE_BELOW = 1 << 16


class _Unreadable(Exception):
    """No cloud can give a batch back now."""

    def __init__(self, batch: StoredBatch) -> None:
        super().__init__()
        self.batch = batch


class MergingOwner(RecordOwner):
    """The part of :class:`~mipp.client.owner.ImageOwner` that merges batches, and checks what comes back for that."""

    def compact(self, *, merge_below: int | None = None) -> int:
        """Merge small batches, and drop deleted rows from storage.

        Batches with fewer than ``merge_below`` live rows, and those at least half deleted, are fetched, decrypted with
        the owner's keys and uploaded as one, under fresh keystream: their images move to another batch. If they are
        more than 4 GiB for each cloud or 2^24 rows, they become several. Ids that this
        owner has of them go on naming them (:attr:`mipp.client.owner.OwnedImage.id`). Larger batches with deletions are
        rewritten by the clouds without the deleted rows; their rows stay in place. If rows are deleted meanwhile, the
        merge starts again. Batches that the servers refuse to rank stay as they are (:attr:`StoredBatch.refused`).

        A batch that no cloud can read now stays as it is, with its live rows; all others are merged, and then an error
        names it, and those that all clouds had to pass over as they have lost them. If all its rows are deleted,
        nothing of it is needed, and it goes with the next merge.

        What comes back is compared, row by row, with the tags of this folder, and where there are none, with what the
        other clouds give back. In the schemes with one cloud there is no other.

        Parameters
        ----------
        merge_below : int, optional
            Live rows below which a batch is merged. Default: 65,536; in an index with clusters as many as a batch with
            clusters needs (:attr:`mipp.encoding.Clusters.fewest_rows`), if that is more.

        Returns
        -------
        int
            By how many the number of batches fell.

        Raises
        ------
        ConflictError
            The owner's batches kept changing.
        VerificationError
            A cloud gave back rows that are not those that were uploaded, or left some out that were not deleted. The
            text names cloud, batch and row; nothing was merged.
        IntegrityError
            The file of a batch's tags is damaged (:meth:`mipp.ImageOwner.renew_tags`).
        StoreError
            A batch with live rows cannot be read by any cloud: the text names it, and if all clouds have lost it
            (:meth:`lost_batches`), what to do; everything else was done. Or what came back of a batch cannot be
            compared, or a server could not keep a merged batch.
        """
        clusters = self.config.clusters
        fewest = _MERGE_BELOW if clusters is None else max(_MERGE_BELOW, clusters.fewest_rows)
        least = fewest if merge_below is None else whole_number(merge_below, "merge_below")
        with self.turn:  # content that the journal does not know would have no label in the merged batch
            follow_servers(self, rows_label)
        gone, unread = 0, dict[bytes, int]()
        while (some := retry_conflicts(lambda: self._merge_small(least, unread))) is not None:
            gone += some
        self.ask_present(m.Compact(self.id), self.config.params.clouds)
        try:
            lost = {b.id: b.live for b in self.lost_batches() if b.id in unread or b.live < b.rows}
        except MippError:  # what was done stays done; nothing is called lost
            lost = {}
        if unread := unread | lost:  # the clouds passed over those that they should have rewritten
            names = ", ".join(f"{batch.hex()} ({live:,} rows)" for batch, live in unread.items())
            advice = (
                way_out(self.name) if unread.keys() == lost.keys() else
                "Not all clouds say that they have lost all of them: when all are there, mipp repair rebuilds what it "
                "can and names the rest; then compact again"
            )  # fmt: skip
            raise StoreError(
                f"no cloud can read batch {names} now, so it stays as it is; what is whole was compacted (batches that "
                f"went: {gone}). {advice}"
            )
        return gone

    def _merge_small(self, merge_below: int, unread: dict[bytes, int]) -> int | None:
        """Merge some batches, as many as one holds; by how many the number of batches fell, or None for no merge.

        ``unread``: batches that are passed over, and their live rows; one that cannot be read is noted there.
        """
        head, batches = self._state()
        # one with rows out of range would have the whole merge refused; its owner deletes them first
        small = {
            b.id: b for b in batches
            if not b.refused and b.id not in unread and (b.live < merge_below or 2 * b.live <= b.rows)
        }  # fmt: skip
        for group in audit_groups(list(small), [b.live for b in small.values()], self.row_bytes):
            some = [small[batch] for batch in group]
            if any(b.live for b in some) and (len(some) > 1 or any(b.live < b.rows for b in some)):
                try:
                    return self._merge(head, some)
                except NotFoundError as error:  # another process merged it
                    raise ConflictError(str(error)) from None
                except _Unreadable as error:
                    unread[error.batch.id] = error.batch.live
                    return 0
        return None

    def _merge(self, head: m.Head, batches: Sequence[StoredBatch]) -> int:
        rows, ids, numbers = [], [], []
        which, places = [], []
        deletions = self.deletions([b.id for b in batches], head)
        for n, b in enumerate(batches):
            if not b.live:  # nothing of it is needed, so it need not be readable
                deletions.check_all(b.id, b.rows)
                continue
            try:
                server, got = self.fetch_anywhere(b.id, head)
            except ConflictError:
                raise
            except StoreError:
                raise _Unreadable(b) from None
            deletions.check(b.id, server, got)
            self.check_back(b.id, server, got)
            if len(got.share):
                rows.append(self.opened(got, server, b.id))
                which.append(np.full(len(got.ordinals), n))
                places.append(got.ordinals)
                ids.append(got.origin_batch)
                numbers.append(got.origin_row)
        replaced = [b.id for b in batches]
        merged, *of = (np.concatenate(parts) for parts in (rows, ids, numbers, which, places))
        order = self.stored_order(merged)
        if order is not None:
            merged, of = merged[order], [part[order] for part in of]
        moving = Moving(replaced, *of[2:])
        self._upload(merged, replaces=replaced, parent=head, origin=(of[0], of[1]), moving=moving)
        return len(replaced) - 1

    # --- what came back is what was uploaded --------------------------------------------------------------------

    def check_back(self, batch: bytes, server: int, got: m.Shares) -> None:
        """Check rows that a cloud gave back: by the tags of this folder, else against all other clouds.

        Where there are no tags and one cloud, nothing can be compared.

        Parameters
        ----------
        batch : bytes
            Id of the batch.
        server : int
            Number of the cloud.
        got : message
            Its rows.

        Raises
        ------
        VerificationError
            Rows are not those that were uploaded, or clouds differ.
        IntegrityError
            The file of tags is damaged.
        MippError
            There are no tags, and another cloud cannot give the batch back.
        """
        if self.tags is not None and server in self.tags.store.sections(batch):
            self.tags.check(server, batch, got)
            return
        others, clouds = dict[int, m.Shares](), [s for s in self.config.params.clouds if s != server]
        for cloud in clouds:
            try:
                given = self._fetch(cloud, batch)
            except (UnreachableError, NotFoundError, StoreError) as error:  # of three clouds two are enough
                if not self.spare or (cloud == clouds[-1] and not others):
                    raise
                if isinstance(error, UnreachableError):
                    self.away.note(error)
                continue
            if (given.position, given.view) == (got.position, got.view) or not self.spare:
                others[cloud] = given
        if clouds and not others:
            raise StoreError(f"no other cloud can give batch {batch.hex()} back at the same state now; try again")
        check_same_rows(batch, others | {server: got}, self.keys, self.threads)

    def deletions(self, batches: Sequence[bytes], head: m.Head) -> Deletions:
        """Ask the key centre which rows of batches are deleted, to check what clouds leave out.

        Parameters
        ----------
        batches : sequence of bytes
            Ids of the batches.
        head : Head
            State of this owner's chain that the answer must be of.

        Returns
        -------
        Deletions
            Of all of them.

        Raises
        ------
        ConflictError
            The key centre is at another state.
        MippError
            It cannot be reached, or refuses.
        """
        witness = self.config.params.key_centres[-1]
        return Deletions(witness, head, *self.known_deletions(witness, batches, head))

    def known_deletions(
        self, server: int, batches: Sequence[bytes], head: m.Head
    ) -> tuple[dict[bytes, int], dict[bytes, np.ndarray]]:
        """Ask a server how many rows batches had, and which of them are deleted.

        Parameters
        ----------
        server : int
            Its number.
        batches : sequence of bytes
            Ids of the batches.
        head : Head
            State of this owner's chain that the answer must be of.

        Returns
        -------
        rows : dict of bytes to int
            Rows as uploaded, of each batch that the server has.
        dead : dict of bytes to ndarray of int64
            Numbers of deleted rows, ascending, of each batch that has some.

        Raises
        ------
        ConflictError
            The server is at another state.
        MippError
            It cannot be reached, or refuses.
        """
        there, listed = self._state(server)
        if (there.position, there.view) != (head.position, head.view):
            raise ConflictError(f"server {server} is at another state of this owner's batches")
        known = {b.id: b.rows for b in listed if b.id in set(batches)}
        some = [b for b in listed if b.id in known and b.live < b.rows]
        dead: dict[bytes, np.ndarray] = {}
        for group in audit_groups([b.id for b in some], [b.rows for b in some], self.row_bytes):
            answer = self.ask_audit(server, group, [known[b] for b in group], draws=1)[1]
            if (answer.position, answer.view) != (head.position, head.view):
                raise ConflictError(f"server {server} is at another state of this owner's batches")
            dead |= deleted_of(group, answer)
        return known, dead

    @property
    def row_bytes(self) -> int:
        """Bytes of a row at a cloud."""
        p = self.config.params
        return p.padded(self.config.encoding.encoded_dim) * p.ring_bits // 8

    def ask_audit(
        self, server: int, batches: Sequence[bytes], rows: Sequence[int], draws: int = 0
    ) -> tuple[bytes, m.Audited]:
        """Have a server combine rows of some batches, under a new seed; waits while the server is busy.

        Parameters
        ----------
        server : int
            Its number.
        batches : sequence of bytes
            Ids of the batches.
        rows : sequence of int
            Rows of each as it was uploaded.
        draws : int
            Number of rows that are drawn; 0 for all.

        Returns
        -------
        seed : bytes
            32 bytes.
        answer : message
            Of the form that is due; its sums prove themselves, or not.

        Raises
        ------
        MessageError
            An answer of another form.
        MippError
            The server cannot be reached, or refuses.
        """
        key, seed = schedule.random_bytes(32), schedule.random_bytes(SEED_BYTES)
        public = box.box_private(key).public_key().public_bytes_raw()
        named = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, 16)
        reply = retry_busy(lambda: self.ask({server: m.AuditRows(seed, draws, public, named)}))[server]
        info = audit_seal_info(self.config.id, self.id, server, seed)
        answer = decode(unpack_frames(box.open_sealed(key, reply.sealed, info)), m.Audited)
        words = self.row_bytes // 4 if server in self.config.params.clouds else 0
        counts = answer.counts
        fits = (
            answer.sums.shape == (words,) and answer.lost.shape == counts.shape == (len(batches),)
            and bool((answer.sums < MODULUS).all()) and bool((answer.lost <= 1).all())
            and bool((counts >= 0).all()) and bool((counts <= np.array(rows)).all())
            and int(counts.sum()) == len(answer.dead)
        )  # fmt: skip
        for some, most in zip(np.split(answer.dead, np.cumsum(counts)[:-1]), rows, strict=True) if fits else ():
            fits &= not len(some) or (int(some[0]) >= 0 and int(some[-1]) < most and bool((np.diff(some) > 0).all()))
        if not fits:
            raise MessageError(f"server {server} answered an audit with numbers that do not fit together")
        return seed, answer


def audit_groups(batches: Sequence[bytes], rows: Sequence[int], row_bytes: int) -> Iterator[list[bytes]]:
    """Batches that one request may name: together so many, with so many rows and bytes, or one alone."""
    group: list[bytes] = []
    total = 0
    for batch, count in zip(batches, rows, strict=True):
        full = len(group) == MAX_AUDIT_BATCHES
        if group and (full or total + count > min(MAX_AUDIT_ROWS, MAX_AUDIT_BYTES // row_bytes)):
            yield group
            group, total = [], 0
        group.append(batch)
        total += count
    if group:
        yield group


def deleted_of(batches: Sequence[bytes], answer: m.Audited) -> dict[bytes, np.ndarray]:
    """Deleted rows of each batch that has some, as a server told."""
    parts = np.split(answer.dead, np.cumsum(answer.counts)[:-1])
    return {batch: part for batch, part in zip(batches, parts, strict=True) if len(part)}
