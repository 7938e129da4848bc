"""A server's part in queries: checks before work, the state that a query is about, quota, score shares or a ranking.

A query is checked in this order: signature (before it comes here), header, grants, query share and commitment,
snapshot, batches, limits; then its quota is charged, and only then anything is computed. Who is granted nothing has
nothing read that is large.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import Rows
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    OutOfRangeError,
    ParameterError,
    ShapeError,
    StaleSnapshotError,
)
from ..io.memory import aligned_words
from ..mpc.link import Link
from ..mpc.probed import PROBE, ProbedRows, add_least
from ..mpc.probes import Layout, choice_relations, probe_cost, probe_shares, split_choice
from ..mpc.query_proof import Summand, query_words, relations, unpack, verified
from ..mpc.session import Party, Public
from ..mpc.topk import KeyRoom
from ..rpc import messages as m
from ..rpc.associated_data import query_share_commitment
from ..rpc.chain import snapshot_hash
from ..rpc.limits import MAX_QUERIES
from ..rpc.wire import Frames, decode, frames_hash
from ..sharing import pack_score_shares
from ..store.views import OwnerView
from .admission import Admission
from .base import Request, ServerBase, log
from .kept_columns import KeptColumns, folded
from .plan import Plan
from .ranking import MemoryBudget, Prepared, check_ranking, rank, ranking_memory, require_covered

__all__ = ["OpenHeaders", "Queries", "row_range"]

#: plans that are kept for the next query over the same state
_PLANS = 8


@dataclass(frozen=True, repr=False)
class _Asked:
    """A query as it came: its header, the header's hash, and what this server got with it."""

    signer: bytes
    header: m.QueryHeader
    hash: bytes
    query: m.Query


#: grants in force that a query names, and the hash of all to its user
_InForce = tuple[list[m.Grant], bytes]
#: a plan, the grants that allow it, the public facts of a ranking over it, and its scores if clusters are chosen
_Checked = tuple[Plan, list[m.Grant], Public, ProbedRows | None]


