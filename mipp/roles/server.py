"""What clouds and the key centre have in common: checks before work, parties and grants, queries, images.

Every request of an owner or user is signed for one server (or, for changes that servers pass on, for all); signature,
time, grant and snapshot are checked before anything is computed. Owners' changes are in ``changing.py``, what servers
and operators ask in ``peering.py``.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..crypto import box, schedule, signing
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    BusyError,
    IntegrityError,
    LimitError,
    MessageError,
    MippError,
    ParameterError,
    ShapeError,
    StaleSnapshotError,
    error_to_wire,
)
from ..protocol import messages as m
from ..protocol.chain import snapshot_hash
from ..protocol.link import Link
from ..protocol.session import Public
from ..protocol.wire import (
    Frames,
    decode,
    encode,
    frame_hashes,
    frames_hash,
    joined_hash,
    pack_frames,
    unpack_frames,
)
from ..sharing import add_zero_share
from ..store.memory import aligned_words
from ..store.parties import is_registered
from ..store.store import ServerStore
from ..store.views import OwnerView
from . import changing
from .admission import Admission
from .answering import OpenHeaders, row_range
from .bound import column_commitment, image_seal_info, owner_seal_info
from .config import DeploymentConfig
from .freshness import RequestLog
from .grants import check_grant, expired_text, in_force, offered_rankings
from .limits import MAX_ANSWER_BYTES, MAX_QUERIES, MAX_RANKED_BYTES, MAX_RANKED_HITS, Card
from .names import check_name
from .peering import HANDLERS as PEER_HANDLERS
from .plan import Plan
from .ranking import Prepared, check_ranking, rank
from .reports import owner_snapshot
from .serving_images import image_files, images_reply, locate_images, requested_images

__all__ = ["Server"]

_log = logging.getLogger("mipp.server")


@dataclass(frozen=True)
class Digest:
    """Hash of a request's content, and of each of its frames."""

    whole: bytes
    frames: list[bytes]


