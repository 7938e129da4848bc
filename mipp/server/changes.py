"""Handlers of owners' changes: uploads, deletes, merges; votes on them; giving an owner its own rows back.

Each function answers one signed request; the rules are in ``store/changes.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..crypto import box
from ..errors import (
    AuthenticationError,
    BusyError,
    ConflictError,
    LimitError,
    MessageError,
    MippError,
    NotFoundError,
    ParameterError,
    ShapeError,
    StoreError,
)
from ..rpc import messages as m
from ..rpc.associated_data import shares_seal_info
from ..rpc.chain import NO_SHARE, Content, Vote, facts_hash, vote_bytes
from ..rpc.limits import FETCH_IMAGES, MAX_ROW, Card
from ..rpc.records import image_files_hash, pack_places, records_facts
from ..rpc.wire import decode, encode, pack_frames, unpack_frames
from ..sharing import MAX_BLOCKS
from ..store.store import check_offsets
from .base import Handlers, Request, ServerBase
from .commits import commit_of, verified_vote
from .images import image_files, locate_images
from .records import new_records, require_moved

__all__ = ["HANDLERS", "noted_votes", "signed_vote"]


def upload(server: ServerBase, request: Request[m.UploadOp]) -> m.Head:
    signer, msg = request.signer, request.content
    p, encoding = server.config.params, server.config.encoding
    if msg.encoding != encoding.hash or msg.dim != encoding.encoded_dim:
        raise ParameterError("the batch is encoded for another index")
    width = p.padded(msg.dim)
    if not 1 <= msg.rows <= MAX_BLOCKS * 128 // (width * p.ring_bits) or len(msg.op) != 16:
        raise ShapeError("a batch has at least one row, at most 2^32 AES blocks, and an id of 16 bytes")
    if server.has_shares and (msg.share.shape != (msg.rows, width) or msg.share.dtype != p.dtype):
        raise ShapeError(f"a share must be ({msg.rows}, {width}) words of {p.ring_bits} bits, not {msg.share.shape}")
    if not server.has_shares and (msg.share.size or msg.images.size):
        raise MessageError("a key centre takes neither shares nor images")
    check_offsets(msg.image_offsets, msg.rows, msg.images.size)
    if len(msg.moved):
        require_moved(msg)
    if len(msg.origin_row) not in (0, msg.rows) or msg.origin_batch.shape != (len(msg.origin_row), 16):
        raise ShapeError("image ids must be given for all rows or for none")
    if len(msg.origin_row) and not 0 <= int(msg.origin_row.min()) <= int(msg.origin_row.max()) < 1 << 48:
        raise ShapeError("rows of image ids are from 0 to 2^48 - 1")
    if any(len(batch) != 16 for batch in msg.replaces) or len(set(msg.replaces)) != len(msg.replaces):
        raise ShapeError("batches to replace are named once each, by ids of 16 bytes")
    records = new_records(server, msg.rows, msg.record_hash, msg.album, msg.records)
    if records is not None and msg.replaces:
        raise ParameterError("a merge brings no records; those of its rows stay where they are")
    if msg.image_hash and (
        records is None or len(msg.image_hash) != 32
        or (server.has_shares and msg.image_hash != image_files_hash(*request.frame_hashes[2:4]))
    ):  # fmt: skip
        raise AuthenticationError("the images are not those whose hash the change names")
    if records is not None and msg.images.size and not msg.image_hash:
        raise ParameterError("images of rows with records come with their hash")
    if server.config.record_bytes and (not len(msg.moved) if msg.replaces else records is None):
        raise ParameterError("this deployment keeps a record of each row; update this program")
    if server.config.record_bytes and not msg.replaces and len(msg.origin_row):
        raise ParameterError("images of new rows are their own; only merges name others")
    if server.config.record_bytes and msg.replaces and msg.images.size:
        raise ParameterError("a merge brings no images; those of its rows stay where they are")
    server.store.prepare_upload(
        signer, msg.op, request.hash, rows=msg.rows, dim=msg.dim, replaces=sorted(msg.replaces),
        share=msg.share if server.has_shares else None,
        share_hash=request.frame_hashes[1] if msg.share.size else NO_SHARE,
        images=msg.images, offsets=msg.image_offsets, origin=(msg.origin_batch.tobytes(), msg.origin_row.tobytes()),
        admit=by_card(server.card_of(signer), msg.rows, msg.share.nbytes + msg.images.nbytes + msg.records.nbytes),
        held=request.arrived.file_of(1) if request.arrived is not None and msg.share.size else None,
        records=records, moved=msg.moved.tobytes(), image_hash=msg.image_hash,
    )  # fmt: skip
    return m.Head(*server.store.changes.head(signer))


def by_card(card: Card, coming_rows: int, coming: int) -> Callable[[int, int], None] | None:
    """Refuses rows and bytes beyond an owner's card, given what it has."""
    if card.rows is None and card.bytes is None:
        return None

    def admit(rows: int, size: int) -> None:
        if card.rows is not None and rows + coming_rows > card.rows:
            raise LimitError(f"this owner may store {card.rows} rows; {rows} are there and {coming_rows} would come")
        if card.bytes is not None and size + coming > card.bytes:
            raise LimitError(f"this owner may store {card.bytes} bytes; {size} are there and {coming} would come")

    return admit


