"""The scheme ``shares``: queries and rows are secret-shared between clouds and key centre; servers can rank.

The user shares an encoded query among t+1 clouds and all key centres. Each server multiplies its stored words (or its
keystream) by its query share, modulo the ring, and adds its part of a zero share. The score shares add up to the
scores (:mod:`mipp.sharing` has the mathematics). Three servers with t=1 can compare shared scores among themselves
(:mod:`mipp.mpc`), so that the user learns the nearest images alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..backends import Rows, Slots, ZeroShare
from ..errors import LimitError, MessageError, ShapeError
from ..io.memory import aligned_words
from ..mpc.cost import add, all_comparisons, largest_call, threshold_cost, threshold_memory, top_k_cost, top_k_memory
from ..mpc.facts import public_facts
from ..mpc.probed import PROBE, ProbedRows
from ..mpc.probes import Layout, probe_cost, probe_memory
from ..mpc.query_proof import proof_bytes
from ..params import Params
from ..rpc import messages as m
from ..rpc.description import DeploymentConfig
from ..rpc.limits import (
    MAX_ANSWER_BYTES,
    MAX_PROOF_BYTES,
    MAX_QUERIES,
    MAX_RANKED_BYTES,
    MAX_RANKED_COMPARISONS,
    MAX_RANKED_HITS,
)
from ..sharing import packed_words, query_shares
from ..sharing.checks import checks_needed
from .base import (
    Hidden,
    MemoryCost,
    PairKeys,
    RowPlan,
    Scheme,
    SearchCost,
    ServerScheme,
    UserCost,
    UserKeys,
    UserScheme,
)

__all__ = ["SharesScheme", "query_blocks", "ranked_words", "row_blocks"]

#: bytes that one server holds at once for a batch that is not answered some rows at a time
_SERVER_BYTES = 1 << 28
_NO_HASH = b"\0" * 32
#: queries under one header: with more, query shares would be larger than the score shares of a block
HEADER_QUERIES = 1 << 12
#: bytes of one server's answers in a block: with many queries some caches hold them, and sending and hashing the
#: query shares again costs little; with few queries fewer blocks are fewer rounds
BLOCK_BYTES, FEW_QUERIES, FEW_BYTES = 16 << 20, 64, 32 << 20
#: fewer rows cost more in sending and hashing the query shares again than smaller replies save
LEAST_ROWS = 1 << 11
#: rows of a block are a multiple: whole cache lines of answers, and whole blocks of packed ones
LINE = 512


class SharesScheme(Scheme):
    """Two or three clouds and a key centre; those of a query compare scores among themselves."""

    name = "shares"
    cloud_counts = (2, 3)
    summary = "two or three clouds and a key centre; queries and rows are secret-shared, servers can rank"

    def params(self, ring_bits: int, clouds: int | None = None) -> Params:
        return Params(1 + self.checked_clouds(clouds), 1, ring_bits, self.name)

    def for_user(
        self, config: DeploymentConfig, servers: Sequence[int] | None, secrets: Mapping[str, bytes], threads: int | None
    ) -> UserScheme:
        return _User(config, servers)

    def for_server(
        self, config: DeploymentConfig, index: int, pair_keys: PairKeys, threads: int | None, keys: UserKeys,
        own_key: bytes,
    ) -> ServerScheme:  # fmt: skip
        return _Server(config, index, pair_keys)


class _User(UserScheme):
    by_rows = True

    def __init__(self, config: DeploymentConfig, servers: Sequence[int] | None) -> None:
        p = config.params
        self._config = config
        self.servers = p.check_servers(servers if servers is not None else p.clouds[: p.t + 1] + p.key_centres)

    def hide(self, encoded: np.ndarray) -> Hidden:
        return Hidden(query_shares(encoded, self._config.params, self.servers))

    @functools.cached_property
    def checks(self) -> int:
        return _checks(self._config)

    @property
    def unverified(self) -> str:
        if self.checks:
            return ""
        return "answers are not verified: the ring leaves too little room above the scores; a wider one would"

    def header_blocks(self, queries: int) -> Iterator[slice]:
        return query_blocks(queries)

    def row_blocks(self, rows: int, queries: int) -> Iterator[range]:
        return row_blocks(rows, queries, self._config.params.dtype.itemsize)

    def portion(self, rows: int, ranking: str, k: int, *, choice: int = 0) -> int:
        config = self._config
        held = max(1, rows if ranking == "user" else ranked_words(rows, k))
        most = min(MAX_QUERIES, max(1, _SERVER_BYTES // (held * config.params.dtype.itemsize)))
        if ranking != "user" and config.certifies:
            most = min(most, max(1, MAX_PROOF_BYTES // proof_bytes(config.query_rule, 1, choice=choice)))
            if choice:
                rule = config.query_rule
                most = min(most, max(1, MAX_RANKED_BYTES // probe_memory(choice, 1, rule.width, rule.ring_bits)))
            most = min(most, max(1, MAX_RANKED_HITS // k)) if k else most
        return most

    def verify(self, score_shares: Sequence[np.ndarray], queries: int, rows: int, width: int) -> None:
        shape, dtype = (queries, self._words(rows, width)), self._config.params.dtype
        if any(s.shape != shape or s.dtype != dtype for s in score_shares):
            raise MessageError("a server's answer has the wrong shape")

    def open(self, score_shares: Sequence[np.ndarray], rows: int, opening: Any) -> list[np.ndarray]:
        return list(score_shares)  # they add up to the scores; who ranks them adds them on the way

    def _words(self, rows: int, width: int) -> int:
        """Words of a query's score shares."""
        bits = self._config.params.ring_bits
        return packed_words(rows, width or bits, bits)

    def cost(
        self, images: int, batches: int, k: int, ranking: str, queries: int, width: int, *, checks: int = 0,
        folded: bool = False,
    ) -> SearchCost:  # fmt: skip
        config, params = self._config, self._config.params
        word = params.dtype.itemsize
        share = params.padded(config.encoding.encoded_dim) * word
        if ranking == "user":
            headers = [part.stop - part.start for part in query_blocks(queries)]
            asked = [(some, len(rows)) for some in headers for rows in row_blocks(images, some + checks, word)]
            back = 0 if folded else checks * word
            user: UserCost = {
                "rounds": len(asked) + len(headers) * folded,
                "sent": sum((some + checks) * share + 16 * batches for some, _ in asked),
                "received": sum(some * word * self._words(rows, width) + back * rows for some, rows in asked)
                + len(headers) * folded * checks * word,
            }
            memory = self._memory_by_user(images, k, queries, width, checks, folded)
            return {"ranking": ranking, "images": images, "user": user, "memory": memory}
        public, rule = public_facts(config, _NO_HASH, _NO_HASH, images), config.query_rule
        user = {
            "rounds": 1,
            "sent": queries * share + 16 * batches,
            "received": {"server": 8 * k, "threshold": images // 8}[ranking] * queries,
            "proof": proof_bytes(rule, queries, threshold=ranking == "threshold"),
        }
        kept = k if ranking == "server" else 0
        most = min(queries, self.portion(images, ranking, kept))
        held = top_k_memory(public, most, k) if kept else threshold_memory(public, most)
        memory = {
            "read": -(-queries // most) * images * share,
            "server": held + most * share,
            # of a range search a bit and a byte of each row
            "user": 3 * user["received"] + queries * ({"server": 16 * k, "threshold": 2 * images}[ranking] + 3 * share),
        }
        report: SearchCost = {"ranking": ranking, "images": images, "user": user, "memory": memory}
        if ranking == "threshold":
            exact = threshold_cost(public, queries, (rule.low, rule.high), rule=rule)
            report["servers"] = {
                "rounds": exact.rounds,
                "bytes": exact.bytes,
                "comparisons": queries * images,
            }
            return report
        cost = top_k_cost(public, queries, k, rule=rule)
        report["servers"] = {
            "rounds": cost.typical.rounds,
            "bytes": cost.typical.bytes,
            "bound": {"rounds": cost.bound.rounds, "bytes": cost.bound.bytes},
            "comparisons": cost.comparisons,
        }
        return report

    def probe_cost(self, images: int, batches: int, k: int, queries: int, probed: ProbedRows) -> SearchCost:
        config, count = self._config, probed.clusters.count
        rule, scores = config.query_rule, probed.scores
        public = public_facts(config, _NO_HASH, _NO_HASH, scores, probed=True)
        report = self.cost(images, batches, k, "server", queries, 0)
        report["user"]["proof"] = proof_bytes(rule, queries, choice=count)
        report["clustered"] = probed.clustered
        most = min(queries, self.portion(scores, "server", k, choice=count))
        share = rule.width * config.params.dtype.itemsize
        report["memory"]["server"] = top_k_memory(public, most, k) + most * share + probed.memory(most, rule)
        cost = top_k_cost(public, queries, k, rule=rule)
        made = probe_cost(
            Layout(probed.clusters.groups, probed.clusters.size, 1), queries, rule.width, public.score_bits
        )
        for some in (cost.typical, cost.bound):
            add(some, made)
        report["servers"] = {
            "rounds": cost.typical.rounds,
            "bytes": cost.typical.bytes,
            "bound": {"rounds": cost.bound.rounds, "bytes": cost.bound.bytes},
            "comparisons": cost.comparisons,
        }
        return report

    def _memory_by_user(
        self, images: int, k: int, queries: int, width: int, checks: int, folded: bool
    ) -> MemoryCost:  # fmt: skip
        """Memory of a search that the user ranks: that of a block of rows, and of check columns that wait."""
        params = self._config.params
        word, share = params.dtype.itemsize, params.padded(self._config.encoding.encoded_dim) * params.dtype.itemsize
        headers = [part.stop - part.start for part in query_blocks(queries)]
        server = user = 0
        for some in set(headers):
            rows = len(next(row_blocks(images, some + checks, word), range(0)))
            sent = word * some * (self._words(rows, width) if width else rows)
            # small answers that columns came with stay with them (mipp.server.kept_columns)
            kept = images * word * (some + checks if 2 * some <= checks else checks) if folded else 0
            computed = word * (some + checks) * rows
            server = max(server, computed + (sent if width else 0) + kept + (some + checks) * share)
            columns = 0 if folded else word * checks * rows
            user = max(user, len(self.servers) * (sent + columns + (some + checks) * share))
        return {"read": len(headers) * images * share, "server": server, "user": user + 16 * queries * k}


def ranked_words(rows: int, k: int) -> int:
    """Words that a server holds at once for one query that the servers rank, or compare with a threshold (k = 0)."""
    # comparing needs some eight words a score where handing it out needs one
    return 8 * largest_call(rows, k)


def _checks(config: DeploymentConfig) -> int:
    low, high = config.checked_range
    return checks_needed(high - low, config.params.ring_bits)


class _Server(ServerScheme):
    by_rows = True

    @functools.cached_property
    def checks(self) -> int:
        return _checks(self._config)

    def __init__(self, config: DeploymentConfig, index: int, pair_keys: PairKeys) -> None:
        self._config = config
        # zero shares name servers by their points
        self._number = config.params.point_number
        self._index = self._number(index)
        self._pair_keys = pair_keys

    @property
    def query_bytes(self) -> int:
        p, clusters = self._config.params, self._config.clusters
        words = (MAX_QUERIES + self.checks) * p.padded(self._config.encoding.encoded_dim) + MAX_QUERIES
        proof = 0  # of one query: it may be larger than those of many
        if self._config.certifies:
            choice = 0 if clusters is None else clusters.count
            proof = proof_bytes(self._config.query_rule, 1, threshold=True, choice=choice)
        return words * p.dtype.itemsize + max(MAX_PROOF_BYTES, proof)

    def check_query(self, header: m.QueryHeader, query_share: np.ndarray, theta: np.ndarray) -> None:
        p, count = self._config.params, header.queries + header.checks
        width = p.padded(self._config.encoding.encoded_dim)
        shapes_fit = query_share.shape == (count, width) and theta.shape in ((0,), (header.queries,))
        if not shapes_fit or {query_share.dtype, theta.dtype} != {p.dtype}:
            raise ShapeError(f"query shares must be ({count}, {width}) words of {8 * p.dtype.itemsize} bits")

    def check_size(self, header: m.QueryHeader, rows: int) -> int:
        size = self._config.params.dtype.itemsize
        words = (header.queries + header.checks) * rows * size
        if header.ranking == "user":
            if words > MAX_ANSWER_BYTES:
                raise LimitError(
                    f"{header.queries} queries over {rows} rows are {words} bytes of score shares; at most "
                    f"{MAX_ANSWER_BYTES} are given at once: ask for some rows at a time"
                )
            return words
        if header.ranking in ("server", PROBE) and 1 <= header.k <= rows:  # small batches are compared many times over
            words = header.queries * largest_call(rows, header.k) * size
            compared = all_comparisons(rows, header.k)
            if compared > MAX_RANKED_COMPARISONS + 2 * rows:
                raise LimitError(
                    f"the first {header.k} of {rows} rows take some {compared} comparisons between the servers; they "
                    f"make at most {MAX_RANKED_COMPARISONS}, and two a row: use a smaller k, or ranking='user'"
                )
        clusters = self._config.clusters if header.ranking == PROBE else None
        if clusters is not None:
            rule = self._config.query_rule
            words = max(words, probe_memory(clusters.count, header.queries, rule.width, rule.ring_bits))
        if words > MAX_RANKED_BYTES and header.queries > 1:
            raise LimitError(
                f"{header.queries} queries over {rows} rows are {words} bytes of scores and comparisons; at most "
                f"{MAX_RANKED_BYTES} are ranked at once: send fewer queries together"
            )
        proof = proof_bytes(
            self._config.query_rule, header.queries, threshold=header.ranking == "threshold",
            choice=0 if clusters is None else clusters.count,
        )  # fmt: skip
        if proof > MAX_PROOF_BYTES and header.queries > 1:
            raise LimitError(f"proofs of {header.queries} queries are {proof} bytes; send fewer queries together")
        if header.queries * header.k > MAX_RANKED_HITS:
            raise LimitError(f"{header.queries} queries with k={header.k} are more than {MAX_RANKED_HITS} hits")
        return words

    def answer(
        self,
        header: m.QueryHeader,
        header_hash: bytes,
        plan: RowPlan,
        stored: Rows,
        query_share: np.ndarray,
        rows: range,
        checked: Any = None,
    ) -> np.ndarray:
        """Masked score shares (B, rows) words: uniformly random without the other servers'."""
        out = aligned_words(len(query_share), len(rows), query_share.dtype)
        self.fill(header, header_hash, plan, stored, query_share, rows, out)
        return out

    def fill_probed(
        self, header: m.QueryHeader, header_hash: bytes, plan: RowPlan, stored: Rows, query_share: np.ndarray,
        probed: ProbedRows, made: np.ndarray, out: np.ndarray,
    ) -> None:  # fmt: skip
        zero = self._zero_share(header, header_hash, plan)
        given = [
            Slots(piece.first, piece.layout.size, piece.layout.slots, 0, piece.layout.scores, piece.dead)
            for piece in probed.pieces
        ]
        first = int(probed.starts[-1])
        stored.slots(made, given, zero, out[:, :first])
        for others in probed.others(len(query_share)):
            runs = [(start, stop) for start, stop, _ in others]
            rows = sum(stop - start for start, stop in runs)
            if all(live is None for _, _, live in others):
                stored.scores(query_share, runs, zero, out[:, first : first + rows])
                first += rows
                continue
            words, at = aligned_words(len(query_share), rows, query_share.dtype), 0
            stored.scores(query_share, runs, zero, words)
            for start, stop, live in others:
                some = words[:, at : at + stop - start]
                count = stop - start if live is None else len(live)
                out[:, first : first + count] = some if live is None else some[:, live]
                first, at = first + count, at + stop - start

    def _zero_share(self, header: m.QueryHeader, header_hash: bytes, plan: RowPlan) -> ZeroShare:
        servers = [self._number(server) for server in header.servers]
        pair_keys = {self._number(other): key for other, key in self._pair_keys(header.keys).items()}
        return ZeroShare(self._index, servers, pair_keys, header_hash, plan.masks)

    def fill(
        self,
        header: m.QueryHeader,
        header_hash: bytes,
        plan: RowPlan,
        stored: Rows,
        query_share: np.ndarray,
        rows: range,
        out: np.ndarray,
    ) -> None:
        count, dtype = len(query_share), query_share.dtype
        zero = self._zero_share(header, header_hash, plan)
        for some, start, stop, live in plan.spans(rows):
            into = out[:, some] if live is None else aligned_words(count, stop - start, dtype)
            stored.scores(query_share, [(start, stop)], zero, into)
            if live is not None:
                out[:, some] = into[:, live]


def query_blocks(queries: int) -> Iterator[slice]:
    """The queries under each header."""
    for first in range(0, queries, HEADER_QUERIES):
        yield slice(first, min(first + HEADER_QUERIES, queries))


def row_blocks(rows: int, queries: int, word_bytes: int) -> Iterator[range]:
    """The blocks of ``rows`` rows for ``queries`` under one header; 64 MiB of answers at most (32 of 32-bit words)."""
    size = FEW_BYTES if queries <= FEW_QUERIES else BLOCK_BYTES
    step = max(LEAST_ROWS, size // (queries * word_bytes) // LINE * LINE)
    for first in range(0, rows, step):
        yield range(first, min(first + step, rows))
