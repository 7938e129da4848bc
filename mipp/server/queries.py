"""A server's part in queries: checks before work, the state that a query is about, and the product's frame.

A query is checked in this order: signature (before it comes here), header, query share and commitment, grants,
snapshot, batches, limits; then its quota is charged, and only then anything is computed.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    LimitError,
    OutOfRangeError,
    ParameterError,
    ShapeError,
    StaleSnapshotError,
)
from ..mpc.cost import largest_call
from ..mpc.link import Link
from ..mpc.query_proof import proof_bytes, relations, unpack, verified
from ..mpc.session import Public
from ..rpc import messages as m
from ..rpc.associated_data import column_commitment
from ..rpc.chain import snapshot_hash
from ..rpc.description import DeploymentConfig
from ..rpc.limits import MAX_ANSWER_BYTES, MAX_PROOF_BYTES, MAX_QUERIES, MAX_RANKED_BYTES, MAX_RANKED_HITS
from ..rpc.wire import Frames, decode, frames_hash
from ..sharing import add_zero_share
from ..store.memory import aligned_words
from ..store.store import ServerStore
from ..store.views import OwnerView
from .open_headers import OpenHeaders, row_range
from .plan import Plan
from .ranking import Prepared, check_ranking, rank

if TYPE_CHECKING:
    from .admission import Admission
    from .server import Digest

__all__ = ["Queries"]

_log = logging.getLogger("mipp.server")


class Queries:
    """The part of :class:`~mipp.server.server.Server` that answers queries."""

    #: whether a user may ask for some rows of an answer at a time
    by_rows = True
    config: DeploymentConfig
    index: int
    threads: int | None
    store: ServerStore
    #: rankings that are open here; None where servers cannot reach each other
    admission: Admission | None
    _pair_keys: dict[int, bytes]
    _headers: OpenHeaders
    _plans: dict[bytes, Plan]
    _plan_lock: threading.Lock

    def _granted(self, user: bytes) -> dict[bytes, m.Grant]:
        """Grants in force of a user, by id."""
        raise NotImplementedError  # the server has it; here for the types

    def _ended(self, user: bytes) -> str:
        """Which of the user's grants expired, to be appended to a refusal."""
        raise NotImplementedError  # the server has it; here for the types

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
        size = msg.column.nbytes + msg.theta.nbytes + msg.proof.nbytes + 8 * max(header.queries, 0) * max(header.k, 0)

        def check(newest: bytes = b"") -> tuple[Plan, list[m.Grant], Public]:
            self._check_query(signer, header, msg)
            plan, grants = self._authorise(header, newest)
            self._within(header, plan.live_total)
            public = check_ranking(header, bound, self.config, msg.theta, plan.live_total)
            self._check_proof(header, msg)
            plan.require_certified(self.index)
            return plan, grants, public

        def run(link: Link, checked: tuple[Plan, list[m.Grant], Public] | None) -> m.Ranked:
            def prepare() -> Prepared:
                plan, grants, public = checked or check()
                self._count(header, grants)
                answers = self._answers(header, bound, plan, msg.column, range(plan.live_total))
                return answers, all(g.scores for g in grants), public, self._relations(header, msg)

            try:
                return rank(self.index, self._pair_keys, link, header, prepare, msg.theta, self.threads)
            except OutOfRangeError:
                count = self.store.note_out_of_range(header.user)
                _log.warning(
                    "server %d: user %s sent a query out of range, %d so far", self.index, header.user.hex(), count
                )
                raise

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
        if header.ranking == "user" and (header.proofs or msg.seeds or msg.proof.size):
            raise ParameterError("a query that its user ranks carries no proof")
        commitment = column_commitment(msg.salt, msg.column, msg.theta)
        if len(msg.salt) != 32 or commitment != header.commitments[servers.index(self.index)]:
            raise AuthenticationError("the column is not the one that the header commits to")

    def _check_proof(self, header: m.QueryHeader, msg: m.Query) -> None:
        """Refuse a proof of another shape, or one that the header does not commit to."""
        verified(
            self.config.query_rule, self.index, unpack(self.index, msg.seeds, msg.proof), header.proofs, header.queries,
            threshold=header.ranking == "threshold",
        )  # fmt: skip

    def _relations(self, header: m.QueryHeader, msg: m.Query) -> np.ndarray:
        """This server's shares of what is zero for a query in range."""
        held = unpack(self.index, msg.seeds, msg.proof)
        return relations(
            self.config.query_rule, self.config.params, self.index, held, msg.column, msg.theta, self.threads or 0
        )

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
        size = self.config.params.dtype.itemsize
        words = header.queries * rows * size
        if header.ranking == "user":
            if words > MAX_ANSWER_BYTES and self.by_rows:
                raise LimitError(
                    f"{header.queries} queries over {rows} rows are {words} bytes of answers; at most "
                    f"{MAX_ANSWER_BYTES} are given at once: ask for some rows at a time"
                )
            return
        if header.ranking == "server" and 1 <= header.k <= rows:  # small batches are compared many times over
            words = header.queries * largest_call(rows, header.k) * size
        if words > MAX_RANKED_BYTES and header.queries > 1:
            raise LimitError(
                f"{header.queries} queries over {rows} rows are {words} bytes of scores and comparisons; at most "
                f"{MAX_RANKED_BYTES} are ranked at once: send fewer queries together"
            )
        proof = proof_bytes(self.config.query_rule, header.queries, threshold=header.ranking == "threshold")
        if proof > MAX_PROOF_BYTES and header.queries > 1:
            raise LimitError(f"proofs of {header.queries} queries are {proof} bytes; send fewer queries together")
        if header.queries * header.k > MAX_RANKED_HITS:
            raise LimitError(f"{header.queries} queries with k={header.k} are more than {MAX_RANKED_HITS} hits")

    def _count(self, header: m.QueryHeader, grants: list[m.Grant]) -> None:
        """Count the header's queries against the quotas of its grants."""
        used = [(grant.owner, name, grant.quota) for name, grant in zip(header.grants, grants, strict=True)]
        self.store.count_queries(header.user, used, header.queries)

    def _in_force(self, header: m.QueryHeader) -> tuple[list[m.Grant], bytes]:
        """The grants that a query names, and the hash of all; AccessDeniedError if one is not in force."""
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

        Refuses all if one batch is not covered. ``newest``: see :class:`~mipp.rpc.messages.Query`.
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
        raise NotImplementedError  # clouds and the key centre have one each
