"""What servers check of rows and queries before they compare scores: that they keep the encoding's bounds.

Every metric comes down to two sums of weighted squares. With x the words of a stored row and q those of a query,
``sum w_j x_j^2 <= R`` and ``sum v_j q_j^2 <= Q`` over the integers bound every score by Cauchy-Schwarz:

==================  =====================================  =======================  ===================================
metric              rows                                   queries                  besides
==================  =====================================  =======================  ===================================
ip, cosine,         |x|^2 <= row_norm2                     |q|^2 <= query_norm2
hellinger
l1, hamming         |x|^2 <= encoded_dim                   every word is 1 or -1
l2                  sum w x^2 <= row_norm2                 q_j = 2 w_j c_j,         last word: row sum w x^2, query -c
                                                           sum w c^2 <= query_norm2
l2 in steps of t    sum w s^2 x^2 / t <= row_norm2         sum t q^2 / (4 w s^2)    last word: row that sum, rounded,
                                                           <= query_norm2           less h; query -1
==================  =====================================  =======================  ===================================

Weights that are no integers are multiplied by a power of two and rounded; what that leaves open widens the range of
scores that servers compare (``QueryRule.low``, ``high``), and an encoding where it does not fit is refused. Everything
here is public.

How rows and queries are checked against these rules, and why that is enough, is in ``mipp/protocol/README.md``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ScoreRangeError

if TYPE_CHECKING:
    from .encoding import Encoding

__all__ = [
    "PROJECTIONS",
    "TAIL",
    "Extra",
    "QueryRule",
    "RowRule",
    "has_rules",
    "query_rule",
    "ranking_problem",
    "row_rule",
]

#: random projections a group of rows is tested by: one beyond the bound passes all with at most 2^-40
PROJECTIONS = 40
#: a projection's bound over the norm's. An honest one is beyond it with probability 2 exp(-TAIL^2) < 10^-18.
TAIL = Fraction(654, 100)
#: words of a group of rows: its coefficients stay in a near cache
_GROUP_WORDS = 4096
#: bytes that one test of a projection or coordinate takes per server, about
_TEST_BYTES = 16


@dataclass(frozen=True)
class Extra:
    """The last word e of an l2 row: ``abs(unit * (e + centre) - sum) <= slack``, and 0 <= e + centre <= most.

    With ``unit`` 1 and ``slack`` 0 it is the sum.
    """

    word: int
    unit: int = 1
    centre: int = 0
    slack: int = 0
    most: int = 0


@dataclass(frozen=True, eq=False)
class RowRule:
    """What rows must keep, and by what tests.

    Attributes
    ----------
    ring_bits, width : k, and words of a row
    weights : (width,) uint64; 0 for words that the sum leaves out
    limit : largest weighted sum of squares
    group : rows that one projection covers
    exact : words are tested one by one, as projections do not reach
    bound : T: of a projection, or of a word if ``exact``
    hint_bits : e: sums are exact modulo 2^(k + e)
    norm2 : largest plain sum of squares of a row that a client encodes, whose words are clipped
    extra : the last word of l2, or None
    """

    ring_bits: int
    width: int
    weights: np.ndarray
    limit: int
    group: int
    exact: bool
    bound: int
    hint_bits: int
    norm2: int
    extra: Extra | None = None

    @property
    def sum_bits(self) -> int:
        """M: bits in which weighted sums of squares are exact."""
        return self.ring_bits + self.hint_bits

    @property
    def largest(self) -> int:
        """X: no word of the sum is larger once the tests passed."""
        return self.bound if self.exact else 2 * self.bound

    @functools.cached_property
    def tested(self) -> np.ndarray:
        """Which words the sum covers, (width,) bool."""
        return np.asarray(self.weights != 0)

    def alone(self) -> RowRule:
        """The same tests for each row by itself, to find out which row of a group failed. What fits a group fits it."""
        if self.exact or self.group == 1:
            return dataclasses.replace(self, group=1)
        norm2 = self.norm2
        bound = math.isqrt(int(TAIL * TAIL * norm2)) + 1
        return dataclasses.replace(self, group=1, bound=bound)

    def failing(self, rows: np.ndarray) -> np.ndarray:
        """Which rows (N, width), in the clear as signed integers, break the rule: (N,) bool.

        As :mod:`mipp.mpc.ideal` and tests see it; projections may also refuse rows that clients do not encode,
        longer than ``norm2``.
        """
        bad = np.zeros(len(rows), bool)
        weights = [int(w) for w in self.weights]
        for i, row in enumerate(rows.tolist()):
            total = sum(w * x * x for w, x in zip(weights, row, strict=True))
            bad[i] = total > self.limit
            if self.exact:
                bad[i] |= any(abs(x) > self.bound for w, x in zip(weights, row, strict=True) if w)
            if self.extra is not None:
                e = self.extra
                stored = row[e.word] + e.centre
                bad[i] |= abs(e.unit * stored - total) > e.slack or not 0 <= stored <= e.most
        return bad


@dataclass(frozen=True, eq=False)
class QueryRule:
    """What queries must keep. A query's first ``count`` words are ``factors * c``, c = unit * sum 2^i bit_i - shift.

    Attributes
    ----------
    ring_bits, width : k, and words of a query
    count, bits : words that the query chooses, and bits of each
    unit, shift : of c
    factors : (count,) int64
    last : the word behind them, or None; all other words are 0
    weights : (count,) uint64, of the sum of weighted squares of c; None: nothing more to prove
    limit : its largest value
    proof_bits : bits of a word of the proof: 16, 32 or 64
    low, high : range of the scores of rows and queries that keep the rules: the encoding's, or a little more where
        weights had to be rounded
    """

    ring_bits: int
    width: int
    count: int
    bits: int
    unit: int
    shift: int
    factors: np.ndarray
    last: int | None
    weights: np.ndarray | None
    limit: int
    proof_bits: int
    low: int
    high: int

    @property
    def theta_bits(self) -> int:
        """Thresholds are low + sum 2^i bit_i over so many bits."""
        return (self.high - self.low).bit_length()

    @property
    def slack_bits(self) -> int:
        """Bits of limit less the sum."""
        return 0 if self.weights is None else self.limit.bit_length()

    def words(self, *, threshold: bool) -> int:
        """Words of the proof of one query."""
        return self.count * self.bits + self.slack_bits + (self.theta_bits if threshold else 0)

    def relations(self, *, threshold: bool) -> int:
        """Sums that are zero for one query that keeps the rule."""
        return self.words(threshold=threshold) + 2 * self.width + (self.weights is not None) + threshold

    def failing(self, queries: np.ndarray) -> np.ndarray:
        """Which queries (B, width), in the clear as signed integers, break the rule: (B,) bool. For tests."""
        bad = np.zeros(len(queries), bool)
        factors = self.factors.tolist()
        least, most = -self.shift, self.unit * ((1 << self.bits) - 1) - self.shift
        weights = [0] * self.count if self.weights is None else [int(w) for w in self.weights]
        for i, query in enumerate(queries.tolist()):
            tail = [] if self.last is None else [self.last]
            tail += [0] * (self.width - self.count - len(tail))
            c = [q // f for q, f in zip(query, factors, strict=False)]
            whole = all(x * f == q for x, f, q in zip(c, factors, query, strict=False))
            fits = all(least <= x <= most and (x + self.shift) % self.unit == 0 for x in c)
            total = sum(w * x * x for w, x in zip(weights, c, strict=True))
            bad[i] = not whole or not fits or query[self.count :] != tail or total > self.limit
        return bad


# --- rows -----------------------------------------------------------------------------------------------------------


def row_rule(encoding: Encoding, width: int) -> RowRule:
    """The rule for rows of an encoding, stored in ``width`` words.

    Raises
    ------
    ScoreRangeError
        The servers have no way to check rows or queries of this encoding: only users can rank.
    """
    return _rules(encoding, width)[0]


def ranking_problem(encoding: Encoding) -> str:
    """Why servers cannot rank scores of an encoding, or nothing."""
    low, high = encoding.score_range
    if high - low >= 1 << (encoding.ring_bits - 1):
        return "score differences of this encoding could leave the ring"
    return "" if has_rules(encoding) else "the servers cannot check the range of rows and queries of this encoding"


def has_rules(encoding: Encoding) -> bool:
    """Whether servers can check rows and queries of an encoding."""
    try:
        _rules(encoding, encoding.encoded_dim)
    except ScoreRangeError:
        return False
    return True


@functools.lru_cache(maxsize=64)
def _rules(encoding: Encoding, width: int) -> tuple[RowRule, QueryRule]:
    inner, k, n = encoding.inner_dim, encoding.ring_bits, encoding.encoded_dim
    weights, scores = np.zeros(width, np.uint64), encoding.score_range
    query: QueryRule | None = None
    rule: RowRule | None = None
    if encoding.stepped:
        try:
            rule, query = _stepped_rules(encoding, width) or (None, None)
        except OverflowError:
            # steps so far from one that integer weights cannot have their ratios
            rule, query = None, None
    elif encoding.metric in ("l1", "hamming"):
        weights[:n] = 1
        rule = _planned(k, weights, n, n, None)
        query = QueryRule(k, width, n, 1, 2, 1, np.ones(n, np.int64), None, None, 0, k, *scores)
    else:
        weights[:inner] = encoding.integer_weights
        limit = encoding.row_norm2
        extra = Extra(inner, most=limit) if encoding.metric == "l2" else None
        rule = _planned(k, weights, limit, min(_plain(weights, limit), inner * encoding.clip**2), extra)
        query = _query_rule(encoding, width, encoding.integer_weights.tolist(), encoding.query_norm2, scores)
    if rule is None or query is None:
        raise ScoreRangeError("servers cannot check rows or queries of this encoding; only users can rank")
    return rule, query


def _plain(weights: np.ndarray, limit: int) -> int:
    """Largest plain sum of squares under a weighted one."""
    return limit // int(weights[weights > 0].min())


def _planned(k: int, weights: np.ndarray, limit: int, norm2: int, extra: Extra | None) -> RowRule | None:
    """The cheapest tests that reach, or None. ``norm2``: largest plain sum of squares of an honest row."""
    width, total = len(weights), sum(int(w) for w in weights)
    found: list[tuple[float, RowRule]] = []
    group = 1 << max(0, (_GROUP_WORDS // width).bit_length() - 1)
    for hint in (8, 16, 32) if k < 64 else (0,):
        room = (1 << min(64, k + hint) - 1) - 1
        apart = 0 if extra is None else 2 * extra.slack + extra.unit
        if k + hint > 64 or limit + apart > room:
            continue
        some = group
        while some:
            bound = math.isqrt(int(TAIL * TAIL * some * norm2)) + 1
            if 2 * bound < 1 << (k - 2) and total * 4 * bound * bound <= room:
                cost = 3 * hint / 8 * width + 2 * PROJECTIONS * _TEST_BYTES / some
                found.append((cost, RowRule(k, width, weights, limit, some, False, bound, hint, norm2, extra)))
                break
            some //= 2
        bound = math.isqrt(norm2)
        if bound < 1 << (k - 2) and total * bound * bound <= room:
            cost = 3 * hint / 8 * width + 2 * width * _TEST_BYTES
            found.append((cost, RowRule(k, width, weights, limit, group, True, bound, hint, norm2, extra)))
    return min(found, key=lambda f: f[0])[1] if found else None


def _exact_weights(encoding: Encoding, *, rows: bool) -> list[Fraction]:
    """Weights of l2 in steps: w s^2 / t of rows, t / (4 w s^2) of queries."""
    weights = [Fraction(int(w)) * Fraction(float(s)) ** 2 / Fraction(encoding.query_scale)
               for w, s in zip(encoding.integer_weights, encoding.scales, strict=True)]  # fmt: skip
    return weights if rows else [1 / (4 * w) for w in weights]


@dataclass(frozen=True)
class _Rounded:
    """A weighted sum of squares with rational weights e, at most ``most``, as integers: sum w x^2 <= ``limit``.

    ``norm2``: an honest plain sum of squares; ``off``: how far the integer sum is from ``unit`` times the rational one
    for it; ``ratio``: the rational sum is at most this times the integer sum / ``unit``, whatever the words.
    """

    unit: int
    weights: list[int]
    limit: int
    norm2: int
    off: int
    ratio: Fraction


def _rounded(exact: list[Fraction], most: int, clip: int, precision: int) -> _Rounded:
    """Weights rounded to integers, with an error below 2^-precision of each; words are at most ``clip``."""
    ratio = (1 << precision) / min(exact)
    power = math.ceil(math.log2(float(ratio))) if ratio > 1 else 0
    unit = 1 << power
    weights = [round(unit * e) for e in exact]
    norm2 = min(int(most / min(exact)) + 1, len(exact) * clip**2)
    # clients bound the sum by float arithmetic
    off = (norm2 + 1) // 2 + (unit * (most + 1) >> 40) + 1
    excess = max(e * unit / w for e, w in zip(exact, weights, strict=True))
    return _Rounded(unit, weights, unit * most + off, norm2, off, excess)


def _stepped_rules(encoding: Encoding, width: int) -> tuple[RowRule, QueryRule] | None:
    """The rules of l2 in steps: weights as coarse as the room in the ring allows."""
    for precision in range(8, 41, 4):
        rows = _rounded(_exact_weights(encoding, rows=True), encoding.row_norm2, encoding.clip, precision)
        exact = _exact_weights(encoding, rows=False)
        queries = _rounded(exact, encoding.query_norm2, encoding.query_clip, precision)
        slack = (rows.unit + 1) // 2 + rows.off
        # what can pass: 2 sqrt(Q E) - s <= Q ratio + slack / unit, and s <= row_norm2
        query = queries.limit * queries.ratio / queries.unit
        row = rows.limit * rows.ratio / rows.unit
        high = int(query * rows.ratio + Fraction(slack, rows.unit)) + encoding.centre
        low = -(encoding.row_norm2 + math.isqrt(int(4 * query * row)) + 1) + encoding.centre
        low, high = min(low, encoding.score_range[0]), max(high, encoding.score_range[1])
        if max(high - low, -low, high) >= 1 << (encoding.ring_bits - 1):
            continue
        weights = np.zeros(width, np.uint64)
        if max(rows.weights) < 1 << 62:
            weights[: encoding.inner_dim] = rows.weights
            extra = Extra(encoding.inner_dim, rows.unit, encoding.centre, slack, encoding.row_norm2)
            rule = _planned(encoding.ring_bits, weights, rows.limit, rows.norm2, extra)
            query_rule = _query_rule(encoding, width, queries.weights, queries.limit, (low, high))
            if rule is not None and query_rule is not None:
                return rule, query_rule
    return None


# --- queries --------------------------------------------------------------------------------------------------------


def query_rule(encoding: Encoding, width: int) -> QueryRule:
    """The rule for queries of an encoding, in ``width`` words; ScoreRangeError as for :func:`row_rule`."""
    return _rules(encoding, width)[1]


def _query_rule(
    encoding: Encoding, width: int, weights: list[int], limit: int, scores: tuple[int, int]
) -> QueryRule | None:
    """For all metrics but codes; None if no word is wide enough."""
    inner, k, last = encoding.inner_dim, encoding.ring_bits, None
    factors = np.ones(inner, np.int64)
    if encoding.stepped:
        last = -1
    elif encoding.metric == "l2":
        factors, last = 2 * encoding.integer_weights, -(1 << (encoding.query_bits - encoding.bits))
    # a word within the norm is no longer than the norm
    bits = min(encoding.query_bits, math.isqrt(limit // min(weights)).bit_length() + 1)
    most = max(limit, sum(weights) << (2 * bits - 2))
    proof = next((b for b in (16, 32, 64) if b >= k and most < 1 << (b - 1)), 0)
    if not proof:
        return None
    return QueryRule(
        k, width, inner, bits, 1, 1 << (bits - 1), factors, last, np.array(weights, np.uint64), limit, proof, *scores
    )
