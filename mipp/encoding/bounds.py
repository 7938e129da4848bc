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

Weights that are no integers are multiplied by a power of two and rounded; what that leaves open is counted against the
encoding's score range, and :func:`row_rule` refuses an encoding where it would not fit. Everything here is public.

How rows and queries are checked against these rules, and why that is enough, is in ``mipp/protocol/README.md``.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ScoreRangeError

if TYPE_CHECKING:
    from .encoding import Encoding

__all__ = ["PROJECTIONS", "TAIL", "Extra", "QueryRule", "RowRule", "query_rule", "row_rule"]

#: random projections a group of rows is tested by: one beyond the bound passes all with at most 2^-40
PROJECTIONS = 40
#: a projection's bound over the norm's. An honest one is beyond it with probability 2 exp(-TAIL^2) < 10^-18.
TAIL = Fraction(654, 100)
#: words of a group of rows: its coefficients stay in a near cache
_GROUP_WORDS = 4096
#: bytes that one test of a projection or coordinate takes per server, about
_TEST_BYTES = 16
_MOST_POWER = 48


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
        """The same tests for each row by itself, to find out which row of a group failed."""
        if self.exact or self.group == 1:
            return self
        rule = _planned(self.ring_bits, self.weights, self.limit, _plain(self.weights, self.limit), self.extra, most=1)
        if rule is None:
            raise ScoreRangeError("rows of this encoding cannot be tested one by one")
        return rule

    def failing(self, rows: np.ndarray) -> np.ndarray:
        """Which rows (N, width), in the clear as signed integers, break the rule: (N,) bool. Exact; for tests."""
        bad = np.zeros(len(rows), bool)
        weights = [int(w) for w in self.weights]
        for i, row in enumerate(rows.tolist()):
            total = sum(w * x * x for w, x in zip(weights, row, strict=True))
            bad[i] = total > self.limit
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
    low, theta_bits : thresholds are low + sum 2^i bit_i
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
    theta_bits: int

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
        The servers have no way to check rows of this encoding: only users can rank.
    """
    inner = encoding.inner_dim
    weights = np.zeros(width, np.uint64)
    rule: RowRule | None = None
    if encoding.metric in ("l1", "hamming"):
        weights[: encoding.encoded_dim] = 1
        rule = _planned(encoding.ring_bits, weights, encoding.encoded_dim, encoding.encoded_dim, None)
    elif encoding.metric != "l2":
        weights[:inner] = 1
        rule = _planned(encoding.ring_bits, weights, encoding.row_norm2, encoding.row_norm2, None)
    elif not encoding.stepped:
        weights[:inner] = encoding.integer_weights
        extra = Extra(inner, most=encoding.row_norm2)
        rule = _planned(encoding.ring_bits, weights, encoding.row_norm2, _plain(weights, encoding.row_norm2), extra)
    else:
        rule = _stepped_rows(encoding, weights)
    if rule is None:
        raise ScoreRangeError("servers cannot check rows of this encoding; only users can rank")
    return rule


def _plain(weights: np.ndarray, limit: int) -> int:
    """Largest plain sum of squares under a weighted one."""
    return limit // int(weights[weights > 0].min())


def _planned(
    k: int, weights: np.ndarray, limit: int, norm2: int, extra: Extra | None, *, most: int = 1 << 20
) -> RowRule | None:
    """The cheapest tests that reach, or None. ``norm2``: of an honest row, unweighted; ``most``: rows of a group."""
    width, total = len(weights), sum(int(w) for w in weights)
    found: list[tuple[float, RowRule]] = []
    group = 1 << max(0, (_GROUP_WORDS // width).bit_length() - 1)
    for hint in (8, 16, 32) if k < 64 else (0,):
        room = (1 << min(64, k + hint) - 1) - 1
        apart = 0 if extra is None else 2 * extra.slack + extra.unit
        if k + hint > 64 or limit + apart > room:
            continue
        some = min(group, most)
        while some:
            bound = math.isqrt(int(TAIL * TAIL * some * norm2)) + 1
            if 2 * bound < 1 << (k - 2) and total * 4 * bound * bound <= room:
                cost = 3 * hint / 8 * width + 2 * PROJECTIONS * _TEST_BYTES / some
                found.append((cost, RowRule(k, width, weights, limit, some, False, bound, hint, extra)))
                break
            some //= 2
        bound = math.isqrt(norm2)
        if bound < 1 << (k - 2) and total * bound * bound <= room:
            cost = 3 * hint / 8 * width + 2 * width * _TEST_BYTES
            found.append((cost, RowRule(k, width, weights, limit, min(group, most), True, bound, hint, extra)))
    return min(found, key=lambda f: f[0])[1] if found else None


def _stepped_rows(encoding: Encoding, weights: np.ndarray) -> RowRule | None:
    inner, row, low_high = encoding.inner_dim, encoding.row_norm2, encoding.score_range
    exact = [Fraction(int(w)) * Fraction(s) ** 2 / Fraction(encoding.query_scale)
             for w, s in zip(encoding.integer_weights, encoding.scales, strict=True)]  # fmt: skip
    norm2 = int(row / min(exact)) + 1
    query = _stepped_query_limit(encoding)
    if query is None:
        return None
    for power in range(_MOST_POWER):
        unit = 1 << power
        rounded = [round(unit * e) for e in exact]
        if min(rounded) < 1 or max(rounded) >= 1 << 62:
            continue
        # an honest row: its exact sum is at most row_norm2 (by float arithmetic), its last word that sum, rounded
        floats = (unit * (row + 1) >> 40) + 1
        limit = unit * row + (norm2 + 1) // 2 + floats
        slack = unit // 2 + (norm2 + 1) // 2 + floats
        # what can pass: how far the exact sum may be from the integer one, and from the last word
        off = Fraction(limit // min(rounded) + 1, 2)
        real, apart = (limit + off) / unit, (slack + off) / unit
        worst = -(row + math.isqrt(int(4 * query * real)) + 1)
        if query + apart >= encoding.query_norm2 + 2 or worst < low_high[0] - encoding.centre:
            continue
        weights[:inner] = rounded
        extra = Extra(inner, unit, encoding.centre, slack, row)
        return _planned(encoding.ring_bits, weights, limit, norm2, extra)
    return None


# --- queries --------------------------------------------------------------------------------------------------------


def query_rule(encoding: Encoding, width: int) -> QueryRule:
    """The rule for queries of an encoding, in ``width`` words; ScoreRangeError as for :func:`row_rule`."""
    inner, k = encoding.inner_dim, encoding.ring_bits
    low, high = encoding.score_range
    theta = (high - low).bit_length()
    factors = np.ones(encoding.encoded_dim, np.int64)
    if encoding.metric in ("l1", "hamming"):
        return QueryRule(k, width, encoding.encoded_dim, 1, 2, 1, factors, None, None, 0, k, low, theta)
    weights, limit, last = np.ones(inner, np.uint64), encoding.query_norm2, None
    factors = factors[:inner]
    if encoding.stepped:
        found = _stepped_query(encoding)
        if found is None:
            raise ScoreRangeError("servers cannot check queries of this encoding; only users can rank")
        (weights, limit), last = found, -1
    elif encoding.metric == "l2":
        factors, last = 2 * encoding.integer_weights, -(1 << (encoding.query_bits - encoding.bits))
        weights = encoding.integer_weights.astype(np.uint64)
    # a word within the norm is no longer than the norm
    bits = min(encoding.query_bits, math.isqrt(limit // int(weights.min())).bit_length() + 1)
    most = max(limit, sum(int(w) for w in weights) << (2 * bits - 2))
    proof = next((b for b in (16, 32, 64) if b >= k and most < 1 << (b - 1)), 0)
    if not proof:
        raise ScoreRangeError("servers cannot check queries of this encoding; only users can rank")
    return QueryRule(k, width, inner, bits, 1, 1 << (bits - 1), factors, last, weights, limit, proof, low, theta)


def _stepped_query(encoding: Encoding) -> tuple[np.ndarray, int] | None:
    """Integer weights of t q^2 / (4 w s^2), times a power of two, and the limit of their sum."""
    exact = [Fraction(encoding.query_scale) / (4 * int(w) * Fraction(s) ** 2)
             for w, s in zip(encoding.integer_weights, encoding.scales, strict=True)]  # fmt: skip
    norm2, query, row = int(encoding.query_norm2 / min(exact)) + 1, encoding.query_norm2, encoding.row_norm2
    for power in range(_MOST_POWER):
        unit = 1 << power
        rounded = [round(unit * e) for e in exact]
        if min(rounded) < 1 or sum(rounded) >= 1 << 62:
            continue
        limit = unit * query + (norm2 + 1) // 2 + (unit * (query + 1) >> 40) + 1
        over = (limit + Fraction(limit // min(rounded) + 1, 2)) / unit - query
        if over <= Fraction(1, 8) and over * 8 * (row + 1) <= query:
            return np.array(rounded, np.uint64), limit
    return None


def _stepped_query_limit(encoding: Encoding) -> Fraction | None:
    """The largest exact squared length of a query that passes."""
    found = _stepped_query(encoding)
    if found is None:
        return None
    weights, limit = found
    exact = [Fraction(encoding.query_scale) / (4 * int(w) * Fraction(s) ** 2)
             for w, s in zip(encoding.integer_weights, encoding.scales, strict=True)]  # fmt: skip
    # sum e_j q_j^2 under sum w_j q_j^2 <= limit
    return max(e / int(w) for e, w in zip(exact, weights, strict=True)) * limit
