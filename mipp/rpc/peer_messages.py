"""Messages that are not signed: between servers, and from the one who operates a server.

They come over links of their own (:meth:`mipp.server.server.Server.operate`), never from owners or users. What they
carry of owners and users is signed by these, and checked.
"""

from __future__ import annotations

import numpy as np

from .wire import added, array, message

__all__ = [
    "BackupReport",
    "BackupRequest",
    "BeginCompletion",
    "CertifyBatch",
    "ChainState",
    "CollectBatch",
    "Completion",
    "CompletionBegun",
    "CompletionPart",
    "FollowRequest",
    "Followed",
    "Handover",
    "KeysRequest",
    "OpenChanges",
    "PackPart",
    "PackRequest",
    "PassedOn",
    "PeerRequest",
    "PeerRestored",
    "PeerState",
    "RepairReport",
    "RepairRequest",
    "ResealReport",
    "ResealRequest",
    "Resealed",
    "ServerReport",
    "ServerReportRequest",
    "SettleRequest",
    "Standing",
    "Status",
    "StatusRequest",
    "Uncertified",
    "UncertifiedRequest",
    "VerifyReport",
    "VerifyRequest",
    "WaitingChanges",
    "WaitingChangesRequest",
]


def _no_numbers() -> np.ndarray:
    return np.empty(0, "<i8")


@message
class SettleRequest:
    """Refuse changes whose process is gone, and tell which are open. Answered with ``OpenChanges``."""


@message
class OpenChanges:
    """Changes that are open here: their owners, names, states, and the signed COMMIT of those that were accepted.

    signed: forgets, registrations and grants as packed frames, in the order in which they must be passed on. seals:
    ``Resealed`` messages, as packed frames.
    """

    owners: list[bytes]
    ops: list[bytes]
    states: list[str]
    commits: list[bytes]
    signed: list[bytes]
    seals: list[bytes]


@message
class Resealed:
    """Server ``server`` took new keys, and sealed an owner's secrets to itself again, to its box key of an epoch.

    It signs that itself. Whoever has it passes it on, so that the server finds it again when its disk is lost.
    Answered with Ok.
    """

    server: int
    owner: bytes
    epoch: int
    key: bytes
    sealed: bytes
    signature: bytes


@message
class ResealRequest:
    """Operator -> its server: take the newest keys from the folder, and seal to them what is sealed to others.

    Answered with ``ResealReport``.
    """


@message
class ResealReport:
    """epoch: of the newest keys. owners: names of those whose secrets no key here opens: they must seal them anew."""

    epoch: int
    owners: list[str]


@message
class PassedOn:
    """A signed message for all servers, passed on by one that has it. An unknown change in a COMMIT is refused."""

    frames: bytes


@message
class PeerRequest:
    """How a server stands: answered with ``PeerState``."""


@message
class PeerState:
    """incarnation, counter, epoch: of this server. proofs: what others said of themselves, signed by them.

    ``VoteMessage``, ``Standing`` and ``PeerRestored``, as packed frames. phase: ``new`` until the server heard the
    others after its start, then ``restored`` while it takes over what its backup lacks, and ``whole``.
    """

    incarnation: int
    counter: int
    epoch: int
    proofs: list[bytes]
    phase: str


@message
class Standing:
    """How far server ``server`` has come; it signs that itself. Answered with Ok, after it was noted durably.

    Votes of an earlier incarnation count no more. If the server shows a lower counter later, it was restored.
    """

    server: int
    incarnation: int
    counter: int
    signature: bytes


@message
class PeerRestored:
    """Server ``server`` was restored from a backup and is at this incarnation now: its older votes count no more.

    It signs that itself. Answered with ``Handover``.
    """

    server: int
    incarnation: int
    signature: bytes


