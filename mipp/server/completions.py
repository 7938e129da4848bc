"""A lost share of a cloud, rebuilt by t+1 other servers without its owner; and lost image packs, from another cloud.

Each holder gives its words of some rows, weighted and masked (:func:`mipp.sharing.completion_part`), to the cloud that
lost its share and to nobody else; the parts add up to that share. The masks hold only while no session repeats with
other words, and a cloud that asks is trusted with nothing: a session is a hash of all that the words depend on, and of
a new nonce of each holder, which uses its own for one batch and one asker. Holders that were told different rows,
owners or batches mask under different sessions, and their parts add up to nothing.

Source: Shamir's shares over Galois rings with weights of Lagrange interpolation (``../sharing/completion.py``).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import AccessDeniedError, ConflictError, IntegrityError, NotFoundError, ParameterError, ShapeError
from ..rpc import messages as m
from ..rpc import peer_messages as pm
from ..rpc.wire import decode, unpack_frames
from ..sharing import completion_part
from ..store.files import ImagePack, RecordPack
from ..store.views import BatchView
from .base import ServerBase
from .completion_sessions import NONCE_BYTES, Session

__all__ = ["HANDLERS", "PART_BYTES", "completion_session", "holders_of"]

#: words of one part, and bytes of one piece of an image pack
PART_BYTES = 4 << 20


def holders_of(server: ServerBase, target: int) -> list[tuple[int, ...]]:
    """The servers that can rebuild a cloud's share, each choice in order: clouds before key centres.

    Raises
    ------
    ParameterError
        ``target`` is no cloud of a deployment whose rows others can rebuild.
    """
    p = server.config.params
    clouds = [i for i in p.clouds if i != target]
    if target not in p.clouds or len(clouds) < p.t:
        raise ParameterError(f"nobody can rebuild the rows of server {target} in this deployment")
    return [(*some, p.key_centres[-1]) for some in itertools.combinations(clouds, p.t)]


def completion_session(
    deployment: bytes, target: int, owner: bytes, batch: bytes, rows: int, dim: int, ordinals: np.ndarray,
    nonces: list[bytes], holders: tuple[int, ...] = (),
) -> bytes:  # fmt: skip
    """What the masks of a rebuilt share depend on; 32 bytes.

    Parameters
    ----------
    deployment : its id, 16 bytes
    target : number of the cloud that lost its share
    owner, batch : ids of 16 bytes
    rows, dim : of the batch
    ordinals : original numbers of the rows that are rebuilt, or empty for all
    nonces : a new one of each holder, 16 bytes each, in the holders' order
    holders : their numbers, where others could be asked instead
    """
    digest = hashlib.sha256(b"mipp v1 completion" + deployment + bytes([target, len(nonces)]) + owner + batch)
    digest.update(rows.to_bytes(8, "big") + dim.to_bytes(8, "big") + b"".join(nonces))
    digest.update(len(ordinals).to_bytes(8, "big") + ordinals.astype("<i8").tobytes() + bytes(holders))
    return digest.digest()


def begin(server: ServerBase, msg: pm.BeginCompletion) -> pm.CompletionBegun:
    choices = holders_of(server, msg.target)
    holders = tuple(msg.holders) or choices[0]
    if holders not in choices or server.index not in holders:
        raise ParameterError(f"servers {list(holders)} do not rebuild rows of server {msg.target} together")
    batch = _batch(server, msg.owner, msg.batch)
    require_consent(server, msg.owner, msg.target)
    if server.has_shares:
        ordinals = np.empty(0, "<i8") if batch.ordinals is None else batch.ordinals
    else:
        ordinals = msg.ordinals
        ascend = (ordinals[1:] > ordinals[:-1]).all()  # a difference could wrap
        if len(ordinals) and not (ascend and ordinals[0] >= 0 and ordinals[-1] < batch.rows):
            raise ShapeError("original numbers of rows ascend, and are those of the batch")
    keys = server.keys.current
    nonce = server.completions.begin(Session(msg.target, msg.owner, batch, ordinals, keys, holders))
    shares, certificate = server.store.repairs.known(msg.owner, msg.batch)
    return pm.CompletionBegun(nonce, batch.rows, batch.dim, shares, certificate, keys, ordinals)


def part(server: ServerBase, msg: pm.CompletionPart) -> pm.Completion:
    p = server.config.params
    choices = holders_of(server, msg.target)
    if len(msg.nonces) != len(choices[0]) or {len(n) for n in msg.nonces} != {NONCE_BYTES}:
        raise ShapeError(f"a session has a nonce of {NONCE_BYTES} bytes of each of {len(choices[0])} servers")
    known = [(at, server.completions.get(nonce)) for at, nonce in enumerate(msg.nonces)]
    session = next((s for at, s in known if s is not None and s.holders.index(server.index) == at), None)
    if session is None or (session.target, session.owner, session.batch.id) != (msg.target, msg.owner, msg.batch):
        raise NotFoundError("no such session; begin again")
    _batch(server, msg.owner, msg.batch)  # it may be gone since, or its owner
    batch, width = session.batch, p.padded(session.batch.dim)
    if not 0 <= msg.first < msg.first + msg.count <= session.stored:
        raise ShapeError(f"the session is about {session.stored} rows")
    if msg.count * width * p.dtype.itemsize > max(PART_BYTES, width * p.dtype.itemsize):
        raise ShapeError(f"a part has at most {PART_BYTES} bytes, or one row")
    name = completion_session(
        server.config.id, msg.target, msg.owner, msg.batch, batch.rows, batch.dim, session.ordinals, msg.nonces,
        session.holders if len(choices) > 1 else (),
    )  # fmt: skip
    words = server.row_words(session.owner, batch)(session.rows(msg.first, msg.count))
    return pm.Completion(
        completion_part(
            words, server.index, session.holders, msg.target, p, server.keys.pair_keys(session.keys), name, msg.batch,
            first=msg.first, threads=server.threads,
        )
    )  # fmt: skip


def require_consent(server: ServerBase, owner: bytes, cloud: int) -> None:
    """AccessDeniedError if an owner registered before a cloud joined, and has sealed nothing to that cloud since."""
    if cloud != server.config.joined:
        return  # there from the start
    frames = server.store.registration_frames(owner)
    parts: list[bytes | memoryview] = []
    if frames:  # they were checked before they were kept
        parts = [f.data for f in decode(unpack_frames(frames), m.Signed).frames]
    sealed = decode(parts, m.RegisterOwner).sealed if parts else ()
    if len(sealed) < cloud:  # they are in the order of the servers' numbers, and the newest cloud is last
        raise AccessDeniedError(f"this owner has not consented that server {cloud} stores its rows")


def _require_ids(owner: bytes, batch: bytes) -> None:
    if len(owner) != 16 or len(batch) != 16:
        raise ShapeError("an owner and a batch have ids of 16 bytes")


def _batch(server: ServerBase, owner: bytes, batch: bytes) -> BatchView:
    _require_ids(owner, batch)
    view = server.store.view(owner)
    if batch not in view.index:
        raise NotFoundError("this owner has no such batch")
    found = view.batches[view.index[batch]]
    if found.problem:
        raise IntegrityError(f"batch {batch.hex()} is damaged at server {server.index}, too")
    return found


def pack(server: ServerBase, msg: pm.PackRequest) -> pm.PackPart:
    p = server.config.params
    if msg.target not in p.clouds or not server.has_shares or msg.target == server.index:
        raise ParameterError("packs are brought back from one cloud to another")
    _require_ids(msg.owner, msg.batch)
    require_consent(server, msg.owner, msg.target)
    found: RecordPack | ImagePack
    if msg.records:
        found = server.store.records.pack(msg.owner, msg.batch)
        rows = len(found.hashes)
    else:
        rows, found = server.store.packs.whole(msg.owner, msg.batch)
    if msg.digest and msg.digest != found.digest:
        raise ConflictError("the pack was rewritten meanwhile; begin again")
    if not 0 <= msg.start <= len(found.body):
        raise ShapeError(f"the pack has {len(found.body)} bytes")
    stored = len(found.records) if isinstance(found, RecordPack) else 0
    return pm.PackPart(found.digest, rows, len(found.body), found.body[msg.start : msg.start + PART_BYTES], stored)


HANDLERS: dict[type, Callable[[ServerBase, Any], Any]] = {
    pm.BeginCompletion: begin,
    pm.CompletionPart: part,
    pm.PackRequest: pack,
}