def delete(server: ServerBase, request: Request[m.DeleteOp]) -> m.Head:
    signer, msg = request.signer, request.content
    if not len(msg.rows) or msg.batches.shape != (len(msg.rows), 16) or len(msg.op) != 16:
        raise ShapeError("a delete has an id of 16 bytes and names one batch per row, and at least one")
    dead: dict[bytes, list[int]] = {}
    for batch, row in zip(msg.batches, msg.rows, strict=True):
        dead.setdefault(batch.tobytes(), []).append(int(row))
    server.store.prepare_delete(signer, msg.op, request.hash, dead)
    return m.Head(*server.store.changes.head(signer))


def annotate(server: ServerBase, request: Request[m.AnnotateOp]) -> m.Head:
    signer, msg = request.signer, request.content
    named = len(set(msg.batches)) == len(msg.batches) and all(len(batch) == 16 for batch in msg.batches)
    counted = (
        len(msg.counts) == len(msg.batches) and min(msg.counts, default=0) > 0 and sum(msg.counts) == len(msg.rows)
    )
    if not named or not counted or len(msg.op) != 16:
        raise ShapeError("an annotation has an id of 16 bytes, and names each batch once, with one or more rows")
    if not 0 <= int(msg.rows.min()) <= int(msg.rows.max()) < MAX_ROW:
        raise ShapeError(f"rows are from 0 to {MAX_ROW - 1}")
    records = new_records(server, len(msg.rows), msg.record_hash, msg.album, msg.records)
    if records is None:
        raise ParameterError("an annotation brings records")
    some = np.split(msg.rows, np.cumsum(msg.counts)[:-1])
    places = dict(zip(msg.batches, some, strict=True))
    if any(len(np.unique(rows)) != len(rows) for rows in some):
        raise ShapeError("an annotation names each row once")
    server.store.prepare_annotate(
        signer, msg.op, request.hash, pack_places(places), records,
        by_card(server.card_of(signer), 0, msg.records.nbytes),
    )  # fmt: skip
    return m.Head(*server.store.changes.head(signer))


