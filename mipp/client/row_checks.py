"""How an owner knows that rows that came back are those that it uploaded: by its tags, or by what other clouds hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ConflictError, MessageError, VerificationError
from ..params import Params
from ..rpc import messages as m
from ..sharing import OwnerKeys, convert_share
from ..sharing.audits import row_tags, tag_weights
from .tags import IMAGE_IDS, TagStore

__all__ = ["OwnerTags", "check_deleted", "check_form", "check_same_rows", "own_ids"]

#: words of 32 bits of an image id: a batch's 16 bytes and a row's 8
_ID_WORDS = 6


class OwnerTags:
    """Makes and compares an owner's tags.

    Parameters
    ----------
    folder : Path
        Of the owner's files of tags.
    key : bytes
        :func:`mipp.crypto.schedule.audit_key`, 32 bytes. Secret.
    params : Params
        Of the deployment.
    dim : int
        Encoded features of a row.
    threads : int, optional
        Native threads; default all cores.
    """

    def __init__(self, folder: Path, key: bytes, params: Params, dim: int, threads: int | None = None) -> None:
        self.store = TagStore(folder, key)
        self._key, self._threads = key, threads
        self._words = params.padded(dim) * params.ring_bits // 32
        self._weights: dict[int, np.ndarray] = {}

    def __reduce__(self) -> str:
        raise TypeError("an owner's tags are secret and do not pickle")

    def weights(self, section: int) -> np.ndarray:
        """The weights of tags of one cloud, by its number, or of image ids. Secret.

        Parameters
        ----------
        section : int
            Number of the cloud, or :data:`~mipp.client.tags.IMAGE_IDS`.

        Returns
        -------
        ndarray of uint64
            One for each word of a row.
        """
        if section not in self._weights:
            words = _ID_WORDS if section == IMAGE_IDS else self._words
            self._weights[section] = tag_weights(self._key, section, words)
        return self._weights[section]

    def of(self, section: int, rows: np.ndarray) -> np.ndarray:
        """Tags of rows as one cloud holds them, or of image ids (:func:`_id_words`). Secret.

        Parameters
        ----------
        section : int
            As for :meth:`weights`.
        rows : ndarray
            Words of the rows.

        Returns
        -------
        ndarray of uint64, shape (rows,)
            Tags.
        """
        return row_tags(rows, self.weights(section), threads=self._threads)

    def of_shares(self, shares: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Tags of a batch's rows, by cloud. Secret.

        Parameters
        ----------
        shares : mapping of int to ndarray
            Words of the rows, by cloud. Secret.

        Returns
        -------
        dict of int to ndarray of uint64, shape (rows,)
            Tags.
        """
        return {cloud: self.of(cloud, share) for cloud, share in shares.items()}

    def keep(
        self,
        batch: bytes,
        tags: Mapping[int, np.ndarray],
        ids: tuple[np.ndarray, np.ndarray] | None = None,
        *,
        rows: int = 0,
        ordinals: np.ndarray | None = None,
    ) -> None:
        """Write the tags of a batch, durably.

        Parameters
        ----------
        batch : bytes
            Its id.
        tags : mapping of int to ndarray
            Of its rows, by cloud (:meth:`of_shares`). Secret.
        ids : tuple of ndarray, optional
            Image ids of the rows, if they are not the rows' own.
        rows, ordinals : int, ndarray, optional
            Rows as uploaded, and which of them these are; default all.

        Raises
        ------
        StoreError
            They cannot be written.
        """
        sections = dict(tags)
        if ids is not None:
            sections[IMAGE_IDS] = self.of(IMAGE_IDS, _id_words(*ids))
        if ordinals is not None:
            for section, some in sections.items():
                sections[section] = np.zeros(rows, np.uint64)  # no comparison reads those of deleted rows
                sections[section][ordinals] = some
        self.store.write(batch, sections)

    def check(self, server: int, batch: bytes, got: m.Shares) -> None:
        """Compare rows that a cloud gave back with their tags.

        Parameters
        ----------
        server : int
            Number of the cloud.
        batch : bytes
            Id of the batch.
        got : message
            The rows.

        Raises
        ------
        VerificationError
            A row is not the one that was uploaded; the text names cloud, batch and row.
        IntegrityError
            The file of tags is damaged, or the cloud says another number of rows than was uploaded.
        """
        places = got.ordinals.astype(np.int64)
        wrong = self.of(server, got.share) != self.store.read(batch, server, got.rows)[places]
        if IMAGE_IDS in self.store.sections(batch):
            found = self.of(IMAGE_IDS, _id_words(got.origin_batch, got.origin_row))
            wrong |= found != self.store.read(batch, IMAGE_IDS, got.rows)[places]
        else:
            wrong |= ~own_ids(batch, got)
        if wrong.any():
            raise VerificationError(
                f"cloud {server} gave back row {places[int(wrong.argmax())]} of batch {batch.hex()} changed "
                f"({int(wrong.sum())} of {len(wrong)} rows are not what was uploaded); nothing was changed"
            )


def own_ids(batch: bytes, got: m.Shares) -> np.ndarray:
    """Whether each row's image has the row's own id, as in all batches but merged ones; bool, a value a row."""
    same = (got.origin_batch == np.frombuffer(batch, np.uint8)).all(axis=1)
    return np.asarray(same & (got.origin_row == got.ordinals))


