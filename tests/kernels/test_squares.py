"""Sums of squares over shares: every tier against plain integers, and the dealer's and both clouds' parts together."""

import numpy as np
import pytest

from mipp.mpc import kernels as local
from tests.reference import squares as oracle

#: bits of words, bits of hints (0: none)
SIZES = [(k, e) for k in (16, 32) for e in (8, 16, 32)] + [(64, 0)]
#: one place, less than a vector, whole vectors of every tier, and more
WIDTHS = [0, 1, 3, 8, 17, 64, 127, 200]


@pytest.fixture
def rng():
    return np.random.default_rng(29)


@pytest.fixture(params=SIZES, ids=lambda s: f"u{s[0]}-hints{s[1]}")
def size(request):
    return request.param


def dtype(bits):
    return np.dtype(f"uint{bits}")


def words(rng, bits, shape):
    """Random, extremes among them."""
    top = 2**bits - 1
    values = rng.integers(0, top, shape, dtype(bits), endpoint=True)
    for i, v in enumerate((0, top, 1, top - 1, top // 2, top // 2 + 1)):
        values.reshape(-1)[i::13] = v
    return values


def secrets(rng, k, shape):
    """All that |x| < 2^(k-2) allows."""
    top = 2 ** (k - 2) - 1
    values = rng.integers(-top, top, shape, np.int64, endpoint=True)
    for i, v in enumerate((0, 1, -1, top, -top)):
        values.reshape(-1)[i::11] = v
    return values


def weights_of(rng, width):
    """Small, large, none."""
    values = rng.integers(0, 2**64 - 1, width, np.uint64, endpoint=True)
    for i, v in enumerate((1, 0, 2**64 - 1, 3)):
        values[i::7] = v
    return values


def masked(k, x, r1, r2):
    rows = [
        [oracle.masked(k, *place) for place in zip(a, oracle_r, strict=True)]
        for a, oracle_r in zip(x.tolist(), (r1 + r2).tolist(), strict=True)
    ]
    return np.array(rows, dtype(k)).reshape(x.shape)


def hint_rows(hints):
    """Hints of every place of every row, as the oracle takes them."""
    return np.stack(hints, axis=-1).tolist()


def copies(hints):
    return None if hints is None else tuple(h.copy() for h in hints)


def hint_masks(rng, e, shape):
    return None if e == 0 else tuple(words(rng, e, shape) for _ in range(3))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n", [0, 1, 4])
def test_dealer(tier, size, rng, n, width):
    k, e = size
    r1, r2, weights = words(rng, k, (n, width)), words(rng, k, (n, width)), weights_of(rng, width)
    masks = hint_masks(rng, e, (n, width))
    hints = copies(masks)
    out = local.square_dealer(r1, r2, weights, hints, 1)
    expected = [oracle.deal(k, *row, weights.tolist()) for row in zip(r1.tolist(), r2.tolist(), strict=True)]
    assert out.dtype == np.uint64 and out.tolist() == [s for s, _ in expected]
    if masks is not None:
        for i in range(3):
            values = [[place[i] for place in row] for _, row in expected]
            shares = [[(v - mask) % 2**e for v, mask in zip(*row, strict=True)]
                      for row in zip(values, masks[i].tolist(), strict=True)]  # fmt: skip
            assert hints[i].tolist() == shares


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n", [0, 1, 4])
def test_share(tier, size, rng, n, width, first):
    """Whatever the words and hints are, also what no dealer would give."""
    k, e = size
    m, r, weights = words(rng, k, (n, width)), words(rng, k, (n, width)), weights_of(rng, width)
    hints = hint_masks(rng, e, (n, width))
    before = copies(hints)
    out = local.square_share(m, r, weights, first, hints, 1)
    rows = [None] * n if hints is None else hint_rows(hints)
    expected = [oracle.share(k, *row, weights.tolist(), first, h)
                for *row, h in zip(m.tolist(), r.tolist(), rows, strict=True)]  # fmt: skip
    assert out.dtype == np.uint64 and out.tolist() == expected
    assert hints is None or all(np.array_equal(a, b) for a, b in zip(hints, before, strict=True))


@pytest.mark.parametrize("k", [16, 32])
def test_no_hints_of_short_words(tier, rng, k):
    r1, r2, weights = words(rng, k, (3, 70)), words(rng, k, (3, 70)), weights_of(rng, 70)
    expected = [oracle.deal(k, *row, weights.tolist())[0] for row in zip(r1.tolist(), r2.tolist(), strict=True)]
    assert local.square_dealer(r1, r2, weights, None, 1).tolist() == expected
    for first in (True, False):
        expected = [oracle.share(k, *row, weights.tolist(), first, None)
                    for row in zip(r1.tolist(), r2.tolist(), strict=True)]  # fmt: skip
        assert local.square_share(r1, r2, weights, first, None, 1).tolist() == expected


def parts(k, e, rng, x, r1, r2, weights, threads=1):
    """The sums of the dealer and of both clouds, hints dealt between them."""
    m = masked(k, x, r1, r2)
    ones = hint_masks(rng, e, x.shape)
    twos = copies(ones)
    return (
        local.square_dealer(r1, r2, weights, twos, threads),
        local.square_share(m, r1, weights, True, ones, threads),
        local.square_share(m, r2, weights, False, twos, threads),
    )


def check_total(k, e, x, weights, sums):
    modulus = 2 ** (64 if e == 0 else min(64, k + 1 + e))
    expected = [oracle.total(row, weights.tolist()) % modulus for row in x.tolist()]
    assert [sum(s) % modulus for s in zip(*(part.tolist() for part in sums), strict=True)] == expected


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n", [0, 1, 4])
def test_parts_add_up(tier, size, rng, n, width):
    k, e = size
    for weights in (weights_of(rng, width), np.ones(width, np.uint64), np.zeros(width, np.uint64)):
        x = secrets(rng, k, (n, width))
        r1, r2 = words(rng, k, (n, width)), words(rng, k, (n, width))
        check_total(k, e, x, weights, parts(k, e, rng, x, r1, r2, weights))


def test_every_case_of_an_extreme_secret(tier, size, rng):
    """Extreme secrets with all pairs of extreme masks: each carry, each top bit, each overflow of m."""
    k, e = size
    top = 2 ** (k - 2) - 1
    edges = [0, 1, 2 ** (k - 2), 2 ** (k - 1) - 1, 2 ** (k - 1), 2 ** (k - 1) + 1, 3 * 2 ** (k - 2), 2**k - 2, 2**k - 1]
    x, r1, r2 = (
        a.reshape(-1, 1)
        for a in np.meshgrid(
            np.array([0, 1, -1, top, -top], np.int64), np.array(edges, dtype(k)), np.array(edges, dtype(k))
        )
    )
    for shape in ((-1, 1), (1, -1), (5, -1)):
        rows = [np.ascontiguousarray(a.reshape(shape)) for a in (x, r1, r2)]
        weights = weights_of(rng, rows[0].shape[1])
        weights[0] = 1
        check_total(k, e, rows[0], weights, parts(k, e, rng, *rows, weights))


def test_small_words_exhaustively(tier, rng):
    """Every secret of 16 bits, with random masks: x^2 itself, for the sums hold it."""
    x = np.arange(-(2**14) + 1, 2**14, dtype=np.int64).reshape(-1, 1)
    r1, r2 = words(rng, 16, x.shape), words(rng, 16, x.shape)
    dealer, one, two = parts(16, 16, rng, x, r1, r2, np.ones(1, np.uint64))
    assert np.array_equal((dealer + one + two) % np.uint64(2**33), (x * x).reshape(-1).astype(np.uint64))


@pytest.mark.parametrize("shape", [(3, 50_000), (700, 129), (70_000, 1)])
def test_threads(tier, size, rng, shape):
    k, e = size
    r1, r2, weights = words(rng, k, shape), words(rng, k, shape), weights_of(rng, shape[1])
    masks = hint_masks(rng, e, shape)
    expected = None
    for threads in (1, 2, 3):
        hints = copies(masks)
        found = [
            local.square_dealer(r1, r2, weights, hints, threads),
            *(local.square_share(r1, r2, weights, first, masks, threads) for first in (True, False)),
            *(hints or ()),
        ]
        expected = expected or found
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    rows = shape[0] // 2
    assert expected[0][rows] == oracle.deal(k, r1[rows].tolist(), r2[rows].tolist(), weights.tolist())[0]
