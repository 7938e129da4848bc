"""Types of the reports that a deployment gives: plain dicts that JSON can hold."""

from __future__ import annotations

from typing import Any, TypedDict

__all__ = ["DeploymentStatus", "OwnerStatus", "ParamsStatus", "RepairReport", "UserStatus", "VerifyReport"]


class ParamsStatus(TypedDict):
    """Parameters of a deployment (:class:`mipp.Params`)."""

    n: int
    t: int
    #: ring bits
    k: int
    scheme: str
    #: form of sharing
    sharing: str


class OwnerStatus(TypedDict):
    """An owner as the servers know it."""

    name: str
    #: 32 hex digits
    id: str
    forgotten: bool
    batches: int
    #: rows that were uploaded, deleted ones too
    rows: int
    live: int
    #: bytes at each cloud
    share_bytes: int
    image_bytes: int
    #: batches that servers do not rank: their rows are not checked yet, or out of range
    unranked: int
    #: batches with live rows whose file a cloud lacks: searches leave them out
    lost: int


class UserStatus(TypedDict):
    """A user as the servers know it."""

    name: str
    #: 32 hex digits
    id: str
    #: queries of this user that were beyond the encoding's bounds
    out_of_range: int


class DeploymentStatus(TypedDict):
    """Owners, users and sizes of a deployment (:meth:`mipp.Deployment.status`)."""

    #: its id, 32 hex digits
    deployment: str
    #: name of the descriptor; empty for an index of vectors
    descriptor: str
    params: ParamsStatus
    #: :meth:`mipp.Encoding.to_dict`
    encoding: dict[str, Any]
    #: class of each server, by its number
    servers: dict[int, str]
    owners: list[OwnerStatus]
    users: list[UserStatus]
    #: live rows of all owners
    images: int
    #: rankings that owners can grant and servers can serve, the default first
    rankings: list[str]
    #: whether all servers hold the same batches, deletions and forgotten owners
    servers_agree: bool


class VerifyReport(TypedDict):
    """Result of reading all files of all servers (:meth:`mipp.Deployment.verify`)."""

    #: number of files that were read
    files: int
    #: one line for each problem, which names the file
    problems: list[str]


class RepairReport(TypedDict):
    """Result of rebuilding lost files (:meth:`mipp.Deployment.repair`)."""

    #: number of files that were rebuilt
    files: int
    #: one line for each that was not
    problems: list[str]
