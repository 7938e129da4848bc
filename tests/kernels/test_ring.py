"""ring_matmul: every tier against the oracle, layouts, and every error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp import cpu, ring
from mipp.errors import DTypeError, ParameterError, ShapeError
from tests.kernels.conftest import tier_fixture
from tests.reference import ring as oracle

tier = tier_fixture("portable", "avx2", "avx512", "amx")
DTYPES = [np.uint16, np.uint32, np.uint64]
WIDTHS = [*range(1, 71), 127, 128, 129, 130]


def words(rng, shape, dtype):
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(params=DTYPES, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def test_oracles_agree(rng, dtype):
    rows, columns = words(rng, (5, 9), dtype), words(rng, (3, 9), dtype)
    assert oracle.matmul(rows, columns, rows.itemsize * 8) == oracle.matmul_wide(rows, columns).tolist()


def test_forced_tier_runs(tier):
    assert cpu.active()["ring"] == tier


def test_every_width(tier, dtype, rng):
    for dim in WIDTHS:
        rows, columns = words(rng, (7, dim), dtype), words(rng, (5, dim), dtype)
        assert np.array_equal(ring.matmul(rows, columns), oracle.matmul_wide(rows, columns)), dim


@pytest.mark.parametrize("dim", [1, 33, 64])
def test_row_and_column_counts(tier, dtype, rng, dim):
    for n in (0, 1, 2, 3, 4, 5, 7, 15, 16, 17, 31, 63, 64, 65, 129):
        for b in (0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 33):
            rows, columns = words(rng, (n, dim), dtype), words(rng, (b, dim), dtype)
            got = ring.matmul(rows, columns)
            assert got.shape == (b, n) and got.dtype == dtype
            assert np.array_equal(got, oracle.matmul_wide(rows, columns)), (n, b)


@pytest.mark.parametrize("dim", [1, 2, 31, 32, 64, 257])
def test_extreme_values(tier, dtype, rng, dim):
    top = np.iinfo(dtype).max
    edges = np.array([0, 1, top, top - 1, top // 2, top // 2 + 1, 0x7FFF, 0x8000, 0xFFFF], np.uint64).astype(dtype)
    for x in edges:
        for y in edges:
            rows, columns = np.full((3, dim), x, dtype), np.full((9, dim), y, dtype)
            assert (ring.matmul(rows, columns) == int(x) * int(y) * dim % (int(top) + 1)).all(), (x, y)
    rows, columns = rng.choice(edges, (65, dim)), rng.choice(edges, (9, dim))
    assert np.array_equal(ring.matmul(rows, columns), oracle.matmul_wide(rows, columns))


@pytest.mark.parametrize("threads", [1, 2, 3, 7, None])
def test_threads(tier, dtype, rng, threads):
    for n, dim, b in ((20_011, 40, 1), (4_001, 16, 33)):
        rows, columns = words(rng, (n, dim), dtype), words(rng, (b, dim), dtype)
        assert np.array_equal(ring.matmul(rows, columns, threads=threads), oracle.matmul_wide(rows, columns))


def test_out_is_returned_and_only_its_rows_are_written(tier, dtype, rng):
    for b in (1, 3, 17):
        rows, columns = words(rng, (37, 24), dtype), words(rng, (b, 24), dtype)
        big = np.full((b + 2, 50), 7, dtype)
        out = big[1 : b + 1, 5:42]
        assert ring.matmul(rows, columns, out=out) is out
        assert np.array_equal(out, oracle.matmul_wide(rows, columns))
        big[1 : b + 1, 5:42] = 7
        assert (big == 7).all()


def test_any_word_alignment(tier, dtype, rng):
    for shift in range(1, 9):
        buffer = words(rng, 9 * 40 + shift, dtype)
        rows, columns = buffer[shift:].reshape(9, 40), words(rng, (5, 40), dtype)
        assert np.array_equal(ring.matmul(rows, columns), oracle.matmul_wide(rows, columns))


def test_read_only_and_mapped_rows(tier, dtype, rng, tmp_path):
    rows, columns = words(rng, (33, 20), dtype), words(rng, (2, 20), dtype)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype, "r", shape=rows.shape)
    columns.flags.writeable = False
    assert np.array_equal(ring.matmul(mapped, columns), oracle.matmul_wide(rows, columns))


def test_rows_and_columns_may_be_one_array(tier, dtype, rng):
    rows = words(rng, (9, 20), dtype)
    assert np.array_equal(ring.matmul(rows, rows), oracle.matmul_wide(rows, rows))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(1, 40), st.sampled_from(DTYPES))
def test_linear_in_the_column(seed, dim, n, dtype):
    rng = np.random.default_rng(seed)
    rows, a, b = words(rng, (n, dim), dtype), words(rng, (1, dim), dtype), words(rng, (1, dim), dtype)
    assert np.array_equal(ring.matmul(rows, a) + ring.matmul(rows, b), ring.matmul(rows, a + b))


U32 = np.uint32


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([[1, 2]], np.ones((1, 2), U32)),
        (np.ones((1, 2), U32), None),
        (np.ones((1, 2), np.float32), np.ones((1, 2), np.float32)),
        (np.ones((1, 2), np.int32), np.ones((1, 2), np.int32)),
        (np.ones((1, 2), np.uint8), np.ones((1, 2), np.uint8)),
        (np.ones((1, 2), np.dtype(U32).newbyteorder()), np.ones((1, 2), U32)),
        (np.ones((1, 2), U32), np.ones((1, 2), np.uint16)),
    ],
)
def test_wrong_dtypes(rows, columns):
    with pytest.raises(DTypeError):
        ring.matmul(rows, columns)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (np.ones(4, U32), np.ones((1, 4), U32)),
        (np.ones((1, 4), U32), np.ones(4, U32)),
        (np.ones((2, 0), U32), np.ones((1, 0), U32)),
        (np.ones((2, 4), U32), np.ones((1, 5), U32)),
        (np.ones((4, 4), U32)[:, :2], np.ones((1, 2), U32)),
        (np.ones((4, 4), U32).T, np.ones((1, 4), U32)),
        (np.ones((2, 4), U32), np.ones((2, 8), U32)[:, ::2]),
        (np.ones(33, np.uint8)[1:].view(U32).reshape(2, 4), np.ones((1, 4), U32)),
    ],
)
def test_wrong_shapes(rows, columns):
    with pytest.raises(ShapeError):
        ring.matmul(rows, columns)


def read_only():
    out = np.empty((2, 3), U32)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    ("out", "error"),
    [
        ([[0] * 3] * 2, DTypeError),
        (np.empty((2, 3), np.uint16), DTypeError),
        (np.empty((2, 3), np.int32), DTypeError),
        (np.empty((3, 2), U32), ShapeError),
        (np.empty(6, U32), ShapeError),
        (np.empty((2, 6), U32)[:, ::2], ShapeError),
        (np.empty((3, 2), U32).T, ShapeError),
        (np.empty((2, 3), U32)[::-1], ShapeError),
        (np.empty((2, 3), U32)[:, ::-1], ShapeError),
        (np.lib.stride_tricks.as_strided(np.empty(3, U32), (2, 3), (0, 4)), ShapeError),
        (np.lib.stride_tricks.as_strided(np.empty(8, U32), (2, 3), (14, 4)), ShapeError),
        (np.empty(25, np.uint8)[1:].view(U32).reshape(2, 3), ShapeError),
        (read_only(), ShapeError),
    ],
)
def test_wrong_out(out, error):
    with pytest.raises(error):
        ring.matmul(np.ones((3, 4), U32), np.ones((2, 4), U32), out=out)


def test_out_must_not_overlap_inputs():
    memory = np.ones((6, 4), U32)
    with pytest.raises(ParameterError):
        ring.matmul(memory[:4], np.ones((2, 4), U32), out=memory[2:4])
    with pytest.raises(ParameterError):
        ring.matmul(np.ones((4, 4), U32), memory[:2], out=memory[1:3])
    with pytest.raises(ParameterError):
        ring.matmul(memory[:4], np.ones((1, 4), U32), out=memory[:1])
    assert (memory == 1).all()
    ring.matmul(memory[:4], np.ones((2, 4), U32), out=memory[4:])
    assert (memory[4:] == 4).all()


def test_inputs_may_lie_between_the_rows_of_out():
    memory = np.ones(40, U32)
    rows, out = memory[10:18].reshape(2, 4), memory[:40].reshape(2, 20)[:, :2]
    assert np.array_equal(ring.matmul(rows, np.ones((2, 4), U32), out=out), np.full((2, 2), 4))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 1000), (2, 0), (0, 4)])
def test_new_answers_begin_at_a_cache_line(dtype, rng, shape):
    b, n = shape
    got = ring.matmul(words(rng, (n, 3), dtype), words(rng, (b, 3), dtype))
    assert got.shape == shape and got.flags.c_contiguous and got.flags.writeable and got.flags.aligned
    assert got.size == 0 or got.ctypes.data % 64 == 0
    got[...] = 1  # its memory lives as long as the array
