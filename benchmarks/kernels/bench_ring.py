"""ring_matmul, every tier and batch size, against numpy float32 on the same number of rows.

``pytest benchmarks/kernels/bench_ring.py --benchmark-only``. Rows are random, every page touched; 500,000 rows of 128
words are far more than a core's caches, 2,000 fit in its second level. ``MIPP_BENCH_ROWS`` sets another number for a
quick run. Machines are noisy: ``bench_ratio_to_numpy`` times both sides in turn and gives the median of paired ratios.
"""

import os

import numpy as np
import pytest

from benchmarks.common import blas_threads, fastest, numpy_products, paired, random_words, seconds
from mipp import cpu, ring

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "500000"))
DIM = 128
DTYPES = {"u16": np.uint16, "u32": np.uint32, "u64": np.uint64}
# rows in memory, and in cache
SIZES = {"ram": ROWS, "cache": min(ROWS, 2_000)}
QUERIES = [1, 16, 256]


def rounds(queries):
    return 15 if queries < 100 else 5


@pytest.fixture(scope="module", autouse=True)
def one_blas_thread():
    with blas_threads(1):
        yield


@pytest.fixture(scope="module")
def data():
    """rows(kind, size): one array per kind, kept for the module; kind is u16, u32, u64 or f32."""
    kept = {}

    def rows(kind, size):
        if (kind, size) not in kept:
            shape = (SIZES[size], DIM)
            kept[kind, size] = (
                np.random.default_rng(5).random(shape, np.float32)
                if kind == "f32"
                else random_words(shape, DTYPES[kind])
            )
        return kept[kind, size]

    return rows


def product(rows, queries, threads=1):
    columns = random_words((queries, DIM), rows.dtype.type, 6)
    out = ring.matmul(rows, columns)  # begins at a cache line, pages touched
    return lambda: ring.matmul(rows, columns, out=out, threads=threads)


def describe(benchmark, rows, queries, size, tier):
    benchmark.group = f"ring_matmul {size} rows={len(rows)} dim={DIM} queries={queries}"
    benchmark.extra_info.update(tier=tier, rows=len(rows), dim=DIM, queries=queries, bytes=rows.nbytes)
    if benchmark.enabled and benchmark.stats:
        median = benchmark.stats.stats.median
        benchmark.extra_info["GB/s"] = round(rows.nbytes / median / 1e9, 2)
        benchmark.extra_info["G products/s"] = round(rows.size * queries / median / 1e9, 2)


@pytest.mark.parametrize("queries", QUERIES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", ["1", "all"])
@pytest.mark.parametrize("kind", DTYPES)
def bench_ring_matmul(benchmark, data, kind, threads, size, queries):
    rows = data(kind, size)
    call = product(rows, queries, 1 if threads == "1" else cpu.threads())
    benchmark.pedantic(call, rounds=rounds(queries), warmup_rounds=1)
    describe(benchmark, rows, queries, size, cpu.active()["ring"])


@pytest.mark.parametrize("queries", [1, 64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("level", ["portable", "avx2", "avx512", "amx"])
def bench_tier(benchmark, data, level, kind, size, queries):
    """Every tier as itself, one thread."""
    if level not in cpu.levels():
        pytest.skip(f"this machine lacks {level}")
    rows = data(kind, size)
    with cpu.force(level):
        benchmark.pedantic(product(rows, queries), rounds=3, warmup_rounds=1)
    describe(benchmark, rows, queries, size, level)


@pytest.mark.parametrize("queries", QUERIES)
@pytest.mark.parametrize("size", SIZES)
def bench_numpy_float32(benchmark, data, size, queries):
    rows = data("f32", size)
    ways = numpy_products(rows, queries)
    best = min(ways, key=lambda way: min(seconds(way) for _ in range(3)))
    benchmark.pedantic(best, rounds=rounds(queries), warmup_rounds=1)
    describe(benchmark, rows, queries, size, "numpy")


@pytest.mark.parametrize("queries", [*QUERIES, 32])
@pytest.mark.parametrize("kind", ["u16", "u32"])
def bench_ratio_to_numpy(benchmark, data, kind, queries):
    """Both sides in turn; the time shown is ours, ``ratio`` in extra_info is the median of ours / numpy's fastest."""
    rows, ways = data(kind, "ram"), numpy_products(data("f32", "ram"), queries)
    paired(benchmark, product(rows, queries), lambda: fastest(ways), rounds=rounds(queries))
    describe(benchmark, rows, queries, "ratio", cpu.active()["ring"])
