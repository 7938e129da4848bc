"""Weighted sums of scores: every tier against plain integers, and every error."""

import itertools

import numpy as np
import pytest

from mipp._native import _core
from mipp.errors import DTypeError, ParameterError, ShapeError
from tests.kernels.test_galois import DTYPES, THREADS, bits_of, split, words
from tests.kernels.test_packed_answers import packed

LENGTHS = [0, 1, 3, 17, 63, 511, 512, 513, 1500]


@pytest.fixture
def rng():
    return np.random.default_rng(31)


@pytest.fixture(params=DTYPES, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def drawn(rng, shape, width):
    """Scores that fit ``width`` bits as signed numbers, the extremes among them."""
    half = 1 << (width - 1)
    scores = rng.integers(-half, half, shape, dtype=np.int64)
    if scores.size:
        scores.flat[0], scores.flat[-1] = half - 1, -half
    return scores


@pytest.mark.parametrize("threads", THREADS)
def test_sums(tier, dtype, rng, threads):
    bits = bits_of(dtype)
    for n, count, checks, width in itertools.product(LENGTHS, (2, 3), (1, 8), (bits, bits // 2 + 1)):
        scores = drawn(rng, (2, n), min(width, 62))
        shares = split(rng, scores.astype(dtype), dtype, count)
        weights = words(rng, (checks, n), dtype)
        given = shares if width == bits else [packed(share, width) for share in shares]
        low, high = -(1 << (min(width, 62) - 1)), (1 << (min(width, 62) - 1)) - 1
        sums, outside = _core.fold_answers(given, weights, low, high, threads, None if width == bits else width)
        expected = [
            [sum(int(z) * int(w) for z, w in zip(row, weight, strict=True)) % (1 << bits) for weight in weights]
            for row in scores
        ]
        assert sums.tolist() == expected and sums.dtype == dtype and not outside.any(), (n, count, checks, width)


def test_range(tier, dtype, rng):
    """One score out of range is found wherever it is, at either end, and sums stay what they are."""
    for n in (1, 40, 512, 700, 33000):
        scores = rng.integers(-50, 51, (2, n), dtype=np.int64)
        weights = words(rng, (2, n), dtype)
        _, outside = _core.fold_answers([scores.astype(dtype)], weights, -50, 50)
        assert not outside.any()
        for at in {0, n // 2, n - 1}:
            for value, low, high in ((51, -50, 50), (-51, -50, 50), (50, -50, 49), (-50, -49, 50)):
                changed = scores.copy()
                changed[1] = np.clip(scores[1], low, high)
                changed[1, at] = value
                changed[0] = np.clip(scores[0], low, high)
                _, outside = _core.fold_answers([changed.astype(dtype)], weights, low, high)
                assert outside.tolist() == [False, True], (n, at, value)
    none = _core.fold_answers([scores.astype(dtype)], weights, 1 << 62, 1 << 62)[1]
    assert none.all()  # no word of fewer bits is so large; of 64 bits these are small


def test_errors(tier, dtype, rng):
    shares, weights = [words(rng, (2, 30), dtype)] * 2, words(rng, (3, 30), dtype)
    other = np.uint32 if dtype != np.uint32 else np.uint16
    for bad, error in (
        ((shares, weights[:, :29]), ShapeError), ((shares, weights[:0]), ShapeError),
        ((shares, words(rng, (9, 30), dtype)), ShapeError), ((shares, weights.astype(other)), DTypeError),
        ((shares, weights[0]), ShapeError), (([], weights), ShapeError), ((shares * 5, weights), ShapeError),
        ((shares[0], weights), DTypeError), ((shares, weights.astype(np.float64)), DTypeError),
    ):  # fmt: skip
        with pytest.raises((error, ParameterError)):
            _core.fold_answers(*bad, 0, 1)
    for low, high, threads, width in (
        (1, 0, 1, None),
        (0, 1 << 64, 1, None),
        (0, 1, -1, None),
        (0, 1, 1, 0),
        (0, 1, 1, 65),
    ):
        with pytest.raises((ParameterError, DTypeError, ShapeError)):
            _core.fold_answers(shares, weights, low, high, threads, width)