@message
class Handover:
    """State that a restored server takes over from a peer.

    epoch: of grants. gone: an encoded ``PartyKeys`` for each owner that was forgotten. signed: forgets, registrations
    and grants. used_owner, used_grant, used: counted queries; fetched_owner, fetched_grant, fetched: counted records.
    chains: an encoded ``ChainState`` for each other owner. invitations, invited: ids of the invitations of owners that
    were forgotten, and these owners. seals: as in ``OpenChanges``.
    """

    epoch: int
    gone: list[bytes]
    signed: list[bytes]
    used_owner: list[bytes]
    used_grant: list[bytes]
    used: list[int]
    chains: list[bytes]
    invitations: list[bytes] = added(default_factory=list)
    invited: list[bytes] = added(default_factory=list)
    seals: list[bytes] = added(default_factory=list)
    fetched_owner: list[bytes] = added(default_factory=list)
    fetched_grant: list[bytes] = added(default_factory=list)
    fetched: list[int] = added(default_factory=list)


@message
class ChainState:
    """One owner's visible state: head, batches with deleted rows and origins of images, and all committed changes.

    dead, origin_batch, origin_row, imaged, shares, certificates: as in the catalog, one for each batch. commits: hashes
    of the COMMITs of ``ops``. refused: ids of changes that were refused. accepted: id and COMMIT's hash of the change
    that is accepted and not decided, or empty. records: origins of rows' records, one for each batch. packs, pack_rows,
    albums, pack_hashes: of the record packs that live rows need.
    """

    owner: bytes
    position: int
    view: bytes
    floor: int
    floor_view: bytes
    positions: list[int]
    rows: list[int]
    dims: list[int]
    batches: list[bytes]
    dead: list[bytes]
    origin_batch: list[bytes]
    origin_row: list[bytes]
    imaged: list[bytes]
    ops: list[bytes]
    kinds: list[str]
    op_positions: list[int]
    views: list[bytes]
    commits: list[bytes]
    refused: list[bytes]
    shares: list[bytes] = added(default_factory=list)
    certificates: list[bytes] = added(default_factory=list)
    accepted: bytes = added(default=b"")
    records: list[bytes] = added(default_factory=list)
    packs: list[bytes] = added(default_factory=list)
    pack_rows: list[int] = added(default_factory=list)
    albums: list[bytes] = added(default_factory=list)
    pack_hashes: list[bytes] = added(default_factory=list)


@message
class FollowRequest:
    """Asks for the chains of owners that changed something while the asking cloud was away. Answered with ``Followed``.

    owners, positions: its last change of each owner.
    """

    owners: list[bytes]
    positions: list[int]


@message
class Followed:
    """Chains (``ChainState``, packed) of owners whose last change is later than the asker's; some of them if many."""

    chains: list[bytes]


@message
class CertifyBatch:
    """Test together that the live rows of a visible batch keep the encoding's bounds. Answered with Ok or Pending.

    ``servers``: as of :class:`~mipp.rpc.messages.CertifyRows`.
    """

    owner: bytes
    batch: bytes
    servers: list[int] = added(default_factory=list)


@message
class CollectBatch:
    """Asks for the outcome of a :class:`CertifyBatch` that was answered with Pending."""

    owner: bytes
    batch: bytes
    servers: list[int] = added(default_factory=list)


@message
class UncertifiedRequest:
    """Which visible batches have no certificate here, and were not refused. Answered with ``Uncertified``."""


@message
class Uncertified:
    """Owners and ids of the batches."""

    owners: list[bytes]
    batches: list[bytes]


# --- repair -------------------------------------------------------------------------------------------------------


@message
class BeginCompletion:
    """Cloud ``target`` lost its share of a batch: begin to rebuild it. Answered with ``CompletionBegun``.

    ordinals: for a key centre, the rows that the other cloud stores (their original numbers), or empty for all.
    holders: the servers that are asked, clouds before the key centre; empty for the first that can be.
    """

    target: int
    owner: bytes
    batch: bytes
    ordinals: np.ndarray = array("i8")
    holders: list[int] = added(default_factory=list)


