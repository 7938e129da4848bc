"""Bytes and rounds of each way to select, computed; and the present selection's comparisons, simulated.

Bytes are of everybody: between the three servers and from the user, for one query. What servers send the user (k words
each) is left out. The present selection is predicted by :mod:`mipp.mpc.cost`, the chosen clusters by
:func:`mipp.mpc.probes.probe_cost`.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mipp.encoding import Encoding
from mipp.encoding.bounds import QueryRule, query_rule
from mipp.mpc import quickselect
from mipp.mpc.cost import comparison_cost, top_k_cost
from mipp.mpc.probes import Layout, probe_cost
from mipp.mpc.query_proof import proof_bytes
from mipp.mpc.quickselect import Quickselect
from mipp.mpc.session import Public
from mipp.params import Params

K, DIM = 10, 128
#: words of a row with one more that says whether it is padding
WORDS = Params().padded(DIM + 1)


@dataclass(frozen=True)
class Scores:
    """Scores of an encoding: what servers know of them, and bytes of a query's proof and query shares."""

    name: str
    rule: QueryRule

    def public(self, rows: int, *, padding: bool = False) -> Public:
        """With padding rows, scores reach as far below the range as it is wide: one bit more."""
        low = self.rule.low - self.apart * padding
        return Public(b"h" * 32, b"s" * 32, rows, self.rule.ring_bits, low, self.rule.high)

    @property
    def apart(self) -> int:
        """What a padding row's score is less: more than any two scores differ."""
        return self.rule.high - self.rule.low + 1

    @property
    def bits(self) -> int:
        return self.public(2).score_bits

    @property
    def proof(self) -> int:
        """Bytes of the proof, two clouds."""
        return 2 * proof_bytes(self.rule, 1)


def scores_of(name: str) -> Scores:
    encoding = {
        "cosine": Encoding("cosine", DIM),
        "8 bits": Encoding("ip", DIM, row_norm2=DIM * 127**2, query_norm2=DIM * 127**2),
    }[name]
    return Scores(name, query_rule(encoding, Params().padded(DIM)))


@dataclass(frozen=True)
class Bill:
    """Bytes of one query by who sends them, and rounds between servers."""

    servers: float
    user: float
    rounds: int

    @property
    def total(self) -> float:
        return self.servers + self.user


def selection(scores: Scores, rows: int, *, padding: bool = False) -> tuple[float, int]:
    """Bytes of all servers and rounds of the selection among ``rows`` scores."""
    cost = top_k_cost(scores.public(rows, padding=padding), 1, min(K, rows), rule=scores.rule).typical
    return sum(cost.bytes.values()), cost.rounds


