"""Messages of users: the state of the index, queries, rankings, images.

The page of all messages is ``messages.py``.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .wire import added, array, message

__all__ = [
    "Albums",
    "Answer",
    "CollectRanking",
    "EvaluationKeyRequest",
    "EvaluationKeyState",
    "FetchAlbums",
    "FetchHeader",
    "FetchImages",
    "FetchOrigins",
    "FetchRecords",
    "FoldColumns",
    "FoldedColumns",
    "Granters",
    "GrantersRequest",
    "Images",
    "KeepEvaluationKey",
    "MaskedRecords",
    "Origins",
    "OwnerSnapshot",
    "Pending",
    "Query",
    "QueryHeader",
    "Ranked",
    "Snapshot",
    "SnapshotRequest",
    "UserGrantList",
    "UserGrants",
]


def _no_words() -> np.ndarray:
    return np.empty((0, 0), "<u2")


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
class UserGrants:
    """User -> server: all grants to it on record. Answered with ``UserGrantList``."""

    user: bytes


@message
class UserGrantList:
    """Server -> user: of each owner the newest grant to it, as the owner signed it, revoked and expired ones too.

    grants: signed messages as packed frames. sign_keys, registrations: of the owners, whose ids they give, so that the
    user can check the signatures. names: as this server knows the owners. expired: by this server's clock. left:
    queries that the quota still allows, -1 without one. rows: live rows of the owner; 0 unless the grant is in force.
    suspended: number of grants that are suspended since all servers were restored from backups; they are not listed.
    """

    grants: list[bytes]
    sign_keys: list[bytes]
    registrations: list[bytes]
    names: list[str]
    expired: list[bool]
    left: list[int]
    rows: list[int]
    suspended: int


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
    unranked_reasons: batches that servers do not rank, and why; users can. moved: hash of where the records of rows are
    that are not in the order of their batch (:func:`mipp.rpc.records.moved_hash`), or empty.
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
    moved: bytes = added(default=b"")


@message
class Snapshot:
    """Server -> user. hash: of the whole; owners: encoded OwnerSnapshot messages, none if ``known`` is still right."""

    hash: bytes
    unchanged: bool
    owners: list[bytes]


@message
class QueryHeader:
    """Header of a query: all that its query shares are bound to. Every server gets the same bytes; H is their SHA-256.

    ranking: "user" (answers go to the user), "server" (the k nearest, found by the servers), "probe" (the k nearest of
    chosen clusters, found by the servers), "threshold" (which scores reach a threshold, found by the servers; k is 0).
    keys: id of the servers' keys that the masks come from (:class:`mipp.rpc.key_sets.KeySet`). grants, positions,
    counts: for each owner, in order of owners: its grant, the position of its chain, and how many of ``batches`` are
    its. snapshot: hash over owners, positions and views. proofs: unless the user ranks, commitments to the three
    summands of the proof that the queries are in range (:mod:`mipp.mpc.query_proof`). checks: with ranking "user", how
    many check columns come after the queries (:mod:`mipp.sharing.checks`). folded: the servers keep their words until
    they are folded, instead of sending them.
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
    keys: bytes = b""
    checks: int = 0
    folded: bool = False


@message
class EvaluationKeyRequest:
    """User -> server, signed: whether it needs the user's evaluation key. Answered ``EvaluationKeyState``."""

    user: bytes


@message
class EvaluationKeyState:
    """Server -> user: bytes of the evaluation key that it needs, 0 if it has one, or the scheme has none."""

    needed: int


@message
class KeepEvaluationKey:
    """User -> server, signed: its evaluation key, public. Refused to who is granted nothing.

    Where there is one, that one stays, and this is answered Ok: several programs of a user may bring theirs at once.
    """

    key: np.ndarray = array("u1")


