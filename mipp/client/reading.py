"""An owner's batches as servers have them, and its rows read back from a cloud."""

from __future__ import annotations

import dataclasses
import time
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..crypto import box, schedule
from ..errors import (
    MessageError,
    NotFoundError,
    ParameterError,
    StoreError,
    UnreachableError,
    VerificationError,
    plain_text,
)
from ..rpc import messages as m
from ..rpc.associated_data import shares_seal_info
from ..rpc.limits import MAX_ROW
from ..rpc.wire import decode, unpack_frames
from ..sharing import OwnerKeys, open_share
from .given import batch_id
from .granting import Granting
from .image_ids import image_rows, rows_by_batch
from .row_checks import check_form

__all__ = ["ReadingOwner", "StoredBatch", "way_out"]


@dataclass(frozen=True)
class StoredBatch:
    """A batch of one owner as the servers have it.

    Parameters
    ----------
    id : bytes
        16 bytes.
    rows : int
        Rows that were uploaded.
    live : int
        Rows that were not deleted.
    generation : int
        Number of times that the clouds rewrote its file without deleted rows.
    refused : str
        The rows that the servers found out of the encoding's range, so that they do not rank the batch; empty if none.
    """

    id: bytes
    rows: int
    live: int
    generation: int
    refused: str = ""


def way_out(owner: str) -> str:
    """What an owner does about rows that every cloud has lost: one sentence, by the owner's name."""
    return (
        f"mipp owner delete {owner} FILE... deletes the rows of files, and mipp owner add {owner} FILE... "
        "(or --vectors FILE) adds them again"
    )


#: how often servers are asked for one state, and seconds between two times
_ATTEMPTS, _PAUSE = 4, 0.5
#: states of a change that a server voted for
_VOTED = ("accepted",)
_State = tuple[m.Head, list[StoredBatch]]


def _listed(got: m.BatchList, server: int) -> _State:
    """A server's list; MessageError for one that no honest server sends."""
    fits = got.batches.shape == (len(got.rows), 16)
    fits &= {len(got.live), len(got.generation), len(got.refused)} == {len(got.rows)} and got.position >= 0
    batches = [
        StoredBatch(b.tobytes(), int(rows), int(live), int(generation), plain_text(refused))
        for b, rows, live, generation, refused in zip(
            got.batches, got.rows, got.live, got.generation, got.refused, strict=True
        )
    ] if fits else []  # fmt: skip
    fits &= len({b.id for b in batches}) == len(batches)
    if not fits or any(not 1 <= b.rows <= MAX_ROW or not 0 <= b.live <= b.rows or b.generation < 0 for b in batches):
        raise MessageError(f"server {server} sent a list of batches that does not fit together")
    return m.Head(got.position, got.view), batches


def _facts(state: _State) -> tuple[int, bytes, list[tuple[bytes, int, int]]]:
    """What all servers know: generations are a cloud's own, and tests of rows may be under way."""
    head, batches = state
    return head.position, head.view, [(b.id, b.rows, b.live) for b in batches]


