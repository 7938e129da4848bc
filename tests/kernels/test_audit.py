"""Combinations of rows modulo 2^61 - 1 against plain integers, extremes, and every error."""

import numpy as np
import pytest

from mipp._native import _core
from mipp.errors import DTypeError, ParameterError, ShapeError
from tests.kernels.test_galois import THREADS
from tests.reference.audits import P, combined, tagged

SHAPES = [(0, 1), (1, 1), (3, 2), (7, 5), (8, 4), (9, 33), (64, 16), (1000, 3), (70, 257)]
KERNELS = [(_core.combine_rows_p61, combined, 0), (_core.tag_rows_p61, tagged, 1)]


@pytest.fixture
def rng():
    return np.random.default_rng(41)


def words(rng, shape, dtype):
    """Any words, the extremes among them."""
    made = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    if made.size:
        made.flat[0], made.flat[-1] = np.iinfo(dtype).max, 0
    return made


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(("kernel", "expected", "axis"), KERNELS)
def test_sums(kernel, expected, axis, threads, rng):
    for shape in SHAPES:
        rows, factors = words(rng, shape, np.uint32), words(rng, shape[axis], np.uint64)
        found = kernel(rows, factors, threads)
        assert found.dtype == np.uint64 and found.tolist() == expected(rows, factors), shape


@pytest.mark.parametrize(("kernel", "expected", "axis"), KERNELS)
@pytest.mark.parametrize("factor", [0, 1, P - 1, P, P + 1, 2**64 - 1, 2**63])
def test_extremes(kernel, expected, axis, factor):
    """p and all ones count as 0; the upper three bits do not count; results are below p."""
    for word in (0, 1, 2**32 - 1):
        rows = np.full((1200, 9), word, np.uint32)
        found = kernel(rows, np.full(rows.shape[axis], factor, np.uint64), 2)
        count = rows.shape[axis]
        assert set(found.tolist()) == {(factor % 2**61) * word * count % P} and int(found.max()) < P


@pytest.mark.parametrize("kernel", [k for k, _, _ in KERNELS])
def test_errors(kernel):
    rows, factors = np.ones((4, 4), np.uint32), np.ones(4, np.uint64)
    for bad, error in (
        ((rows.astype(np.uint64), factors), DTypeError), ((rows.astype(np.int32), factors), DTypeError),
        ((rows.astype(np.uint16), factors), DTypeError), ((rows, factors.astype(np.uint32)), DTypeError),
        ((rows, factors.astype(np.float64)), DTypeError), ((rows.tolist(), factors), DTypeError),
        ((rows, [1, 1, 1, 1]), DTypeError), ((rows[0], factors), ShapeError), ((rows, factors[:3]), ShapeError),
        ((rows, factors[None]), ShapeError), ((rows[:, ::2], factors), ShapeError),
        ((rows[:, :0], factors), ShapeError), ((np.ones((8, 4), np.uint32)[::2], factors), ShapeError),
    ):  # fmt: skip
        with pytest.raises(error):
            kernel(*bad)
    for threads in (-1, 1025):
        with pytest.raises(ParameterError):
            kernel(rows, factors, threads)
    with pytest.raises(DTypeError):
        kernel(rows, factors, True)