@message
class Query:
    """User -> server i, signed: header bytes, its salt (32 bytes), query share and share of the thresholds.

    The query share has (B + checks, D) words.

    first, count: which live rows to answer for; 0 and 0 for all. With ranking "user" a batch's answers may be asked for
    some rows at a time, all under one header; otherwise they are 0. newest: not empty to have the query refused,
    before anything is counted, if the server knows a newer state of these owners; as a hash of 32 bytes
    (:func:`grants_hash`), also if it knows other grants to this user.

    In the schemes with one cloud both servers get the same, 64-bit words: in the Paillier scheme B queries of D
    ciphertexts, (B, D * limbs); in the lattice scheme (B, words of an encrypted vector).

    theta: (B,) words, this server's additive share of each query's threshold; (0,) without one.

    With ranking "server" or "threshold" a server computes nothing before all three servers have the query. It answers
    Ranked, or Pending when that takes longer than a moment. Such a query carries two summands of the proof that it is
    in range: ``seeds``, of summands i+1 and i+2 (cyclic), 32 bytes each, and ``proof``, the words of summand 3, unless
    i is the server without it.

    width: bits to which the user asks that score shares be cut, 0 for whole words; with ranking "user" alone.
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
    width: int = 0


@message
class Answer:
    """Server -> user: (B, live rows asked for) words, uniformly random without the other servers'.

    width: 0 for whole words; or the ``width`` of the query, where that is what every score fits in and all rows have
    passed the range test. Then the low bits of each word are packed, (B, packed_words) words of the ring
    (:func:`mipp.sharing.pack_score_shares`). They add up to the low bits of the scores, which are the scores.

    checks: the words of the check columns, (checks, rows), unless the servers keep them.

    In the Paillier scheme (B, P * limbs): P packed ciphertexts, their plaintexts uniformly random without the
    other's. In the lattice scheme (B, words of the ciphertexts of all rows), of which the same holds.
    """

    score_shares: np.ndarray = array("u2", "u4", "u8", ndim=2)
    width: int = 0
    checks: np.ndarray = array("u2", "u4", "u8", ndim=2, default_factory=_no_words)


@message
class FoldColumns:
    """User -> server, signed: fold the check columns of a query, whose rows were all asked for, once.

    header: hash of the query's header. seed: of the weights, 32 bytes.
    """

    header: bytes
    seed: bytes


@message
class WrongAnswers:
    """User -> every server, signed: answers of these sets of servers did not pass. Answered with Ok.

    Operators see it in metrics and logs; a server takes nobody's word for it. sets: numbers of three servers each.
    """

    sets: list[bytes]


@message
class FoldedColumns:
    """Server -> user: its part of each check column's weighted sum, (checks,) words; random without the others'."""

    words: np.ndarray = array("u2", "u4", "u8")


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


# --- private fetch: user -> two clouds ----------------------------------------------------------------------------


@message
class FetchHeader:
    """Header of a private fetch: both clouds get the same bytes.

    clouds: their numbers, sorted. count: number of records. snapshot, grants, positions, counts, batches, keys: as of
    :class:`QueryHeader`; keys of retrieval are over all original rows of these batches, deleted ones too. commitments:
    to the keys for each cloud. size_class: -1 for records; else image files of 2^size_class blocks of
    ``ORIGINAL_BLOCK`` bytes are fetched, padded with zeros.
    """

    deployment: bytes
    user: bytes
    nonce: bytes
    clouds: list[int]
    count: int
    snapshot: bytes
    grants: list[bytes]
    positions: list[int]
    counts: list[int]
    commitments: list[bytes]
    batches: np.ndarray = array("u1", ndim=2)
    keys: bytes
    size_class: int


@message
class FetchRecords:
    """User -> cloud, signed: keys of retrieval, one a record. header: of ``FetchHeader``. Answered ``MaskedRecords``.

    salt: of the commitment, 32 bytes. keys: secret from the other cloud. newest: see :class:`Query`. first, blocks: of
    image files, which are asked for part by part under one header; 0 and 0 for records.
    """

    header: list[np.ndarray] = array("u1")
    salt: bytes
    keys: list[bytes]
    newest: bytes
    first: int
    blocks: int


@message
class MaskedRecords:
    """Cloud -> user: (count, bytes of a record or of the blocks asked for), random without the other cloud's."""

    records: np.ndarray = array("u1", ndim=2)


@message
class FetchOrigins:
    """User -> server: where the records of an owner's rows are that are not in the order of their batch.

    Answered with ``Origins``.
    """

    owner: bytes


@message
class Origins:
    """Server -> user: of each such batch its number of rows, and for each row pack and place (``ORIGIN``).

    packed: by zlib, all one after the other. They must have the hash that all servers told (``OwnerSnapshot``).
    """

    batches: np.ndarray = array("u1", ndim=2)
    rows: np.ndarray = array("i8")
    packed: np.ndarray = array("u1")


@message
class FetchAlbums:
    """User -> cloud, key centre: keys of the albums of these owners. Answered with ``Albums``."""

    owners: list[bytes]


@message
class Albums:
    """Server -> user. ids (A, 32): owner and album; sealed: HPKE to the user of this server's part of each key."""

    sealed: bytes
    ids: np.ndarray = array("u1", ndim=2)


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
