"""Digits of three bits and packed words against plain integers; their errors."""

import numpy as np
import pytest

from mipp._native import _core
from mipp.errors import DTypeError, ParameterError, ShapeError
from tests.kernels.test_compare import THREADS, empty, extremes, sliced, words
from tests.kernels.test_compare_errors import fails, read_only, u64, wrong_out, wrong_words

RNG = np.random.default_rng(29)


def digits_of(n):
    """Width of each digit, the lowest first."""
    return [3] * (n // 3) + [n % 3] * (n % 3 > 0)


def products_of(n):
    return sum(2**width - 1 for width in digits_of(n))


def rows_of(planes, n):
    """The first n bits of each plane."""
    return np.unpackbits(planes.view(np.uint8), axis=1, bitorder="little")[:, :n]


def low(n):
    return np.uint64((1 << n) - 1)


def carries(s, t, n, threads):
    """Generate and propagate of s + t, opened, as the two parties that know t make them; their parts too."""
    planes, known = sliced(s, n), sliced(t, n)
    products = empty(products_of(n), planes.shape[1])
    _core.digit_products(planes, products, threads)
    mask = words(RNG, products.shape)
    parts = [empty(2 * len(digits_of(n)) - 1, planes.shape[1]) for _ in range(2)]
    _core.digit_carries(mask, known, True, parts[0], threads)
    _core.digit_carries(products ^ mask, known, False, parts[1], threads)
    return products, parts


@pytest.mark.parametrize("n", [*range(1, 10), 15, 31, 42, 63, 64])
def test_digits(n):
    s, t = extremes(RNG, 700, np.uint64) & low(n), extremes(RNG, 700, np.uint64)[::-1].copy() & low(n)
    products, parts = carries(s, t, n, 1)
    seen, opened, at = rows_of(products, 700), rows_of(parts[0] ^ parts[1], 700), 0
    widths = digits_of(n)
    for d, width in enumerate(widths):
        a, b = (x >> np.uint64(3 * d) & low(width) for x in (s, t))
        for subset in range(1, 2**width):
            assert np.array_equal(seen[at], (a & np.uint64(subset)) == subset)
            at += 1
        assert np.array_equal(opened[d], a + b >> np.uint64(width))
        assert d == 0 or np.array_equal(opened[len(widths) + d - 1], a ^ b == low(width))
    assert at == len(products)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_digit(n):
    """All pairs of values of one digit above a lower one that gives no carry."""
    values = np.arange(2**n, dtype=np.uint64)
    a, b = np.repeat(values, len(values)), np.tile(values, len(values))
    _, parts = carries(a << np.uint64(3), b << np.uint64(3), n + 3, 1)
    opened = rows_of(parts[0] ^ parts[1], len(a))
    assert not opened[0].any()
    assert np.array_equal(opened[1], a + b >> np.uint64(n)) and np.array_equal(opened[2], a ^ b == low(n))


@pytest.mark.parametrize("n", [2, 14, 42])
def test_digits_by_threads(n):
    s, t = (words(RNG, 70_001) & low(n) for _ in range(2))
    one = carries(s, t, n, 1)
    for threads in THREADS[1:]:
        products, parts = carries(s, t, n, threads)
        assert np.array_equal(products, one[0])
        assert np.array_equal(parts[0] ^ parts[1], one[1][0] ^ one[1][1])


@pytest.mark.parametrize("width", [1, 3, 8, 31, 32, 33, 43, 63, 64])
@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 500])
def test_packed_words(n, width):
    """The low bits of the words, as one long integer; nothing else goes into it."""
    values = extremes(RNG, n, np.uint64)
    whole = sum(int(v & low(width)) << width * i for i, v in enumerate(values))
    packed, back = empty(-(-n * width // 64)), empty(n)
    _core.pack_words(values, width, packed, 1)
    assert packed.astype("<u8").tobytes() == whole.to_bytes(8 * len(packed), "little")
    _core.unpack_words(packed, width, back, 1)
    assert np.array_equal(back, values & low(width))


@pytest.mark.parametrize("width", [5, 43, 64])
def test_packed_words_by_threads(width):
    values = words(RNG, 100_003)
    expected = empty(-(-len(values) * width // 64))
    _core.pack_words(values, width, expected, 1)
    for threads in THREADS:
        packed, back = empty(len(expected)), empty(len(values))
        _core.pack_words(values, width, packed, threads)
        _core.unpack_words(packed, width, back, threads)
        assert np.array_equal(packed, expected) and np.array_equal(back, values & low(width))


def test_digit_errors():
    x = u64(17, 8)
    fails(_core.digit_products, {"bits": u64(7, 8), "out": u64(15, 8), "threads": 1}, [
        *[c for c in wrong_words("bits", (7, 8)) if c[0] is DTypeError],
        *wrong_out("out", (15, 8)),
        (ShapeError, {"bits": u64(0, 8), "out": u64(0, 8)}),
        (ShapeError, {"bits": u64(65, 8), "out": u64(150, 8)}),
        (ShapeError, {"bits": u64(7, 7), "out": u64(15, 7)}),
        (ShapeError, {"bits": u64(8, 8)}),
        (ParameterError, {"bits": x[:7], "out": x[2:]}),
    ])  # fmt: skip
    good = {"shares": u64(15, 8), "t": u64(7, 8), "first": True, "out": u64(5, 8), "threads": 1}
    fails(_core.digit_carries, good, [
        *wrong_words("shares", (15, 8)), *wrong_out("out", (5, 8)),
        *[c for c in wrong_words("t", (7, 8)) if c[0] is DTypeError],
        (ShapeError, {"t": u64(8, 8)}),
        (ShapeError, {"t": u64(7, 16)}),
        (ShapeError, {"t": u64(0, 8), "shares": u64(0, 8)}),
        (ParameterError, {"shares": x[:15], "out": x[12:]}),
        (ParameterError, {"t": x[:7], "out": x[6:11]}),
        (DTypeError, {"first": 1}),
        (DTypeError, {"first": None}),
    ])  # fmt: skip


def test_packing_errors():
    x = u64(20)
    widths = [(ParameterError, {"width": w}) for w in (0, 65, -1)] + [(DTypeError, {"width": 1.0})]
    fails(_core.pack_words, {"words": u64(10), "width": 43, "out": u64(7), "threads": 1}, [
        *widths,
        *[c for c in wrong_words("words", (10,)) if c[0] is DTypeError],
        (ShapeError, {"words": u64(20)[::2]}),
        (ShapeError, {"words": u64(12)}),
        (ShapeError, {"width": 44, "words": u64(11)}),
        (ShapeError, {"out": u64(8)}),
        (ShapeError, {"out": u64(6)}),
        (ShapeError, {"out": read_only(u64(7))}),
        (ParameterError, {"words": x[:10], "out": x[9:16]}),
    ])  # fmt: skip
    fails(_core.unpack_words, {"packed": u64(7), "width": 43, "out": u64(10), "threads": 1}, [
        *widths,
        *[c for c in wrong_words("packed", (7,)) if c[0] is DTypeError],
        (ShapeError, {"packed": u64(6)}),
        (ShapeError, {"packed": u64(8)}),
        (ShapeError, {"out": u64(12)}),
        (ShapeError, {"out": read_only(u64(10))}),
        (ParameterError, {"packed": x[:7], "out": x[6:16]}),
    ])  # fmt: skip
