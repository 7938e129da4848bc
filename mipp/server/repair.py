"""A cloud's part in its repair: it rebuilds lost share files with the other servers, and fetches lost image packs.

No owner takes part, and searches go on over the rest. Parts travel between servers only; the cloud learns its own share
again, which it had, and nothing else. What it writes is compared with the hash of the share that the owner signed, as
this server or, after a restore, both others know it. Where the other cloud dropped deleted rows from its file, the
remaining rows are rebuilt, and there is no hash to compare them with: then a lie of the other cloud stays, as it would
in its own rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import BusyError, IntegrityError, MessageError, MippError, ParameterError
from ..rpc import peer_messages as pm
from ..rpc.channel import Channel, request
from ..rpc.limits import MAX_ROW
from ..sharing import complete_share
from ..store.repairs import Agreed, LostBatch
from .base import ServerBase
from .completions import PART_BYTES, holders_of

__all__ = ["lost_files", "repair"]

_log = logging.getLogger("mipp.server")


def lost_files(server: ServerBase) -> int:
    """How many files of a cloud are known to be missing or damaged, without reading any."""
    if not server.has_shares:
        return 0
    store = server.store
    return len(store.repairs.lost_batches(store.views.damaged())) + len(store.repairs.lost_packs())


def repair(
    server: ServerBase, channel: Channel, *, read: bool = False, stopped: Callable[[], bool] = lambda: False
) -> tuple[int, list[str]]:
    """Rebuild all lost files of a cloud, one after the other.

    Parameters
    ----------
    server : ServerBase
        The cloud; nothing is done for a key centre, which has no files.
    channel : Channel
        To the other servers' side for peers.
    read : bool
        Whether to read all files first, to find those that are damaged.
    stopped : callable
        Whether to stop now, between two parts.

    Returns
    -------
    files : int
        How many were rebuilt.
    problems : list of str
        A sentence for each that was not; public facts only.
    """
    if not server.has_shares:
        return 0, []
    store, done, problems = server.store, 0, list[str]()

    def attempt(what: str, work: Callable[[], None]) -> None:
        nonlocal done
        if stopped():
            return
        try:
            work()
            done += 1
            _log.info("server %d: %s was rebuilt", server.index, what)
        except MippError as error:
            text = str(error).replace(str(store.folder), "")
            problems.append(f"{what} was not rebuilt: {text}")

    for lost in store.repairs.lost_batches(store.views.damaged(), read=read):
        attempt(f"batch {lost.id.hex()}", lambda lost=lost: _rebuild(server, channel, lost, stopped))  # type: ignore[misc]
    for owner, batch in store.repairs.lost_packs(read=read):
        attempt(
            f"the image pack of batch {batch.hex()}",
            lambda owner=owner, batch=batch: _fetch(server, channel, owner, batch, stopped),  # type: ignore[misc]
        )
    return done, problems


def _rebuild(server: ServerBase, channel: Channel, lost: LostBatch, stopped: Callable[[], bool]) -> None:
    """Rebuild one share file; MippError if that cannot be done now."""
    holders, none = holders_of(server, server.index), np.empty(0, "<i8")
    told: dict[int, pm.CompletionBegun] = {}
    ordinals = none
    for holder in holders:  # clouds first: their rows say which ones a key centre makes
        told[holder] = request(channel, holder, pm.BeginCompletion(server.index, lost.owner, lost.id, ordinals))
        ordinals = told[holder].ordinals if len(told[holder].ordinals) else ordinals
    replies = list(told.values())
    facts = {(r.rows, r.dim, len(r.nonce), r.ordinals.tobytes()) for r in replies}
    if facts != {(lost.rows, lost.dim, len(replies[0].nonce), ordinals.tobytes())}:
        raise IntegrityError("the other servers have other facts of this batch")
    share_hash, agreed = _agreed(server, lost, replies)
    nonces = [told[holder].nonce for holder in holders]
    stored, width = len(ordinals) or lost.rows, server.config.params.padded(lost.dim)
    step = max(1, PART_BYTES // (width * server.config.params.dtype.itemsize))

    def pieces() -> Iterator[np.ndarray]:
        for first in range(0, stored, step):
            if stopped():
                raise BusyError("the server stops")
            count = min(step, stored - first)
            msg = pm.CompletionPart(server.index, lost.owner, lost.id, nonces, first, count)
            parts = [request(channel, holder, msg).words for holder in holders]
            if any(p.shape != (count, width) or p.dtype != server.config.params.dtype for p in parts):
                raise MessageError("a part of other rows than were asked for")
            yield complete_share(parts)

    server.store.repairs.put_share(lost, ordinals if len(ordinals) else None, pieces(), share_hash, agreed)


def _agreed(server: ServerBase, lost: LostBatch, replies: list[pm.CompletionBegun]) -> tuple[bytes, Agreed]:
    """Hash of this server's share, and what all others agree on; IntegrityError if they do not."""
    at = sorted(server.config.servers).index(server.index)
    shares = {r.shares for r in replies}
    known = {s[32 * at : 32 * at + 32] for s in shares} | {lost.share_hash}
    known.discard(b"")
    if len(known) > 1:
        raise IntegrityError("the servers know different hashes of the share that was lost")
    certificates = {r.certificate for r in replies}
    return known.pop() if known else b"", Agreed(
        shares.pop() if len(shares) == 1 else b"", certificates.pop() if len(certificates) == 1 else b""
    )


def _fetch(server: ServerBase, channel: Channel, owner: bytes, batch: bytes, stopped: Callable[[], bool]) -> None:
    """Copy one image pack from another cloud; MippError if that cannot be done now.

    Its files are encrypted and authenticated by their owner; who fetches one notices if it was changed.
    """
    others = [i for i in server.config.params.clouds if i != server.index]
    if not others:
        raise ParameterError("there is no other cloud that has its images")
    msg = pm.PackRequest(server.index, owner, batch, b"", 0)
    first: Any = None
    for other in others:
        try:
            first = request(channel, other, msg)
            break
        except MippError:
            if other == others[-1]:
                raise

    if not 0 < first.rows < MAX_ROW or not 0 < first.size < MAX_ROW:
        raise MessageError("an image pack with numbers that are out of range")

    def pieces() -> Iterator[np.ndarray]:
        at, piece = 0, first
        while True:
            if piece.digest != first.digest or (not len(piece.data) and at < first.size):
                raise MessageError("pieces of another image pack than was asked for")
            at += len(piece.data)
            if at > first.size:
                raise MessageError("an image pack that is longer than was said")
            yield piece.data
            if at == first.size:
                return
            if stopped():
                raise BusyError("the server stops")
            piece = request(channel, other, pm.PackRequest(server.index, owner, batch, first.digest, at))

    server.store.repairs.put_pack(owner, batch, first.rows, first.size, pieces())
