"""Threshold and top-k on shared scores: three parties in three threads of this process, scores already shared.

``pytest benchmarks/protocol --benchmark-enable``. ``MIPP_BENCH_ROWS`` sets another largest number of rows. Times are
medians of 7; sessions, all messages and the user's part are counted, the sharing of the scores is not. The comparison
with SPU is in ``bench_spu.py``.
"""

import os

import numpy as np
import pytest

from mipp.mpc.comparison import combine_matches, threshold
from mipp.mpc.cost import threshold_cost, top_k_cost
from mipp.mpc.session import Public, run_local
from mipp.mpc.topk import combine_top_k, top_k

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "1000000"))
ROUNDS = 7
HIGH = 128 * 127 * 127  # scores of 128 dimensions of 8 bits
PAIRS = {(1, 2): b"a" * 32, (1, 3): b"b" * 32, (2, 3): b"c" * 32}
KEYS = {i: {j: PAIRS[min(i, j), max(i, j)] for j in (1, 2, 3) if j != i} for i in (1, 2, 3)}


def public(rows):
    return Public(b"h" * 32, b"s" * 32, rows, 32, -HIGH, HIGH)


def scores_of(rows):
    """Distinct, so that every top-k is the same."""
    rng = np.random.default_rng(rows)
    return (rng.permutation(rows) - rows // 2).astype(np.int32)


def share(scores):
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 1 << 32, len(scores), dtype=np.uint32) for _ in range(2))
    return {1: a, 2: b, 3: scores.view(np.uint32) - a - b}


def our_top_k(shares, rows):
    pub = public(rows)
    parts = run_local(lambda p: top_k(p, shares[p.index], 10, pub), KEYS)
    return combine_top_k(list(parts.values()), pub)[0]


def our_threshold(shares, rows, circuit="tree"):
    pub = public(rows)
    return combine_matches(
        list(run_local(lambda p: threshold(p, shares[p.index], pub, 7, circuit=circuit), KEYS).values())
    )


@pytest.mark.parametrize("rows", [ROWS // 10, ROWS, 4 * ROWS])
def bench_top_10(benchmark, rows):
    shares = share(scores_of(rows))
    benchmark.pedantic(lambda: our_top_k(shares, rows), rounds=ROUNDS, warmup_rounds=1)
    benchmark.group = "top-10"
    cost = top_k_cost(public(rows), 1, 10).typical
    benchmark.extra_info["rounds"] = cost.rounds
    benchmark.extra_info["bytes a row and server"] = round(sum(cost.bytes.values()) / 3 / rows, 1)
    if benchmark.stats:
        benchmark.extra_info["ns a row"] = round(benchmark.stats.stats.median / rows * 1e9)


@pytest.mark.parametrize("circuit", ["tree", "ripple"])
@pytest.mark.parametrize("rows", [ROWS // 10, ROWS])
def bench_threshold(benchmark, rows, circuit):
    shares = share(scores_of(rows))
    benchmark.pedantic(lambda: our_threshold(shares, rows, circuit), rounds=ROUNDS, warmup_rounds=1)
    benchmark.group = "threshold"
    cost = threshold_cost(public(rows), 1, (7, 7), circuit)
    benchmark.extra_info["rounds"] = cost.rounds
    benchmark.extra_info["bytes a row and server"] = round(sum(cost.bytes.values()) / 3 / rows, 1)
    if benchmark.stats:
        benchmark.extra_info["ns a row"] = round(benchmark.stats.stats.median / rows * 1e9)
