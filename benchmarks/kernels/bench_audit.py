"""Combinations of rows modulo 2^61 - 1 (audits) beside one read of the same memory by numpy.

``pytest benchmarks/kernels/bench_audit.py --benchmark-enable``. ``ratio`` is the median of ours / numpy's sum of the
rows as words of 64 bits, timed in turn: how far the kernels are from the speed of memory.
"""

import os

import numpy as np
import pytest

from benchmarks import common
from benchmarks.common import seconds
from mipp._native import _core

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "1000000"))
DIM = 128


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(5).integers(0, 2**32, (ROWS, DIM), dtype=np.uint32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", [_core.combine_rows_p61, _core.tag_rows_p61])
def bench_audit(benchmark, rows, kernel, threads):
    count = ROWS if kernel is _core.combine_rows_p61 else DIM
    factors = np.random.default_rng(6).integers(0, 2**64, count, dtype=np.uint64)
    words = rows.view(np.uint64)
    common.paired(benchmark, lambda: kernel(rows, factors, threads), lambda: seconds(words.sum), rounds=9)
    benchmark.group = "audit"
    if benchmark.enabled and benchmark.stats:
        benchmark.extra_info["GB/s"] = round(rows.nbytes / benchmark.stats.stats.median / 1e9, 2)
