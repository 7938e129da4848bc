"""Messages of registrations, grants and owners' changes, and of an owner's way back to its rows and images.

The page of all messages is ``messages.py``.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np

from .wire import added, array, message

__all__ = [
    "AbortOp",
    "AnnotateOp",
    "AuditRows",
    "Audited",
    "BatchList",
    "Certify",
    "CertifyRows",
    "CollectCertificate",
    "CommitOp",
    "Compact",
    "DeleteOp",
    "FetchOwnImages",
    "FetchOwnRecords",
    "FetchShares",
    "ForgetOwner",
    "Grant",
    "GrantList",
    "GrantUse",
    "GrantUseList",
    "Head",
    "HeadRequest",
    "ListBatches",
    "ListGrants",
    "LostBatches",
    "LostRequest",
    "Outcome",
    "OutcomeRequest",
    "OwnImages",
    "OwnRecords",
    "PartyKeys",
    "RecordPlaces",
    "RecordPlacesRequest",
    "RegisterOwner",
    "RegisterUser",
    "SealedAudit",
    "SealedShares",
    "SettleOwn",
    "Shares",
    "UploadOp",
    "UserRequest",
    "VoteMessage",
    "grant_id",
    "grants_hash",
]


def _no_records() -> np.ndarray:
    return np.empty((0, 0), np.uint8)


def _not_moved() -> np.ndarray:
    return np.empty((0, 2), "<i8")


# --- registration: owner or user -> every server; signed by the key inside ---------------------------------------


@message
class RegisterOwner:
    """Owner -> every server.

    ``sealed``: for each server in order, HPKE to it of, for a key centre, server key | image part, else image part, 32
    bytes each. ``invitation``: the registrar's (``rpc/invitations.py``); empty where the deployment has none.
    ``commitments``: for each server in order, a hash of what is sealed to it
    (:func:`mipp.rpc.associated_data.owner_secret_commitment`). A later registration of the same owner has the same.
    """

    name: str
    sign_key: bytes
    registration: bytes
    sealed: list[bytes]
    invitation: bytes = added(default=b"")
    commitments: list[bytes] = added(default_factory=list)


@message
class RegisterUser:
    """User -> every server. scheme_key: in the Paillier scheme its Paillier public key, else empty.

    ``invitation``: as of :class:`RegisterOwner`.
    """

    name: str
    sign_key: bytes
    box_key: bytes
    scheme_key: bytes
    invitation: bytes = added(default=b"")


@message
class ForgetOwner:
    """Owner -> every server: drop keys, shares, images; final. It names the registration that it ends."""

    owner: bytes
    registration: bytes


@message
class Grant:
    """Owner -> every server: what a user may do. The highest (epoch, version, revoked, id) is in force.

    epoch: of the servers' grants; after a restore of all servers from backups it is higher, and grants of earlier ones
    are suspended. expiry: Unix seconds, 0 never. rankings: "server", "probe", "user", "threshold". max_k: largest k.
    scores: whether server-side ranking gives scores. quota: number of queries, 0 unlimited. min_rows: fewest of the
    owner's live rows that a query may cover, 0 any; of chosen clusters, whatever is chosen. revoked: nothing is allowed
    any more. The rules are in ``rpc/grants.py``.
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
class UserRequest:
    """Owner -> server: the public keys of the user with this name, to grant it something. Answered ``PartyKeys``."""

    name: str


@message
class PartyKeys:
    """Public facts of a registered party. Its id is the hash of both: a user's X25519 key, an owner's registration."""

    name: str
    sign_key: bytes
    second: bytes


@message
class SettleOwn:
    """Owner -> server: settle what is open of its changes with the other servers, now."""

    owner: bytes


@message
class ListGrants:
    """Owner -> server."""

    owner: bytes


@message
class GrantList:
    """Server -> owner: its signed grants as packed frames, and the epoch that new ones must name."""

    epoch: int
    grants: list[bytes]


@message
class GrantUse:
    """Owner -> server: what is left of the quotas of its grants. Answered with ``GrantUseList``."""

    owner: bytes


@message
class GrantUseList:
    """Server -> owner: users whose newest grant has a quota, and the queries that this still allows."""

    users: list[bytes]
    left: list[int]


# --- changes: prepared on every server, accepted by every server, then visible ------------------------------------