def commit(server: ServerBase, request: Request[m.CommitOp]) -> m.VoteMessage:
    signer, msg = request.signer, request.content
    p, everyone = server.config.params, sorted(server.config.servers)
    away = set(everyone) - set(msg.servers)
    if not away.issubset(p.clouds) or len(away) > p.spare_clouds or not set(msg.servers).issubset(everyone):
        spare = f", but for {p.spare_clouds} of its clouds" if p.spare_clouds else ""
        raise ParameterError(f"a change is written to all servers of the deployment{spare}")
    named = commit_of(signer, msg, request.hash, request.packed)
    # an owner that has not heard of a cloud that joined names those of the servers before it
    if len(msg.shares) != len(everyone) and msg.servers != everyone[: len(msg.shares)]:
        raise MessageError("a commit names the hash of every server's share")
    if server.index in away:  # no vote of it counts, and it must not refuse what the others may have made
        raise ConflictError("this change is not written to this server, which takes it over from the others")
    mine = msg.shares[everyone.index(server.index)]  # of all servers, or of those before the one that joined

    def facts(kind: str, known: bytes, record: dict[str, Any]) -> bytes:
        if record.get("share_hash", NO_SHARE) != mine:
            return b""
        places = record.get("moved") or record.get("places", b"")
        content = Content(
            record.get("rows", 0), record.get("dim", 0), record.get("replaces", []), record.get("dead", b""),
            records_facts(
                record.get("album", b""), record.get("record_hash", b""), places, record.get("image_hash", b"")
            ),
        )  # fmt: skip
        return facts_hash(kind, content, msg.servers, msg.contents, msg.shares)

    vote, counter = server.store.changes.commit(named, facts, by_peer=request.by_peer)
    return signed_vote(server, signer, msg.op, vote, counter)


def signed_vote(server: ServerBase, owner: bytes, op: bytes, vote: Vote, counter: int) -> m.VoteMessage:
    """This server's vote, signed with its identity."""
    signature = server.sign(vote_bytes(server.config.id, owner, op, vote, counter))
    return m.VoteMessage(owner, op, vote.server, vote.incarnation, counter, vote.commit, signature)


def _verified_votes(
    server: ServerBase, owner: bytes, op: bytes, packed: list[bytes]
) -> tuple[list[tuple[Vote, int]], dict[int, bytes]]:
    """Others' votes and counters, and the frames of one of each server; AuthenticationError if one is not theirs."""
    if len(packed) > 4 * len(server.config.servers):
        raise LimitError("more votes than the servers can have cast")
    found, proofs = [], {}
    for frames in packed:
        named = decode(unpack_frames(frames), m.VoteMessage)
        if (named.owner, named.op) != (owner, op):
            raise AuthenticationError("a vote on another change")
        if named.server == server.index:
            continue  # known here; saves a check
        msg = verified_vote(server.config, frames)
        found.append((Vote(msg.server, msg.incarnation, msg.commit), msg.counter))
        proofs[msg.server] = frames
    return found, proofs


def certify(server: ServerBase, request: Request[m.Certify]) -> m.Outcome:
    signer, msg = request.signer, request.content
    if msg.owner != signer:
        raise AuthenticationError("only the owner or a server brings votes on its changes")
    return noted_votes(server, msg)


def noted_votes(server: ServerBase, msg: m.Certify) -> m.Outcome:
    """Note votes, whoever brings them: they are signed."""
    votes, proofs = _verified_votes(server, msg.owner, msg.op, msg.votes)
    return m.Outcome(server.store.changes.certify(msg.owner, msg.op, votes, proofs))


def abort(server: ServerBase, request: Request[m.AbortOp]) -> m.VoteMessage:
    signer, msg = request.signer, request.content
    if len(msg.op) != 16:
        raise ShapeError("a change has an id of 16 bytes")
    return signed_vote(server, signer, msg.op, *server.store.changes.never(signer, msg.op))


def outcome(server: ServerBase, request: Request[m.OutcomeRequest]) -> m.Outcome:
    signer, msg = request.signer, request.content
    return m.Outcome(server.store.changes.state(signer, msg.op))


def head(server: ServerBase, request: Request[m.HeadRequest]) -> m.Head:
    signer = request.signer
    return m.Head(*server.store.changes.head(signer))


def compact(server: ServerBase, request: Request[m.Compact]) -> m.Ok:
    signer = request.signer
    server.store.compact(signer)
    return m.Ok()


def list_batches(server: ServerBase, request: Request[m.ListBatches]) -> m.BatchList:
    signer = request.signer
    position, view, rows = server.store.batch_list(signer)
    columns = [np.array([r[i] for r in rows], "<i8") for i in (1, 2, 3)]
    ids = np.frombuffer(b"".join(r[0] for r in rows), np.uint8).reshape(-1, 16)
    refused = [bytes(r[4]).decode(errors="replace") for r in rows]
    return m.BatchList(position, view, columns[0], columns[0] - columns[1], columns[2], ids, refused)