def _id_words(batches: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Image ids as rows of words."""
    packed = np.empty((len(rows), 24), np.uint8)
    packed[:, :16] = batches
    packed[:, 16:] = np.ascontiguousarray(rows, "<i8").view(np.uint8).reshape(-1, 8)
    return packed.view("<u4")


def check_form(got: m.Shares, dim: int) -> None:
    """MessageError unless rows that a cloud gave back are rows of this index, each once, in order."""
    places = got.ordinals
    inside = not len(places) or (int(places[0]) >= 0 and int(places[-1]) < got.rows)
    if got.dim != dim or not inside or (np.diff(places) <= 0).any() or got.origin_batch.shape[1] != 16:
        raise MessageError("a server sent rows that do not fit together")


def check_deleted(server: int, batch: bytes, got: m.Shares, witness: int, rows: int, dead: np.ndarray) -> None:
    """VerificationError unless a cloud leaves out the rows that another server knows as deleted, and no others.

    ``rows``, ``dead``: rows of the batch as it was uploaded, and deleted ones, as the witness says.
    """
    missing = got.rows - len(got.ordinals)
    inside = not len(dead) or (int(dead.min()) >= 0 and int(dead.max()) < rows)
    if got.rows != rows or missing != len(dead) or not inside or np.isin(dead, got.ordinals).any():
        raise VerificationError(
            f"cloud {server} gives back other rows of batch {batch.hex()} than those that server {witness} knows as "
            "not deleted: one of the two is wrong; nothing was changed"
        )


class Deletions(NamedTuple):
    """Which rows of batches are deleted, as one server knows: by batch, ``rows`` as uploaded, and ``dead`` ones."""

    witness: int
    head: m.Head
    rows: Mapping[bytes, int]
    dead: Mapping[bytes, np.ndarray]

    def check(self, batch: bytes, server: int, got: m.Shares) -> None:
        """Check that a cloud left out the deleted rows of a batch, and no others.

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
        ConflictError
            They are of another state.
        VerificationError
            One of the two servers is wrong.
        """
        if (got.position, got.view) != (self.head.position, self.head.view):
            raise ConflictError("this owner's batches changed while they were fetched")
        check_deleted(
            server, batch, got, self.witness, self.rows.get(batch, 0), self.dead.get(batch, np.empty(0, np.int64))
        )

    def check_all(self, batch: bytes, rows: int) -> None:
        """Check that all rows of a batch are deleted.

        Parameters
        ----------
        batch : bytes
            Id of the batch.
        rows : int
            Rows of it as it was uploaded, as a cloud says.

        Raises
        ------
        VerificationError
            Not all are: the cloud or the witness is wrong.
        """
        if self.rows.get(batch, 0) != rows or len(self.dead.get(batch, ())) != rows:
            raise VerificationError(
                f"a cloud says that all rows of batch {batch.hex()} are deleted, and server {self.witness} says that "
                "not all are: one of the two is wrong; nothing was changed"
            )


def check_same_rows(batch: bytes, got: Mapping[int, m.Shares], keys: OwnerKeys, threads: int | None = None) -> None:
    """Compare what several clouds gave back of a batch: the owner's keys turn one cloud's words into another's.

    Parameters
    ----------
    batch : bytes
        Id of the batch.
    got : mapping of int to message
        The rows, by cloud. Secret.
    keys : OwnerKeys
        The owner's keys.
    threads : int, optional
        Native threads.

    Raises
    ------
    VerificationError
        Clouds differ. With three, the text names the one that differs from the two others; of two, one is wrong.
    """
    servers = sorted(got)
    places = {(a, b): _differing(batch, got, a, b, keys, threads) for a in servers for b in servers if a < b}
    if all(place is None for place in places.values()):
        return
    first = min(place for place in places.values() if place is not None)
    where = f"batch {batch.hex()}, from row {first} on" if first >= 0 else f"batch {batch.hex()}"
    alone = [s for s in servers if _alone(s, servers, places)]
    if len(alone) == 1 and len(servers) > 2:
        text = f"cloud {alone[0]} holds other rows than the other clouds, which agree"
    else:
        text = f"clouds {', '.join(map(str, servers))} do not hold the same rows: one of them is wrong"
    raise VerificationError(f"{text} ({where}); nothing was changed")


def _alone(server: int, servers: Sequence[int], places: Mapping[tuple[int, int], int | None]) -> bool:
    """Whether a server differs from all others, and those agree."""
    return all((place is not None) == (server in pair) for pair, place in places.items())


def _differing(
    batch: bytes, got: Mapping[int, m.Shares], a: int, b: int, keys: OwnerKeys, threads: int | None
) -> int | None:
    """First row on which two clouds differ, -1 if they name other rows at all, None if they agree."""
    one, other = got[a], got[b]
    if (one.rows, one.dim) != (other.rows, other.dim) or not np.array_equal(one.ordinals, other.ordinals):
        return -1
    if not len(one.ordinals):
        return None
    ordinals = one.ordinals if len(one.ordinals) < one.rows else None
    expected = convert_share(one.share, a, b, batch, one.dim, keys, rows=one.rows, ordinals=ordinals, threads=threads)
    differs = (expected != other.share).any(axis=1)
    differs |= (one.origin_batch != other.origin_batch).any(axis=1) | (one.origin_row != other.origin_row)
    return int(one.ordinals[int(differs.argmax())]) if differs.any() else None
