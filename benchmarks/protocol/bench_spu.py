"""Threshold and top-10 of 100,000 scores against SPU 0.9.5 (ABY3), each in one process on the same saved scores.

SPU needs an environment of its own (Python < 3.12, ``pip install spu==0.9.5``): ``MIPP_SPU_PYTHON`` names its
interpreter, without it these are skipped. Both sides share the scores, compute and open; medians of 7 calls after a
first one.
"""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from mipp._native import _core
from mipp.protocol.comparison import combine_matches, threshold
from mipp.protocol.session import Public, run_local
from mipp.protocol.topk import combine_top_k, top_k

ROWS = min(100_000, int(os.environ.get("MIPP_BENCH_ROWS", 100_000)))
THETA, K, REPEATS = 15_000, 10, 7
KEYS = {1: {2: b"c" * 32, 3: b"b" * 32}, 2: {1: b"c" * 32, 3: b"a" * 32}, 3: {1: b"b" * 32, 2: b"a" * 32}}


def shared(scores):
    """Additive shares of the scores, as a user would make them."""
    words = np.empty(len(scores), np.uint64)
    _core.prf_words(os.urandom(32), words)
    one, two = words.view(np.uint32).reshape(2, -1)
    return {1: one, 2: two, 3: scores.view(np.uint32) - one - two}


def our_threshold(scores, public):
    parts = shared(scores)
    out = run_local(lambda party: threshold(party, parts[party.index], public, THETA), KEYS)
    return combine_matches(list(out.values()))[0]


def our_top_k(scores, public):
    parts = shared(scores)
    out = run_local(lambda party: top_k(party, parts[party.index], K, public), KEYS)
    return combine_top_k(list(out.values()), public)[0][0]


def once(function, *args):
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    python = os.environ.get("MIPP_SPU_PYTHON")
    if not python:
        pytest.skip("MIPP_SPU_PYTHON names no interpreter with SPU")
    scores = np.random.default_rng(0).integers(-20_000, 20_001, ROWS).astype(np.int32)
    path = tmp_path_factory.mktemp("spu") / "scores.npy"
    np.save(path, scores)
    script = Path(__file__).with_name("spu_peer.py")
    run = subprocess.run(
        [python, script, path, str(K), str(THETA), str(REPEATS)], capture_output=True, text=True, check=True
    )
    return scores, json.loads(run.stdout.splitlines()[-1])


def compare(benchmark, peer, name, function, expected):
    scores, theirs = peer
    public = Public(b"h" * 32, b"s" * 32, len(scores), 32, -20_000, 20_000)
    assert np.array_equal(expected(scores), function(scores, public))
    assert theirs[f"{name}_fm32_exact"]
    benchmark.pedantic(function, (scores, public), rounds=REPEATS, warmup_rounds=1)
    ours = float(np.median([once(function, scores, public) for _ in range(REPEATS)]))
    for field in ("fm32", "fm64"):
        spent = float(np.median(theirs[f"{name}_{field}"]))
        benchmark.extra_info[f"spu_{field}_s"] = round(spent, 4)
        benchmark.extra_info[f"spu_{field} / ours"] = round(spent / ours, 1)
    benchmark.extra_info.update(rows=len(scores), limit="at least 10", ours_s=round(ours, 4))


@pytest.mark.benchmark(group=f"threshold of {ROWS} scores")
def bench_threshold_against_spu(benchmark, peer):
    compare(benchmark, peer, "threshold", our_threshold, lambda s: s >= THETA)


@pytest.mark.benchmark(group=f"top-{K} of {ROWS} scores")
def bench_top_k_against_spu(benchmark, peer):
    compare(benchmark, peer, "top_k", our_top_k, lambda s: np.argsort(-s, kind="stable")[:K])