def lost_batches(server: ServerBase, request: Request[m.LostRequest]) -> m.LostBatches:
    signer, check = request.signer, request.content.check
    if not server.large_reply.acquire(timeout=10):  # files are read
        raise BusyError("other owners' batches are being read; try again later")
    try:
        gone = server.store.gone_batches(signer, read=check)
    finally:
        server.large_reply.release()
    return m.LostBatches(np.frombuffer(b"".join(gone), np.uint8).reshape(-1, 16))


def fetch_shares(server: ServerBase, request: Request[m.FetchShares]) -> m.SealedShares:
    signer, msg = request.signer, request.content
    box.box_public(msg.reply_key)
    if not server.large_reply.acquire(timeout=10):
        raise BusyError("other owners' batches are being given back; try again later")
    try:
        return _shares(server, signer, msg)
    finally:
        server.large_reply.release()


def _shares(server: ServerBase, signer: bytes, msg: m.FetchShares) -> m.SealedShares:
    view = server.store.view(signer)
    if msg.batch not in view.index:
        raise NotFoundError(f"this owner has no batch {msg.batch.hex()}")
    batch = view.batches[view.index[msg.batch]]
    if batch.problem:
        raise StoreError(f"batch {msg.batch.hex()} is damaged at server {server.index}: {batch.problem}")
    if batch.words is None:
        raise StoreError("a key centre stores no shares")
    server.room_for(signer, batch.words.nbytes)
    ordinals = np.arange(batch.rows) if batch.ordinals is None else np.asarray(batch.ordinals)
    alive = ~np.isin(ordinals, batch.tombstones)
    ids, rows = server.store.packs.origins(signer, msg.batch)
    left = ordinals[alive].astype("<i8")
    shares = m.Shares(
        view.position, view.hash, batch.rows, batch.dim, left, batch.words[alive], ids[left], rows[left].astype("<i8")
    )
    # the owner's alone: whoever sends the request again gets nothing that it can open
    info = shares_seal_info(server.config.id, signer, server.index, msg.batch)
    return m.SealedShares(box.seal(msg.reply_key, pack_frames(encode(shares)), info))


def fetch_own_images(server: ServerBase, request: Request[m.FetchOwnImages]) -> m.OwnImages:
    signer, msg = request.signer, request.content
    if not server.has_shares:
        raise StoreError("a key centre stores no images")
    if len(msg.batch) != 16 or not 1 <= len(msg.rows) <= FETCH_IMAGES:
        raise ShapeError(f"a fetch names a batch by an id of 16 bytes and 1 to {FETCH_IMAGES} rows of it")
    if server.store.batch(signer, msg.batch) is None:
        raise NotFoundError(f"this owner has no batch {msg.batch.hex()}")
    if not server.large_reply.acquire(timeout=10):
        raise BusyError("other owners' batches are being given back; try again later")
    try:
        places = [(signer, msg.batch, int(row)) for row in msg.rows]
        room = functools.partial(server.room_for, signer)
        files = image_files(server.store, locate_images(server.store, (signer,), places, ""), room)
    finally:
        server.large_reply.release()
    found = [np.empty(0, np.uint8) if isinstance(f, MippError) else f for f in files]
    offsets = np.concatenate([[0], np.cumsum([len(f) for f in found], dtype=np.int64)]).astype("<i8")
    return m.OwnImages(np.concatenate(found), offsets)


HANDLERS: Handlers = {
    m.UploadOp: upload,
    m.DeleteOp: delete,
    m.AnnotateOp: annotate,
    m.CommitOp: commit,
    m.Certify: certify,
    m.AbortOp: abort,
    m.OutcomeRequest: outcome,
    m.HeadRequest: head,
    m.Compact: compact,
    m.ListBatches: list_batches,
    m.LostRequest: lost_batches,
    m.FetchShares: fetch_shares,
    m.FetchOwnImages: fetch_own_images,
}
