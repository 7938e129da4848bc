"""All messages between roles, with who sends them to whom. Ids are 16 bytes unless said; `u8` arrays are bytes.

``Signed`` wraps what an owner or a user asks for; the signature covers deployment, purpose (the content's kind) and
the hash of the content's frames. Servers check it before they look at anything else.
"""

from __future__ import annotations

import hashlib

import numpy as np

from .wire import array, message

__all__ = [
    "AbortOp",
    "Answer",
    "CollectRanking",
    "CommitOp",
    "CompactOp",
    "DeleteOp",
    "Failure",
    "FetchImages",
    "FetchShares",
    "ForgetOwner",
    "Grant",
    "GrantList",
    "Images",
    "ListGrants",
    "ListOps",
    "Ok",
    "OpList",
    "OwnerSnapshot",
    "Pending",
    "PruneOps",
    "Query",
    "QueryHeader",
    "Ranked",
    "RegisterOwner",
    "RegisterUser",
    "Shares",
    "Signed",
    "Snapshot",
    "SnapshotRequest",
    "Status",
    "StatusRequest",
    "UploadOp",
    "VerifyReport",
    "VerifyRequest",
    "grant_id",
]


@message
class Signed:
    """Envelope around a request: the content's frames follow as byte arrays."""

    deployment: bytes
    signer: bytes
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
    """``sealed``: HPKE to this server of, for a key server, server key | image part, else image part, 32 bytes each."""

    name: str
    sign_key: bytes
    registration: bytes
    sealed: bytes


@message
class RegisterUser:
    """paillier: the user's Paillier public key in the homomorphic scheme, else empty."""

    name: str
    sign_key: bytes
    box_key: bytes
    paillier: bytes


@message
class ForgetOwner:
    """Owner -> every server: drop keys, shares, images; final."""

    owner: bytes


@message
class Grant:
    """Owner -> every server: what a user may do. The highest version per owner and user is in force.

    expiry: Unix seconds, 0 never. rankings: "user", "server". max_k: largest k. scores: whether server-side ranking
    gives scores. quota: number of queries, 0 unlimited. min_rows: fewest of the owner's live rows that a query may
    cover, 0 any. revoked: nothing is allowed any more.
    """

    owner: bytes
    user: bytes
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


@message
class ListGrants:
    """Owner -> server."""

    owner: bytes


@message
class GrantList:
    """Server -> owner: signed grants in force, as packed frames."""

    grants: list[bytes]


# --- changes in two phases: an op is prepared on every server, then committed on every server --------------------


@message
class UploadOp:
    """Owner -> every server: one batch. Key servers get no share (0 rows) and no images.

    op = batch nonce = batch id. seq orders an owner's batches. replaces: batches that vanish with the commit.
    image_offsets (rows+1): image r is images[offsets[r]:offsets[r+1]], empty if none. origin_batch, origin_row:
    (rows, 16) and (rows,) image ids that the rows' images were encrypted under, or (0, 16) and (0,) for their own.
    """

    op: bytes
    session: bytes
    seq: int
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
    """Owner -> every server: rows[i] of batches[i] become tombstones."""

    op: bytes
    session: bytes
    batches: np.ndarray = array("u1", ndim=2)
    rows: np.ndarray = array("i8")


@message
class CompactOp:
    """Owner -> every server: remove exactly the tombstoned ``rows`` of a batch from storage; ordinals stay."""

    op: bytes
    session: bytes
    batch: bytes
    generation: int
    rows: np.ndarray = array("i8")


@message
class CommitOp:
    op: bytes


@message
class AbortOp:
    """Undo a prepared op. From the owner, or by the coordinator when the owner's process is gone."""

    op: bytes


@message
class ListOps:
    """Coordinator -> server."""


@message
class OpList:
    """prepared: op ids, with their sessions; committed: op ids, with signed commits; signed: forgets and grants.

    Signed messages are packed frames.
    """

    prepared: list[bytes]
    sessions: list[bytes]
    committed: list[bytes]
    commits: list[bytes]
    signed: list[bytes]


@message
class PruneOps:
    """Coordinator -> server: every server has committed these."""

    ops: list[bytes]


# --- queries ------------------------------------------------------------------------------------------------------


@message
class SnapshotRequest:
    """User -> server. owners: empty for all that granted. known: hash of the snapshot that the user has, or empty."""

    owners: list[bytes]
    known: bytes


