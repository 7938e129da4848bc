"""Handler of audits: a cloud combines an owner's stored rows linearly, and tells which are deleted.

``mipp/sharing/audits.py`` has the mathematics. The work is bounded before it begins: one audit at a time in all, one of
each owner, so many batches, rows and bytes a request. No lock of the store is held meanwhile: rows are immutable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np

from ..crypto import box
from ..errors import LimitError, NotFoundError, ParameterError, ShapeError
from ..io.memory import WINDOW_BYTES, ahead
from ..rpc import messages as m
from ..rpc.associated_data import audit_seal_info
from ..rpc.limits import MAX_AUDIT_BATCHES, MAX_AUDIT_BYTES, MAX_AUDIT_DRAWS, MAX_AUDIT_ROWS
from ..rpc.wire import encode, pack_frames
from ..sharing.audits import MODULUS, SEED_BYTES, Coefficients, combine_rows
from ..store.views import BatchView
from .base import Handlers, Request, ServerBase

__all__ = ["HANDLERS"]

#: stored rows, and the coefficient of each
_Piece = tuple[np.ndarray, np.ndarray]


def audit_rows(server: ServerBase, request: Request[m.AuditRows]) -> m.SealedAudit:
    signer, msg = request.signer, request.content
    box.box_public(msg.reply_key)
    if len(msg.seed) != SEED_BYTES or not 0 <= msg.draws <= MAX_AUDIT_DRAWS:
        raise ParameterError(f"an audit has a seed of {SEED_BYTES} bytes and draws at most {MAX_AUDIT_DRAWS} rows")
    if msg.batches.shape[1] != 16 or not 1 <= len(msg.batches) <= MAX_AUDIT_BATCHES:
        raise ShapeError(f"an audit names 1 to {MAX_AUDIT_BATCHES} batches, by ids of 16 bytes")
    ids = [batch.tobytes() for batch in msg.batches]
    if len(set(ids)) != len(ids):
        raise ShapeError("an audit names each batch once")
    with server.audits.of(signer):
        view = server.store.view(signer)
        if missing := [i for i in ids if i not in view.index]:
            raise NotFoundError(f"this owner has no batch {missing[0].hex()}")
        batches = [view.batches[view.index[i]] for i in ids]
        width = server.config.params.padded(server.config.encoding.encoded_dim) * server.config.params.ring_bits // 32
        rows = sum(b.rows for b in batches)
        if len(ids) > 1 and (rows > MAX_AUDIT_ROWS or 4 * width * rows > MAX_AUDIT_BYTES):
            raise LimitError(f"an audit of several batches covers at most {MAX_AUDIT_ROWS} rows; name fewer batches")
        if msg.draws > rows:
            raise ParameterError("an audit draws no more rows than there are")
        dead = [b.tombstones for b in batches]
        server.room_for(signer, 8 * (width + len(ids) + sum(len(d) for d in dead)))
        lost = np.array([server.has_shares and (bool(b.problem) or b.words is None) for b in batches], np.uint8)
        sums = np.empty(0, "<u8")
        if server.has_shares:
            made = Coefficients(msg.seed, ids, [b.rows for b in batches])
            pieces = _drawn(made, batches, msg.draws) if msg.draws else _all(made, batches)
            sums = _combined(pieces, width, server.threads)
        counts = np.array([len(d) for d in dead], "<i8")
        told = m.Audited(view.position, view.hash, sums, lost, counts, np.concatenate(dead).astype("<i8"))
    # the owner's alone: of few rows the sums tell the rows
    info = audit_seal_info(server.config.id, signer, server.index, msg.seed)
    return m.SealedAudit(box.seal(msg.reply_key, pack_frames(encode(told)), info))


def _combined(pieces: Iterator[_Piece], width: int, threads: int | None) -> np.ndarray:
    sums = np.zeros(width, np.uint64)
    for rows, coefficients in pieces:
        sums = (sums + combine_rows(rows, coefficients, threads=threads)) % np.uint64(MODULUS)
    return sums.astype("<u8")


def _all(made: Coefficients, batches: list[BatchView]) -> Iterator[_Piece]:
    """All live rows, in pieces that are read ahead of their use."""
    places = [
        (number, start, min(start + _step(words), len(words)))
        for number, batch in enumerate(batches)
        if (words := _words(batch)) is not None
        for start in range(0, len(words), _step(words))
    ]
    rows = [batches[number].words[start:stop] for number, start, stop in places]  # type: ignore[index]
    with closing(ahead(rows)) as read:
        for piece, (number, start, stop) in zip(read, places, strict=True):
            batch = batches[number]
            # of rows as uploaded, of which some are not stored any more
            first, last = start, stop
            if batch.ordinals is not None:
                first, last = int(batch.ordinals[start]), int(batch.ordinals[stop - 1]) + 1
            factors = made.of(number, first, last, batch.tombstones)
            yield piece, factors if batch.ordinals is None else factors[batch.ordinals[start:stop] - first]


def _drawn(made: Coefficients, batches: list[BatchView], draws: int) -> Iterator[_Piece]:
    """Drawn rows, but for deleted ones, in the order in which they lie."""
    for number, rows, by in made.live_draws(draws, [batch.tombstones for batch in batches]):
        batch = batches[number]
        words = _words(batch)
        if words is None:
            continue
        places = rows if batch.ordinals is None else np.searchsorted(batch.ordinals, rows)
        for start in range(0, len(places), _step(words)):
            yield words[places[start : start + _step(words)]], by[start : start + _step(words)]


def _words(batch: BatchView) -> np.ndarray | None:
    return None if batch.problem else batch.words


def _step(words: np.ndarray) -> int:
    """Rows of a piece."""
    return max(64, WINDOW_BYTES // words[:1].nbytes // 64 * 64) if len(words) else 64


HANDLERS: Handlers = {m.AuditRows: audit_rows}
