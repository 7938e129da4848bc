"""The protocols, really run by three parties in three threads: the present selection, A's products, B, and groups."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.selection.costs import WORDS, K, Scores
from mipp import ring
from mipp.mpc import ideal
from mipp.mpc import kernels as local
from mipp.mpc.probes import Layout, choice_relations, choose, probe_shares
from mipp.mpc.query_proof import Summand, check_relations, held_by, prove, query_words
from mipp.mpc.replicated import Pair
from mipp.mpc.session import Counters, Party, run_local
from mipp.mpc.topk import combine_top_k, top_k
from mipp.params import Params
from mipp.sharing import OwnerKeys, Run, batch_schedules, key_centre_product, share_rows

PAIRS = {(1, 2): b"a" * 32, (1, 3): b"b" * 32, (2, 3): b"c" * 32}
KEYS = {i: {j: PAIRS[min(i, j), max(i, j)] for j in (1, 2, 3) if j != i} for i in (1, 2, 3)}
HEADER, SNAPSHOT = b"h" * 32, b"s" * 32


@dataclasses.dataclass
class Ran:
    """One way, run: seconds by part, and what the three parties sent."""

    way: str
    rows: int
    scores: int
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    servers: int = 0
    rounds: int = 0

    def count(self, counters: dict[int, Counters]) -> None:
        self.servers += sum(c.payload_bytes + c.framing_bytes for c in counters.values())
        self.rounds += counters[1].rounds


def timed(ran: Ran, part: str, call: Callable[[], object], rounds: int) -> None:
    """The median of ``rounds`` calls."""
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begin)
    ran.seconds[part] = statistics.median(spent)


def selected(ran: Ran, scores: Scores, shares: dict[int, np.ndarray], padding: bool, rounds: int) -> np.ndarray:
    """Rows that the present selection finds; what it sent is counted once."""
    public = scores.public(shares[1].shape[-1], padding=padding)
    counters: dict[int, Counters] = {}

    def task(party: Party):
        counters[party.index] = party.counters
        return top_k(party, shares[party.index], K, public)

    timed(ran, "selection", lambda: run_local(task, KEYS), rounds)
    parts = run_local(task, KEYS)
    ran.count(counters)
    return combine_top_k(list(parts.values()), public)[0]


def present(scores: Scores, rows: int, rounds: int) -> Ran:
    """Top-k of all scores."""
    rng = np.random.default_rng(rows)
    clear = rng.integers(scores.rule.low, scores.rule.high, rows, endpoint=True)
    shares = _additive(clear, rng)
    ran = Ran(f"present, {scores.name}", rows, rows)
    found = selected(ran, scores, shares, False, rounds)
    assert found[0].tolist() == np.lexsort((np.arange(rows), -clear))[:K].tolist()
    return ran


def _additive(clear: np.ndarray, rng: np.random.Generator) -> dict[int, np.ndarray]:
    a, b = (rng.integers(0, 1 << 32, clear.shape, dtype=np.uint32) for _ in range(2))
    return {1: a, 2: b, 3: clear.astype(np.uint32) - a - b}


# --- chosen clusters -------------------------------------------------------------------------------------------------


class Stored:
    """Rows of a layout as the servers have them: short random rows, one in ten of them padding."""

    def __init__(self, scores: Scores, layout: Layout) -> None:
        rng = np.random.default_rng(layout.rows)
        self.scores, self.layout = scores, layout
        self.rows = rng.integers(-8, 9, (layout.rows, WORDS), np.int16)
        self.rows[:, 128:] = 0
        padding = rng.random(layout.rows) < 0.1
        self.rows[padding] = 0
        self.rows[padding, 128] = 1
        self.query = rng.integers(-8, 9, (1, 128), np.int16)
        keys = OwnerKeys(bytes(32), bytes(16), bytes(16), Params())
        # the rows of a slot side by side are one row of as many words more
        shared = share_rows(self.rows.reshape(layout.scores, -1), keys)
        self.clouds = {i: shared.shares[i] for i in (1, 2)}
        self.schedules = batch_schedules(keys.server_key(3), [shared.nonce], [shared.dim], [layout.scores], 32)

    def product(self, party: int, made: np.ndarray) -> np.ndarray:
        """Score shares (1, groups * slots) from a party's query shares (1, groups, size * WORDS)."""
        lay = self.layout
        out = np.empty((1, lay.scores), np.uint32)
        for g in range(lay.groups):
            columns, some = np.ascontiguousarray(made[:, g]), slice(g * lay.slots, (g + 1) * lay.slots)
            if party < 3:
                ring.matmul(self.clouds[party][some], columns, out=out[:, some])
            else:
                run = Run(np.array([0]), np.array([some.start]), np.array([lay.slots]))
                key_centre_product(self.schedules, run, columns, out[:, some])
        return out


def claims(stored: Stored, chosen: np.ndarray) -> tuple[dict[int, Summand], dict[int, Summand]]:
    """What the user sends: the proof of its query, and its choice."""
    return prove(stored.scores.rule, stored.query), choose(chosen, stored.layout, stored.scores.rule.proof_bits)


