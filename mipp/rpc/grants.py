"""The rules of a grant, the same for the owner who gives it and the servers that enforce it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from ..crypto import signing
from ..encoding.numbers import said
from ..errors import AuthenticationError, MessageError, ParameterError
from ..params import Params
from . import messages as m
from .limits import MAX_COUNT, MAX_EXPIRY, MAX_QUOTA, MAX_VERSION
from .wire import Frames, decode, frames_hash, unpack_frames

__all__ = [
    "PROBE",
    "check_grant",
    "expired_text",
    "in_force",
    "offered_rankings",
    "own_grant",
    "read_grant",
    "time_text",
]

#: ranking of headers of queries that choose clusters, and the name that allows them in a grant
PROBE = "probe"


def offered_rankings(params: Params) -> tuple[str, ...]:
    """Rankings that the servers of a deployment offer."""
    return ("server", "user", "threshold") if params.compares else ("user",)


def check_grant(grant: m.Grant, offered: tuple[str, ...]) -> None:
    """Refuse a grant that cannot be kept.

    Parameters
    ----------
    grant : as the owner gave it
    offered : rankings that grants of the deployment may name

    Raises
    ------
    ParameterError
        A number out of range; rankings that are unknown, repeated, missing or not offered; limits that one of the
        granted rankings gets around; a revocation that still grants something.
    """
    for name, size in (("owner", len(grant.owner)), ("user", len(grant.user))):
        if size != 16:
            raise ParameterError(f"the {name} id of a grant has 16 bytes, not {size}")
    for name, least, limit in (
        ("version", 1, MAX_VERSION),
        ("expiry", 0, MAX_EXPIRY),
        ("quota", 0, MAX_QUOTA),
        ("max_k", 0, MAX_COUNT + 1),
        ("min_rows", 0, MAX_COUNT + 1),
    ):
        value = getattr(grant, name)
        if not least <= value < limit:
            raise ParameterError(f"{name} of a grant must be from {least} to {limit - 1}, not {said(value)}")
    if grant.revoked:
        if grant.rankings or grant.scores or grant.expiry or grant.max_k or grant.quota or grant.min_rows:
            raise ParameterError("a revocation grants nothing: it has no rankings, scores or limits")
        return
    known = ", ".join(f'"{r}"' for r in offered)
    if not grant.rankings or len(set(grant.rankings)) != len(grant.rankings):
        raise ParameterError(f"a grant names at least one ranking, each once, of {known}")
    for ranking in grant.rankings:
        if ranking not in offered:
            raise ParameterError(f"rankings of a grant in this deployment are {known}, not {ranking[:40]!r}")
    for ranking, why in (
        ("user", 'the ranking "user" gives the user all exact scores'),
        ("threshold", "thresholds tell which scores lie above any value, of any number of images"),
    ):
        if ranking in grant.rankings:
            if grant.max_k:
                raise ParameterError(
                    f"{why}, which contradicts max_k={grant.max_k}; leave max_k out (0): quota bounds how many queries"
                )
            if not grant.scores:
                raise ParameterError(f"{why}, which contradicts scores=False")


def read_grant(packed: bytes) -> m.Grant:
    """The grant inside a signed message that was packed into a string."""
    signed = decode(unpack_frames(packed), m.Signed)
    return decode([f.data for f in signed.frames], m.Grant)


def own_grant(packed: bytes, deployment: bytes, owner: bytes, public: bytes) -> m.Grant:
    """:func:`read_grant`, of this owner's signature; AuthenticationError for what the owner did not sign.

    Parameters
    ----------
    packed : bytes
        The signed message, as a server tells it.
    deployment, owner : bytes
        Ids, 16 bytes each.
    public : bytes
        The owner's Ed25519 public key, 32 bytes.
    """
    signed = decode(unpack_frames(packed), m.Signed)
    frames: Frames = [f.data for f in signed.frames]
    if signed.signer != owner:
        raise AuthenticationError("a grant that another party signed")
    statement = signing.Statement(
        deployment, m.ALL_SERVERS, m.Grant.__name__, frames_hash(frames), signed.issued, signed.random
    )
    signing.verify(public, signed.signature, statement)
    grant = decode(frames, m.Grant)
    if signed.deployment != deployment or grant.owner != owner:
        raise AuthenticationError("a grant of another deployment or owner")
    return grant


def in_force(stored: Iterable[tuple[bytes, bytes]], now: float) -> tuple[dict[bytes, m.Grant], dict[bytes, m.Grant]]:
    """Grants by id that allow something at Unix time ``now``, and those that expired; revoked ones are in neither.

    Nor are stored grants that cannot be read, such as one of an earlier version with numbers beyond 64 bits: one
    owner's must not keep a user from all others.
    """
    live: dict[bytes, m.Grant] = {}
    expired: dict[bytes, m.Grant] = {}
    for grant, packed in stored:
        try:
            content = read_grant(packed)
        except MessageError:
            continue
        if not content.revoked:
            (live if content.expiry == 0 or now < content.expiry else expired)[grant] = content
    return live, expired


def expired_text(grants: Iterable[Any], now: float) -> str:
    """When the latest of the expired ``grants`` ended and what time this server has; empty without any."""
    ends = [g.expiry for g in grants]
    return f"; a grant expired at {time_text(max(ends))}, this server's clock says {time_text(now)}" if ends else ""


def time_text(seconds: float) -> str:
    """Unix seconds as a person reads them."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"Unix second {int(seconds)}"
