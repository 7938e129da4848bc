"""Private retrieval: expansion of keys, and scans of records beside one read of the same memory.

``pytest benchmarks/kernels/bench_pir.py --benchmark-enable``. Of scans ``ratio`` is the median of ours / the sum of all
words with one thread (``benchmarks/reading.py``), timed in turn. Limits, and figures that others published: ``python -m
benchmarks.pir``.
"""

import os

import numpy as np
import pytest

from benchmarks import common
from benchmarks.common import seconds
from benchmarks.reading import prefetched_sum
from mipp import cpu, pir

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "100000"))
RECORD = 8192


@pytest.fixture(scope="module")
def records():
    return np.random.default_rng(5).integers(0, 2**64, (ROWS, RECORD // 8), np.uint64).view(np.uint8)


@pytest.fixture
def tier(request):
    # a kernel of instructions that this processor lacks can't run at all; portable always does
    if request.param not in cpu.levels():
        pytest.skip(f"this machine lacks {request.param}")
    with cpu.force(request.param):
        yield request.param


tiers = pytest.mark.parametrize("tier", ["avx512", "avx2", "portable"], indirect=True)


@tiers
@pytest.mark.parametrize("rows", [2**17, 2**20, 2**24])
def bench_expand(benchmark, tier, rows):
    key = pir.generate_keys(rows // 3, rows)[0]
    benchmark(lambda: pir.expand(key, threads=1))
    benchmark.group = f"expand {rows} rows"
    if benchmark.enabled and benchmark.stats:
        benchmark.extra_info["Grows/s"] = round(rows / benchmark.stats.stats.median / 1e9, 2)


@tiers
def bench_generate(benchmark, tier):
    benchmark(lambda: pir.generate_keys(12345, 2**24))
    benchmark.group = "both keys over 2^24 rows"


@tiers
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 4, 10])
def bench_scan(benchmark, records, tier, count, threads):
    selections = np.random.default_rng(6).integers(0, 2**64, (count, ROWS // 64 + 1), np.uint64)
    scan = lambda: pir.scan(records, selections, threads=threads)  # noqa: E731
    common.paired(benchmark, scan, lambda: seconds(lambda: prefetched_sum(records)), rounds=9)
    benchmark.group = f"scan {count} selections"
    if benchmark.enabled and benchmark.stats:
        benchmark.extra_info["GB/s"] = round(records.nbytes / benchmark.stats.stats.median / 1e9, 2)