class ReadingOwner(Granting):
    """The part of :class:`~mipp.client.owner.ImageOwner` that lists its batches and reads rows back."""

    #: keys of the owner; secret
    keys: OwnerKeys

    def batches(self) -> list[StoredBatch]:
        """List this owner's batches, as the first cloud that is there has them.

        Returns
        -------
        list of StoredBatch
            In row order.
        """
        return self._state()[1]

    def _state(self, server: int | None = None) -> tuple[m.Head, list[StoredBatch]]:
        """Head of this owner's chain and its batches, at a server; default the first cloud that is not behind."""
        clouds = self.config.params.clouds
        if server is None and self.spare:
            replies = self.ask_present(m.ListBatches(self.id), clouds)
            server, got = max(replies.items(), key=lambda reply: reply[1].position)
        else:
            server = clouds[0] if server is None else server
            got = self.ask({server: m.ListBatches(self.id)})[server]
        return _listed(got, server)

    def agreed_batches(self) -> tuple[m.Head, list[StoredBatch]]:
        """List this owner's batches as at least two servers have them, and no other server has more.

        One server's word counts nothing: what it leaves out would count as deleted. If servers differ, what is open
        between them is settled first.

        Returns
        -------
        head : Head
            The state of this owner's chain.
        batches : list of StoredBatch
            In row order.

        Raises
        ------
        VerificationError
            The servers differ: one of them is wrong. Its text names them.
        MippError
            A server that is needed for it cannot be reached, or refuses.
        """
        for attempt in range(_ATTEMPTS):
            found = {s: _listed(got, s) for s, got in self.ask_present(m.ListBatches(self.id)).items()}
            facts = {s: _facts(state) for s, state in found.items()}
            alike = ([other for other in facts if facts[other] == facts[s]] for s in facts)
            same = max(alike, key=lambda servers: (len(servers), found[servers[0]][0].position))
            head = found[same[0]][0]
            heads = {s: (at.position, at.view) for s, (at, _) in found.items()}
            others = [s for s, (position, _) in heads.items() if s not in same and position >= head.position]
            if len(same) > 1 and not others:
                return found[same[0]]
            if any(heads[s] == heads[same[0]] for s in others):  # at one state there is one truth
                break
            if self.recover is not None:
                self.recover()
            if attempt:
                time.sleep(_PAUSE)
        told = "; ".join(f"server {s}: {len(batches)} at change {at.position}" for s, (at, batches) in found.items())
        error = VerificationError(
            f"the servers list different batches of this owner ({told}): "
            + (f"server {others[0]} differs from the others" if len(same) > 1 else "one of them is wrong")
        )
        error.suspects = tuple(others) if len(same) > 1 else ()
        raise error

    def lost_batches(self, *, check: bool = False) -> list[StoredBatch]:
        """List this owner's batches that every cloud has lost: searches leave them out, and nobody can rebuild them.

        Each cloud looks whether its files are there and have their sizes. A file that is damaged otherwise counts once
        a search, a fetch or a compaction has met it, or with ``check``. What a cloud cannot read for another reason is
        not lost, and neither is what one cloud still has: the others rebuild it from there. The clouds are believed:
        they could leave these rows out anyway. They learn that they were asked.

        Parameters
        ----------
        check : bool
            Whether clouds read all files of this owner now.

        Returns
        -------
        list of StoredBatch
            Those with live rows, in row order; none while a cloud is of an earlier version, which cannot tell.

        Raises
        ------
        MessageError
            A cloud's list is not one of batches.
        MippError
            A cloud cannot be reached, or refuses. All are asked, also those that others could stand in for.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
        ...         anna = deployment.create_owner("anna")
        ...         ids = anna.add_vectors(np.eye(4))
        ...         before = anna.lost_batches()
        ...         for file in Path(folder).glob("servers/*/shares/*/*"):
        ...             file.unlink()
        ...         lost = anna.lost_batches()
        >>> before, lost[0].id == ids[0][0], lost[0].live
        ([], True, 4)
        """
        if silent := self.away.now() - self.away.left_out:  # it is not waited for each time
            raise UnreachableError(f"cloud {min(silent)} was silent lately, so nobody knows what all clouds have lost")
        request = dict.fromkeys(self.config.params.clouds, m.LostRequest(self.id, check))
        try:
            told = self.ask(request)
        except MessageError:  # a server of an earlier version does not know the question
            return []
        for server, got in told.items():
            if got.batches.shape[1] != 16:
                raise MessageError(f"server {server} sent a list of lost batches that does not fit together")
        lost = set.intersection(*({batch.tobytes() for batch in got.batches} for got in told.values()))
        return [b for b in self.batches() if b.live and b.id in lost] if lost else []

    def undecided(self, changes: Iterable[bytes]) -> set[bytes]:
        """Which changes may still become visible, by the word of any server.

        Parameters
        ----------
        changes : iterable of bytes
            Their ids: those of batches, for uploads and merges.

        Returns
        -------
        set of bytes
            Those that a server voted for, and that are not decided at all servers.
        """
        return {c for c in changes if any(o.state in _VOTED for o in self.ask_present(m.OutcomeRequest(c)).values())}

    def rows_of(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        """Fetch one of this owner's batches from a cloud and decrypt its live rows.

        Parameters
        ----------
        batch : bytes, str or StoredBatch
            The batch, or its id: 16 bytes or 32 hex digits.

        Returns
        -------
        numbers : ndarray of int64, (N,)
            Numbers of the live rows in their batch; public.
        features : ndarray of float64, (N, dim)
            Features as they were quantised (:meth:`mipp.Encoding.decode_rows`); secret.

        Raises
        ------
        NotFoundError, AccessDeniedError
            No such batch of this owner.
        StoreError
            No cloud can read the batch.
        """
        batch = batch_id(batch)
        server, got = self.fetch_anywhere(batch)
        if not len(got.share):
            return np.empty(0, np.int64), np.empty((0, self.config.encoding.dim))
        return got.ordinals.astype(np.int64), self.config.encoding.decode_rows(self.opened(got, server, batch))

    def features_of(self, images: Any) -> np.ndarray:
        """Read the features of this owner's own images back from a cloud: to search with an image that is stored.

        Each batch with one of the images is fetched whole, once. The cloud that gives it learns that this owner asked
        for this batch, and not for which rows. When a user searches right after that, servers may suppose that the
        query resembles a row of the batch. Rows are not compared with tags or other clouds: a cloud that lies gives
        other features (:meth:`audit` notices).

        Features are as they were quantised. For ``l1``, ``hamming`` and ``l2`` without ``query_scale`` the image itself
        has the best score that there is. For ``cosine``, ``hellinger`` and ``l2`` with ``query_scale`` it has the value
        of an equal image up to the steps of stored and query integers: only a row that is as near within these steps
        can come before it. For ``ip`` longer rows can come first, as for every query. A projection has lost the
        dimensions that it leaves out, for rows and queries alike. Where the encoding allows longer rows than queries, a
        search can refuse a row as too long (ScoreRangeError).

        Parameters
        ----------
        images : str, (bytes, int), Hit or sequence of them
            Ids of live images of this owner, one or several: ``batchhex:row``, pairs of batch id and row, or hits.

        Returns
        -------
        ndarray of float64, (B, dim)
            One row of features for each image, in order; queries for :meth:`mipp.User.search` and
            :meth:`mipp.User.nearest`. Secret.

        Raises
        ------
        NotFoundError, AccessDeniedError
            No such batch of this owner, or no such live row in it.
        ParameterError
            What is no image id; no image.
        StoreError
            No cloud can read the batch.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("l2", 2)) as deployment:
        ...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        ...         ids = anna.add_vectors(np.array([[1, 0], [0, 3], [2, 2]]))
        ...         anna.grant(ulla)
        ...         query = anna.features_of(ids[1])[0]
        ...         hits = ulla.search(query, k=2).hits
        >>> query.tolist(), [(hit.row, hit.value) for hit in hits]
        ([0.0, 3.0], [(1, 0.0), (2, 5.0)])
        """
        given = image_rows(images)
        if not given:
            raise ParameterError("no image is named")
        places = self.places_now(given)
        found: dict[tuple[bytes, int], np.ndarray] = {}
        for batch, rows in rows_by_batch(dict.fromkeys(places)).items():
            server, got = self.fetch_anywhere(batch)
            place = {int(row): n for n, row in enumerate(got.ordinals)}
            if gone := [row for row in rows if row not in place]:
                raise NotFoundError(f"row {gone[0]} of batch {batch.hex()} was deleted, or the batch never had it")
            rows = sorted(rows)  # the keystream is that of rows in increasing order
            which = np.array([place[row] for row in rows])
            some = dataclasses.replace(got, share=got.share[which], ordinals=got.ordinals[which])
            features = self.config.encoding.decode_rows(self.opened(some, server, batch))
            found |= {(batch, row): one for row, one in zip(rows, features, strict=True)}
        return np.stack([found[place] for place in places])

    @abstractmethod
    def places_now(self, pairs: Iterable[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
        """Find the present places of images, as :class:`~mipp.client.placing.PlacingOwner` does."""

    def fetch_anywhere(self, batch: bytes, head: m.Head | None = None) -> tuple[int, m.Shares]:
        """Fetch one of this owner's batches from the first cloud that has it undamaged.

        Parameters
        ----------
        batch : bytes
            Its id, 16 bytes.
        head : Head, optional
            State of this owner's chain that the cloud should be at, if another one is.

        Returns
        -------
        server : int
            Number of the cloud.
        shares : message
            The cloud's words of all live rows, and where each row came from; the owner's keys open them.

        Raises
        ------
        NotFoundError, AccessDeniedError, StoreError
            No such batch of this owner; no cloud can read it.
        """
        *others, last = self.clouds_in_turn()
        for server in others:
            try:
                got = self._fetch(server, batch)
                if head is None or not self.spare or (got.position, got.view) == (head.position, head.view):
                    return server, got
            except StoreError:  # damaged or missing there
                continue
            except UnreachableError as error:
                self.away.note(error)
            except NotFoundError:  # it may be behind
                if not self.spare:
                    raise
        return last, self._fetch(last, batch)

    def _fetch(self, server: int, batch: bytes) -> m.Shares:
        """One of this owner's batches from a cloud, sealed to a key that is made for this request."""
        key = schedule.random_bytes(32)
        public = box.box_private(key).public_key().public_bytes_raw()
        reply = self.ask({server: m.FetchShares(batch, public)})[server]
        plain = box.open_sealed(key, reply.sealed, shares_seal_info(self.config.id, self.id, server, batch))
        got = decode(unpack_frames(plain), m.Shares)
        p = self.config.params
        counts = {len(got.share), len(got.ordinals), len(got.origin_batch), len(got.origin_row)}
        if len(counts) != 1 or got.share.shape[1] != p.padded(got.dim) or got.share.dtype != p.dtype:
            raise MessageError("a server sent rows that do not fit together")
        check_form(got, self.config.encoding.encoded_dim)
        return got

    def opened(self, got: m.Shares, server: int, batch: bytes) -> np.ndarray:
        """Decrypt a batch that :meth:`fetch_anywhere` fetched.

        Parameters
        ----------
        got : message
            The cloud's words.
        server : int
            Number of the cloud.
        batch : bytes
            Id of the batch.

        Returns
        -------
        ndarray of int, (N, encoded_dim)
            Encoded live rows. Secret.
        """
        # keystream of whole batches is made at once
        ordinals = got.ordinals if len(got.ordinals) < got.rows else None
        return open_share(got.share, server, batch, got.dim, self.keys, rows=got.rows, ordinals=ordinals)
