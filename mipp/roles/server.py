"""What clouds and the key centre have in common: checks before work, changes, the product's frame.

Every request of an owner or user is signed; the signature, then the grant, then the snapshot are checked before
anything is computed. Servers do not talk to each other in this protocol.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..crypto import box, schedule, signing
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    MessageError,
    MippError,
    NotFoundError,
    ParameterError,
    ShapeError,
    StaleSnapshotError,
    StoreError,
    error_to_wire,
)
from ..protocol import messages as m
from ..protocol.link import Link
from ..protocol.session import Public
from ..protocol.wire import Frames, decode, encode, frames_hash, pack_frames, unpack_frames
from ..sharing import MAX_BLOCKS, add_zero_share
from ..store.memory import aligned_words
from ..store.store import ServerStore, check_offsets
from ..store.views import OwnerView, snapshot_hash
from .admission import Admission
from .answering import CountedHeaders, row_range
from .bound import column_commitment, image_seal_info, owner_seal_info
from .config import DeploymentConfig
from .plan import Plan
from .ranking import Prepared, check_ranking, rank
from .reports import owner_snapshot, status

__all__ = ["Server"]

_log = logging.getLogger("mipp.server")
RANKINGS = ("user", "server")
MAX_QUERIES = 1 << 16


class Server:
    """Base of :class:`~mipp.roles.cloud.CloudServer` and :class:`~mipp.roles.key_centre.KeyCentre`.

    Parameters
    ----------
    config : public description of the deployment
    index : this server's number
    folder : its own folder
    box_key, pair_key : its two X25519 private keys, 32 secret bytes each
    create : make a new store in ``folder``
    threads : native threads per product, default all cores
    check : compare checksums of files when they are first used
    clock : Unix time, for expiry of grants
    """

    has_shares = False
    #: whether a user may ask for some rows of an answer at a time
    by_rows = True

    def __init__(
        self, config: DeploymentConfig, index: int, folder: Path, box_key: bytes, pair_key: bytes, *,
        create: bool = False, threads: int | None = None, check: bool = True, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        p = config.params
        expected = p.storage_servers if self.has_shares else p.key_servers
        if index not in expected:
            raise ParameterError(f"{type(self).__name__} is one of servers {list(expected)}, not {index}")
        self.config, self.index, self.threads, self._clock = config, index, threads, clock
        self._box_key = box_key
        self._pair_keys = {
            other: schedule.pair_key(
                box.shared_secret(pair_key, keys.pair), config.id, min(index, other), max(index, other)
            )
            for other, keys in config.servers.items()
            if other != index
        }
        self.store = ServerStore(
            folder, index, p, config.params_hash, has_shares=self.has_shares, create=create, check=check
        )
        #: rankings that are open here; None where servers cannot reach each other
        self.admission: Admission | None = None
        self._counted = CountedHeaders()
        self._plans: dict[bytes, Plan] = {}
        self._plan_lock = threading.Lock()
        self._secrets: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(server={self.index})"

    def __reduce__(self) -> str:
        raise TypeError("a server holds keys and does not pickle")

    def close(self) -> None:
        if self.admission is not None:
            self.admission.close()
        self.store.close()
        self._plans.clear()
        self._secrets.clear()

    # --- dispatch -----------------------------------------------------------------------------------------------

    def handle(self, frames: Frames) -> Frames:
        """Answer one request; refusals and failures come back as a ``Failure`` message."""
        try:
            msg: Any = decode(frames)
            if isinstance(msg, m.Signed):
                return encode(self._signed(msg))
            unsigned: dict[type, Callable[[Any], Any]] = {
                m.StatusRequest: lambda msg: status(self.store, msg.owner),
                m.ListOps: self._list_ops,
                m.PruneOps: self._prune_ops,
                m.AbortOp: self._abort,
                m.VerifyRequest: lambda msg: m.VerifyReport(*self.store.verify()),
            }
            if type(msg) not in unsigned:
                raise AuthenticationError(f"a request {type(msg).__name__} must be signed")
            return encode(unsigned[type(msg)](msg))
        except Exception as error:
            if not isinstance(error, MippError):
                _log.exception("server %d: unexpected %s", self.index, type(error).__name__)
            return encode(m.Failure(*error_to_wire(error)))

    def _signed(self, msg: m.Signed) -> Any:
        if msg.deployment != self.config.id:
            raise AuthenticationError("the request is for another deployment")
        frames: Frames = [f.data for f in msg.frames]
        content: Any = decode(frames)
        digest = frames_hash(frames)
        kind = type(content)
        if kind is m.RegisterOwner:
            public, actor = content.sign_key, signing.party_id(content.sign_key, content.registration)
        elif kind is m.RegisterUser:
            public, actor = content.sign_key, signing.party_id(content.sign_key, content.box_key)
        elif kind in _BY_USER:
            public, actor = self.store.user(msg.signer)[1], msg.signer
        elif kind in _BY_OWNER:
            public, actor = self.store.owner(msg.signer)[1], msg.signer
        else:
            raise MessageError(f"{kind.__name__} is no signed request")
        if actor != msg.signer:
            raise AuthenticationError("the signer is not the party that the keys belong to")
        signing.verify(public, msg.signature, self.config.id, kind.__name__, digest)
        method = getattr(self, _HANDLERS[kind])
        return method(msg.signer, content, digest, functools.partial(pack_frames, encode(msg)))

    def _abort(self, msg: m.AbortOp) -> m.Ok:
        self.store.abort(msg.op)
        return m.Ok()

    # --- parties, grants ----------------------------------------------------------------------------------------

    def _register_owner(self, signer: bytes, msg: m.RegisterOwner, digest: bytes, packed: Any) -> m.Ok:
        self._unseal(signer, msg.sealed)
        self.store.add_owner(signer, msg.name, msg.sign_key, msg.registration, msg.sealed)
        return m.Ok()

    def _register_user(self, signer: bytes, msg: m.RegisterUser, digest: bytes, packed: Any) -> m.Ok:
        box.box_public(msg.box_key)
        self._check_paillier(msg.paillier)
        self.store.add_user(signer, msg.name, msg.sign_key, msg.box_key, msg.paillier)
        return m.Ok()

    def _check_paillier(self, key: bytes) -> None:
        if key:
            raise ParameterError("users of this deployment have no Paillier key")

    def _unseal(self, owner: bytes, sealed: bytes) -> bytes:
        info = owner_seal_info(self.config.id, owner, self.index)
        secret = box.open_sealed(self._box_key, sealed, info)
        if len(secret) != (32 if self.has_shares else 64):
            raise MessageError("sealed owner secrets of the wrong length")
        return secret

    def _owner_secret(self, owner: bytes) -> bytes:
        """The owner's secrets for this server, unsealed; kept in memory while the owner is registered."""
        sealed = self.store.owner(owner)[2]  # raises once forgotten, in whichever process
        if owner not in self._secrets:
            self._secrets[owner] = self._unseal(owner, sealed)
        return self._secrets[owner]

    def _grant(self, signer: bytes, msg: m.Grant, digest: bytes, packed: Any) -> m.Ok:
        if msg.owner != signer:
            raise AccessDeniedError("only the owner grants access to its images")
        if (
            any(r not in RANKINGS for r in msg.rankings)
            or msg.version < 1
            or min(msg.max_k, msg.quota, msg.expiry, msg.min_rows) < 0
        ):
            raise ParameterError("a grant needs version >= 1, known rankings and limits that are not negative")
        self.store.user(msg.user)
        self.store.put_grant(signer, msg.user, msg.version, m.grant_id(digest), packed())
        return m.Ok()

    def _list_grants(self, signer: bytes, msg: m.ListGrants, digest: bytes, packed: Any) -> m.GrantList:
        return m.GrantList([frames for _, frames in self.store.grants(owner=signer)])

    def _granted(self, user: bytes) -> dict[bytes, m.Grant]:
        """Grants that let ``user`` do anything now, by id, in order of owner."""
        found = {}
        for grant, packed in self.store.grants(user=user):
            signed = decode(unpack_frames(packed), m.Signed)
            content = decode([f.data for f in signed.frames], m.Grant)
            if not content.revoked and (content.expiry == 0 or self._clock() < content.expiry):
                found[grant] = content
        if not found:
            raise AccessDeniedError("no owner grants this user anything (no grant, revoked, or expired)")
        return found

    # --- changes ------------------------------------------------------------------------------------------------

    def _upload(self, signer: bytes, msg: m.UploadOp, digest: bytes, packed: Any) -> m.Ok:
        p, encoding = self.config.params, self.config.encoding
        if msg.encoding != encoding.hash or msg.dim != encoding.encoded_dim:
            raise ParameterError("the batch is encoded for another index")
        width = p.padded(msg.dim)
        if not 1 <= msg.rows <= MAX_BLOCKS * 128 // (width * p.k) or len(msg.op) != 16:
            raise ShapeError("a batch has at least one row, at most 2^32 AES blocks, and an id of 16 bytes")
        if self.has_shares and (msg.share.shape != (msg.rows, width) or msg.share.dtype != p.dtype):
            raise ShapeError(f"a share must be ({msg.rows}, {width}) words of {p.k} bits, not {msg.share.shape}")
        if not self.has_shares and (msg.share.size or msg.images.size):
            raise MessageError("a key server takes neither shares nor images")
        check_offsets(msg.image_offsets, msg.rows, msg.images.size)
        if len(msg.origin_row) not in (0, msg.rows) or msg.origin_batch.shape != (len(msg.origin_row), 16):
            raise ShapeError("image ids must be given for all rows or for none")
        self.store.prepare_upload(
            signer, msg.op, msg.session, digest, seq=msg.seq, rows=msg.rows, dim=msg.dim, replaces=msg.replaces,
            share=msg.share if self.has_shares else None, images=msg.images, offsets=msg.image_offsets,
            origin=(msg.origin_batch.tobytes(), msg.origin_row.tobytes()),
        )  # fmt: skip
        return m.Ok()

    def _delete(self, signer: bytes, msg: m.DeleteOp, digest: bytes, packed: Any) -> m.Ok:
        if not len(msg.rows) or msg.batches.shape != (len(msg.rows), 16):
            raise ShapeError("a delete names one batch per row, and at least one")
        dead: dict[bytes, list[int]] = {}
        for batch, row in zip(msg.batches, msg.rows, strict=True):
            dead.setdefault(batch.tobytes(), []).append(int(row))
        self.store.prepare_delete(signer, msg.op, msg.session, dead)
        return m.Ok()

    def _compact(self, signer: bytes, msg: m.CompactOp, digest: bytes, packed: Any) -> m.Ok:
        self.store.prepare_compact(signer, msg.op, msg.session, msg.batch, msg.generation, msg.rows)
        return m.Ok()

    def _commit(self, signer: bytes, msg: m.CommitOp, digest: bytes, packed: Any) -> m.Ok:
        self.store.commit(signer, msg.op, packed())
        return m.Ok()

    def _forget(self, signer: bytes, msg: m.ForgetOwner, digest: bytes, packed: Any) -> m.Ok:
        if msg.owner != signer:
            raise AccessDeniedError("only the owner forgets its images")
        self.store.forget_owner(signer, packed())
        self._secrets.pop(signer, None)
        with self._plan_lock:
            self._plans.clear()
        return m.Ok()

    def _list_ops(self, msg: m.ListOps) -> m.OpList:
        ops = self.store.ops()
        prepared = [(op, session) for op, session, committed in ops if committed is None]
        return m.OpList(
            [op for op, _ in prepared],
            [session for _, session in prepared],
            [op for op, _, committed in ops if committed is not None],
            [committed for _, _, committed in ops if committed is not None],
            self.store.forgotten() + self.store.all_grants(),
        )

    def _prune_ops(self, msg: m.PruneOps) -> m.Ok:
        self.store.prune_ops(msg.ops)
        return m.Ok()

    # --- queries ------------------------------------------------------------------------------------------------

    def _snapshot(self, signer: bytes, msg: m.SnapshotRequest, digest: bytes, packed: Any) -> m.Snapshot:
        grants = {g.owner: (grant, g) for grant, g in self._granted(signer).items()}
        for owner in msg.owners:
            if owner not in grants:
                raise AccessDeniedError("an owner that was asked for grants this user nothing")
        chosen = sorted(set(msg.owners) or grants)
        views = [self.store.view(owner) for owner in chosen]
        whole = hashlib.sha256(
            snapshot_hash([(v.owner, v.hash) for v in views]) + b"".join(grants[o][0] for o in chosen)
        )
        if whole.digest() == msg.known:
            return m.Snapshot(msg.known, True, [])
        return m.Snapshot(
            whole.digest(), False, [pack_frames(encode(owner_snapshot(v, *grants[v.owner]))) for v in views]
        )

    def _query(self, signer: bytes, msg: m.Query, digest: bytes, packed: Any) -> m.Answer | m.Ranked | m.Pending:
        frames: Frames = [f.data for f in msg.header]
        header = decode(frames, m.QueryHeader)
        bound = frames_hash(frames)
        if header.ranking == "user":
            self._check_query(signer, header, msg)
            plan, grants = self._authorise(header)
            rows = row_range(msg.first, msg.count, plan.live_total)
            if self.by_rows:
                self._counted.once(bound, lambda: self._count(header, grants))
            else:
                self._count(header, grants)
            return m.Answer(self._answers(header, bound, plan, msg.column, rows))
        if header.ranking not in ("server", "threshold"):
            raise ParameterError(f"ranking must be user, server or threshold, not {header.ranking!r}")
        if self.admission is None:
            raise ParameterError("these servers do not compare scores; use ranking='user'")
        size = msg.column.nbytes + msg.theta.nbytes + 8 * max(header.queries, 0) * max(header.k, 0)

        def check() -> tuple[Plan, list[m.Grant], Public]:
            self._check_query(signer, header, msg)
            plan, grants = self._authorise(header)
            return plan, grants, check_ranking(header, bound, self.config.encoding, msg.theta, plan.live_total)

        def run(link: Link, checked: tuple[Plan, list[m.Grant], Public] | None) -> m.Ranked:
            def prepare() -> Prepared:
                plan, grants, public = checked or check()
                self._count(header, grants)
                answers = self._answers(header, bound, plan, msg.column, range(plan.live_total))
                return answers, all(g.scores for g in grants), public

            return rank(self.index, self._pair_keys, link, header, prepare, msg.theta, self.threads)

        return self.admission.ask(signer, bound, size, check, run)

    def _collect(self, signer: bytes, msg: m.CollectRanking, digest: bytes, packed: Any) -> m.Ranked | m.Pending:
        if self.admission is None:
            raise ParameterError("these servers do not compare scores; use ranking='user'")
        return self.admission.collect(signer, msg.header)

    def _check_query(self, signer: bytes, header: m.QueryHeader, msg: m.Query) -> None:
        """Whose query it is, for which index and servers, and whether the column is the one committed to."""
        p = self.config.params
        if header.deployment != self.config.id or header.user != signer or len(header.nonce) != 16:
            raise AuthenticationError("the query's header is another deployment's or another user's")
        if header.encoding != self.config.encoding.hash:
            raise ParameterError("the query is encoded for another index")
        servers = p.check_servers(header.servers)
        if tuple(header.servers) != servers or self.index not in servers or len(header.commitments) != len(servers):
            raise ParameterError(
                "the query's servers must be sorted, with one commitment each, and this one among them"
            )
        if not 1 <= header.queries <= MAX_QUERIES:
            raise ShapeError(f"a query holds 1 to {MAX_QUERIES} columns, not {header.queries}")
        self._check_column(header, msg)
        if (msg.first or msg.count) and not (self.by_rows and header.ranking == "user"):
            raise ParameterError("these answers are not given for some rows alone")
        commitment = column_commitment(msg.salt, msg.column, msg.theta)
        if len(msg.salt) != 32 or commitment != header.commitments[servers.index(self.index)]:
            raise AuthenticationError("the column is not the one that the header commits to")

    def _check_column(self, header: m.QueryHeader, msg: m.Query) -> None:
        p, count = self.config.params, header.queries
        width = p.padded(self.config.encoding.encoded_dim)
        shapes_fit = msg.column.shape == (count, width) and msg.theta.shape in ((0,), (count,))
        if not shapes_fit or {msg.column.dtype, msg.theta.dtype} != {p.dtype}:
            raise ShapeError(f"columns must be ({count}, {width}) words of {p.k} bits")

    def _answers(self, header: m.QueryHeader, bound: bytes, plan: Plan, column: np.ndarray, rows: range) -> np.ndarray:
        """This server's masked answers for live rows ``rows``, (B, rows) words: an additive share of the scores."""
        out = aligned_words(len(column), len(rows), column.dtype)
        for some, start, stop, live in plan.spans(rows):
            into = out[:, some] if live is None else aligned_words(len(column), stop - start, column.dtype)
            self._product(plan, column, start, stop, into)
            nonces, counts, first = plan.masks(start, stop)
            add_zero_share(
                into, self.index, header.servers, self._pair_keys, bound, nonces, counts, first=first,
                threads=self.threads,
            )  # fmt: skip
            if live is not None:
                out[:, some] = into[:, live]
        return out

    def _count(self, header: m.QueryHeader, grants: list[m.Grant]) -> None:
        """Count the header's queries against the quotas of its grants."""
        quotas = [grant.quota for grant in grants]
        self.store.count_queries(list(zip(header.grants, quotas, strict=True)), header.queries)

    def _authorise(self, header: m.QueryHeader) -> tuple[Plan, list[m.Grant]]:
        """Grants, snapshot and batches of a query: the rows it covers, and the grants.

        Refuses all if one batch is not covered.
        """
        grants = self._granted(header.user)
        chosen = []
        for grant in header.grants:
            if grant not in grants:
                raise AccessDeniedError(
                    "a grant of the query is not in force (never given, replaced, revoked, expired)"
                )
            chosen.append(grants[grant])
        owners = [g.owner for g in chosen]
        if not owners or owners != sorted(set(owners)):
            raise ParameterError("a query names one grant per owner, in order of owners, and at least one")
        views = [self.store.view(owner) for owner in owners]
        if header.snapshot != snapshot_hash([(v.owner, v.hash) for v in views]):
            raise StaleSnapshotError("the index changed since the query's snapshot")
        plan = self._plan(header, views)
        for given, live in zip(chosen, plan.live_by_owner, strict=True):
            if ("user" if header.ranking == "user" else "server") not in given.rankings:
                raise AccessDeniedError(f"a grant does not allow ranking {header.ranking!r}")
            if header.ranking == "threshold":
                if given.max_k:
                    raise AccessDeniedError(f"a grant allows k up to {given.max_k}, a threshold has no such limit")
            elif header.k < 1 or (given.max_k and header.k > given.max_k):
                raise AccessDeniedError(f"a grant allows k up to {given.max_k}, not {header.k}")
            if live < given.min_rows:
                raise AccessDeniedError(f"a grant wants queries to cover at least {given.min_rows} rows, not {live}")
        return plan, chosen

    def _plan(self, header: m.QueryHeader, views: list[OwnerView]) -> Plan:
        key = hashlib.sha256(header.snapshot + header.batches.tobytes()).digest()
        with self._plan_lock:
            plan = self._plans.get(key)
            if plan is None:
                plan = Plan(views, header.batches)
                now = {view.owner: view for view in views}
                # plans of an older state answer nothing any more, and would keep its rows in memory
                for old, kept in list(self._plans.items()):
                    if any(now.get(p.view.owner, p.view) is not p.view for p in kept.parts):
                        del self._plans[old]
                if len(self._plans) >= 8:
                    self._plans.pop(next(iter(self._plans)))
                self._plans[key] = plan
        return plan

    def _product(self, plan: Plan, column: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
        """Original rows ``start`` to ``stop`` (stored or keystream) times columns, into (B, stop - start) words."""
        raise NotImplementedError

    # --- images, status -----------------------------------------------------------------------------------------

    def _image_part(self, owner: bytes) -> bytes:
        """This server's part of the owner's image keys."""
        raise NotImplementedError

    def _image_ids(self, user: bytes, msg: m.FetchImages) -> list[tuple[bytes, bytes, int]]:
        """(owner, origin batch, origin row) of live rows of owners that granted ``user``; else a refusal."""
        if not len(msg.rows) or msg.batches.shape != (len(msg.rows), 16):
            raise ShapeError("a fetch names one batch per row, and at least one")
        views = [self.store.view(g.owner) for g in self._granted(user).values()]
        found = []
        for batch, row in zip(msg.batches, msg.rows, strict=True):
            name, number = batch.tobytes(), int(row)
            view = next((v for v in views if name in v.index), None)
            if view is None:
                raise AccessDeniedError(
                    "an image that was asked for belongs to no owner that grants this user anything"
                )
            held = view.batches[view.index[name]]
            if not 0 <= number < held.rows or number in held.tombstones:
                raise NotFoundError(f"row {number} of batch {name.hex()} is not there or was deleted")
            batches, rows = self.store.origins(view.owner, name)
            found.append((view.owner, batches[number].tobytes(), int(rows[number])))
        return found

    def _fetch_images(self, signer: bytes, msg: m.FetchImages, digest: bytes, packed: Any) -> m.Images:
        images = self._image_ids(signer, msg)
        ids = [batch + row.to_bytes(8, "big") for _, batch, row in images]
        parts = [schedule.image_part(self._image_part(owner), i) for (owner, _, _), i in zip(images, ids, strict=True)]
        info = image_seal_info(self.config.id, signer, self.index, ids)
        sealed = box.seal(self.store.user(signer)[2], b"".join(parts), info)
        files = [self.store.image(*image) for image in images] if self.has_shares else []
        offsets = np.concatenate([[0], np.cumsum([len(f) for f in files], dtype=np.int64)]).astype("<i8")
        return m.Images(
            sealed,
            np.frombuffer(b"".join(o for o, _, _ in images), np.uint8).reshape(-1, 16),
            np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 24),
            np.concatenate(files) if files else np.empty(0, np.uint8),
            offsets,
        )

    def _fetch_shares(self, signer: bytes, msg: m.FetchShares, digest: bytes, packed: Any) -> m.Shares:
        view = self.store.view(signer)
        if msg.batch not in view.index:
            raise NotFoundError(f"this owner has no batch {msg.batch.hex()}")
        batch = view.batches[view.index[msg.batch]]
        if batch.words is None:
            raise StoreError("a key server stores no shares")
        ordinals = np.arange(batch.rows) if batch.ordinals is None else np.asarray(batch.ordinals)
        alive = ~np.isin(ordinals, batch.tombstones)
        ids, rows = self.store.origins(signer, msg.batch)
        left = ordinals[alive].astype("<i8")
        return m.Shares(batch.rows, batch.dim, left, batch.words[alive], ids[left], rows[left].astype("<i8"))


_HANDLERS = {
    m.RegisterOwner: "_register_owner",
    m.RegisterUser: "_register_user",
    m.Grant: "_grant",
    m.ListGrants: "_list_grants",
    m.UploadOp: "_upload",
    m.DeleteOp: "_delete",
    m.CompactOp: "_compact",
    m.CommitOp: "_commit",
    m.ForgetOwner: "_forget",
    m.FetchShares: "_fetch_shares",
    m.SnapshotRequest: "_snapshot",
    m.Query: "_query",
    m.CollectRanking: "_collect",
    m.FetchImages: "_fetch_images",
}
_BY_USER = (m.SnapshotRequest, m.Query, m.CollectRanking, m.FetchImages)
_BY_OWNER = (m.Grant, m.ListGrants, m.UploadOp, m.DeleteOp, m.CompactOp, m.CommitOp, m.ForgetOwner, m.FetchShares)