@message
class OwnerSnapshot:
    """One owner's batches in row order, and what its grant allows.

    dead_batch, dead_row: deleted rows, as number of the batch and row in it.
    """

    owner: bytes
    name: str
    grant: bytes
    hash: bytes
    rankings: list[str]
    scores: bool
    rows: np.ndarray = array("i8")
    dead_batch: np.ndarray = array("i8")
    dead_row: np.ndarray = array("i8")
    batches: np.ndarray = array("u1", ndim=2)


@message
class Snapshot:
    """Server -> user. hash: of the whole; owners: encoded OwnerSnapshot messages, none if ``known`` is still right."""

    hash: bytes
    unchanged: bool
    owners: list[bytes]


@message
class QueryHeader:
    """What a query is bound to; identical bytes go to every server, H = SHA-256 of them.

    ranking: "user" (answers go to the user), "server" (the k nearest, found by the servers), "threshold" (which scores
    reach a threshold, found by the servers; k is 0).
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
    commitments: list[bytes]  # SHA-256(salt_i | u_i | theta_i), in the order of servers
    batches: np.ndarray = array("u1", ndim=2)


@message
class Query:
    """User -> server i, signed: header bytes, its salt (32 bytes), column (B, D) and share of the thresholds.

    first, count: which live rows to answer for; 0 and 0 for all. With ranking "user" a batch's answers may be asked for
    some rows at a time, all under one header; otherwise they are 0.

    In the homomorphic scheme both servers get the same column: B queries of D ciphertexts, 64-bit limbs, (B, D *
    limbs).

    theta: (B,) words, this server's additive share of each query's threshold; (0,) without one.

    With ranking "server" or "threshold" a server computes nothing before all three servers have the query. It answers
    Ranked, or Pending when that takes longer than a moment.
    """

    header: list[np.ndarray] = array("u1")
    salt: bytes
    column: np.ndarray = array("u2", "u4", "u8", ndim=2)
    theta: np.ndarray = array("u2", "u4", "u8")
    first: int = 0
    count: int = 0


@message
class Answer:
    """Server -> user: (B, live rows asked for) words, uniformly random without the other servers' answers.

    In the homomorphic scheme (B, P * limbs): P packed ciphertexts, their plaintexts uniformly random without the
    other's.
    """

    values: np.ndarray = array("u2", "u4", "u8", ndim=2)


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
    """Server -> user: the ranking has not started or not finished. Ask again with :class:`CollectRanking`.

    retry_after: milliseconds to wait before that.
    """

    retry_after: int


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
    """User -> server, signed: images by batch and row."""

    batches: np.ndarray = array("u1", ndim=2)
    rows: np.ndarray = array("i8")


@message
class Images:
    """Server -> user. sealed: HPKE to the user of 32 bytes per image. Clouds add the files, key servers do not.

    owners (M, 16), image_ids (M, 24): which owner and image id each file is encrypted under.
    """

    sealed: bytes
    owners: np.ndarray = array("u1", ndim=2)
    image_ids: np.ndarray = array("u1", ndim=2)
    files: np.ndarray = array("u1")
    offsets: np.ndarray = array("i8")


@message
class FetchShares:
    """Owner -> storage server, signed: its own batch back."""

    batch: bytes


@message
class Shares:
    """Stored rows with their original row numbers, live ones only, and the image ids of those rows."""

    rows: int
    dim: int
    ordinals: np.ndarray = array("i8")
    share: np.ndarray = array("u2", "u4", "u8", ndim=2)
    origin_batch: np.ndarray = array("u1", ndim=2)
    origin_row: np.ndarray = array("i8")


# --- operation ----------------------------------------------------------------------------------------------------


@message
class StatusRequest:
    """Anyone in the deployment -> server. owner: only this one, or empty."""

    owner: bytes


@message
class Status:
    """Public facts: parallel lists per owner (image_bytes too), per user, per batch."""

    owners: list[bytes]
    names: list[str]
    forgotten: list[bool]
    users: list[bytes]
    user_names: list[str]
    batch_owner: np.ndarray = array("i8")
    batches: np.ndarray = array("u1", ndim=2)
    rows: np.ndarray = array("i8")
    live: np.ndarray = array("i8")
    generation: np.ndarray = array("i8")
    sizes: np.ndarray = array("i8")
    image_bytes: np.ndarray = array("i8")


@message
class VerifyRequest:
    """Coordinator -> server: read every file and compare checksums."""


@message
class VerifyReport:
    files: int
    problems: list[str]
