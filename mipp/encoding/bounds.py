"""Rules that servers check on rows and queries before they compare scores: the encoding's bounds as integer sums.

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

Weights that are not integers are multiplied by a power of two and rounded. The rounding widens the range of scores that
servers compare (``QueryRule.low``, ``high``); an encoding whose widened range does not fit the ring is refused.
Everything here is public.

The README of the protocol between servers says how rows and queries are checked against these rules, and why that is
enough.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..errors import ScoreRangeError
from .parameters import EncodingParameters

__all__ = [
    "NORM",
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

#: random projections that test a group of rows; a row beyond the bound passes all with probability at most 2^-40
PROJECTIONS = 40
#: bound of a projection, over that of the norm; an honest row exceeds it with probability 2 exp(-TAIL^2) < 10^-18
TAIL = Fraction(654, 100)
#: sum of squares of a group of rows, over the squared bound of its projections; more passes all with 2^-40 at most
#: (README of the protocol, "Ranges": the theorem of Berry and Esseen needs 29.5)
NORM = 30
#: words of a group of rows, so few that its coefficients stay in a near cache
_GROUP_WORDS = 1 << 14
#: bytes per server that one test of a projection or coordinate takes, roughly
_TEST_BYTES = 16


@dataclass(frozen=True)
class Extra:
    """Rule for the last word e of an ``l2`` row: ``abs(unit * (e + centre) - sum) <= slack``, 0 <= e + centre <= most.

    With ``unit`` 1 and ``slack`` 0 the word is the sum.
    """

    word: int
    unit: int = 1
    centre: int = 0
    slack: int = 0
    most: int = 0


@dataclass(frozen=True, eq=False)
class RowRule:
    """Rule for stored rows, and the tests that check it.

    Attributes
    ----------
    ring_bits, width : int
        Bits of a ring word, and words of a row.
    weights : ndarray of uint64, shape (width,)
        Weights of the sum of squares; 0 for words that it leaves out.
    limit : int
        Largest weighted sum of squares.
    group : int
        Number of rows that one projection covers.
    exact : bool
        Words are tested one by one, because projections would need more room than the ring has.
    bound : int
        T: the bound of a projection, or of a word if ``exact``.
    hint_bits : int
        e: sums are exact modulo 2^(ring_bits + e).
    norm2 : int
        Largest plain sum of squares of a row that a client encodes; its words are clipped.
    extra : Extra, optional
        Rule for the last word of ``l2``.
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
        """M: number of bits in which weighted sums of squares are exact."""
        return self.ring_bits + self.hint_bits

    @property
    def largest(self) -> int:
        """X: bound on every word of the sum, once the tests have passed."""
        return self.bound if self.exact else 2 * self.bound

    @property
    def largest_sum(self) -> int:
        """Bound on every row's weighted sum of squares, once the tests have passed."""
        words = self.group * int(self.tested.sum())
        # projections tell of the group's sum only where they cannot wrap
        if self.exact or words * self.largest + self.bound >= 1 << self.ring_bits:
            return self.words_sum
        return min(self.words_sum, int(self.weights.max()) * NORM * self.bound**2)

    @property
    def words_sum(self) -> int:
        """The same bound, from that of every word by itself."""
        return sum(int(w) for w in self.weights) * self.largest**2

    @functools.cached_property
    def tested(self) -> np.ndarray:
        """Which words the sum covers: bool, shape (width,)."""
        return np.asarray(self.weights != 0)

    def alone(self) -> RowRule:
        """The same tests for each row alone, to find the row of a group that failed. A row that fits a group passes."""
        if self.exact or self.group == 1:
            return dataclasses.replace(self, group=1)
        norm2 = self.norm2
        bound = math.isqrt(int(TAIL * TAIL * norm2)) + 1
        return dataclasses.replace(self, group=1, bound=bound)

    def failing(self, rows: np.ndarray) -> np.ndarray:
        """Which rows (N, width), in the clear as signed integers, break the rule: bool, shape (N,).

        For the ideal twin of the protocol and for tests. Projections may also refuse rows longer than ``norm2``, which
        clients do not encode.
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
    """Rule for queries: the first ``count`` words are ``factors * c``, with c = unit * sum 2^i bit_i - shift.

    Attributes
    ----------
    ring_bits, width : int
        Bits of a ring word, and words of a query.
    count, bits : int
        Number of words that the query chooses, and bits of each.
    unit, shift : int
        Constants of c.
    factors : ndarray of int64, shape (count,)
        Factors of c.
    last : int, optional
        The word after them; all further words are 0.
    weights : ndarray of uint64, shape (count,), optional
        Weights of the sum of squares of c; None if there is nothing more to prove.
    limit : int
        Largest value of that sum.
    proof_bits : int
        Bits of a word of the proof: 16, 32 or 64.
    low, high : int
        Range of the scores of rows and queries that keep the rules: the encoding's, or a little more where weights had
        to be rounded.
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
    def score_bits(self) -> int:
        """Number of bits that hold every score of rows and queries that keep the rules, as a signed number."""
        return max(max(self.high, ~self.high).bit_length(), max(self.low, ~self.low).bit_length()) + 1

    @property
    def theta_bits(self) -> int:
        """Number of bits of a threshold, low + sum 2^i bit_i."""
        return (self.high - self.low).bit_length()

    @property
    def slack_bits(self) -> int:
        """Number of bits of the difference between the limit and the sum."""
        return 0 if self.weights is None else self.limit.bit_length()

    def words(self, *, threshold: bool) -> int:
        """Number of words of the proof for one query."""
        return self.count * self.bits + self.slack_bits + (self.theta_bits if threshold else 0)

    def relations(self, *, threshold: bool) -> int:
        """Number of sums that are zero for one query that keeps the rule."""
        return self.words(threshold=threshold) + 2 * self.width + (self.weights is not None) + threshold

    def failing(self, queries: np.ndarray) -> np.ndarray:
        """Which queries (B, width), in the clear as signed integers, break the rule: bool, shape (B,). For tests."""
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


