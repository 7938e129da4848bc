"""Check columns: what a wrong score's chance is, and that honest score shares always pass."""

import math
import os

import numpy as np
import pytest

from mipp.errors import ParameterError, ShapeError
from mipp.params import Params
from mipp.sharing import checks
from mipp.sharing.checks import CheckColumns, checks_needed, fold_columns, fold_weights, miss_bits

RINGS = (16, 32, 64)


def answered(rows, queries, ring_bits):
    """Scores (B, N) modulo the ring."""
    dtype = Params(ring_bits=ring_bits).dtype
    with np.errstate(over="ignore"):
        return np.ascontiguousarray((rows.astype(np.int64).astype(dtype) @ queries.T).T)


class Case:
    """Rows and queries of small numbers, and check columns with honest words."""

    def __init__(self, rng, ring_bits, queries, rows=40, count=None):
        self.params, self.most = Params(ring_bits=ring_bits), 7 * 7 * 6
        self.queries = rng.integers(-7, 8, (queries, 6))
        self.data = rng.integers(-7, 8, (rows, 6))
        count = count or checks_needed(2 * self.most, ring_bits) or 3
        self.check = CheckColumns(self.queries, count, self.params, (-self.most, self.most))
        whole = answered(self.data, self.check.with_columns(self.queries), ring_bits)
        self.scores, self.columns = whole[:queries].copy(), whole[queries:].copy()
        self.outside = False

    def passes(self, step=40, servers=()):
        """``servers``: shares of the columns, which these fold each for itself; else the user folds them."""
        sums = np.zeros(len(self.columns), self.params.dtype)
        if servers:
            rows = range(self.scores.shape[1])
            self.outside |= self.check.add(rows, [self.scores])
            folded = [fold_columns([share], self.check.seed, rows, self.params) for share in servers]
            return self.check.passes(np.sum(folded, axis=0, dtype=self.params.dtype)) and not self.outside
        for first in range(0, self.scores.shape[1], step):
            rows = range(first, min(first + step, self.scores.shape[1]))
            self.outside |= self.check.add(rows, [np.ascontiguousarray(self.scores[:, rows.start : rows.stop])])
            sums += self.check.folded(rows, [np.ascontiguousarray(self.columns[:, rows.start : rows.stop])])
        return self.check.passes(sums) and not self.outside


def shared(words, rng):
    """Shares of three servers."""
    a, b = (np.frombuffer(rng.bytes(words.nbytes), words.dtype).reshape(words.shape) for _ in range(2))
    return a, b, words - a - b


@pytest.mark.parametrize("ring_bits", RINGS)
@pytest.mark.parametrize("queries", [1, 2, 33])
def test_honest_answers_pass(ring_bits, queries):
    rng = np.random.default_rng(1)
    for rows, step in ((1, 8), (40, 40), (40, 16), (700, 512)):
        for _ in range(5):
            assert Case(rng, ring_bits, queries, rows).passes(step)
            case = Case(rng, ring_bits, queries, rows)
            assert case.passes(servers=shared(case.columns, rng))


@pytest.mark.nightly
def test_no_false_alarm_in_a_hundred_thousand():
    rng = np.random.default_rng(2)
    assert all(Case(rng, ring_bits, 1 + i % 5, 9).passes(16) for i in range(33_400) for ring_bits in RINGS)
    for i in range(33_400):
        for ring_bits in RINGS:
            case = Case(rng, ring_bits, 1 + i % 5, 9)
            assert case.passes(servers=shared(case.columns, rng))


@pytest.mark.parametrize("ring_bits", [32, 64])
def test_wrong_answers_do_not_pass(ring_bits):
    """Errors of one score, of all, of high bits, of two rows that cancel in a sum; and of a check column."""
    rng, word = np.random.default_rng(3), Params(ring_bits=ring_bits).dtype.type
    for kind in range(8):
        case = Case(rng, ring_bits, 3)
        z = case.scores
        with np.errstate(over="ignore"):
            if kind == 0:
                z[1, 7] += word(1)
            elif kind == 1:
                z += word(64)
            elif kind == 2:
                z[0, 3] += word(128)
            elif kind == 3:
                z[0, 3], z[0, 4] = z[0, 3] + word(1), z[0, 4] - word(1)
            elif kind == 4:
                z[0, 3], z[1, 3] = z[0, 3] + word(1), z[1, 3] - word(1)
            elif kind == 5:
                z[[0, 1]] = z[[1, 0]]
            elif kind == 6:
                z[:, [5, 9]] = z[:, [9, 5]]
            else:
                case.columns[0, 0] += word(1)
        assert not case.passes(), kind


@pytest.mark.parametrize(("ring_bits", "error"), [(16, 1 << 13), (16, 1 << 12), (16, 3 << 11), (16, 1 << 14)])
def test_chance_is_what_the_formula_says(ring_bits, error):
    """A check that is weakened to one column of few bits misses an error as often as the bound says, not more."""
    rng, tries, missed = np.random.default_rng(4), 4000, 0
    params = Params(ring_bits=ring_bits)
    queries, data = np.array([[1]]), np.zeros((8, 1), np.int64)
    for _ in range(tries):
        check = CheckColumns(queries, 1, params, (-(1 << 15), (1 << 15) - 1))
        whole = answered(data, check.with_columns(queries), ring_bits)
        whole[0, int(rng.integers(8))] += np.uint16(error)
        check.add(range(8), [whole[:1]])
        missed += check.passes(check.folded(range(8), [whole[1:]]))
    v = (error & -error).bit_length() - 1
    chance = 2.0 ** (v - ring_bits) * ((ring_bits - v) / 2 + 1)
    assert abs(missed / tries - chance) < 5 * math.sqrt(chance / tries), (missed / tries, chance)
    assert 2.0 ** -miss_bits((1 << v + 1) - 1, ring_bits) == pytest.approx(chance)


