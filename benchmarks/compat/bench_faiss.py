"""Searches of the flat index beside faiss's own, in turn. ``pytest benchmarks/compat --benchmark-only``.

Rows of 128 numbers; medians of paired ratios, ours to theirs. faiss scans floats; ours are three products over shared
or generated words, and a signed query to each of three servers.
"""

import os
import statistics
import time

import numpy as np
import pytest

import mipp.compat.faiss as ours

faiss = pytest.importorskip("faiss", reason="faiss is the baseline; pip install faiss-cpu")

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "100000"))
ROUNDS = int(os.environ.get("MIPP_BENCH_ROUNDS", "15"))
DIM = 128


def timed(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@pytest.mark.parametrize("ranking", ["user", "server"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("queries", [1, 64])
def bench_search(benchmark, ranking, threads, queries):
    rng = np.random.default_rng(0)
    x, q = (rng.normal(size=(n, DIM)).astype(np.float32) for n in (ROWS, queries))
    faiss.omp_set_num_threads(threads)
    theirs, mine = faiss.IndexFlatL2(DIM), ours.IndexFlatL2(DIM, ranking=ranking, threads=threads)
    theirs.add(x)
    build = timed(lambda: mine.add(x))
    k = min(10, ROWS)
    found, true = mine.search(q, k)[1], theirs.search(q, k)[1]
    benchmark.pedantic(mine.search, (q, k), rounds=1)
    rounds = ROUNDS if ranking == "user" or queries == 1 else 1
    pairs = [(timed(lambda: mine.search(q, k)), timed(lambda: theirs.search(q, k))) for _ in range(rounds)]
    benchmark.extra_info |= {
        "ours_ms": round(statistics.median(m for m, _ in pairs) * 1e3, 2),
        "faiss_ms": round(statistics.median(t for _, t in pairs) * 1e3, 2),
        "ratio": round(statistics.median(m / t for m, t in pairs), 2),
        "recall": float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, true, strict=True)])),
        "add_s": round(build, 2),
        "rows": ROWS,
    }
    mine.close()
