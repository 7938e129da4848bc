"""ring_matmul against numpy float32 on the same number of rows.

``OPENBLAS_NUM_THREADS=1 pytest benchmarks/kernels/bench_ring.py --benchmark-enable``; numpy counts as one thread
only with that variable (or threadpoolctl installed). Rows are random, every page touched; 500,000 rows of 128 words
are far more than a core's caches, 2,000 fit in its second level. ``MIPP_BENCH_ROWS`` sets another number for a quick
run, ``MIPP_CPU`` another level. Machines are noisy: ``bench_ratio_to_numpy`` times both sides in turn and gives the
median of paired ratios.
"""

import os
import statistics
import time

import numpy as np
import pytest

from mipp import cpu, ring

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "500000"))
DIM = 128
DTYPES = {"u16": np.uint16, "u32": np.uint32, "u64": np.uint64}
ROUNDS = 15
# rows in memory, and in cache
SIZES = {"ram": ROWS, "cache": min(ROWS, 2_000)}


@pytest.fixture(scope="module", autouse=True)
def one_blas_thread():
    if os.environ.get("OPENBLAS_NUM_THREADS") == "1":
        yield
        return
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="set OPENBLAS_NUM_THREADS=1 before numpy is loaded")
    with threadpoolctl.threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def data():
    """rows(kind, size): one array per kind, kept for the module; kind is u16, u32, u64 or f32."""
    rng = np.random.default_rng(5)
    kept = {}

    def rows(kind, size):
        if (kind, size) not in kept:
            shape = (SIZES[size], DIM)
            if kind == "f32":
                kept[kind, size] = rng.random(shape, np.float32)
            else:
                top = np.iinfo(DTYPES[kind]).max
                kept[kind, size] = rng.integers(0, top, shape, DTYPES[kind], endpoint=True)
        return kept[kind, size]

    return rows


def product(rows, queries, threads=1):
    columns = np.random.default_rng(6).integers(0, 2**16, (queries, DIM)).astype(rows.dtype)
    out = np.zeros((queries, len(rows)), rows.dtype)
    return lambda: ring.matmul(rows, columns, out=out, threads=threads)


def numpy_products(rows, queries):
    """The ways numpy offers; the fastest is the fair baseline."""
    columns = np.random.default_rng(6).random((queries, DIM), np.float32)
    wide, tall = np.zeros((queries, len(rows)), np.float32), np.zeros((len(rows), queries), np.float32)
    ways = [lambda: np.matmul(rows, columns.T, out=tall)]
    if queries == 1:
        flat = np.zeros(len(rows), np.float32)
        ways.append(lambda: np.matmul(rows, columns[0], out=flat))
    else:
        ways.append(lambda: np.matmul(columns, rows.T, out=wide))
    return ways


def seconds(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def describe(benchmark, rows, queries, size, tier):
    read = rows.nbytes
    benchmark.group = f"ring_matmul {size} rows={len(rows)} dim={DIM} queries={queries}"
    benchmark.extra_info.update(tier=tier, rows=len(rows), dim=DIM, queries=queries, bytes=read)
    if benchmark.enabled and benchmark.stats:
        median = benchmark.stats.stats.median
        benchmark.extra_info["GB/s"] = round(read / median / 1e9, 2)
        benchmark.extra_info["G products/s"] = round(rows.size * queries / median / 1e9, 2)


@pytest.mark.parametrize("queries", [1, 16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", ["1", "all"])
@pytest.mark.parametrize("kind", DTYPES)
def bench_ring_matmul(benchmark, data, kind, threads, size, queries):
    rows = data(kind, size)
    benchmark.pedantic(product(rows, queries, 1 if threads == "1" else cpu.threads()), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, rows, queries, size, cpu.active()["ring"])


@pytest.mark.parametrize("queries", [1, 16])
@pytest.mark.parametrize("size", SIZES)
def bench_numpy_float32(benchmark, data, size, queries):
    rows = data("f32", size)
    ways = numpy_products(rows, queries)
    fastest = min(ways, key=lambda way: min(seconds(way) for _ in range(3)))
    benchmark.pedantic(fastest, rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, rows, queries, size, "numpy")


@pytest.mark.parametrize("queries", [1, 16])
@pytest.mark.parametrize("kind", ["u16", "u32"])
def bench_ratio_to_numpy(benchmark, data, kind, queries):
    """Both sides in turn; the time shown is ours, ``ratio`` in extra_info is the median of ours / numpy's fastest."""
    rows, ours, base = data(kind, "ram"), [], []
    ways, call = numpy_products(data("f32", "ram"), queries), product(data(kind, "ram"), queries)

    def before():
        base.append(min(seconds(way) for way in ways))

    benchmark.pedantic(lambda: ours.append(seconds(call)), setup=before, rounds=2 * ROUNDS + 1, warmup_rounds=0)
    describe(benchmark, rows, queries, "ratio", cpu.active()["ring"])
    benchmark.extra_info["ratio"] = round(statistics.median(o / b for o, b in zip(ours, base, strict=True)), 3)