class Server:
    """Base of :class:`~mipp.roles.cloud.CloudServer` and :class:`~mipp.roles.key_centre.KeyCentre`.

    Parameters
    ----------
    config : public description of the deployment
    index : this server's number
    folder : its own folder
    box_key, pair_key : its two X25519 private keys, 32 secret bytes each
    sign_key : seed of its Ed25519 identity, 32 secret bytes
    create : make a new store in ``folder``
    threads : native threads per product, default all cores
    check : compare checksums of files when they are first used
    clock : Unix time, for expiry of grants and the age of requests
    holder, alive : this process's name, and whether the process of a name still runs: whom prepared changes wait for
    witness : called with a number that only grows, after everything that a restored backup must not undo unnoticed
    card : limits of each party
    """

    has_shares = False
    #: whether a user may ask for some rows of an answer at a time
    by_rows = True

    def __init__(
        self, config: DeploymentConfig, index: int, folder: Path, box_key: bytes, pair_key: bytes, sign_key: bytes, *,
        create: bool = False, threads: int | None = None, check: bool = True, clock: Callable[[], float] = time.time,
        holder: bytes = b"", alive: Callable[[bytes], bool] = lambda holder: True,
        witness: Callable[[int], None] | None = None, card: Card | None = None,
    ) -> None:  # fmt: skip
        p = config.params
        expected = p.storage_servers if self.has_shares else p.key_servers
        if index not in expected:
            raise ParameterError(f"{type(self).__name__} is one of servers {list(expected)}, not {index}")
        self.config, self.index, self.threads, self._clock = config, index, threads, clock
        self._box_key, self._sign_key = box_key, sign_key
        self.card = Card() if card is None else card
        self._pair_keys = {
            other: schedule.pair_key(
                box.shared_secret(pair_key, keys.pair), config.id, min(index, other), max(index, other)
            )
            for other, keys in config.servers.items()
            if other != index
        }
        self.store = ServerStore(
            folder, index, p, config.params_hash, has_shares=self.has_shares, create=create, check=check,
            holder=holder, alive=alive, witness=witness,
        )  # fmt: skip
        self.store.changes.parse = changing.parse_commit
        #: rankings that are open here; None where servers cannot reach each other
        self.admission: Admission | None = None
        self._headers = OpenHeaders()
        self._log = RequestLog(clock)
        self._busy: collections.Counter[bytes] = collections.Counter()
        self._busy_lock = threading.Lock()
        #: false after a restore from a backup, until the other servers told what is missing here
        self.ready = True
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
        """Answer one signed request of an owner or user; refusals and failures come back as a ``Failure`` message."""

        def answer(msg: Any) -> Any:
            if not isinstance(msg, m.Signed):
                raise AuthenticationError(f"a request {type(msg).__name__} must be signed")
            if not self.ready:
                raise BusyError("this server was restored from a backup and waits for the other servers")
            return self._signed(msg)

        return self._replied(frames, answer)

    def operate(self, frames: Frames) -> Frames:
        """Answer one request of this server's operator or of another server; never reached by owners or users."""

        def answer(msg: Any) -> Any:
            if type(msg) not in PEER_HANDLERS:
                raise MessageError(f"{type(msg).__name__} is no request of an operator or a server")
            return PEER_HANDLERS[type(msg)](self, msg)

        return self._replied(frames, answer)

    def _replied(self, frames: Frames, answer: Callable[[Any], Any]) -> Frames:
        try:
            self._refresh()
            return encode(answer(decode(frames)))
        except Exception as error:
            if not isinstance(error, MippError):
                _log.exception("server %d: unexpected %s", self.index, type(error).__name__)
            name, text = error_to_wire(error)
            # errors of files name paths of this machine, which are no business of who asks
            return encode(m.Failure(name, text.replace(f"{self.store.folder}{os.sep}", "")))

    def _refresh(self) -> None:
        """Drop what this process keeps of owners whom another process's server forgot."""
        if self.store.catalog.changed_elsewhere():
            gone = set(self.store.forgotten_ids())
            if gone:
                self._drop_caches(gone)

    def _drop_caches(self, owners: set[bytes]) -> None:
        """Drop an owner's secrets, and plans over its rows."""
        for owner in owners:
            self._secrets.pop(owner, None)
        with self._plan_lock:
            for key, plan in list(self._plans.items()):
                if any(part.view.owner in owners for part in plan.parts):
                    del self._plans[key]
        self._headers.drop(owners)

    def sign(self, data: bytes) -> bytes:
        """Sign with this server's identity: votes, 64 bytes."""
        return signing.sign_raw(self._sign_key, data)

    def _signed(self, msg: m.Signed, *, passed_on: bool = False) -> Any:
        frames: Frames = [f.data for f in msg.frames]
        content: Any = decode(frames)
        kind = type(content)
        method = _HANDLERS.get(kind)
        if method is None:
            raise MessageError(f"{kind.__name__} is no signed request")
        if msg.deployment != self.config.id:
            raise AuthenticationError("the request is for another deployment")
        relayed = kind in m.FOR_ALL
        if msg.receiver != (m.ALL_SERVERS if relayed else self.index):
            raise AuthenticationError(f"a {kind.__name__} signed for server {msg.receiver} came to server {self.index}")
        if passed_on and not relayed:
            raise AuthenticationError(f"a {kind.__name__} is not passed on between servers")
        hashes = frame_hashes(frames)
        digest = Digest(joined_hash(frames, hashes), hashes)
        public, actor = self._identity(content, msg.signer)
        if actor != msg.signer:
            raise AuthenticationError("the signer is not the party that the keys belong to")
        statement = signing.Statement(msg.deployment, msg.receiver, kind.__name__, digest.whole, msg.issued, msg.random)
        signing.verify(public, msg.signature, statement)
        if not relayed:  # those carry versions; sent again they change nothing
            self._log.check(msg.signer, statement, repeatable=kind not in _ONCE)
        packed = functools.partial(pack_frames, encode(msg))
        with self._one_of(msg.signer):
            if isinstance(method, str):
                return getattr(self, method)(msg.signer, content, digest, packed)
            if passed_on and kind is m.CommitOp:
                return changing.commit(self, msg.signer, content, digest, packed, by_peer=True)
            return method(self, msg.signer, content, digest, packed)

    def _identity(self, content: Any, signer: bytes) -> tuple[bytes, bytes]:
        """Public key that must have signed a request, and the id of the party that it belongs to."""
        kind = type(content)
        if kind is m.RegisterOwner:
            return content.sign_key, signing.party_id(content.sign_key, content.registration)
        if kind is m.RegisterUser:
            return content.sign_key, signing.party_id(content.sign_key, content.box_key)
        if kind in _BY_USER:
            return self.store.user(signer)[1], signer
        if kind is m.ForgetOwner:  # again is fine
            return self.store.registration(signer)[1], signer
        return self.store.owner(signer)[1], signer

    def pass_on(self, packed: bytes) -> Any:
        """Serve a signed message for all servers that another server has."""
        return self._signed(decode(unpack_frames(packed), m.Signed), passed_on=True)

    @contextlib.contextmanager
    def _one_of(self, signer: bytes) -> Iterator[None]:
        """One request of a party; BusyError when it has too many under way."""
        with self._busy_lock:
            if self._busy[signer] >= self.card.concurrent:
                raise BusyError(f"this party has {self.card.concurrent} requests under way; try again later")
            self._busy[signer] += 1
        try:
            yield
        finally:
            with self._busy_lock:
                self._busy[signer] -= 1
                if not self._busy[signer]:
                    del self._busy[signer]

    # --- parties, grants ----------------------------------------------------------------------------------------

    def _register_owner(self, signer: bytes, msg: m.RegisterOwner, digest: Digest, packed: Any) -> m.Ok:
        if len(msg.registration) != 16 or len(msg.sealed) != len(self.config.servers):
            raise ShapeError("a registration has a nonce of 16 bytes, and sealed secrets for every server")
        self._check_name(signer, msg.name)
        sealed = msg.sealed[sorted(self.config.servers).index(self.index)]
        self._unseal(signer, sealed)
        self.store.add_owner(signer, msg.name, msg.sign_key, msg.registration, sealed, packed())
        return m.Ok()

    def _register_user(self, signer: bytes, msg: m.RegisterUser, digest: Digest, packed: Any) -> m.Ok:
        self._check_name(signer, msg.name)
        box.seal(msg.box_key, b"", b"")  # refuses keys that nothing can be sealed to
        self._check_paillier(msg.paillier)
        self.store.add_user(signer, msg.name, msg.sign_key, msg.box_key, msg.paillier, packed())
        return m.Ok()

    def _check_name(self, party: bytes, name: str) -> None:
        """ParameterError for a bad name; parties that were registered under older rules keep theirs."""
        if not is_registered(self.store.catalog, party) and check_name(name) != name:
            raise ParameterError("a name is NFC-normalised")

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
        name, _, sealed = self.store.owner(owner)  # raises once forgotten, in whichever process
        if owner not in self._secrets:
            try:
                self._secrets[owner] = self._unseal(owner, sealed)
            except (AuthenticationError, MessageError):
                raise IntegrityError(f"the keys of owner {name} at server {self.index} are damaged") from None
        return self._secrets[owner]

    def _grant(self, signer: bytes, msg: m.Grant, digest: Digest, packed: Any) -> m.Ok:
        if msg.owner != signer:
            raise AccessDeniedError("only the owner grants access to its images")
        check_grant(msg, offered_rankings(self.config.params))
        self.store.user(msg.user)
        epoch = self.store.catalog.counter("epoch")
        if msg.epoch != epoch:
            raise AccessDeniedError(f"the grant is of epoch {msg.epoch}, the servers' is {epoch}; sign it anew")
        order = (msg.epoch, msg.version, msg.revoked)
        self.store.put_grant(signer, msg.user, order, m.grant_id(digest.whole), packed())
        return m.Ok()

    def _list_grants(self, signer: bytes, msg: m.ListGrants, digest: Digest, packed: Any) -> m.GrantList:
        grants = [frames for _, frames in self.store.grants(owner=signer)]
        return m.GrantList(self.store.catalog.counter("epoch"), grants)

    def _granted(self, user: bytes) -> dict[bytes, m.Grant]:
        """Grants that let ``user`` do anything now, by id, in order of owner."""
        now = self._clock()
        found, expired = in_force(self.store.grants(user=user), now)
        if not found:
            ended = expired_text(expired.values(), now)
            raise AccessDeniedError(f"no owner grants this user anything (no grant, revoked, or expired){ended}")
        return found

    def _ended(self, user: bytes) -> str:
        """Which of the user's grants expired, and this server's time, to be appended to a refusal."""
        now = self._clock()
        return expired_text(in_force(self.store.grants(user=user), now)[1].values(), now)

    def _forget(self, signer: bytes, msg: m.ForgetOwner, digest: Digest, packed: Any) -> m.Ok:
        if msg.owner != signer or msg.registration != self.store.registration(signer)[0]:
            raise AccessDeniedError("only the owner forgets its images, in the registration that it names")
        self.store.forget_owner(signer, packed())
        self._drop_caches({signer})
        return m.Ok()

    # --- queries ------------------------------------------------------------------------------------------------

    def _snapshot(self, signer: bytes, msg: m.SnapshotRequest, digest: Digest, packed: Any) -> m.Snapshot:
        grants = {g.owner: (grant, g) for grant, g in self._granted(signer).items()}
        for owner in msg.owners:
            if owner not in grants:
                raise AccessDeniedError(f"an owner that was asked for grants this user nothing{self._ended(signer)}")
        found = [
            owner_snapshot(self.store, owner, self._trouble(owner), *grants[owner], brief=msg.brief)
            for owner in sorted(set(msg.owners) or grants)
        ]
        whole = hashlib.sha256(b"mipp v2 whole snapshot" + bytes([msg.brief]))
        for o in found:
            whole.update(o.owner + o.view + o.grant + o.floor.to_bytes(8, "big"))
            whole.update(repr((o.damaged, o.reasons)).encode())
        if whole.digest() == msg.known:
            return m.Snapshot(msg.known, True, [])
        return m.Snapshot(whole.digest(), False, [pack_frames(encode(o)) for o in found])

    def _trouble(self, owner: bytes) -> str:
        """Why none of an owner's rows can be searched here, or nothing."""
        if not self.has_shares:
            try:
                self._owner_secret(owner)
            except IntegrityError as error:
                return str(error)
        return ""

    def _query(self, signer: bytes, msg: m.Query, digest: Digest, packed: Any) -> m.Answer | m.Ranked | m.Pending:
        frames: Frames = [f.data for f in msg.header]
        header = decode(frames, m.QueryHeader)
        bound = frames_hash(frames)
        if header.ranking == "user":
            self._check_query(signer, header, msg)
            # some rows of a header that was answered before: of the same state, whatever was uploaded or deleted since
            known = self._headers.find(bound) if self.by_rows else None
            plan, grants = (known, []) if known else self._authorise(header, msg.newest)
            if known:
                self._in_force(header)
            rows = row_range(msg.first, msg.count, plan.live_total)
            self._within(header, len(rows))
            if not known:
                self._count(header, grants)
                if self.by_rows:
                    self._headers.remember(bound, header.user, plan)
            return m.Answer(self._answers(header, bound, plan, msg.column, rows))
        if header.ranking not in ("server", "threshold"):
            raise ParameterError(f"ranking must be user, server or threshold, not {header.ranking!r}")
        if self.admission is None:
            raise ParameterError("these servers do not compare scores; use ranking='user'")
        size = msg.column.nbytes + msg.theta.nbytes + 8 * max(header.queries, 0) * max(header.k, 0)

        def check(newest: bytes = b"") -> tuple[Plan, list[m.Grant], Public]:
            self._check_query(signer, header, msg)
            plan, grants = self._authorise(header, newest)
            self._within(header, plan.live_total)
            return plan, grants, check_ranking(header, bound, self.config.encoding, msg.theta, plan.live_total)

        def run(link: Link, checked: tuple[Plan, list[m.Grant], Public] | None) -> m.Ranked:
            def prepare() -> Prepared:
                plan, grants, public = checked or check()
                self._count(header, grants)
                answers = self._answers(header, bound, plan, msg.column, range(plan.live_total))
                return answers, all(g.scores for g in grants), public

            return rank(self.index, self._pair_keys, link, header, prepare, msg.theta, self.threads)

        return self.admission.ask(signer, bound, size, lambda: check(msg.newest), run)

    def _collect(self, signer: bytes, msg: m.CollectRanking, digest: Digest, packed: Any) -> m.Ranked | m.Pending:
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

    def _within(self, header: m.QueryHeader, rows: int) -> None:
        """LimitError for a query that would take more memory than a server gives one, before any is taken."""
        words = header.queries * rows * self.config.params.dtype.itemsize
        if header.ranking == "user":
            if words > MAX_ANSWER_BYTES and self.by_rows:
                raise LimitError(
                    f"{header.queries} queries over {rows} rows are {words} bytes of answers; at most {MAX_ANSWER_BYTES} "
                    "are given at once: ask for some rows at a time"
                )
            return
        if words > MAX_RANKED_BYTES and header.queries > 1:
            raise LimitError(
                f"{header.queries} queries over {rows} rows are {words} bytes of scores; at most {MAX_RANKED_BYTES} are "
                "ranked at once: send fewer queries together"
            )
        if header.queries * header.k > MAX_RANKED_HITS:
            raise LimitError(f"{header.queries} queries with k={header.k} are more than {MAX_RANKED_HITS} hits")

    def _count(self, header: m.QueryHeader, grants: list[m.Grant]) -> None:
        """Count the header's queries against the quotas of its grants."""
        used = [(grant.owner, name, grant.quota) for name, grant in zip(header.grants, grants, strict=True)]
        self.store.count_queries(header.user, used, header.queries)

    def _in_force(self, header: m.QueryHeader) -> tuple[list[m.Grant], bytes]:
        """The grants that a query names, and the hash of all that there are; AccessDeniedError if one is not in force."""
        grants = self._granted(header.user)
        chosen = []
        for grant in header.grants:
            if grant not in grants:
                raise AccessDeniedError(
                    "a grant of the query is not in force (never given, replaced, revoked, expired)"
                    + self._ended(header.user)
                )
            chosen.append(grants[grant])
        return chosen, m.grants_hash(grants)

    def _authorise(self, header: m.QueryHeader, newest: bytes) -> tuple[Plan, list[m.Grant]]:
        """Grants, snapshot and batches of a query: the rows it covers, and the grants.

        Refuses all if one batch is not covered. ``newest``: see :class:`~mipp.protocol.messages.Query`.
        """
        chosen, all_grants = self._in_force(header)
        owners = [g.owner for g in chosen]
        if not owners or owners != sorted(set(owners)):
            raise ParameterError("a query names one grant per owner, in order of owners, and at least one")
        if len(header.positions) != len(owners) or len(header.counts) != len(owners):
            raise ParameterError("a query names a position and a number of batches for each owner")
        if min(header.counts) < 0 or header.batches.shape != (sum(header.counts), 16):
            raise ShapeError("a query's batches are as many as it says for its owners together, with ids of 16 bytes")
        views = []
        for owner, position in zip(owners, header.positions, strict=True):
            view = self.store.view_at(owner, position)
            if view is None or (newest and view.base is not view):
                raise StaleSnapshotError("the index changed since the query's snapshot")
            views.append(view)
        if len(newest) == 32 and newest != all_grants:
            raise StaleSnapshotError("what owners grant this user changed since the query's snapshot")
        if header.snapshot != snapshot_hash([(v.owner, v.position, v.hash) for v in views]):
            raise StaleSnapshotError("the index changed since the query's snapshot")
        plan = self._plan(header, views)
        for given, live in zip(chosen, plan.live_by_owner, strict=True):
            if header.ranking not in given.rankings:
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
        key = hashlib.sha256(header.snapshot + repr(header.counts).encode() + header.batches.tobytes()).digest()
        with self._plan_lock:
            plan = self._plans.get(key)
            # the files' rows may have moved (a compaction) though the state is the same
            if plan is not None and all(p.view.base is v.base for p, v in zip(plan.parts, views, strict=True)):
                return plan
            plan = Plan(views, header.batches, header.counts, self.index)
            now = {view.owner: view.base for view in views}
            # plans of an older state would keep its rows in memory
            for old, kept in list(self._plans.items()):
                if any(now.get(p.view.owner, p.view.base) is not p.view.base for p in kept.parts):
                    del self._plans[old]
            while len(self._plans) >= 8:
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

    def _fetch_images(self, signer: bytes, msg: m.FetchImages, digest: Digest, packed: Any) -> m.Images:
        places = requested_images(msg)
        granted = {g.owner for g in self._granted(signer).values()}
        images = locate_images(self.store, granted, places, self._ended(signer))
        files = image_files(self.store, images) if self.has_shares else []
        box_key = self.store.user(signer)[2]

        def seal(parts: bytes, ids: list[bytes]) -> bytes:
            return box.seal(box_key, parts, image_seal_info(self.config.id, signer, self.index, ids))

        return images_reply(images, files, self._image_part, seal)


#: kind of request -> method of the server, or function
_HANDLERS: dict[type, Any] = {
    m.RegisterOwner: "_register_owner",
    m.RegisterUser: "_register_user",
    m.Grant: "_grant",
    m.ListGrants: "_list_grants",
    m.ForgetOwner: "_forget",
    m.SnapshotRequest: "_snapshot",
    m.Query: "_query",
    m.CollectRanking: "_collect",
    m.FetchImages: "_fetch_images",
    **changing.HANDLERS,
}
#: never served twice: each time counts, or hands out what is handed out once
_ONCE = (m.Query, m.CollectRanking)
_BY_USER = (m.SnapshotRequest, m.Query, m.CollectRanking, m.FetchImages)
