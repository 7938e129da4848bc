"""Packed score shares: every tier against plain integers, sums and top-k of them, and every error."""

import itertools

import numpy as np
import pytest

from mipp._native import _core
from mipp.errors import DTypeError, ParameterError, ShapeError
from mipp.sharing import packed_words
from tests.kernels.test_galois import DTYPES, THREADS, bits_of, fails, read_only, split, words
from tests.reference import galois as oracle

LENGTHS = [0, 1, 2, 15, 17, 63, 511, 512, 513, 1024, 1500]


@pytest.fixture
def rng():
    return np.random.default_rng(23)


@pytest.fixture(params=DTYPES, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def packed(shares, width, threads=1):
    """(B, n) words of 16, 32 or 64 bits, packed to ``width``: (B, packed_words) of the same type."""
    bits = bits_of(shares.dtype)
    out = np.full((len(shares), packed_words(shares.shape[1], width, bits)), 3, shares.dtype)
    _core.pack_answers(shares, width, out, threads)
    return out


def signed(scores, width):
    """Integers (B, n) as signed numbers of ``width`` bits."""
    half = 1 << (width - 1)
    return [[(int(s) + half) % (2 * half) - half for s in row] for row in scores]


def test_every_width_and_length(tier, dtype, rng):
    bits = bits_of(dtype)
    for width, n in itertools.product(range(1, bits), LENGTHS):
        shares = words(rng, (2, n), dtype)
        got = packed(shares, width)
        assert got.tolist() == [oracle.pack(row.tolist(), width, bits) for row in shares], (width, n)


def test_what_lies_beside_is_not_touched(tier, dtype, rng):
    bits = bits_of(dtype)
    for width, n in itertools.product((1, bits // 2, bits - 1), (7, 512, 1300)):
        size = 2 * packed_words(n, width, bits)
        whole = np.full(size + 40, 77, dtype)
        _core.pack_answers(words(rng, (2, n), dtype), width, whole[16 : 16 + size].reshape(2, -1), 1)
        assert (whole[:16] == 77).all() and (whole[16 + size :] == 77).all()


def test_high_bits_do_not_travel(tier, dtype, rng):
    """Words that differ above the low bits pack to the same: nothing of them is told."""
    bits = bits_of(dtype)
    for width in (1, 5, bits - 1):
        shares = words(rng, (2, 1100), dtype)
        other = shares ^ (words(rng, shares.shape, dtype) << dtype(width))
        assert np.array_equal(packed(shares, width), packed(other, width))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_sums_at_every_width(tier, dtype, rng, count):
    """Extremes of each width, sums that wrap in it, whatever lies above."""
    bits = bits_of(dtype)
    for width in range(1, bits):
        for n in (1, 70, 512, 1300):
            shares = [words(rng, (2, n), dtype) for _ in range(count)]
            out = np.full((2, n), 3, np.int64)
            _core.reconstruct([packed(s, width) for s in shares], out, 1, width)
            assert out.tolist() == signed(sum(s.astype(object) for s in shares), width), (width, n)


def test_scores_of_that_width_are_exact(tier, dtype, rng):
    bits = bits_of(dtype)
    for width in (2, bits // 2, bits // 2 + 1, bits - 1):
        bound = 1 << (width - 1)
        scores = rng.integers(-bound, bound, (3, 2000), dtype=np.int64)
        scores[:, 0], scores[:, -1] = -bound, bound - 1
        shares = split(rng, scores, dtype)
        for threads in THREADS:
            out = np.empty_like(scores)
            _core.reconstruct([packed(s, width, threads) for s in shares], out, threads, width)
            assert np.array_equal(out, scores)


def test_the_width_of_a_word_is_no_packing(tier, dtype, rng):
    shares, bits = [words(rng, (2, 1300), dtype) for _ in range(3)], bits_of(dtype)
    whole, other = np.empty((2, 2, 1300), np.int64)
    _core.reconstruct(shares, whole, 1)
    _core.reconstruct(shares, other, 1, bits)
    assert np.array_equal(whole, other) and packed_words(1300, bits, bits) == 1300


def test_threads_share_long_rows(tier, rng):
    scores = rng.integers(-50_000, 50_000, (3, 100_001), dtype=np.int64)
    shares = split(rng, scores, np.uint32)
    alone = [packed(s, 17) for s in shares]
    for threads in THREADS:
        assert all(np.array_equal(packed(s, 17, threads), a) for s, a in zip(shares, alone, strict=True))
        out = np.empty_like(scores)
        _core.reconstruct(alone, out, threads, 17)
        assert np.array_equal(out, scores)


@pytest.mark.parametrize("n", [1, 17, 511, 512, 513, 1500, 200_000])
def test_top_k(tier, dtype, rng, n):
    """What whole words give, at once and some rows at a time, in a range or not."""
    bits = bits_of(dtype)
    for width in (3, bits // 2, bits - 1) if n < 10_000 else (bits // 2 + 1,):
        bound = 1 << (width - 1)
        scores = rng.integers(-bound, bound, (2, n), dtype=np.int64)
        shares = split(rng, scores, dtype)
        cut = [packed(s, width) for s in shares]
        for k, threads in itertools.product({1, min(10, n)}, THREADS if n > 10_000 else [1]):
            for limits in ({}, {"low": -bound // 2, "high": bound // 2}):
                expected = _core.reconstruct_top_k_var(shares, k, **limits)
                got = _core.reconstruct_top_k_var(cut, k, threads, width=width, n=n, **limits)
                assert np.array_equal(got, expected)
                best = np.empty((2, 2, k), np.int64)
                for a, b in itertools.pairwise([0, n // 3, n // 2, n]):
                    some = [packed(np.ascontiguousarray(s[:, a:b]), width) for s in shares]
                    how = {"width": width, "n": b - a, **limits}
                    _core.reconstruct_top_k_var(some, k, threads, a, (best[0], best[1]), **how)
                assert np.array_equal(best, expected)


def test_no_queries(tier):
    assert packed(np.empty((0, 600), np.uint32), 17).shape == (0, packed_words(600, 17, 32))
    rows, scores = _core.reconstruct_top_k_var([np.empty((0, 1), np.uint32)], 1, width=17, n=1)
    assert rows.shape == scores.shape == (0, 1)


def test_errors():
    def u32(*shape):
        return np.zeros(shape, np.uint32)

    n, size = 600, packed_words(600, 17, 32)
    assert size == 512 // 32 * 17 + -(-88 * 17 // 32)
    good = {"words": u32(2, n), "width": 17, "out": u32(2, size), "threads": 1}
    shared = u32(2, n)
    fails(_core.pack_answers, good, [
        (DTypeError, {"words": np.zeros((2, n), np.int32)}),
        (DTypeError, {"words": None}),
        (ShapeError, {"words": u32(n)}),
        (ShapeError, {"words": u32(2, n + 5)}),
        (ShapeError, {"words": u32(3, n)}),
        (ShapeError, {"words": u32(2, 2 * n)[:, ::2]}),
        (DTypeError, {"out": np.zeros((2, size), np.uint64)}),
        (ShapeError, {"out": u32(2, size + 1)}),
        (ShapeError, {"out": u32(2, size - 1)}),
        (ShapeError, {"out": read_only(u32(2, size))}),
        (ParameterError, {"words": shared, "out": shared.reshape(-1)[: 2 * size].reshape(2, size)}),
        (ParameterError, {"width": 0}),
        (ParameterError, {"width": 32}),
        (DTypeError, {"width": 17.0}),
        (ParameterError, {"threads": 1025}),
    ])  # fmt: skip
    answers = [u32(2, size)] * 3
    good = {"answers": answers, "out": np.zeros((2, n), np.int64), "threads": 1, "width": 17}
    fails(_core.reconstruct, good, [
        (ShapeError, {"width": None}),
        (ShapeError, {"width": 18}),
        (ParameterError, {"width": 0}),
        (ParameterError, {"width": 33}),
        (DTypeError, {"width": "17"}),
        (ShapeError, {"out": np.zeros((2, n + 2), np.int64)}),
        (ShapeError, {"out": np.zeros((3, n), np.int64)}),
        (ShapeError, {"out": np.zeros(n, np.int64)}),
        (ShapeError, {"answers": [u32(2, size + 1)] * 3}),
    ])  # fmt: skip
    good = {"answers": answers, "k": 3, "threads": 1, "width": 17, "n": n}
    fails(_core.reconstruct_top_k_var, good, [
        (ShapeError, {"n": None}),
        (ShapeError, {"n": n + 2}),
        (ShapeError, {"width": None}),
        (ShapeError, {"width": 16}),
        (ParameterError, {"width": 33}),
        (ParameterError, {"n": -1}),
        (ParameterError, {"n": 1 << 49}),
        (DTypeError, {"n": 600.0}),
        (ParameterError, {"k": n + 1}),
    ])  # fmt: skip
