"""Brings an owner's journal in line with the servers: reads missing batches back, drops entries of lost ones.

Without this, a journal that is lost or older than the index would have everything added again. Images come back from a
cloud as encrypted files, vectors as quantised rows; the owner's keys open both, and the content gives the label.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..crypto import box, schedule
from ..errors import (
    AuthenticationError,
    IntegrityError,
    MessageError,
    NotFoundError,
    ShapeError,
    StoreError,
    UnreachableError,
)
from ..rpc import messages as m
from ..rpc.limits import FETCH_IMAGES
from .image_file import parse_image
from .journal import image_label
from .reading import StoredBatch
from .rows import RowOwner

__all__ = ["follow_servers", "own_images", "rows_digest", "settle_journal"]

#: digest of encoded rows -> their label, the n-th part of that digest
PartLabel = Callable[[str, int], str]


def rows_digest(encoded: np.ndarray) -> str:
    """SHA-256 in hex of encoded rows, as :meth:`mipp.Encoding.encode_rows` gives them."""
    return hashlib.sha256(np.ascontiguousarray(encoded).data.cast("B")).hexdigest()


def settle_journal(owner: RowOwner, *, settled: bool = False) -> tuple[m.Head, list[StoredBatch]]:
    """Drop from an owner's journal what the servers do not have, and will not. Call it while holding ``owner.turn``.

    The word of one server counts nothing, since files would be forgotten by it or added again. A change that was under
    way when a process died is settled first; while its end is open, its entries stay.

    Parameters
    ----------
    owner : RowOwner
        The owner.
    settled : bool
        Fail while the end of a change is open: what is in its batch is neither there nor not.

    Returns
    -------
    head : Head
        The state of the owner's chain.
    batches : list of StoredBatch
        Its batches, as :meth:`mipp.client.reading.ReadingOwner.agreed_batches` lists them.
    """
    head, listed = owner.agreed_batches()
    if owner.journal is None:
        return head, listed
    waiting = owner.undecided(owner.journal.unlisted({b.id for b in listed}))
    if waiting and owner.recover is not None:
        owner.recover()
        head, listed = owner.agreed_batches()
        waiting = owner.undecided(owner.journal.unlisted({b.id for b in listed}))
    if waiting and settled:
        raise StoreError(
            "whether an earlier change of this owner is visible is not settled yet; "
            "it will be when all servers are there"
        )
    owner.journal.settle({b.id: b.live for b in listed}, waiting)
    return head, listed


def follow_servers(owner: RowOwner, part_label: PartLabel, *, settled: bool = False) -> int:
    """Bring an owner's journal in line with the servers. Call it while holding ``owner.turn``.

    Reads a batch back only if the journal does not know it, and passes over batches that no cloud can read. What a
    cloud gives back is compared with tags or another cloud, and deleted rows with what the key centre knows.

    Parameters
    ----------
    owner : RowOwner
        The owner; without a journal nothing happens.
    part_label : callable
        Label of a batch of vectors, from the digest of its rows and a number.
    settled : bool
        As of :func:`settle_journal`.

    Returns
    -------
    int
        Number of batches that were read back.

    Raises
    ------
    VerificationError
        Servers contradict each other, or what the owner uploaded.
    MippError
        A server that is needed cannot be reached.
    """
    journal = owner.journal
    if journal is None:
        return 0
    head, listed = settle_journal(owner, settled=settled)
    live = {b.id: b.live for b in listed}
    unknown, unread = 0, set(journal.unread(live))
    differing = journal.differing(live)
    deletions = owner.deletions(list(differing), head) if differing else None
    for batch, known in differing.items():
        try:
            server, got = owner.fetch_anywhere(batch, head)
        except (StoreError, IntegrityError):  # no cloud can read it now; the next call tries again
            continue
        if deletions is not None:
            deletions.check(batch, server, got)
        rows = [int(r) for r in got.ordinals]
        if known:
            if batch in unread:
                owner.note_origins(batch, server, got)
        else:  # its images would get each other's labels
            owner.check_back(batch, server, got)
            owner.note_checked_origins(batch, got)
        if known:  # rows were deleted by a process that died, or by one with another journal
            journal.found(batch, rows, got.rows)
            continue
        unknown += 1
        labels = [
            (image_label(hashlib.sha256(content).hexdigest()), row, 1)
            for row, (_, _, content) in own_images(owner, batch, rows, got)
        ]
        if not labels and len(rows) == got.rows:
            digest, number = rows_digest(owner.opened(got, server, batch)), 0
            while journal.has(part_label(digest, number)):
                number += 1
            labels = [(part_label(digest, number), 0, len(rows))]
        journal.found(batch, rows, got.rows, labels)
    owner.learn_origins(listed)
    return unknown


def own_images(
    owner: RowOwner, batch: bytes, rows: Sequence[int], got: m.Shares
) -> Iterator[tuple[int, tuple[str, dict[str, Any] | None, bytes]]]:
    """Fetch images of a batch back from the clouds, and decrypt them.

    Parameters
    ----------
    owner : RowOwner
        The owner.
    batch : bytes
        Id of the batch.
    rows : sequence of int
        Rows whose images are wanted, among the live ones.
    got : message
        The batch as a cloud gave it back.

    Yields
    ------
    row : int
        Row of an image that a cloud has and the owner's keys open.
    image : tuple of (str, dict or None, bytes)
        Its name, metadata and bytes. Secret.
    """
    key_part, cloud_part = owner.image_parts()
    at = np.searchsorted(got.ordinals, np.asarray(rows, np.int64))
    places = {
        row: got.origin_batch[i].tobytes() + int(got.origin_row[i]).to_bytes(8, "big")
        for row, i in zip(rows, at, strict=True)
    }
    for server in owner.config.params.clouds:  # the second for images that the first lacks
        try:
            for row, blob in _files(owner, server, batch, list(places)):
                image = places[row]
                parts = schedule.image_part(key_part, image), schedule.image_part(cloud_part, image)
                with contextlib.suppress(AuthenticationError, MessageError):
                    plain = box.open_image(*parts, owner.config.id, owner.id, image, blob)
                    del places[row]
                    yield row, parse_image(plain)
        except (NotFoundError, UnreachableError):  # a cloud that is behind, or away, where others can stand in
            if not owner.spare:
                raise


def _files(owner: RowOwner, server: int, batch: bytes, rows: list[int]) -> Iterator[tuple[int, bytes]]:
    """Encrypted files of rows from one cloud, in requests of a size that it accepts."""
    waiting = [rows[i : i + FETCH_IMAGES] for i in range(0, len(rows), FETCH_IMAGES)][::-1]
    while waiting:
        some = waiting.pop()
        try:
            reply = owner.ask({server: m.FetchOwnImages(batch, np.array(some, "<i8"))})[server]
        except ShapeError:
            if len(some) > 1:  # too large together
                waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
                continue
            yield some[0], b""
            continue
        offsets = reply.offsets
        if (
            len(offsets) != len(some) + 1
            or offsets[0]
            or (np.diff(offsets) < 0).any()
            or offsets[-1] != len(reply.files)
        ):
            raise MessageError("a server's reply does not hold one file per image")
        for i, row in enumerate(some):
            yield row, reply.files[int(offsets[i]) : int(offsets[i + 1])].tobytes()
