"""An owner's chain of changes: hashes of its states, and servers' votes. Both sides compute them.

A *view* is the hash of an owner's whole history up to a position: equal views mean equal rows in equal order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgpack
import numpy as np

__all__ = [
    "NO_SHARE",
    "Content",
    "Vote",
    "facts_hash",
    "first_view",
    "next_view",
    "pack_dead",
    "pack_votes",
    "restart_bytes",
    "snapshot_hash",
    "standing_bytes",
    "unpack_dead",
    "unpack_votes",
    "vote_bytes",
]

#: stands for the hash of a share where there is none
NO_SHARE = bytes(32)


@dataclass(frozen=True)
class Content:
    """Effect of a change.

    ``dead``: deleted rows by batch (:func:`pack_dead`); ``replaces``: ids of merged batches; ``records``: of the
    records that it writes or moves (:func:`mipp.rpc.records.records_facts`), empty without any.
    """

    rows: int = 0
    dim: int = 0
    replaces: Sequence[bytes] = ()
    dead: bytes = b""
    records: bytes = b""


@dataclass(frozen=True)
class Vote:
    """Vote of one server on one change: ``commit`` is the accepted COMMIT's hash, or empty for "never"."""

    server: int
    incarnation: int
    commit: bytes

    @property
    def accepts(self) -> bool:
        return bool(self.commit)


def vote_bytes(deployment: bytes, owner: bytes, op: bytes, vote: Vote, counter: int) -> bytes:
    """Bytes that a server signs for a vote; every part has a fixed length."""
    numbers = vote.server.to_bytes(1, "big") + vote.incarnation.to_bytes(8, "big") + counter.to_bytes(8, "big")
    return b"mipp v2 vote" + deployment + owner + op + numbers + (vote.commit or bytes(32))


def restart_bytes(deployment: bytes, server: int, incarnation: int) -> bytes:
    """Bytes that a server signs when it was restored from a backup and begins a new incarnation."""
    return b"mipp v2 restart" + deployment + server.to_bytes(1, "big") + incarnation.to_bytes(8, "big")


def reseal_bytes(deployment: bytes, server: int, owner: bytes, epoch: int, key: bytes, sealed: bytes) -> bytes:
    """What a server signs when it seals an owner's secrets to its new key."""
    numbers = server.to_bytes(1, "big") + epoch.to_bytes(8, "big")
    return b"mipp v1 resealed" + deployment + numbers + owner + key + sealed


def standing_bytes(deployment: bytes, server: int, incarnation: int, counter: int) -> bytes:
    """Bytes that a server signs to tell the others how far it has come."""
    numbers = incarnation.to_bytes(8, "big") + counter.to_bytes(8, "big")
    return b"mipp v2 standing" + deployment + server.to_bytes(1, "big") + numbers


def first_view(owner: bytes, registration: bytes) -> bytes:
    """View of an owner who has changed nothing yet; 32 bytes."""
    return hashlib.sha256(b"mipp v2 first view" + owner + registration).digest()


def next_view(owner: bytes, position: int, parent: bytes, op: bytes, facts: bytes) -> bytes:
    """View after a change at ``position``, 32 bytes: it names the whole history."""
    return hashlib.sha256(b"mipp v2 view" + owner + position.to_bytes(8, "big") + parent + op + facts).digest()


def facts_hash(
    kind: str, content: Content, servers: Sequence[int], contents: Sequence[bytes], shares: Sequence[bytes]
) -> bytes:
    """Hash of all that servers must agree on about a change, and of what each was given; 32 bytes."""
    numbers = content.rows.to_bytes(8, "big") + content.dim.to_bytes(8, "big")
    # changes without records are hashed as before there were any
    label = b"mipp v3 facts" + content.records if content.records else b"mipp v2 facts"
    digest = hashlib.sha256(label + kind.encode().ljust(16, b"\0") + numbers)
    for part in (b"".join(sorted(content.replaces)), content.dead, bytes(servers), *contents, *shares):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def pack_dead(dead: Mapping[bytes, Iterable[int]]) -> bytes:
    """Rows to delete, by batch, in one canonical form."""
    return bytes(msgpack.packb([[b, np.unique(np.array(list(dead[b]), "<i8")).tobytes()] for b in sorted(dead)]))


def unpack_dead(data: bytes) -> dict[bytes, np.ndarray]:
    """Inverse of :func:`pack_dead`: sorted row numbers by batch."""
    return {b: np.frombuffer(rows, "<i8") for b, rows in msgpack.unpackb(data)} if data else {}


def pack_votes(votes: Iterable[Vote]) -> bytes:
    """Votes on one change, in one canonical form."""
    return bytes(msgpack.packb(sorted([v.server, v.incarnation, v.commit] for v in votes)))


def unpack_votes(data: bytes) -> list[Vote]:
    """Inverse of :func:`pack_votes`; none of an empty string."""
    return [Vote(*v) for v in msgpack.unpackb(data)] if data else []


def snapshot_hash(owners: list[tuple[bytes, int, bytes]]) -> bytes:
    """Hash of a snapshot over several owners, 32 bytes: (id, position, view) of each, sorted by id."""
    parts = (o + position.to_bytes(8, "big") + view for o, position, view in sorted(owners))
    return hashlib.sha256(b"mipp v2 snapshot" + b"".join(parts)).digest()
