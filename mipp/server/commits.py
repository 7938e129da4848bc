"""COMMITs and votes as they come over the wire, checked in themselves."""

from __future__ import annotations

from ..crypto import signing
from ..errors import AuthenticationError, MessageError
from ..rpc import messages as m
from ..rpc.chain import Vote, vote_bytes
from ..rpc.description import DeploymentConfig
from ..rpc.wire import decode, frames_hash, unpack_frames
from ..store.ledger import Commit

__all__ = ["commit_of", "parse_commit", "verified_vote"]

KINDS = ("upload", "merge", "delete", "annotate")


def commit_of(signer: bytes, msg: m.CommitOp, hash_: bytes, frames: bytes) -> Commit:
    """A COMMIT from its message, checked in itself."""
    lengths = {len(msg.op) == 16, len(msg.parent) == 32, len(msg.view) == 32}
    lengths |= {len(c) == 32 for c in (*msg.contents, *msg.shares)}
    counts = {len(msg.servers), len(msg.contents)}
    ordered = msg.servers == sorted(set(msg.servers))
    counted = len(counts) == 1 and len(msg.shares) >= len(msg.servers)
    if lengths != {True} or not counted or not ordered or msg.kind not in KINDS or not 0 < msg.position < 1 << 62:
        raise MessageError("a commit with values of the wrong size or kind")
    return Commit(
        signer, msg.op, msg.kind, msg.position, msg.parent, msg.view, tuple(msg.servers), tuple(msg.contents),
        tuple(msg.shares), hash_, frames,
    )  # fmt: skip


def parse_commit(packed: bytes) -> Commit:
    """A COMMIT from signed frames that this server checked before it kept them."""
    signed = decode(unpack_frames(packed), m.Signed)
    frames: list[bytes | memoryview] = [f.data for f in signed.frames]
    return commit_of(signed.signer, decode(frames, m.CommitOp), frames_hash(frames), packed)


def verified_vote(config: DeploymentConfig, frames: bytes) -> m.VoteMessage:
    """A vote, signed by the server that it names; AuthenticationError for any other."""
    msg = decode(unpack_frames(frames), m.VoteMessage)
    keys = config.servers.get(msg.server)
    sizes = len(msg.commit) in (0, 32) and 0 <= msg.incarnation < 1 << 62 and 0 <= msg.counter < 1 << 62
    if keys is None or not sizes:
        raise AuthenticationError("a vote of an unknown server, or with values out of range")
    data = vote_bytes(config.id, msg.owner, msg.op, Vote(msg.server, msg.incarnation, msg.commit), msg.counter)
    signing.verify_raw(keys.sign, msg.signature, data, "vote")
    return msg
