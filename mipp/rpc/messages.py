"""All messages between roles, with who sends them to whom. Ids are 16 bytes unless said; `u8` arrays are bytes.

``Signed`` wraps what an owner or a user asks for; the signature covers deployment, receiver, purpose (the content's
kind), the hash of the content's frames, the time of issue and 16 random bytes. Servers check it before they look at
anything else. What only a server's operator, or another server, may ask is not signed and comes another way
(:meth:`mipp.server.server.Server.operate`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np

from .wire import array, message

__all__ = [
    "ALL_SERVERS",
    "FOR_ALL",
    "AbortOp",
    "Answer",
    "BatchList",
    "Certify",
    "CertifyRows",
    "CollectCertificate",
    "CollectRanking",
    "CommitOp",
    "Compact",
    "DeleteOp",
    "Failure",
    "FetchImages",
    "FetchOwnImages",
    "FetchShares",
    "ForgetOwner",
    "Grant",
    "GrantList",
    "Granters",
    "GrantersRequest",
    "Head",
    "HeadRequest",
    "Images",
    "ListBatches",
    "ListGrants",
    "Ok",
    "Outcome",
    "OutcomeRequest",
    "OwnImages",
    "OwnerSnapshot",
    "Pending",
    "Query",
    "QueryHeader",
    "Ranked",
    "RegisterOwner",
    "RegisterUser",
    "SealedShares",
    "Shares",
    "Signed",
    "Snapshot",
    "SnapshotRequest",
    "UploadOp",
    "VoteMessage",
    "grant_id",
    "grants_hash",
]


#: receiver of what servers pass on to each other
ALL_SERVERS = 0


def _no_words() -> np.ndarray:
    return np.empty((0, 0), "<u2")


@message
class Signed:
    """Envelope around a request: the content's frames follow as byte arrays.

    receiver: number of the server that it is for, or ALL_SERVERS for changes that servers pass on to each other.
    issued: Unix time in milliseconds. random: 16 bytes, new for every request.
    """

    deployment: bytes
    signer: bytes
    receiver: int
    issued: int
    random: bytes
    signature: bytes  # Ed25519, 64 bytes
    frames: list[np.ndarray] = array("u1")


@message
class Ok:
    """Done, durably."""


@message
class Failure:
    """A typed refusal; ``name`` is a class of mipp.errors."""

    name: str
    text: str


# --- registration: owner or user -> every server; signed by the key inside ---------------------------------------


@message
class RegisterOwner:
    """Owner -> every server.

    ``sealed``: for each server in order, HPKE to it of, for a key centre, server key | image part, else image part, 32
    bytes each.
    """

    name: str
    sign_key: bytes
    registration: bytes
    sealed: list[bytes]


@message
class RegisterUser:
    """User -> every server. paillier: its Paillier public key in the Paillier scheme, else empty."""

    name: str
    sign_key: bytes
    box_key: bytes
    paillier: bytes


@message
class ForgetOwner:
    """Owner -> every server: drop keys, shares, images; final. It names the registration that it ends."""

    owner: bytes
    registration: bytes


@message
class Grant:
    """Owner -> every server: what a user may do. The highest (epoch, version, revoked, id) is in force.

    epoch: of the servers' grants; after a restore of all servers from backups it is higher, and grants of earlier ones
    are suspended. expiry: Unix seconds, 0 never. rankings: "server", "user", "threshold". max_k: largest k. scores:
    whether server-side ranking gives scores. quota: number of queries, 0 unlimited. min_rows: fewest of the owner's
    live rows that a query may cover, 0 any. revoked: nothing is allowed any more. The rules are in
    ``rpc/grants.py``.
    """

    owner: bytes
    user: bytes
    epoch: int
    version: int
    expiry: int
    rankings: list[str]
    max_k: int
    scores: bool
    quota: int
    min_rows: int
    revoked: bool


def grant_id(content_hash: bytes) -> bytes:
    """Id of a grant from the hash of its signed content."""
    return hashlib.sha256(b"mipp v1 grant" + content_hash).digest()[:16]


def grants_hash(grants: Iterable[bytes]) -> bytes:
    """Hash of all grants that are in force for a user, from their ids; 32 bytes."""
    return hashlib.sha256(b"mipp v2 grants" + b"".join(sorted(grants))).digest()


@message
class ListGrants:
    """Owner -> server."""

    owner: bytes


@message
class GrantList:
    """Server -> owner: its signed grants as packed frames, and the epoch that new ones must name."""

    epoch: int
    grants: list[bytes]


# --- changes: prepared on every server, accepted by every server, then visible ------------------------------------


@message
class UploadOp:
    """Owner -> every server: one batch. Key centres get no share (0 rows) and no images. Answered with ``Head``.

    op = batch nonce = batch id. replaces: batches that vanish with the commit. image_offsets (rows+1): image r is
    images[offsets[r]:offsets[r+1]], empty if none. origin_batch, origin_row: (rows, 16) and (rows,) image ids that the
    rows' images were encrypted under, or (0, 16) and (0,) for their own.
    """

    op: bytes
    rows: int
    dim: int
    encoding: bytes
    replaces: list[bytes]
    share: np.ndarray = array("u2", "u4", "u8", ndim=2)
    images: np.ndarray = array("u1")
    image_offsets: np.ndarray = array("i8")
    origin_batch: np.ndarray = array("u1", ndim=2)
    origin_row: np.ndarray = array("i8")


@message
class DeleteOp:
    """Owner -> every server: rows[i] of batches[i] become tombstones. Answered with ``Head``."""

    op: bytes
    batches: np.ndarray = array("u1", ndim=2)
    rows: np.ndarray = array("i8")


@message
class HeadRequest:
    """Owner -> server: where its chain of changes is. Answered with ``Head``."""

    owner: bytes


@message
class Head:
    """Server -> owner: position and view hash of its last committed change."""

    position: int
    view: bytes


@message
class CommitOp:
    """Owner -> all servers: what they must agree on about a prepared change. Answered with ``VoteMessage``.

    kind: "upload", "merge", "delete". position: of this change in the owner's chain, from 1. parent, view: the chain's
    hash before and after. servers: all that it is written to, in order. contents, shares: what each of them was given
    (hash of the request's content, and of the share in it, 32 zero bytes without one).
    """

    op: bytes
    kind: str
    position: int
    parent: bytes
    view: bytes
    servers: list[int]
    contents: list[bytes]
    shares: list[bytes]


@message
class VoteMessage:
    """A server's signed vote on a change: the hash of the COMMIT that it accepted, or empty for "never"."""

    owner: bytes
    op: bytes
    server: int
    incarnation: int
    counter: int
    commit: bytes
    signature: bytes


@message
class Certify:
    """Owner (signed) or peer -> server: servers' votes on a change, as packed frames. Answered with ``Outcome``."""

    owner: bytes
    op: bytes
    votes: list[bytes]


@message
class CertifyRows:
    """Owner -> every server, signed: test together that the rows of a prepared change keep the encoding's bounds.

    Answered with Ok when they do, for good, or Pending. A failure that names rows is final: the change is refused.
    """

    op: bytes


@message
class CollectCertificate:
    """Owner -> server, signed: what became of :class:`CertifyRows` that was answered with Pending."""

    op: bytes


@message
class AbortOp:
    """Owner -> all servers: refuse a change that was not accepted yet. Answered with ``VoteMessage``."""

    op: bytes


@message
class OutcomeRequest:
    """Owner -> server: what became of a change. Answered with ``Outcome``."""

    op: bytes


@message
class Outcome:
    """state: "none", "reserved", "prepared", "accepted", "committed" or "aborted"."""

    state: str


@message
class Compact:
    """Owner -> server: free the storage of deleted rows and their images. Ids stay; no other server is concerned."""

    owner: bytes


@message
class ListBatches:
    """Owner -> server: its batches in row order."""

    owner: bytes


@message
class BatchList:
    """Server -> owner: head of its chain, and its batches in row order; why servers do not rank a batch, or nothing."""

    position: int
    view: bytes
    rows: np.ndarray = array("i8")
    live: np.ndarray = array("i8")
    generation: np.ndarray = array("i8")
    batches: np.ndarray = array("u1", ndim=2)
    refused: list[str] = dataclasses.field(default_factory=list)


# --- queries ------------------------------------------------------------------------------------------------------


@message
class GrantersRequest:
    """User -> server: who grants it anything. Answered with ``Granters``."""

    user: bytes


@message
class Granters:
    """Server -> user: ids and names of the owners that grant it something now."""

    owners: list[bytes]
    names: list[str]


@message
class SnapshotRequest:
    """User -> server. owners: empty for all that granted. known: hash of the snapshot that the user has, or empty.

    brief: without the lists of batches, to compare with another server's.
    """

    owners: list[bytes]
    known: bytes
    brief: bool


@message
class OwnerSnapshot:
    """One owner's batches in row order, and what its grant allows.

    position, view: head of its chain here; floor: the earliest position that can be answered. positions: of each batch.
    left: queries that its quota still allows, -1 without one.
    dead_batch, dead_row: deleted rows, as number of the batch and row in it. damaged, reasons: batches (by id) that
    cannot be searched at this server, and why; a reason without a batch is about all of the owner's rows. unranked,
    unranked_reasons: batches that servers do not rank, and why; users can.
    """

    owner: bytes
    name: str
    grant: bytes
    position: int
    view: bytes
    floor: int
    rankings: list[str]
    scores: bool
    min_rows: int
    max_k: int
    left: int
    damaged: list[bytes]
    reasons: list[str]
    rows: np.ndarray = array("i8")
    positions: np.ndarray = array("i8")
    dead_batch: np.ndarray = array("i8")
    dead_row: np.ndarray = array("i8")
    batches: np.ndarray = array("u1", ndim=2)
    unranked: list[bytes] = dataclasses.field(default_factory=list)
    unranked_reasons: list[str] = dataclasses.field(default_factory=list)


@message
class Snapshot:
    """Server -> user. hash: of the whole; owners: encoded OwnerSnapshot messages, none if ``known`` is still right."""

    hash: bytes
    unchanged: bool
    owners: list[bytes]


@message
class QueryHeader:
    """Header of a query: all that its query shares are bound to. Every server gets the same bytes; H is their SHA-256.

    ranking: "user" (answers go to the user), "server" (the k nearest, found by the servers), "threshold" (which scores
    reach a threshold, found by the servers; k is 0). grants, positions, counts: for each owner, in order of owners: its
    grant, the position of its chain, and how many of ``batches`` are its. snapshot: hash over owners, positions and
    views. proofs: unless the user ranks, commitments to the three summands of the proof that the queries are in range
    (:mod:`mipp.mpc.query_proof`).
    """

    deployment: bytes
    user: bytes
    nonce: bytes
    ranking: str
    k: int
    queries: int
    servers: list[int]
    encoding: bytes
    snapshot: bytes
    grants: list[bytes]
    positions: list[int]
    counts: list[int]
    commitments: list[bytes]  # SHA-256(salt_i | u_i | theta_i), in the order of servers
    batches: np.ndarray = array("u1", ndim=2)
    proofs: list[bytes] = dataclasses.field(default_factory=list)


@message
class Query:
    """User -> server i, signed: header bytes, its salt (32 bytes), query share (B, D) and share of the thresholds.

    first, count: which live rows to answer for; 0 and 0 for all. With ranking "user" a batch's answers may be asked for
    some rows at a time, all under one header; otherwise they are 0. newest: not empty to have the query refused,
    before anything is counted, if the server knows a newer state of these owners; as a hash of 32 bytes
    (:func:`grants_hash`), also if it knows other grants to this user.

    In the Paillier scheme both servers get the same: B queries of D ciphertexts, 64-bit limbs, (B, D * limbs).

    theta: (B,) words, this server's additive share of each query's threshold; (0,) without one.

    With ranking "server" or "threshold" a server computes nothing before all three servers have the query. It answers
    Ranked, or Pending when that takes longer than a moment. Such a query carries two summands of the proof that it is
    in range: ``seeds``, of summands i+1 and i+2 (cyclic), 32 bytes each, and ``proof``, the words of summand 3, unless
    i is the server without it.
    """

    header: list[np.ndarray] = array("u1")
    salt: bytes
    query_share: np.ndarray = array("u2", "u4", "u8", ndim=2)
    theta: np.ndarray = array("u2", "u4", "u8")
    first: int = 0
    count: int = 0
    newest: bytes = b""
    seeds: bytes = b""
    proof: np.ndarray = array("u2", "u4", "u8", ndim=2, default_factory=_no_words)


@message
class Answer:
    """Server -> user: (B, live rows asked for) words, uniformly random without the other servers'.

    In the Paillier scheme (B, P * limbs): P packed ciphertexts, their plaintexts uniformly random without the
    other's.
    """

    score_shares: np.ndarray = array("u2", "u4", "u8", ndim=2)


@message
class Ranked:
    """Server -> user: its part of a ranking or of match bits, uniformly random without the other two.

    session, parameters: 32 bytes; words: (B, k) shares of the winners' keys, or (1, W) shares of match bits.
    """

    server: int
    session: bytes
    parameters: bytes
    queries: int
    rows: int
    words: np.ndarray = array("u8", ndim=2)


@message
class Pending:
    """Server -> client: what was asked for has not started or not finished. Ask again with a ``Collect`` message.

    retry_after: milliseconds to wait before that. done, total: rows of a batch that were tested so far, and all.
    """

    retry_after: int
    done: int = 0
    total: int = 0


@message
class CollectRanking:
    """User -> server, signed: the outcome of a query that was answered with :class:`Pending`.

    header: hash of the query's header. The answer is :class:`Ranked` or a failure, handed out once, to the user that
    signed the query; or :class:`Pending` again. NotFoundError when the server keeps nothing for this user under that
    hash: never asked, handed out, or not collected within a minute.
    """

    header: bytes


@message
class FetchImages:
    """User -> server, signed: images by owner, batch and row, each once."""

    owners: np.ndarray = array("u1", ndim=2)
    batches: np.ndarray = array("u1", ndim=2)
    rows: np.ndarray = array("i8")


@message
class Images:
    """Server -> user. sealed: HPKE to the user of 32 bytes per image. Clouds add the files, key centres do not.

    owners (M, 16), image_ids (M, 24): which owner and image id each file is encrypted under. error_names, error_texts
    (M): per image a class of mipp.errors and its text, or two empty strings; a failed image has zeros for its id and
    key part, and no file.
    """

    sealed: bytes
    owners: np.ndarray = array("u1", ndim=2)
    image_ids: np.ndarray = array("u1", ndim=2)
    files: np.ndarray = array("u1")
    offsets: np.ndarray = array("i8")
    error_names: list[str]
    error_texts: list[str]


@message
class FetchShares:
    """Owner -> cloud, signed: its own batch back, sealed to ``reply_key`` (X25519, made for this request)."""

    batch: bytes
    reply_key: bytes


@message
class SealedShares:
    """Server -> owner: a ``Shares`` message as packed frames, HPKE to the request's key."""

    sealed: bytes


@message
class Shares:
    """Stored rows with their original row numbers, live ones only, and the image ids of those rows.

    position, view: the state of the owner's chain that they are of.
    """

    position: int
    view: bytes
    rows: int
    dim: int
    ordinals: np.ndarray = array("i8")
    share: np.ndarray = array("u2", "u4", "u8", ndim=2)
    origin_batch: np.ndarray = array("u1", ndim=2)
    origin_row: np.ndarray = array("i8")


@message
class FetchOwnImages:
    """Owner -> cloud, signed: the encrypted files of live rows of one of its batches. At most 1024 rows."""

    batch: bytes
    rows: np.ndarray = array("i8")


@message
class OwnImages:
    """Server -> owner: the files of the rows, one after the other; one without a file, or damaged, has no bytes.

    They are encrypted as they were uploaded: the owner's keys open them, and a replayed request gives nothing more than
    the server has.
    """

    files: np.ndarray = array("u1")
    offsets: np.ndarray = array("i8")


#: what is signed for all servers, which pass it on to each other; it names versions or states, so it never grows stale
FOR_ALL = (RegisterOwner, RegisterUser, Grant, CommitOp, AbortOp, ForgetOwner)