def row_rule(encoding: EncodingParameters, width: int) -> RowRule:
    """The rule for rows of an encoding, stored in ``width`` words.

    Raises
    ------
    ScoreRangeError
        Servers cannot check rows or queries of this encoding: only users can rank.
    """
    return _rules(encoding, width)[0]


def ranking_problem(encoding: EncodingParameters) -> str:
    """The reason why servers cannot rank scores of an encoding; empty if they can."""
    low, high = encoding.score_range
    if high - low >= 1 << (encoding.ring_bits - 1):
        return "score differences of this encoding could leave the ring"
    return "" if has_rules(encoding) else "the servers cannot check the range of rows and queries of this encoding"


def has_rules(encoding: EncodingParameters) -> bool:
    """Whether servers can check rows and queries of an encoding."""
    try:
        _rules(encoding, encoding.encoded_dim)
    except ScoreRangeError:
        return False
    return True


@functools.lru_cache(maxsize=64)
def _rules(encoding: EncodingParameters, width: int) -> tuple[RowRule, QueryRule]:
    inner, ring_bits, n = encoding.inner_dim, encoding.ring_bits, encoding.encoded_dim
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
        rule = _planned(ring_bits, weights, n, n, None)
        query = QueryRule(ring_bits, width, n, 1, 2, 1, np.ones(n, np.int64), None, None, 0, ring_bits, *scores)
    else:
        weights[:inner] = encoding.integer_weights
        limit = encoding.row_norm2
        extra = Extra(inner, most=limit) if encoding.metric == "l2" else None
        rule = _planned(ring_bits, weights, limit, min(_plain(weights, limit), inner * encoding.clip**2), extra)
        query = _query_rule(encoding, width, encoding.integer_weights.tolist(), encoding.query_norm2, scores)
    if rule is None or query is None:
        raise ScoreRangeError("servers cannot check rows or queries of this encoding; only users can rank")
    return rule, query


def _plain(weights: np.ndarray, limit: int) -> int:
    """Largest plain sum of squares under a weighted one."""
    return limit // int(weights[weights > 0].min())


