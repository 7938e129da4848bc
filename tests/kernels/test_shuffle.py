"""Kernels of the shuffle: every tier against plain integers, uniform permutations, the split by open bits."""

import numpy as np
import pytest

from mipp._native import _core
from tests.kernels.test_compare import KEYS, THREADS, empty, extremes, words
from tests.reference import compare as oracle


@pytest.fixture
def rng():
    return np.random.default_rng(24)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 255, 256, 257, 258, 2049, 5000])
def test_permutation(tier, n):
    perm = _core.permutation(KEYS[3], n)
    assert perm.dtype == np.uint32
    assert perm.tolist() == oracle.permutation(KEYS[3], n)[0]
    assert sorted(perm.tolist()) == list(range(n))
    assert n < 255 or perm.tolist() != _core.permutation(KEYS[4], n).tolist()


def test_permutation_with_rejected_words():
    """Long enough for some words to be rejected."""
    expected, rejected = oracle.permutation(KEYS[5], 150_000)
    assert rejected > 0
    assert _core.permutation(KEYS[5], 150_000).tolist() == expected


def test_permutations_are_uniform():
    """All 24 of four elements, and each element at each place of 50: chi-square."""
    counts, keys = {}, 24_000
    places = np.zeros((50, 50))
    for i in range(keys):
        key = i.to_bytes(32, "big")
        order = tuple(_core.permutation(key, 4).tolist())
        counts[order] = counts.get(order, 0) + 1
        places[np.arange(50), _core.permutation(key, 50)] += 1
    assert len(counts) == 24
    assert sum((c - keys / 24) ** 2 / (keys / 24) for c in counts.values()) < 60  # 23 degrees: 1 in 30,000
    chi = ((places - keys / 50) ** 2 / (keys / 50)).sum()  # 49^2 degrees, mean 2401, deviation 69
    assert abs(chi - 2401) < 5 * 69


@pytest.mark.parametrize("n", [1, 2, 15, 16, 63, 64, 65, 130, 1000])
def test_shuffle_pass(tier, rng, n):
    x, perm = extremes(rng, n, np.uint64), _core.permutation(KEYS[3], n)
    for key in (None, KEYS[0], KEYS[1]):
        for sign in (1, -1):
            out = empty(n)
            _core.shuffle_pass(x, perm, key, sign, out, 1)
            assert out.tolist() == oracle.shuffle_pass(x, perm, key, sign)


def test_shuffle_by_threads(tier, rng):
    n = 70_001
    x, perm, mask = words(rng, n), _core.permutation(KEYS[3], n), empty(n)
    _core.prf_words(KEYS[1], mask, 1)
    for threads in (*THREADS, 0, None):
        out = empty(n)
        _core.shuffle_pass(x, perm, None, 0, out, threads)
        assert np.array_equal(out, x[perm])
        _core.shuffle_pass(x, perm, KEYS[1], 1, out, threads)
        assert np.array_equal(out, x[perm] + mask)


def test_three_passes_shuffle(tier, rng):
    """The shuffle: shares of x become shares of x in an order that no server knows."""
    n = 500
    x = words(rng, n)
    x1, x2 = words(rng, (2, n))
    x3 = x - x1 - x2
    p12, p23, p31 = (_core.permutation(k, n) for k in KEYS[:3])
    z12, z23, r1, r3 = KEYS[3:7]

    def run(a, perm, key, sign):
        out = empty(n)
        _core.shuffle_pass(a, perm, key, sign, out, 1)
        return out

    m1 = run(x2 + x3, p12, z12, 1)
    m2 = run(run(x1, p12, z12, -1), p23, z23, -1)
    m3 = run(run(m1, p23, z23, 1), p31, r1, -1)
    m4 = run(m2, p31, r3, -1)
    y1, y3 = empty(n), empty(n)
    _core.prf_words(r1, y1, 1)
    _core.prf_words(r3, y3, 1)
    assert np.array_equal(y1 + y3 + m3 + m4, x[p12][p23][p31])