@message
class CompletionBegun:
    """nonce: new, this server's part of the session. rows, dim: of the batch. ordinals: as in ``BeginCompletion``.

    shares: hashes of all servers' shares, one after the other, or empty if they are not known here. certificate: the
    range certificate of the batch, or empty. keys: id of the key set of the masks.
    """

    nonce: bytes
    rows: int
    dim: int
    shares: bytes
    certificate: bytes
    keys: bytes
    ordinals: np.ndarray = array("i8")


@message
class CompletionPart:
    """Asks for a server's part of some rows. nonces: of all holders, in order. first, count: of the stored rows."""

    target: int
    owner: bytes
    batch: bytes
    nonces: list[bytes]
    first: int
    count: int


@message
class Completion:
    """A server's part of some rows' words (:func:`mipp.sharing.completion_part`), row after row. Secret."""

    words: np.ndarray = array("u2", "u4", "u8", ndim=2)


@message
class PackRequest:
    """Cloud ``target`` lost a pack: some bytes of its body. digest: of the file that is being read, or empty.

    records: whether it is a pack of records, else of images.
    """

    target: int
    owner: bytes
    batch: bytes
    digest: bytes
    start: int
    records: bool = added(default=False)


@message
class PackPart:
    """digest: of the file. rows, size: of the whole pack, size in bytes. data: encrypted images and their offsets, or
    records; stored: of records, how many are in the pack."""

    digest: bytes
    rows: int
    size: int
    data: np.ndarray = array("u1")
    stored: int = added(default=0)


@message
class BackupRequest:
    """Operator -> its server: copy the store of one moment into ``folder``. Answered with ``BackupReport``."""

    folder: str


@message
class BackupReport:
    """files: that were copied, or linked. missing: a line for each that is not here."""

    files: int
    missing: list[str]


@message
class RepairRequest:
    """Operator -> its server: read all files, and rebuild what is lost with the others. Answered with RepairReport."""


@message
class RepairReport:
    """files: that were rebuilt. problems: a sentence for each that was not."""

    files: int
    problems: list[str]


# --- operation ----------------------------------------------------------------------------------------------------


@message
class KeysRequest:
    """Operator -> server: the public keys of an owner or a user. Answered with ``PartyKeys``."""

    party: bytes


@message
class StatusRequest:
    """Operator -> server. owner: only this one, or empty."""

    owner: bytes


@message
class Status:
    """Status of a server: parallel lists per owner (image_bytes too), per user, per batch.

    positions, views: head of each owner's chain. out_of_range: queries of each user that were beyond the bounds.
    unranked: 1 for each batch that the servers do not rank. lost: 1 for each batch with live rows that the server has
    no usable file of; empty from earlier versions.
    """

    owners: list[bytes]
    names: list[str]
    forgotten: list[bool]
    positions: list[int]
    views: list[bytes]
    users: list[bytes]
    user_names: list[str]
    batch_owner: np.ndarray = array("i8")
    batches: np.ndarray = array("u1", ndim=2)
    rows: np.ndarray = array("i8")
    live: np.ndarray = array("i8")
    sizes: np.ndarray = array("i8")
    image_bytes: np.ndarray = array("i8")
    out_of_range: np.ndarray = array("i8")
    unranked: np.ndarray = array("i8")
    lost: np.ndarray = array("i8", default_factory=_no_numbers, added=True)


@message
class ServerReportRequest:
    """Operator -> its server. Answered with ``ServerReport``."""


@message
class ServerReport:
    """How a server stands. reasons: why it does not serve. votes: whether it takes part in changes.

    peers, problems: the other servers, and why each is not there (empty if it is).
    """

    reasons: list[str]
    votes: bool
    peers: list[int]
    problems: list[str]


@message
class WaitingChangesRequest:
    """Operator -> its server. Answered with ``WaitingChanges``."""


@message
class WaitingChanges:
    """Changes that are open at a server: parallel lists. waits: for whom, in words. seconds: how long, here."""

    owners: list[bytes]
    ops: list[bytes]
    states: list[str]
    waits: list[str]
    seconds: list[int]


@message
class VerifyRequest:
    """Operator -> server: read every file and compare checksums."""


@message
class VerifyReport:
    files: int
    problems: list[str]