#: two columns of a ring of 16 bits, scores of less than 2^11 different values: the bound is just 2^-8
WEAK_RING, WEAK_CHECKS, WEAK_SPAN, WEAK_ERROR = 16, 2, 2**11 - 1, 1 << 10


def missed(tries, rng, *, folded, data):
    """How often a weakened check misses the error of a score that stays in range."""
    params, queries, count = Params(ring_bits=WEAK_RING), np.array([[1]]), 0
    rows, low = range(8), -(1 << 10)
    for _ in range(tries):
        check = CheckColumns(queries, WEAK_CHECKS, params, (low, low + WEAK_SPAN))
        whole = answered(data, check.with_columns(queries), WEAK_RING)
        row = int(rng.integers(8))
        whole[:1, row] += np.uint16(WEAK_ERROR)
        assert not check.add(rows, [whole[:1]])
        if folded:
            parts = [fold_columns([part], check.seed, rows, params) for part in shared(whole[1:], rng)]
            sums = np.sum(parts, axis=0, dtype=params.dtype)
        else:
            sums = check.folded(rows, [whole[1:]])
        count += check.passes(sums)
    return count


def near(count, tries, chance):
    """Within five standard deviations of the binomial distribution."""
    return abs(count - tries * chance) < 5 * math.sqrt(tries * chance * (1 - chance))


@pytest.mark.parametrize(("tries", "folded"), [
    (6000, False), (6000, True), pytest.param(100_000, False, marks=pytest.mark.nightly),
    pytest.param(100_000, True, marks=pytest.mark.nightly),
])  # fmt: skip
def test_soundness_of_a_check_weakened_to_eight_bits(tries, folded):
    """The formula is exact for the worst error, folded or not: weights and coefficients enter alike in both forms."""
    assert miss_bits(WEAK_SPAN, WEAK_RING) == 4 and checks_needed(WEAK_SPAN, WEAK_RING, 8) == WEAK_CHECKS
    rng = np.random.default_rng(6)
    assert near(missed(tries, rng, folded=folded, data=np.full((8, 1), -1000)), tries, 2.0**-8)


@pytest.mark.slow
def test_what_a_check_misses_does_not_depend_on_the_scores():
    """The same error on scores of any size, equal or not, that it leaves in range: the same chance."""
    rng, tries = np.random.default_rng(7), 12_000
    for data in ([-1024] * 8, [-1] * 8, list(range(-1000, -200, 100))):
        for folded in (False, True):
            assert near(missed(tries, rng, folded=folded, data=np.array(data)[:, None]), tries, 2.0**-8), data


def test_a_server_that_knows_the_weights_gains_nothing():
    """An error that a server corrects in its folded words, when it knows the weights, is as good as one it cannot."""
    params = Params(ring_bits=32)
    for _ in range(50):
        case = Case(np.random.default_rng(5), 32, 1, 16)
        case.scores[0, 5] += np.uint32(1)
        rows = range(16)
        case.check.add(rows, [case.scores])
        folded = case.check.folded(rows, [case.columns])
        weights = fold_weights(case.check.seed, len(folded), rows, params)
        assert not case.check.passes(folded + weights[:, 5])  # the coefficients are not known
        assert case.check.passes(folded + weights[:, 5] * case.check._coefficients[:, 0])


def test_number_of_columns():
    assert checks_needed(1, 64) == 1 and checks_needed(2**15, 16) == 0 and checks_needed(2**63, 64) == 0
    for ring_bits in RINGS:
        for width in range(1, ring_bits):
            count = checks_needed(2**width - 1, ring_bits)
            each = miss_bits(2**width - 1, ring_bits)
            assert count == 0 or (count * each >= 40 and (count == 1 or (count - 1) * each < 40))
            assert count or checks.MAX_CHECKS * each < 40


def test_weights():
    seed, params = os.urandom(32), Params(ring_bits=16)
    whole = fold_weights(seed, 3, range(100), params)
    assert whole.shape == (3, 100) and len({row.tobytes() for row in whole}) == 3
    assert (fold_weights(seed, 3, range(64, 100), params) == whole[:, 64:]).all()
    assert (fold_weights(os.urandom(32), 3, range(100), params) != whole).any()
    for bad in (seed[:31], b""):
        with pytest.raises(ParameterError):
            fold_weights(bad, 1, range(8), params)
    for some in (range(3, 100), range(7, 8), range(64, 71)):
        assert (fold_weights(seed, 3, some, params) == whole[:, some.start : some.stop]).all()


def test_nothing_is_told():
    check = CheckColumns(np.ones((1, 2), np.int64), 2, Params(), (0, 1))
    assert repr(check) == "CheckColumns(2 columns)"
    with pytest.raises(TypeError):
        check.__reduce__()
    with pytest.raises(ShapeError):
        check.passes(np.zeros(3, np.uint32))
    for count in (0, 17):
        with pytest.raises(ParameterError):
            CheckColumns(np.ones((1, 2), np.int64), count, Params(), (0, 1))