def present(scores: Scores, rows: int) -> Bill:
    """All rows are ranked."""
    spent, rounds = selection(scores, rows)
    return Bill(spent, scores.proof + 3 * DIM * scores.rule.ring_bits // 8, rounds)


def tensor(scores: Scores, rows: int, clusters: int, probes: int, padded: float) -> Bill:
    """A: the user shares the products of the query with each probe's unit vector, packed, one server's from a seed."""
    spent, rounds = selection(scores, probes * _slots(rows, clusters, padded), padding=True)
    words = probes * clusters * WORDS * (scores.bits + 1) / 8
    return Bill(spent, scores.proof + 2 * words + _choice(scores, probes * clusters), rounds)


def made(scores: Scores, rows: int, clusters: int, probes: int, padded: float) -> Bill:
    """A, with the products made by the servers as in :mod:`mipp.mpc.probes`, for each probe over all clusters."""
    spent, rounds = selection(scores, probes * _slots(rows, clusters, padded), padding=True)
    words = probes * clusters * WORDS * (scores.bits + 1) / 8
    return Bill(spent + 3 * words, scores.proof + _choice(scores, probes * clusters), rounds + 2)


def reshared(scores: Scores, rows: int, clusters: int, probes: int, padded: float) -> Bill:
    """B: scores of all rows are reshared, and multiplied with each probe's unit vector."""
    slots = _slots(rows, clusters, padded)
    spent, rounds = selection(scores, probes * slots, padding=True)
    bits = scores.bits + 1
    query = 3 * WORDS * scores.rule.ring_bits // 8
    return Bill(
        spent + 3 * slots * clusters * bits / 8, scores.proof + query + _choice(scores, probes * clusters), rounds + 1
    )


def grouped(scores: Scores, rows: int, clusters: int, groups: int, padded: float) -> Bill:
    """One probe a group, products made by the servers: :mod:`mipp.mpc.probes`."""
    layout = Layout(groups, clusters // groups, _slots(rows, clusters, padded))
    spent, rounds = selection(scores, layout.scores, padding=True)
    cost = probe_cost(layout, 1, WORDS, scores.bits + 1)
    return Bill(spent + sum(cost.bytes.values()), scores.proof + _choice(scores, clusters), rounds + cost.rounds)


def functions(scores: Scores, rows: int, clusters: int, probes: int, padded: float) -> Bill:
    """Rows in replicated shares: for each pair of servers, two keys of a point function with the query as its value."""
    spent, rounds = selection(scores, probes * _slots(rows, clusters, padded), padding=True)
    key = 17 * math.ceil(math.log2(clusters)) + WORDS * scores.rule.ring_bits // 8
    return Bill(spent, scores.proof + 6 * probes * key + _choice(scores, probes * clusters), rounds)


def _slots(rows: int, clusters: int, padded: float) -> int:
    return -(-int(padded * rows) // clusters)


def _choice(scores: Scores, words: int) -> float:
    """Bytes of the bits that choose, two clouds."""
    return 2 * words * scores.rule.proof_bits // 8


# --- the pivot -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pivot:
    """Simulated selections: comparisons a row, calls, and bytes a row and server that they make with a key's width."""

    rows: int
    k: int
    #: rows that a call beside the pass may spend one comparison for; 16 is what is built
    rows_a_spare: int
    comparisons: float
    calls: float
    rounds: float
    bytes: float


@contextlib.contextmanager
def spending(rows_a_spare: int) -> Iterator[None]:
    """Selections with larger or smaller samples."""
    kept = quickselect._ROWS_A_SPARE, quickselect._LEAST_SPARE
    quickselect._ROWS_A_SPARE = rows_a_spare
    quickselect._LEAST_SPARE = kept[1] * kept[0] // rows_a_spare
    try:
        yield
    finally:
        quickselect._ROWS_A_SPARE, quickselect._LEAST_SPARE = kept


def simulate(rows: int, k: int, rows_a_spare: int, runs: int, width: int) -> Pivot:
    """Selections on random orders, in the clear."""
    compared, calls = [], []
    with spending(rows_a_spare):
        for seed in range(runs):
            key = np.random.default_rng(seed).permutation(rows).astype(np.int32)
            select, spent, steps = Quickselect(rows, k), 0, 0
            while not select.done:
                answers = []
                for c in select.requests():
                    a, b = c.positions(0, c.size)
                    bits = key[a] > key[b]
                    answers.append(np.packbits(np.pad(bits, (0, -len(bits) % 64)), bitorder="little").view(np.uint64))
                    spent += c.size
                select.feed(answers)
                steps += 1
            assert key[select.order].tolist() == list(range(rows - 1, rows - 1 - k, -1))
            compared.append(spent / rows)
            calls.append(steps)
    each, rounds = comparison(width)
    mean = statistics.mean(compared)
    return Pivot(rows, k, rows_a_spare, round(mean, 3), statistics.mean(calls), 6 + rounds * statistics.mean(calls),
                 round(5 * width / 24 + each * mean, 2))  # fmt: skip


def comparison(width: int) -> tuple[float, int]:
    """Bytes a server and rounds of one comparison."""
    cost = comparison_cost(1 << 20, width)
    return sum(cost.bytes.values()) / 3 / (1 << 20), cost.rounds
