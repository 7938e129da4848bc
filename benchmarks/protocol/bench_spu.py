"""Threshold and top-10 of 100,000 scores against SPU 0.9.5 (ABY3), each in one process, in turn, on the same scores.

SPU needs an environment of its own (Python < 3.12, ``pip install spu==0.9.5``): ``MIPP_SPU_PYTHON`` names its
interpreter, without it these are skipped.
"""

import os

import numpy as np
import pytest

from benchmarks.common import paired
from benchmarks.protocol.spu_client import WORKS, K, Peer, scores_of

ROWS = min(100_000, int(os.environ.get("MIPP_BENCH_ROWS", 100_000)))
REPEATS = 7


@pytest.fixture(scope="module")
def scores():
    return scores_of(ROWS)


@pytest.fixture(scope="module")
def peer(tmp_path_factory, scores):
    python = os.environ.get("MIPP_SPU_PYTHON")
    if not python:
        pytest.skip("MIPP_SPU_PYTHON names no interpreter with SPU")
    with Peer(python, scores, tmp_path_factory.mktemp("spu")) as made:
        yield made


@pytest.mark.parametrize("field", ["fm32", "fm64"])
@pytest.mark.parametrize("work", WORKS)
def bench_against_spu(benchmark, peer, scores, work, field):
    function, expected = WORKS[work]
    assert np.array_equal(expected(scores), function(scores))
    peer.seconds(f"{work}_{field}")
    pairs = paired(benchmark, lambda: function(scores), lambda: peer.seconds(f"{work}_{field}"), rounds=REPEATS)
    ours, theirs = pairs.medians(1e3)
    benchmark.group = f"{work} of {ROWS} scores, k={K}"
    benchmark.extra_info |= {"ms": ours, "spu_ms": theirs, "times": pairs.times, "limit": 10, "spu": peer.version}