def _planned(ring_bits: int, weights: np.ndarray, limit: int, norm2: int, extra: Extra | None) -> RowRule | None:
    """The cheapest tests that fit the ring, or None. ``norm2``: largest plain sum of squares of an honest row."""
    width = len(weights)
    found: list[tuple[float, RowRule]] = []
    group = 1 << max(0, (_GROUP_WORDS // width).bit_length() - 1)
    for hint in (8, 16, 32) if ring_bits < 64 else (0,):
        room = (1 << min(64, ring_bits + hint) - 1) - 1
        apart = 0 if extra is None else 2 * extra.slack + extra.unit
        if ring_bits + hint > 64 or limit + apart > room:
            continue
        some = group
        while some:
            bound = math.isqrt(int(TAIL * TAIL * some * norm2)) + 1
            rule = RowRule(ring_bits, width, weights, limit, some, False, bound, hint, norm2, extra)
            # one row must fit by its words alone: else encodings of indexes whose servers do not rank would have rules
            if rule.largest < 1 << (ring_bits - 2) and rule.largest_sum <= room >= rule.alone().words_sum:
                found.append((3 * hint / 8 * width + 2 * PROJECTIONS * _TEST_BYTES / some, rule))
                break
            some //= 2
        rule = RowRule(ring_bits, width, weights, limit, group, True, math.isqrt(norm2), hint, norm2, extra)
        if rule.largest < 1 << (ring_bits - 2) and rule.largest_sum <= room:
            found.append((3 * hint / 8 * width + 2 * width * _TEST_BYTES, rule))
    return min(found, key=lambda f: f[0])[1] if found else None


def _exact_weights(encoding: EncodingParameters, *, rows: bool) -> list[Fraction]:
    """Weights of ``l2`` in steps of t: w s^2 / t for rows, t / (4 w s^2) for queries."""
    weights = [Fraction(int(w)) * Fraction(float(s)) ** 2 / Fraction(encoding.query_scale)
               for w, s in zip(encoding.integer_weights, encoding.scales, strict=True)]  # fmt: skip
    return weights if rows else [1 / (4 * w) for w in weights]


@dataclass(frozen=True)
class _Rounded:
    """A bound on a sum of squares with rational weights e, in integers: sum w x^2 <= ``limit``.

    ``norm2``: largest plain sum of squares of an honest row or query. ``off``: for those, the distance of the integer
    sum from ``unit`` times the rational one. ``ratio``: for all words, the rational sum is at most this times the
    integer sum / ``unit``.
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


def _stepped_rules(encoding: EncodingParameters, width: int) -> tuple[RowRule, QueryRule] | None:
    """The rules of l2 in steps: weights as coarse as the room in the ring allows."""
    for precision in range(8, 41, 4):
        rows = _rounded(_exact_weights(encoding, rows=True), encoding.row_norm2, encoding.clip, precision)
        exact = _exact_weights(encoding, rows=False)
        queries = _rounded(exact, encoding.query_norm2, encoding.query_clip, precision)
        slack = (rows.unit + 1) // 2 + rows.off
        # largest score that can pass: 2 sqrt(Q E) - s <= Q ratio + slack / unit, and s <= row_norm2
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


def query_rule(encoding: EncodingParameters, width: int) -> QueryRule:
    """The rule for queries of an encoding, in ``width`` words; raises ScoreRangeError as :func:`row_rule` does."""
    return _rules(encoding, width)[1]


def _query_rule(
    encoding: EncodingParameters, width: int, weights: list[int], limit: int, scores: tuple[int, int]
) -> QueryRule | None:
    """The rule for all metrics but ``l1`` and ``hamming``; None if no word of the proof is wide enough."""
    inner, ring_bits, last = encoding.inner_dim, encoding.ring_bits, None
    factors = np.ones(inner, np.int64)
    if encoding.stepped:
        last = -1
    elif encoding.metric == "l2":
        factors, last = 2 * encoding.integer_weights, -(1 << (encoding.query_bits - encoding.bits))
    # a word within the norm is no longer than the norm
    bits = min(encoding.query_bits, math.isqrt(limit // min(weights)).bit_length() + 1)
    most = max(limit, sum(weights) << (2 * bits - 2))
    proof = next((b for b in (16, 32, 64) if b >= ring_bits and most < 1 << (b - 1)), 0)
    if not proof:
        return None
    return QueryRule(
        ring_bits,
        width,
        inner,
        bits,
        1,
        1 << (bits - 1),
        factors,
        last,
        np.array(weights, np.uint64),
        limit,
        proof,
        *scores,
    )