class Queries:
    """Answers queries at one server.

    Parameters
    ----------
    server : whose
    """

    def __init__(self, server: ServerBase) -> None:
        self._server = server
        self._headers, self._columns, self._memory = OpenHeaders(), KeptColumns(), MemoryBudget()
        self._plans: dict[bytes, Plan] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Drop what is kept in memory."""
        self._plans.clear()
        self._columns.close()

    def drop(self, owners: set[bytes]) -> None:
        """Drop plans and headers over rows of these owners."""
        with self._lock:
            for key, plan in list(self._plans.items()):
                if any(part.view.owner in owners for part in plan.parts):
                    del self._plans[key]
        self._headers.drop(owners)
        self._columns.drop(owners)

    # --- requests -----------------------------------------------------------------------------------------------

    def answer(self, request: Request[m.Query]) -> m.Answer | m.Ranked | m.Pending:
        """Answer a query: with score shares if the user ranks, else with this server's part of a ranking."""
        frames: Frames = [f.data for f in request.content.header]
        asked = _Asked(request.signer, decode(frames, m.QueryHeader), frames_hash(frames), request.content)
        self._columns.prune()
        if asked.header.ranking == "user":
            return self._score_shares(asked)
        if asked.header.ranking in ("server", "threshold", PROBE):
            return self._ranking(asked)
        raise ParameterError(f"ranking must be user, server, {PROBE} or threshold, not {asked.header.ranking!r}")

    def collect(self, request: Request[m.CollectRanking]) -> m.Ranked | m.Pending:
        """The outcome of a ranking that was answered with Pending."""
        return self._admission().collect(request.signer, request.content.header)

    def fold(self, request: Request[m.FoldColumns]) -> m.FoldedColumns:
        """This server's part of the folded check columns of a query; its header is counted again before more."""
        server, msg = self._server, request.content
        kept = self._columns.take(msg.header, request.signer, lambda: self._headers.forget(msg.header))
        self.in_force(kept.header)
        return m.FoldedColumns(folded(kept, msg.seed, server.config.params, server.threads))

    def _score_shares(self, asked: _Asked) -> m.Answer:
        """Authorise, charge the quota, and compute for the rows that are asked for."""
        header, query, scheme = asked.header, asked.query, self._server.scheme
        in_force, checked = self._check(asked)
        # some rows of a header that was answered before: of the same state, whatever was uploaded or deleted since
        known = self._headers.find(asked.hash) if scheme.by_rows else None
        if known is not None:
            plan = known
        else:
            plan, grants = self._authorise(header, query.newest, in_force)
        rows = row_range(query.first, query.count, plan.live_total)
        size = scheme.check_size(header, len(rows))
        if header.folded:
            self._columns.require_room(asked.signer, size * header.checks // (header.queries + header.checks))
        self._server.room_for(asked.signer, size)
        if known is None:
            self._charge(header, grants, plan)
            if scheme.by_rows:
                self._headers.remember(asked.hash, header.user, plan)
        words = scheme.answer(header, asked.hash, plan, self._server.rows(plan), query.query_share, rows, checked)
        words, columns = words[: header.queries], words[header.queries :]
        if header.folded:
            owners = frozenset(part.view.owner for part in plan.parts)
            is_open = functools.partial(self._headers.is_open, asked.hash)
            self._columns.keep(asked.hash, header, owners, plan.live_total, rows.start, columns, is_open)
            columns = columns[:0]
        # public facts decide: whole words are sent where a score could need them
        if not query.width or query.width != self._server.config.score_width or not plan.certified():
            return m.Answer(words, 0, columns)
        return m.Answer(pack_score_shares(words, query.width, threads=self._server.threads), query.width, columns)

    def _ranking(self, asked: _Asked) -> m.Ranked | m.Pending:
        """Check and park the query; it runs when all three servers have it."""
        header, query = asked.header, asked.query
        admission = self._admission()
        size = query.query_share.nbytes + query.theta.nbytes + query.proof.nbytes
        size += 8 * max(header.queries, 0) * max(header.k, 0)
        return admission.ask(
            asked.signer, asked.hash, size, lambda: self._rankable(asked, query.newest),
            lambda link, checked: self._rank(asked, link, checked), servers=self._parties(header),
        )  # fmt: skip

    def _rankable(self, asked: _Asked, newest: bytes) -> _Checked:
        """Refuse a query that may not be ranked; computes nothing."""
        header, server = asked.header, self._server
        in_force, _ = self._check(asked)
        plan, grants = self._authorise(header, newest, in_force)
        clusters = server.config.clusters if header.ranking == PROBE else None
        if clusters is not None:  # before anything is made for each batch and each deleted row
            require_covered(header, plan.live_total)
            self._check_provable(asked, plan)
            for number, given in enumerate(grants):
                if given.min_rows:
                    _require_rows(given, plan.sure_rows(clusters, number))
        probed = None if clusters is None else plan.probed(clusters)
        server.scheme.check_size(header, plan.live_total if probed is None else probed.scores)
        public = check_ranking(header, asked.hash, server.config, asked.query.theta, plan.live_total, probed)
        if clusters is None:
            self._check_provable(asked, plan)
        return plan, grants, public, probed

    def _check_provable(self, asked: _Asked, plan: Plan) -> None:
        """Refuse rows that are not in range for sure, a proof of another shape or one the header does not commit to."""
        server, header = self._server, asked.header
        party = self._parties(header).index(server.index) + 1
        verified(
            server.config.query_rule, server.index, unpack(party, asked.query.seeds, asked.query.proof),
            header.proofs, header.queries, threshold=header.ranking == "threshold", choice=self._choice_bits(header),
        )  # fmt: skip
        plan.require_certified(server.index)

    def _choice_bits(self, header: m.QueryHeader) -> int:
        """Bits of the choice of clusters that follow those of a query's proof."""
        clusters = self._server.config.clusters
        return clusters.count if clusters is not None and header.ranking == PROBE else 0

    def _rank(self, asked: _Asked, link: Link, checked: _Checked | None) -> m.Ranked:
        """This server's part of one attempt; ``checked`` is None if what was found is too old."""
        server, header = self._server, asked.header

        def prepare(held: contextlib.ExitStack) -> Prepared:
            plan, grants, public, probed = checked or self._rankable(asked, b"")
            held.enter_context(self._memory.held(ranking_memory(public, header, server.config, probed)))
            self._charge(header, grants, plan)
            query_share, stored = asked.query.query_share, server.rows(plan)
            if probed is not None:
                return self._probed(asked, plan, stored, probed, public, all(g.scores for g in grants))
            room = KeyRoom(header.queries, public) if header.ranking == "server" else None
            shares = aligned_words(header.queries, public.rows, query_share.dtype) if room is None else room.words
            rows, scores = range(plan.live_total), all(g.scores for g in grants)
            server.scheme.fill(header, asked.hash, plan, stored, query_share, rows, shares)
            return Prepared(shares if room is None else room, scores, public, self._relations(asked))

        ended = server.metrics.ranking if server.metrics is not None else None
        try:
            pair_keys = server.keys.pair_keys(header.keys)
            parties = self._parties(header)
            with contextlib.ExitStack() as held:
                return rank(
                    server.index, parties, pair_keys, link, header, functools.partial(prepare, held), asked.query.theta,
                    server.threads, ended,
                )  # fmt: skip
        except OutOfRangeError:
            count = server.store.note_out_of_range(header.user)
            log.warning(
                "server %d: user %s sent a query out of range, %d so far", server.index, header.user.hex(), count
            )
            raise

    def _probed(
        self, asked: _Asked, plan: Plan, stored: Rows, probed: ProbedRows, public: Public, scores: bool
    ) -> Prepared:
        """What is ready for a ranking of chosen clusters: query shares and products follow within its session."""
        server, query, header, parties = self._server, asked.query, asked.header, self._parties(asked.header)
        config, clusters, threads = server.config, probed.clusters, server.threads or 0
        place, rule = parties.index(server.index) + 1, config.query_rule
        summands, choice = split_choice(
            rule, place, unpack(place, query.seeds, query.proof), header.queries, clusters.count, threads
        )
        words, _ = query_words(rule, place, summands, header.queries, threads)
        zero = np.concatenate(
            [self._relations(asked, summands), choice_relations(place, choice, clusters.groups)], axis=1
        )
        room, width = KeyRoom(header.queries, public), public.score_bits

        def fill(party: Party) -> None:
            made = probe_shares(party, words, choice, clusters.groups, config.params, width, parties)
            server.scheme.fill_probed(header, asked.hash, plan, stored, query.query_share, probed, made, room.words)
            add_least(room.words, probed, choice, public.low)
            party.counters.lap("product")

        cost = probe_cost(Layout(clusters.groups, clusters.size, 1), header.queries, rule.width, width)
        return Prepared(room, scores, public, zero, fill, cost, plan.total)

    def _relations(self, asked: _Asked, summands: Mapping[int, Summand] | None = None) -> np.ndarray:
        """This server's shares of what is zero for a query in range; ``summands``: of the proof, if they are known."""
        server, query, parties = self._server, asked.query, self._parties(asked.header)
        party = parties.index(server.index) + 1
        return relations(
            server.config.query_rule, server.config.params, party,
            unpack(party, query.seeds, query.proof) if summands is None else summands,
            query.query_share, query.theta, server.threads or 0, parties,
        )  # fmt: skip

    def _parties(self, header: m.QueryHeader) -> tuple[int, ...]:
        return self._server.config.params.parties(header.servers)

    def _admission(self) -> Admission:
        if self._server.admission is None:
            raise ParameterError("these servers do not compare scores; use ranking='user'")
        return self._server.admission

    # --- checks -------------------------------------------------------------------------------------------------

    def _check(self, asked: _Asked) -> tuple[_InForce, Any]:
        """Whose query it is, for which index and servers, and whether the query share is the one committed to.

        Returns the grants that it names, and what the scheme answers it with.
        """
        server, header, query = self._server, asked.header, asked.query
        if header.deployment != server.config.id or header.user != asked.signer or len(header.nonce) != 16:
            raise AuthenticationError("the query's header is another deployment's or another user's")
        probed = header.ranking == PROBE
        if header.encoding != (server.config.probe_hash if probed else server.config.encoding.hash):
            raise ParameterError("the query is encoded for another index")
        servers = server.config.params.check_servers(header.servers)
        here = tuple(header.servers) == servers and server.index in servers
        if not here or len(header.commitments) != len(servers):
            raise ParameterError(
                "the query's servers must be sorted, with one commitment each, and this one among them"
            )
        if not 1 <= header.queries <= MAX_QUERIES:
            raise ShapeError(f"a header is of 1 to {MAX_QUERIES} queries, not {header.queries}")
        checked = server.scheme.by_rows and header.ranking == "user"
        if header.checks not in ((0, server.scheme.checks) if checked else (0,)) or (header.folded > header.checks):
            raise ParameterError(f"such a query has no check columns, or {server.scheme.checks}")
        in_force = self.in_force(header)
        given = server.scheme.check_query(header, query.query_share, query.theta)
        if (query.first or query.count) and not checked:
            raise ParameterError("these answers are not given for some rows alone")
        if header.ranking == "user" and (header.proofs or query.seeds or query.proof.size):
            raise ParameterError("a query that its user ranks carries no proof")
        server.keys.pair_keys(header.keys)  # refuses keys that are not valid here, before anything is counted
        commitment = query_share_commitment(query.salt, query.query_share, query.theta)
        if len(query.salt) != 32 or commitment != header.commitments[servers.index(server.index)]:
            raise AuthenticationError("the query share is not the one that the header commits to")
        return in_force, given

    def _charge(self, header: m.QueryHeader, grants: list[m.Grant], plan: Plan) -> None:
        """Count the header's queries against the quotas of its grants, and what its check columns tell.

        Folded ones tell a word each, which is less than a query tells, unless an owner has fewer rows than that.
        """
        few = min(plan.live_by_owner, default=0) < header.checks
        count = header.queries + (1 if header.folded and not few else header.checks)
        used = [(grant.owner, name, grant.quota) for name, grant in zip(header.grants, grants, strict=True)]
        self._server.store.count_queries(header.user, used, count)

    def in_force(self, header: m.QueryHeader | m.FetchHeader) -> _InForce:
        """The grants that a query names, and the hash of all; AccessDeniedError if one is not in force."""
        grants = self._server.granted(header.user)
        chosen = []
        for grant in header.grants:
            if grant not in grants:
                raise AccessDeniedError(
                    "a grant of the query is not in force (never given, replaced, revoked, expired)"
                    + self._server.ended(header.user)
                )
            chosen.append(grants[grant])
        return chosen, m.grants_hash(grants)

    def _authorise(self, header: m.QueryHeader, newest: bytes, in_force: _InForce) -> tuple[Plan, list[m.Grant]]:
        """Grants, snapshot and batches of a query: the rows it covers, and the grants.

        Refuses all if one batch is not covered. ``newest``: see :class:`~mipp.rpc.messages.Query`.
        """
        plan, chosen = self.covered(header, newest, in_force)
        for given, live in zip(chosen, plan.live_by_owner, strict=True):
            # chosen clusters have a name of their own: by many choices a user reaches more rows with one query vector
            if header.ranking not in given.rankings:
                raise AccessDeniedError(f"a grant does not allow ranking {header.ranking!r}")
            if header.ranking == "threshold":
                if given.max_k:
                    raise AccessDeniedError(f"a grant allows k up to {given.max_k}, a threshold has no such limit")
            elif header.k < 1 or (given.max_k and header.k > given.max_k):
                raise AccessDeniedError(f"a grant allows k up to {given.max_k}, not {header.k}")
            _require_rows(given, live)
        return plan, chosen

    def covered(
        self, header: m.QueryHeader | m.FetchHeader, newest: bytes, in_force: _InForce | None = None
    ) -> tuple[Plan, list[m.Grant]]:
        """The rows that a header covers, whatever its grants allow to do with them, and these grants.

        ``in_force``: of :meth:`in_force`, if it was asked already.
        """
        chosen, all_grants = self.in_force(header) if in_force is None else in_force
        owners = [g.owner for g in chosen]
        if not owners or owners != sorted(set(owners)):
            raise ParameterError("a query names one grant per owner, in order of owners, and at least one")
        if len(header.positions) != len(owners) or len(header.counts) != len(owners):
            raise ParameterError("a query names a position and a number of batches for each owner")
        if min(header.counts) < 0 or header.batches.shape != (sum(header.counts), 16):
            raise ShapeError("a query's batches are as many as it says for its owners together, with ids of 16 bytes")
        views = []
        for owner, position in zip(owners, header.positions, strict=True):
            view = self._server.store.view_at(owner, position)
            if view is None or (newest and view.base is not view):
                raise StaleSnapshotError("the index changed since the query's snapshot")
            views.append(view)
        if len(newest) == 32 and newest != all_grants:
            raise StaleSnapshotError("what owners grant this user changed since the query's snapshot")
        if header.snapshot != snapshot_hash([(v.owner, v.position, v.hash) for v in views]):
            raise StaleSnapshotError("the index changed since the query's snapshot")
        return self._plan(header, views), chosen

    def _plan(self, header: m.QueryHeader | m.FetchHeader, views: list[OwnerView]) -> Plan:
        key = hashlib.sha256(header.snapshot + repr(header.counts).encode() + header.batches.tobytes()).digest()
        with self._lock:
            plan = self._plans.get(key)
            # the files' rows may have moved (a compaction) though the state is the same
            if plan is not None and all(p.view.base is v.base for p, v in zip(plan.parts, views, strict=True)):
                return plan
            plan = Plan(views, header.batches, header.counts, self._server.index)
            now = {view.owner: view.base for view in views}
            # plans of an older state would keep its rows in memory
            for old, kept in list(self._plans.items()):
                if any(now.get(p.view.owner, p.view.base) is not p.view.base for p in kept.parts):
                    del self._plans[old]
            while len(self._plans) >= _PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = plan
        return plan


def _require_rows(grant: m.Grant, covered: int) -> None:
    """AccessDeniedError for a query that covers fewer of an owner's rows than its grant wants."""
    if covered < grant.min_rows:
        raise AccessDeniedError(f"a grant wants queries to cover at least {grant.min_rows} rows, not {covered}")


def row_range(first: int, count: int, live: int) -> range:
    """Rows that a query asks for of ``live`` ones; 0 and 0 are all. ParameterError if they are not there."""
    if first == count == 0:
        return range(live)
    if first < 0 or count < 1 or first + count > live:
        raise ParameterError(f"rows {first} to {first + count} are not among the {live} that the query covers")
    return range(first, first + count)


class OpenHeaders:
    """Headers that were counted against quotas, and the plans that they are answered by, block after block.

    A batch of queries counts once, in however many parts it comes, and all parts are of one state of the index: a
    header's plan stays valid for ``seconds`` whatever is uploaded, merged or deleted meanwhile. In memory; a header
    that is not remembered (too old, one of too many, or the server was restarted) is authorised and counted again. So
    it is never counted less than once.

    Parameters
    ----------
    size, per_user : headers remembered in all, and of one user
    seconds : for how long
    """

    def __init__(self, size: int = 256, per_user: int = 16, seconds: float = 600.0) -> None:
        self._size, self._per_user, self._seconds = size, per_user, seconds
        self._open: OrderedDict[bytes, tuple[bytes, float, Plan]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, header: bytes) -> Plan | None:
        """The plan of a header that is remembered."""
        with self._lock:
            kept = self._open.get(header)
            if kept is None or time.monotonic() > kept[1]:
                self._open.pop(header, None)
                return None
            self._open.move_to_end(header)
            return kept[2]

    def is_open(self, header: bytes) -> bool:
        """Whether a header is remembered."""
        with self._lock:
            return header in self._open

    def forget(self, header: bytes) -> None:
        """Have a header be authorised and counted again before it is answered."""
        with self._lock:
            self._open.pop(header, None)

    def remember(self, header: bytes, user: bytes, plan: Plan) -> None:
        """Remember a header that was authorised and counted."""
        now = time.monotonic()
        with self._lock:
            self._open[header] = user, now + self._seconds, plan
            for old in [h for h, kept in self._open.items() if now > kept[1]]:
                del self._open[old]
            of_user = [h for h, kept in self._open.items() if kept[0] == user]
            for old in of_user[: max(0, len(of_user) - self._per_user)]:
                del self._open[old]
            while len(self._open) > self._size:
                self._open.popitem(last=False)

    def drop(self, owners: set[bytes]) -> None:
        """Forget headers over rows of these owners."""
        with self._lock:
            for old, (_, _, plan) in list(self._open.items()):
                if any(part.view.owner in owners for part in plan.parts):
                    del self._open[old]