@message
class UploadOp:
    """Owner -> every server: one batch. Key centres get no share (0 rows) and no images. Answered with ``Head``.

    op = batch nonce = batch id. replaces: batches that vanish with the commit. image_offsets (rows+1): image r is
    images[offsets[r]:offsets[r+1]], empty if none. origin_batch, origin_row: (rows, 16) and (rows,) image ids that the
    rows' images were encrypted under, or (0, 16) and (0,) for their own. record_hash, album, records: hash of the
    batch's record pack, the album whose key its records are under, 32 bytes, and the records (rows, record_bytes)
    for clouds; all empty without records. moved: (rows, 2), of a merge: number of the batch among ``replaces`` that
    each row comes from, and its row there; the records of those rows stay where they are. image_hash: of the image
    files, where rows have records (:func:`mipp.rpc.records.image_files_hash`); empty without images.
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
    record_hash: bytes = added(default=b"")
    album: bytes = added(default=b"")
    records: np.ndarray = array("u1", ndim=2, default_factory=_no_records, added=True)
    moved: np.ndarray = array("i8", ndim=2, default_factory=_not_moved, added=True)
    image_hash: bytes = added(default=b"")


@message
class AnnotateOp:
    """Owner -> every server: new records of rows, in the order of ``batches``. Answered with ``Head``.

    op: id of the change, and of the record pack. batches: each once; counts: how many of ``rows`` are of each.
    record_hash, album, records: as of ``UploadOp``.
    """

    op: bytes
    batches: list[bytes]
    counts: list[int]
    record_hash: bytes
    album: bytes
    rows: np.ndarray = array("i8")
    records: np.ndarray = array("u1", ndim=2)


@message
class RecordPlacesRequest:
    """Owner -> server: where the records of rows of one of its batches are. At most 1024 rows.

    Answered with ``RecordPlaces``.
    """

    batch: bytes
    rows: np.ndarray = array("i8")


@message
class RecordPlaces:
    """Origin of each row's record: its pack (zeros without a record), its place in it, and the pack's album."""

    packs: np.ndarray = array("u1", ndim=2)
    places: np.ndarray = array("i8")
    albums: np.ndarray = array("u1", ndim=2)


@message
class FetchOwnRecords:
    """Owner -> cloud, signed: records by pack and place, as they were uploaded. At most 1024.

    Answered with ``OwnRecords``.
    """

    packs: np.ndarray = array("u1", ndim=2)
    places: np.ndarray = array("i8")


@message
class OwnRecords:
    """Server -> owner: the records, (n, record_bytes). They are encrypted; the owner's keys open them."""

    records: np.ndarray = array("u1", ndim=2)


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

    kind: "upload", "merge", "delete", "annotate". position: of this change in the owner's chain, from 1. parent, view:
    the chain's hash before and after. servers: all that it is written to, in order. contents, shares: what each of them
    was given (hash of the request's content, and of the share in it, 32 zero bytes without one).
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
    """Owner -> two clouds and the key centre, signed: test together that rows of a prepared change keep the bounds.

    Answered with Ok when they do, for good, or Pending. A failure that names rows is final: the change is refused.
    ``servers``: those that test, where queries can go to several sets; empty for the first of these. ``among``: all
    that the change is written to; empty for all servers.
    """

    op: bytes
    servers: list[int] = added(default_factory=list)
    among: list[int] = added(default_factory=list)


@message
class CollectCertificate:
    """Owner -> server, signed: what became of :class:`CertifyRows` that was answered with Pending."""

    op: bytes
    servers: list[int] = added(default_factory=list)


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


@message
class LostRequest:
    """Owner -> cloud: of which of its batches with live rows the cloud has certainly lost the file.

    Certainly: it is not there, or has another size or checksum. check: whether the cloud reads all files of the owner
    now; else those that it could not use before.
    """

    owner: bytes
    check: bool


@message
class LostBatches:
    """Cloud -> owner: their ids, in row order."""

    batches: np.ndarray = array("u1", ndim=2)


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


@message
class AuditRows:
    """Owner -> server, signed: combine rows of some of its batches linearly, as :mod:`mipp.sharing.audits` says.

    seed: 32 bytes, new for each request. draws: number of rows that the seed draws of these batches; 0 for all live
    rows. The answer, :class:`Audited`, is sealed to ``reply_key`` (X25519, made for this request). A key centre, which
    has no rows, tells which are deleted.
    """

    seed: bytes
    draws: int
    reply_key: bytes
    batches: np.ndarray = array("u1", ndim=2)


@message
class SealedAudit:
    """Server -> owner: an ``Audited`` message as packed frames, HPKE to the request's key."""

    sealed: bytes


@message
class Audited:
    """position, view: the state of the owner's chain that the answer is of.

    sums: for each word of a row the sum over rows of coefficient times word, modulo 2^61 - 1; empty at a key centre.
    Deleted rows count nothing, nor do batches that are damaged or missing here (``lost``, one byte a batch, 1 for
    those). dead: the deleted rows of all batches, in the order of the request, ascending in each; counts: how many each
    batch has.
    """

    position: int
    view: bytes
    sums: np.ndarray = array("u8")
    lost: np.ndarray = array("u1")
    counts: np.ndarray = array("i8")
    dead: np.ndarray = array("i8")