def grouped(scores: Scores, layout: Layout, rounds: int) -> Ran:
    """One probe a group: query shares, products, selection; compared with the same in the clear."""
    stored, public = Stored(scores, layout), scores.public(layout.scores, padding=True)
    chosen = np.random.default_rng(5).integers(0, layout.size, (1, layout.groups))
    proof, choice = claims(stored, chosen)
    counters: dict[int, Counters] = {}
    params = Params()
    rule = dataclasses.replace(scores.rule, width=WORDS)

    def task(party: Party) -> np.ndarray:
        counters[party.index] = party.counters
        held = held_by(party.index)
        with party.attempt():
            party.hello(HEADER, b"p" * 32, SNAPSHOT)
            query, zero = query_words(rule, party.index, {n: proof[n] for n in held}, 1, 1, {128: -scores.apart})
            bits = Pair(*(choice[n].expanded((1, layout.clusters), query.lo.dtype, 1) for n in held))
            check_relations(party, np.concatenate([zero, choice_relations(party.index, bits, layout.groups)], axis=1))
            made = probe_shares(party, query, bits, layout.groups, params, public.score_bits)
            party.confirm()
        return made

    ran = Ran(f"one probe a group, {scores.name}", layout.rows, layout.scores)
    timed(ran, "query shares", lambda: run_local(task, KEYS), rounds)
    made = run_local(task, KEYS)
    ran.count(counters)
    timed(ran, "products of a cloud", lambda: stored.product(1, made[1]), rounds)
    timed(ran, "products of the key centre", lambda: stored.product(3, made[3]), rounds)
    plain = np.random.default_rng(6).integers(0, 1 << 32, (1, WORDS), np.uint32)
    narrow = stored.clouds[1].reshape(-1, WORDS)
    timed(ran, "plain products of a cloud", lambda: ring.matmul(narrow, plain), rounds)
    shares = {i: stored.product(i, made[i]) for i in (1, 2, 3)}
    found = selected(ran, scores, shares, True, rounds)
    query = np.zeros((1, WORDS), np.int64)
    query[:, :128], query[:, 128] = stored.query, -scores.apart
    rows = stored.rows.reshape(layout.groups, layout.slots, layout.size, WORDS)
    clear = ideal.probed_scores(rows.astype(np.int64), query, chosen)[0]
    assert found[0].tolist() == np.lexsort((np.arange(layout.scores), -clear))[:K].tolist()
    assert clear[found[0]].min() >= scores.rule.low, "padding won"
    return ran


def reshared(scores: Scores, layout: Layout, rounds: int) -> Ran:
    """B: scores of all rows reshared, multiplied with the choice. Rows lie as in ``layout``, with a choice a group."""
    rng, bits = np.random.default_rng(3), scores.bits + 1
    clear = rng.integers(scores.rule.low, scores.rule.high, layout.rows, endpoint=True)
    shares = _additive(clear, rng)
    chosen = rng.integers(0, layout.size, (1, layout.groups))
    choice = choose(chosen, layout, scores.rule.proof_bits)
    counters: dict[int, Counters] = {}

    def task(party: Party) -> np.ndarray:
        counters[party.index] = party.counters
        with party.attempt():
            party.hello(HEADER, b"p" * 32, SNAPSHOT)
            pair = _reshare_bits(party, shares[party.index], bits)
            mine = [choice[n].expanded((1, layout.clusters), np.dtype(np.uint32), 1) for n in held_by(party.index)]
            e, f = (m.reshape(layout.groups, 1, layout.size) for m in mine)
            s, t = (x.reshape(layout.groups, layout.slots, layout.size) for x in pair)
            out = ((s + t) * e + s * f).sum(axis=2, dtype=np.uint32)
            party.confirm()
        return out.reshape(1, -1)

    ran = Ran(f"B, {scores.name}", layout.rows, layout.scores)
    timed(ran, "resharing and choice", lambda: run_local(task, KEYS), rounds)
    parts = run_local(task, KEYS)
    ran.count(counters)
    found = selected(ran, scores, parts, True, rounds)
    each = clear.reshape(layout.groups, layout.slots, layout.size)
    want = each[np.arange(layout.groups), :, chosen[0]].reshape(-1)
    assert found[0].tolist() == np.lexsort((np.arange(layout.scores), -want))[:K].tolist()
    return ran


def _reshare_bits(party: Party, words: np.ndarray, bits: int) -> Pair:
    """Additive shares to replicated ones modulo 2^bits, packed. Cost: 1 round."""
    plus, minus = (local.keystream(k, len(words), words.dtype, party.threads) for k in party.zero_keys("reshare"))
    mine = words + plus - minus
    size = local.packed_words(len(words), bits)
    sent = local.pack(mine.astype(np.uint64), bits, party.threads)
    got = party.exchange("reshare", {party.previous: [sent]}, {party.next: [(size, np.uint64)]})
    theirs = local.unpack(got[party.next][0], len(words), bits, party.threads)
    return Pair(mine, theirs.astype(words.dtype))


def tensor_products(rows: int, clusters: int, probes: int, rounds: int) -> Ran:
    """A's products at a cloud: all rows with the query shares of all probes, and one plain product beside them."""
    slots = max(1, rows // clusters)
    words = np.random.default_rng(1).integers(0, 1 << 32, (slots, clusters * WORDS), np.uint32)
    columns = np.random.default_rng(2).integers(0, 1 << 32, (probes, clusters * WORDS), np.uint32)
    ran = Ran(f"A, {probes} probes of {clusters} clusters", slots * clusters, probes * slots)
    timed(ran, "products of a cloud", lambda: ring.matmul(words, columns), rounds)
    narrow, one = words.reshape(-1, WORDS), columns[:1, :WORDS].copy()
    timed(ran, "plain products of a cloud", lambda: ring.matmul(narrow, one), rounds)
    return ran
