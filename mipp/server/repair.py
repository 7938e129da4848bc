"""A cloud's part in its repair: it rebuilds lost share files with the other servers, and fetches lost image packs.

No owner takes part, and searches go on over the rest. Parts travel between servers only; the cloud learns its own share
again, which it had, and nothing else. What it writes is compared with the hash of the share that the owner signed, as
this server or, after a restore, the others know it. Where the other cloud dropped deleted rows from its file, the
remaining rows are rebuilt, and there is no hash to compare them with: then a lie of either holder stays.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..crypto.schedule import random_bytes
from ..errors import BusyError, IntegrityError, LimitError, MessageError, MippError, ParameterError
from ..rpc import peer_messages as pm
from ..rpc.channel import Channel, request
from ..rpc.limits import MAX_ROW
from ..sharing import complete_share
from ..sharing.audits import row_tags, tag_weights
from ..store.repairs import Agreed, LostBatch
from .base import ServerBase
from .completions import PART_BYTES, holders_of

__all__ = ["Repairer"]

_log = logging.getLogger("mipp.server")
#: seconds between two looks for lost files, and the longest pause after one that was not rebuilt
PAUSE, LONGEST = 5.0, 600.0
#: the way out where nobody can rebuild rows
_ADVICE = (
    "; if no cloud has these rows any more, their owner deletes them (mipp owner delete NAME FILE...) and adds them "
    "again (mipp owner add NAME FILE...)"
)


class Repairer:
    """Rebuilds the lost files of a cloud, one after the other; nothing for a key centre, which has none.

    What fails is tried again after a while, twice as long each time.

    Parameters
    ----------
    server : ServerBase
        The cloud.
    channel : Channel
        To the other servers' side for peers.
    """

    def __init__(self, server: ServerBase, channel: Channel) -> None:
        self._server, self._channel = server, channel
        self._lock, self._stop = threading.Lock(), threading.Event()
        #: of each file that was not rebuilt: not before when, after how long a pause, and why
        self._failed: dict[str, tuple[float, float, str]] = {}
        #: batches of live rows that are lost, and when that was looked up; one look at a time
        self._lost, self._looking = (float("-inf"), 0), threading.Lock()
        #: seconds that the last look for lost files took
        self._look = 0.0
        self._thread = threading.Thread(target=self._watch, name="mipp repair", daemon=True)

    def start(self) -> None:
        """Look for lost files every few seconds, in a thread of its own, and rebuild them."""
        self._thread.start()

    def stop(self) -> None:
        """End after the part that is being fetched."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(5)

    def repair(self) -> tuple[int, list[str]]:
        """Read all files now, and rebuild what is missing or damaged.

        Returns
        -------
        files : int
            How many were rebuilt.
        problems : list of str
            A sentence for each that was not; public facts only.
        """
        with self._lock:
            return self._all(read=True)

    def lost(self) -> int:
        """Count batches with live rows whose share file is missing or known as damaged here.

        Anybody may ask for the page that says it, so files are looked at every few seconds at most.

        Returns
        -------
        int
            How many; 0 for a key centre.
        """
        store = self._server.store
        with self._looking:
            began, count = self._lost
            if store.has_shares and time.monotonic() - began > max(PAUSE, 20 * self._look):
                count = len(store.repairs.lost_batches(store.views.damaged()))
                self._lost = time.monotonic(), count
            return count

    def _watch(self) -> None:
        while not self._stop.wait(max(PAUSE, 20 * self._look)):  # looks take a twentieth of one core at most
            try:
                if self._server.voting:
                    with self._lock:
                        self._all(read=False)
            except MippError as error:
                _log.warning("server %d: no repair now: %s", self._server.index, error)
            except Exception:
                if not self._stop.is_set():
                    _log.exception("server %d: unexpected error in a repair", self._server.index)

    def _all(self, *, read: bool) -> tuple[int, list[str]]:
        if not self._server.has_shares:
            return 0, []
        store, done, problems, failed = self._server.store, 0, list[str](), dict[str, tuple[float, float, str]]()
        began = time.monotonic()
        work: list[tuple[str, str, Callable[[], None]]] = [
            (f"batch {lost.id.hex()} of owner {lost.owner.hex()}", _ADVICE, functools.partial(self._rebuild, lost))
            for lost in store.repairs.lost_batches(store.views.damaged(), read=read)
        ]
        work += [
            (
                f"image pack {batch.hex()} of owner {owner.hex()}",
                "",
                functools.partial(self._fetch, owner, batch),
            )
            for owner, batch in store.repairs.lost_packs(read=read)
        ]
        work += [
            (
                f"record pack {pack.hex()} of owner {owner.hex()}",
                "",
                functools.partial(self._fetch, owner, pack, records=True),
            )
            for owner, pack in store.records.lost(read=read)
        ]
        if not read:
            self._look = time.monotonic() - began
        for what, advice, rebuild in work:
            when, pause, known = self._failed.get(what, (0.0, PAUSE, ""))
            if self._stop.is_set() or (not read and time.monotonic() < when):
                failed[what] = when, pause, known
                continue
            try:
                rebuild()
                done += 1
                _log.info("server %d: %s was rebuilt", self._server.index, what)
            except MippError as error:
                text = f"{what} was not rebuilt: {str(error).replace(f'{store.folder}{os.sep}', '')}{advice}"
                problems.append(text)
                failed[what] = time.monotonic() + pause, min(2 * pause, LONGEST), text
                if text != known:
                    _log.warning("server %d: %s", self._server.index, text)
        self._failed = failed
        return done, problems

    def _rebuild(self, lost: LostBatch) -> None:
        """Rebuild one share file, from the first servers that can; MippError if none can now."""
        choices = holders_of(self._server, self._server.index)
        for holders in choices:
            others = [other for other in choices if other != holders]
            try:
                return self._rebuild_from(holders, lost, others)
            except MippError:  # away, damaged there, too, behind, or it lies
                if holders == choices[-1]:
                    raise
        return None

    def _rebuild_from(self, holders: tuple[int, ...], lost: LostBatch, others: list[tuple[int, ...]]) -> None:
        """``others``: holders whose parts are compared, where the owner's hash of the share is not known."""
        ordinals, share_hash, agreed, pieces = self._begun(holders, lost)
        words = pieces()
        if not share_hash or len(ordinals):
            for other in others:
                try:
                    words = self._compared(words, ordinals, lost, other)
                except MippError as error:  # as if there were no third cloud
                    _log.info("server %d: no other cloud's part to compare: %s", self._server.index, error)
        stored = ordinals if len(ordinals) else None
        self._server.store.repairs.put_share(lost, stored, words, share_hash, agreed)

    def _compared(
        self, words: Iterator[np.ndarray], ordinals: np.ndarray, lost: LostBatch, other: tuple[int, ...]
    ) -> Iterator[np.ndarray]:
        """The same words; at their end IntegrityError if other holders' parts give others for a row that both store.

        Rows are compared by combinations of their words that nobody else knows (:mod:`mipp.sharing.audits`).
        """
        theirs, _, _, again = self._begun(other, lost)
        key = random_bytes(32)

        def tags(piece: np.ndarray) -> np.ndarray:
            count = piece.shape[1] * piece.itemsize // 4
            return row_tags(np.ascontiguousarray(piece), tag_weights(key, 0, count), threads=self._server.threads)

        expected = np.concatenate([tags(piece) for piece in again()])

        def compared() -> Iterator[np.ndarray]:
            found = []
            for piece in words:
                found.append(tags(piece))
                yield piece
            every = np.arange(lost.rows)
            mine, yours = (o if len(o) else every for o in (ordinals, theirs))
            _, a, b = np.intersect1d(mine, yours, assume_unique=True, return_indices=True)
            if not np.array_equal(np.concatenate(found)[a], expected[b]):
                raise IntegrityError("the other clouds' parts give two different shares: one of them is wrong")

        return compared()

    def _begun(
        self, holders: tuple[int, ...], lost: LostBatch
    ) -> tuple[np.ndarray, bytes, Agreed, Callable[[], Iterator[np.ndarray]]]:
        """Begin a session with holders: which rows they store, the share's hash, what they agree on, and the words."""
        server, channel = self._server, self._channel
        told: dict[int, pm.CompletionBegun] = {}
        ordinals = np.empty(0, "<i8")
        for holder in holders:  # clouds first: their rows say which ones a key centre makes
            begin = pm.BeginCompletion(server.index, lost.owner, lost.id, ordinals, list(holders))
            reply = _asked(channel, holder, begin, pm.CompletionBegun)
            if len(reply.ordinals) == reply.rows:  # nothing is left out: all rows, which have a hash
                raise IntegrityError("another server names all rows as if some were gone")
            told[holder] = reply
            ordinals = reply.ordinals if len(reply.ordinals) else ordinals
        replies = list(told.values())
        if len({r.keys for r in replies}) != 1:  # their masks would not cancel
            raise BusyError("the servers' keys change just now")
        facts = {(r.rows, r.dim, len(r.nonce), r.ordinals.tobytes()) for r in replies}
        if facts != {(lost.rows, lost.dim, len(replies[0].nonce), ordinals.tobytes())}:
            raise IntegrityError("the other servers have other facts of this batch")
        share_hash, agreed = _agreed(server, lost, replies)
        nonces = [told[holder].nonce for holder in holders]
        stored, width = len(ordinals) or lost.rows, server.config.params.padded(lost.dim)
        step = max(1, PART_BYTES // (width * server.config.params.dtype.itemsize))

        def pieces() -> Iterator[np.ndarray]:
            for first in range(0, stored, step):
                if self._stop.is_set():
                    raise BusyError("the server stops")
                count = min(step, stored - first)
                msg = pm.CompletionPart(server.index, lost.owner, lost.id, nonces, first, count)
                parts = [_asked(channel, holder, msg, pm.Completion).words for holder in holders]
                if any(p.shape != (count, width) or p.dtype != server.config.params.dtype for p in parts):
                    raise MessageError("a part of other rows than were asked for")
                yield complete_share(parts)

        return ordinals, share_hash, agreed, pieces

    def _fetch(self, owner: bytes, batch: bytes, *, records: bool = False) -> None:
        """Copy one pack from another cloud; MippError if that cannot be done now.

        Image files are encrypted and authenticated by their owner; who fetches one notices if it was changed. Records
        are compared with the hashes that the owner signed.
        """
        server, channel = self._server, self._channel
        others = [i for i in server.config.params.clouds if i != server.index]
        if not others:
            raise ParameterError("there is no other cloud that has it")
        msg = pm.PackRequest(server.index, owner, batch, b"", 0, records)
        first: Any = None
        for other in others:
            try:
                first = request(channel, other, msg)
                break
            except MippError:
                if other == others[-1]:
                    raise
        if not 0 < first.rows < MAX_ROW or not 0 < first.size < MAX_ROW:
            raise MessageError("a pack with numbers that are out of range")
        most = server.card_of(owner).bytes
        if most is not None and server.store.size_of(owner) + first.size > most:
            raise LimitError(f"with this pack the owner would store more than {most} bytes")

        def pieces() -> Iterator[np.ndarray]:
            at, piece = 0, first
            while True:
                if piece.digest != first.digest or len(piece.data) != min(PART_BYTES, first.size - at):
                    raise MessageError("pieces of another pack than was asked for")
                at += len(piece.data)
                yield piece.data
                if at == first.size:
                    return
                if self._stop.is_set():
                    raise BusyError("the server stops")
                piece = request(channel, other, pm.PackRequest(server.index, owner, batch, first.digest, at, records))

        if records:
            return server.store.records.put(owner, batch, first.stored, first.size, pieces())
        return server.store.repairs.put_pack(owner, batch, first.rows, first.size, pieces())


def _asked(channel: Channel, server: int, msg: Any, kind: type) -> Any:
    """A server's reply of the kind that is due."""
    reply = request(channel, server, msg)
    if not isinstance(reply, kind):
        raise MessageError(f"server {server} sent a reply of another kind")
    return reply


def _agreed(server: ServerBase, lost: LostBatch, replies: list[pm.CompletionBegun]) -> tuple[bytes, Agreed]:
    """Hash of this server's share, and what all others agree on; IntegrityError if they do not."""
    at = sorted(server.config.servers).index(server.index)
    shares = {r.shares for r in replies} - {b""}
    known = {s[32 * at : 32 * at + 32] for s in shares} | {lost.share_hash}
    known.discard(b"")
    if len(known) > 1 or len(shares) > 1:
        raise IntegrityError("the servers know different hashes of the shares of this batch")
    certificates = {r.certificate for r in replies}
    return known.pop() if known else b"", Agreed(
        shares.pop() if shares else b"", certificates.pop() if len(certificates) == 1 else b""
    )
