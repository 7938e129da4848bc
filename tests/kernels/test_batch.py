"""Products with many columns, of stored rows and of keystream: every tier around the edges of its tiles and blocks."""

import numpy as np
import pytest

from mipp import cpu, ring
from mipp._native import _core
from tests.kernels.conftest import tier_fixture
from tests.kernels.test_prf import KEY, make_infos, run_matmul
from tests.kernels.test_ring import DTYPES, words
from tests.reference import ring as oracle

tier = tier_fixture("portable", "avx2", "avx512", "amx")
# of columns: around the tiles of every tier, and where few columns end
COLUMNS = [4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 23, 24, 25, 31, 32, 33, 48, 63, 64, 65, 70]


@pytest.fixture
def rng():
    return np.random.default_rng(21)


@pytest.fixture(params=DTYPES, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def check(rows, columns, gap=0, threads=1):
    """Compares with the oracle; what lies between the rows of out must stay."""
    big = np.full((len(columns), len(rows) + gap), 7, rows.dtype)
    got = ring.matmul(rows, columns, out=big[:, : len(rows)], threads=threads)
    assert np.array_equal(got, oracle.matmul_wide(rows, columns)), (rows.shape, len(columns))
    assert (big[:, len(rows) :] == 7).all()


def test_every_number_of_columns(tier, dtype, rng):
    for b in COLUMNS:
        check(words(rng, (45, 37), dtype), words(rng, (b, 37), dtype), gap=3)


def test_every_number_of_rows(tier, dtype, rng):
    for n in [*range(1, 68), 95, 96, 97, 127, 128, 129, 130, 255, 256, 257]:
        check(words(rng, (n, 20), dtype), words(rng, (33, 20), dtype), gap=1)


def test_every_width(tier, dtype, rng):
    for dim in [*range(1, 70), 127, 128, 129, 191, 192, 193, 255, 256, 257]:
        check(words(rng, (33, dim), dtype), words(rng, (34, dim), dtype))


@pytest.mark.parametrize("by", [-1, 0, 1, 700])
def test_rows_longer_than_a_block(tier, dtype, rng, by):
    """Blocks of 4096 bytes are added up."""
    for blocks in (1, 2):
        dim = blocks * 4096 // np.dtype(dtype).itemsize + by
        check(words(rng, (35, dim), dtype), words(rng, (33, dim), dtype), gap=2)


@pytest.mark.parametrize("dim", [1, 2, 64, 257])
def test_extreme_values(tier, dtype, rng, dim):
    top = np.iinfo(dtype).max
    edges = np.array([0, 1, top, top - 1, top // 2, top // 2 + 1, 0xFF, 0x8000, 0xFFFF], np.uint64).astype(dtype)
    for x in edges:
        columns = np.repeat(edges, 4)[:, None].repeat(dim, axis=1)
        check(np.full((33, dim), x, dtype), columns)
    check(rng.choice(edges, (65, dim)), rng.choice(edges, (40, dim)))


@pytest.mark.parametrize("offset", [0, 16])
@pytest.mark.parametrize("dim", [3, 70])
def test_answers_written_past_the_caches(tier, dtype, rng, offset, dim):
    """From 16 MiB of answers on, their rows equally far from a line of the cache, at every such distance."""
    item, b = np.dtype(dtype).itemsize, 128
    n = (1 << 24) // (b * item)
    memory = np.zeros(b * n + 128, dtype)
    start = (-memory.ctypes.data % 64 + offset) // item
    out = memory[start : start + b * n].reshape(b, n)
    assert out.ctypes.data % 64 == offset
    rows = np.resize(words(rng, (97, dim), dtype), (n, dim))
    columns = words(rng, (b, dim), dtype)
    ring.matmul(rows, columns, out=out, threads=2)
    expected = oracle.matmul_wide(rows[:97], columns)
    assert all(np.array_equal(out[:, i : i + 97], expected[:, : n - i]) for i in range(0, n, 97))
    assert not memory[:start].any() and not memory[start + b * n :].any()


@pytest.mark.parametrize("threads", [1, 2, 3, 7, None])
def test_threads(tier, dtype, rng, threads):
    check(words(rng, (9_001, 16), dtype), words(rng, (40, 16), dtype), 5, threads)


def test_any_word_alignment(tier, dtype, rng):
    for shift in range(1, 9):
        buffer = words(rng, 50 * 40 + shift, dtype)
        check(buffer[shift:].reshape(50, 40), words(rng, (33, 40), dtype), gap=shift)


def test_few_and_many_columns_agree(tier, dtype, rng):
    rows, columns = words(rng, (77, 130), dtype), words(rng, (64, 130), dtype)
    many = ring.matmul(rows, columns)
    assert all(np.array_equal(ring.matmul(rows, columns[b : b + 1])[0], many[b]) for b in range(64))


# --- keystream -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 3, 4, 7, 16, 32, 33, 75])
def test_keystream_widths(tier, dtype, rng, blocks):
    width = blocks * 16 // np.dtype(dtype).itemsize
    for b in (7, 16, 33):
        got, expected = run_matmul(make_infos(rng, 1), [(0, 5, 70)], words(rng, (b, width), dtype))
        assert np.array_equal(got, expected), b


@pytest.mark.parametrize("blocks", [255, 257, 1000, 1024, 1025])
def test_keystream_rows_longer_than_a_block(tier, dtype, rng, blocks):
    """Also those too long for a batch, which go the way of few columns."""
    width = blocks * 16 // np.dtype(dtype).itemsize
    got, expected = run_matmul(make_infos(rng, 1), [(0, 3, 35)], words(rng, (33, width), dtype))
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("columns", [12, 40])
def test_keystream_runs_with_gaps(tier, dtype, rng, columns):
    """Many runs, some empty, out of order, over several segments; a step of rows holds several of them."""
    runs = [(0, 0, 1), (0, 2, 9), (5, 0, 0), (5, 1000, 700), (2, 7, 3), (2, 7, 3), (1, 0, 0), (3, 64, 65), (0, 0, 1300)]
    runs += [(int(s), int(f), int(n)) for s, f, n in rng.integers(0, 6, (60, 3))]
    for threads in (1, 2, 5):
        got, expected = run_matmul(make_infos(rng, 6), runs, words(rng, (columns, 32), dtype), threads, gap=3)
        assert np.array_equal(got, expected), threads


def test_keystream_answers_past_the_caches(tier, dtype, rng):
    """The same as stored rows of the same words, with answers that begin inside a line of the cache."""
    item, b, width = np.dtype(dtype).itemsize, 128, 32 // np.dtype(dtype).itemsize
    n = (1 << 24) // (b * item)
    schedules = _core.KeySchedules(KEY, make_infos(rng, 2), 1)
    first, rest = 1000, n - 1000
    rows = np.empty((n, width), dtype)
    _core.keystream_words(schedules, 1, 2 * 7, rows[:first].reshape(-1))
    _core.keystream_words(schedules, 0, 0, rows[first:].reshape(-1))
    columns = words(rng, (b, width), dtype)
    memory = np.zeros(b * n + 64, dtype)
    start = (-memory.ctypes.data % 64 + 16) // item
    out = memory[start : start + b * n].reshape(b, n)
    counts = [np.array(v, np.int64) for v in ([1, 0], [7, 0], [first, rest])]
    _core.keystream_matmul(schedules, *counts, columns, out, 2)
    assert np.array_equal(out, ring.matmul(rows, columns))


def test_forced_tier_runs(tier):
    assert cpu.active()["ring"] == tier
