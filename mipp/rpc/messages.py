"""All messages between roles, with who sends them to whom. Ids are 16 bytes unless said; `u8` arrays are bytes.

``Signed`` wraps what an owner or a user asks for; the signature covers deployment, receiver, purpose (the content's
kind), the hash of the content's frames, the time of issue and 16 random bytes. Servers check it before they look at
anything else. What only a server's operator, or another server, may ask is not signed and comes another way
(:meth:`mipp.server.server.Server.operate`).
"""

from __future__ import annotations

import numpy as np

from .owner_messages import (
    AbortOp,
    AnnotateOp,
    Audited,
    AuditRows,
    BatchList,
    Certify,
    CertifyRows,
    CollectCertificate,
    CommitOp,
    Compact,
    DeleteOp,
    FetchOwnImages,
    FetchOwnRecords,
    FetchShares,
    ForgetOwner,
    Grant,
    GrantList,
    GrantUse,
    GrantUseList,
    Head,
    HeadRequest,
    ListBatches,
    ListGrants,
    LostBatches,
    LostRequest,
    Outcome,
    OutcomeRequest,
    OwnImages,
    OwnRecords,
    PartyKeys,
    RecordPlaces,
    RecordPlacesRequest,
    RegisterOwner,
    RegisterUser,
    SealedAudit,
    SealedShares,
    SettleOwn,
    Shares,
    UploadOp,
    UserRequest,
    VoteMessage,
    grant_id,
    grants_hash,
)
from .user_messages import (
    Albums,
    Answer,
    CollectRanking,
    EvaluationKeyRequest,
    EvaluationKeyState,
    FetchAlbums,
    FetchHeader,
    FetchImages,
    FetchOrigins,
    FetchRecords,
    FoldColumns,
    FoldedColumns,
    Granters,
    GrantersRequest,
    Images,
    KeepEvaluationKey,
    MaskedRecords,
    Origins,
    OwnerSnapshot,
    Pending,
    Query,
    QueryHeader,
    Ranked,
    Snapshot,
    SnapshotRequest,
    UserGrantList,
    UserGrants,
    WrongAnswers,
)
from .wire import array, message

__all__ = [
    "ALL_SERVERS",
    "FOR_ALL",
    "ONCE",
    "REPLIES",
    "AbortOp",
    "Albums",
    "AnnotateOp",
    "Answer",
    "AuditRows",
    "Audited",
    "BatchList",
    "Certify",
    "CertifyRows",
    "CollectCertificate",
    "CollectRanking",
    "CommitOp",
    "Compact",
    "DeleteOp",
    "EvaluationKeyRequest",
    "EvaluationKeyState",
    "Failure",
    "FetchAlbums",
    "FetchHeader",
    "FetchImages",
    "FetchOrigins",
    "FetchOwnImages",
    "FetchOwnRecords",
    "FetchRecords",
    "FetchShares",
    "FoldColumns",
    "FoldedColumns",
    "ForgetOwner",
    "Grant",
    "GrantList",
    "GrantUse",
    "GrantUseList",
    "Granters",
    "GrantersRequest",
    "Head",
    "HeadRequest",
    "Images",
    "KeepEvaluationKey",
    "ListBatches",
    "ListGrants",
    "LostBatches",
    "LostRequest",
    "MaskedRecords",
    "Ok",
    "Origins",
    "Outcome",
    "OutcomeRequest",
    "OwnImages",
    "OwnRecords",
    "OwnerSnapshot",
    "PartyKeys",
    "Pending",
    "Query",
    "QueryHeader",
    "Ranked",
    "RecordPlaces",
    "RecordPlacesRequest",
    "RegisterOwner",
    "RegisterUser",
    "SealedAudit",
    "SealedShares",
    "SettleOwn",
    "Shares",
    "Signed",
    "Snapshot",
    "SnapshotRequest",
    "UploadOp",
    "UploadState",
    "UserGrantList",
    "UserGrants",
    "UserRequest",
    "VoteMessage",
    "WrongAnswers",
    "grant_id",
    "grants_hash",
]

#: receiver of what servers pass on to each other
ALL_SERVERS = 0


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
class UploadState:
    """Reply to the announcement of a request, and to each block of its data: bytes that have come so far.

    token: names the data in the paths of its blocks, 16 bytes; known to whoever announced it only.
    """

    token: bytes
    received: int


@message
class Failure:
    """A typed refusal; ``name`` is a class of mipp.errors."""

    name: str
    text: str


#: what is signed for all servers, which pass it on to each other; it names versions or states, so it never grows stale
FOR_ALL = (RegisterOwner, RegisterUser, Grant, CommitOp, AbortOp, ForgetOwner)
#: never served twice: each time counts, or hands out what is handed out once
ONCE = (Query, CollectRanking, CollectCertificate, FoldColumns, FetchRecords)

#: kinds of replies to each request; :class:`Failure` beside them
REPLIES: dict[type, tuple[type, ...]] = {
    RegisterOwner: (Ok,),
    RegisterUser: (Ok,),
    ForgetOwner: (Ok,),
    Grant: (Ok,),
    ListGrants: (GrantList,),
    GrantUse: (GrantUseList,),
    UserRequest: (PartyKeys,),
    SettleOwn: (Ok,),
    UploadOp: (Head,),
    DeleteOp: (Head,),
    AnnotateOp: (Head,),
    HeadRequest: (Head,),
    CommitOp: (VoteMessage,),
    AbortOp: (VoteMessage,),
    Certify: (Outcome,),
    OutcomeRequest: (Outcome,),
    CertifyRows: (Ok, Pending),
    CollectCertificate: (Ok, Pending),
    Compact: (Ok,),
    ListBatches: (BatchList,),
    LostRequest: (LostBatches,),
    FetchShares: (SealedShares,),
    FetchOwnImages: (OwnImages,),
    RecordPlacesRequest: (RecordPlaces,),
    FetchOwnRecords: (OwnRecords,),
    AuditRows: (SealedAudit,),
    GrantersRequest: (Granters,),
    UserGrants: (UserGrantList,),
    SnapshotRequest: (Snapshot,),
    Query: (Answer, Ranked, Pending),
    CollectRanking: (Ranked, Pending),
    FoldColumns: (FoldedColumns,),
    FetchImages: (Images,),
    FetchAlbums: (Albums,),
    FetchOrigins: (Origins,),
    FetchRecords: (MaskedRecords,),
    WrongAnswers: (Ok,),
    EvaluationKeyRequest: (EvaluationKeyState,),
    KeepEvaluationKey: (Ok,),
}
