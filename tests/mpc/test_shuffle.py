"""The shuffle: a permutation of the input that no party knows, uniform, fresh for every query and session."""

import math

import numpy as np
import pytest

from mipp.mpc.session import Party
from mipp.mpc.shuffle import role_of, shuffle
from tests.mpc.parties import in_session, run, share

RNG = np.random.default_rng(13)


def shuffled(values, width=64):
    """Values (B, N) after the shuffle, opened, with the three parties' views checked for agreement."""
    low = np.uint64((1 << width) - 1)
    words = share(values, np.uint64, RNG)
    results = [
        r
        for r, _ in run(in_session(lambda p: (shuffle(p, list(words[p.index]), width), p.counters.payload["shuffle"])))
    ]
    pairs, sent = zip(*results, strict=True)
    opened = []
    for q in range(len(values)):
        for a in range(3):
            assert np.array_equal(pairs[a][q].hi & low, pairs[(a + 1) % 3][q].lo & low)
        opened.append(sum(p[q].lo for p in pairs) & low)
    return np.array(opened), sum(sent)


@pytest.mark.parametrize("width", [1, 7, 43, 63, 64])
@pytest.mark.parametrize("queries, n", [(1, 1), (1, 2), (3, 70), (4, 1000)])
def test_a_permutation_of_the_input(queries, n, width):
    values = RNG.integers(0, 1 << min(width, 63), (queries, n)).astype(np.uint64)
    opened, sent = shuffled(values, width)
    for a, b in zip(opened, values, strict=True):
        assert np.array_equal(np.sort(a), np.sort(b))
        assert n < 70 or width == 1 or not np.array_equal(a, b)
    assert sent == 5 * 8 * -(-n * width // 64) * queries


def test_every_query_and_session_has_its_own():
    values = np.tile(np.arange(100), (3, 1))
    seen = {tuple(row) for _ in range(3) for row in shuffled(values)[0].tolist()}
    assert len(seen) == 9


def chi_square(counts, expected):
    return float(((np.asarray(counts) - expected) ** 2 / expected).sum())


def test_permutations_are_uniform():
    """All 24 orders of four values, over many queries: chi-square within 6.5 standard deviations."""
    runs = 6000
    opened, _ = shuffled(np.tile(np.arange(4), (runs, 1)))
    codes = opened.astype(np.int64) @ (4 ** np.arange(4))
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == 24
    assert chi_square(counts, runs / 24) < 23 + 6.5 * math.sqrt(2 * 23)
    # the test can fail: a permutation fixed in one place
    assert chi_square(np.bincount(np.zeros(runs, int), minlength=24), runs / 24) > 1000


@pytest.mark.parametrize("n", [3, 5])
def test_positions_are_uniform(n):
    """Where each value ends, over many queries."""
    runs = 4000
    opened, _ = shuffled(np.tile(np.arange(n), (runs, 1)))
    for value in range(n):
        where = (opened == value).argmax(axis=1)
        assert chi_square(np.bincount(where, minlength=n), runs / n) < n - 1 + 6.5 * math.sqrt(2 * (n - 1))


def test_roles_turn_with_session_and_query():
    party = Party.__new__(Party)
    for first in range(256):
        party.session = bytes([first])
        for query in range(4):
            roles = []
            for party.index in (1, 2, 3):
                roles.append(role_of(party, query))
            assert sorted(roles) == [1, 2, 3]
    assert {role_of(party, q) for q in range(3)} == {1, 2, 3}
