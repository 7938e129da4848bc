"""Sharing kernels against numpy with `cryptography`'s keystream (shares) and numpy alone (scores, top-k).

``pytest benchmarks/kernels/bench_galois.py --benchmark-enable``. Rows are random and every page is touched; ``fresh``
allocates the shares each time, as an owner does, and so pays for their pages. ``MIPP_BENCH_ROWS`` sets another
number of rows for a quick run, ``MIPP_CPU`` another level. ``bench_*_ratio`` time both sides in turn and give the
median of paired ratios, ours / baseline.
"""

import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks import common
from benchmarks.common import seconds
from mipp import cpu
from mipp._native import _core
from mipp.params import Params
from mipp.sharing import constants, pack_score_shares

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "1000000"))
DIM = 128
KEY = bytes(range(32))
ROUNDS = 15
#: bits to which score shares are cut: those of quantised cosines
WIDTH = 17
SYSTEMS = {"n3t1": Params(3, 1, 32), "n7t3": Params(7, 3, 32)}


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(5).integers(0, 2**32, (ROWS, DIM), dtype=np.uint32)


@pytest.fixture(scope="module")
def answers():
    return [np.random.default_rng(s).integers(0, 2**32, (1, ROWS), dtype=np.uint32) for s in range(3)]


def describe(benchmark, group, tier, size):
    benchmark.group = group
    benchmark.extra_info["tier"] = tier
    if benchmark.enabled and benchmark.stats:
        benchmark.extra_info["GB/s"] = round(size / benchmark.stats.stats.median / 1e9, 2)


def paired(benchmark, ours, baseline, group, rounds):
    """The time shown is ours; ``ratio`` is the median of ours / baseline, timed in turn."""
    common.paired(benchmark, ours, lambda: seconds(baseline), rounds=rounds)
    benchmark.group = group
    benchmark.extra_info["tier"] = cpu.active()["galois"]


# --- shares --------------------------------------------------------------------------------------------------------


def empty_shares(params):
    return [np.empty((ROWS, params.padded(DIM)), params.dtype) for _ in params.clouds]


def sharing(rows, params, threads, outs=None):
    """Shares all rows; into new arrays if no `outs` are given."""
    schedules = [_core.KeySchedules(KEY, np.zeros((1, 50), np.uint8), 1)] * params.t
    matrices, segments = constants.row_matrices(params), [0] * params.t
    return lambda: _core.share_rows(rows, schedules, segments, 0, matrices, outs or empty_shares(params), threads)


def numpy_sharing(rows, params):
    """The same by hand for m = 2: AES-CTR of `cryptography`, wrapping arithmetic of numpy."""
    matrices = constants.row_matrices(params)

    def call():
        cipher = Cipher(algorithms.AES(KEY), modes.CTR(bytes(16))).encryptor()
        mask = np.frombuffer(cipher.update(bytes(rows.nbytes)), np.uint32).reshape(rows.shape)
        for maps in matrices:
            out = np.zeros_like(rows)
            for x, matrix in ((rows, maps[0]), (mask, maps[1])):
                for b in range(2):
                    for c in range(2):
                        if matrix[b, c]:
                            out[:, b::2] += matrix[b, c] * x[:, c::2]

    return call


def share_size(rows, params):
    return rows.nbytes + len(params.clouds) * ROWS * params.padded(DIM) * 4


@pytest.mark.parametrize("pages", ["fresh", "reused"])
@pytest.mark.parametrize("threads", ["1", "all"])
@pytest.mark.parametrize("system", SYSTEMS)
def bench_share_rows(benchmark, rows, system, threads, pages):
    params = SYSTEMS[system]
    outs = [np.zeros_like(o) for o in empty_shares(params)] if pages == "reused" else None
    call = sharing(rows, params, 1 if threads == "1" else cpu.threads(), outs)
    benchmark.pedantic(call, rounds=3, warmup_rounds=1)
    describe(benchmark, f"share_rows rows={ROWS} dim={DIM}", cpu.active()["galois"], share_size(rows, params))


def bench_share_rows_ratio(benchmark, rows):
    params = SYSTEMS["n3t1"]
    paired(benchmark, sharing(rows, params, 1), numpy_sharing(rows, params), f"share_rows rows={ROWS} ratio", 3)


# --- scores --------------------------------------------------------------------------------------------------------


def numpy_scores(answers):
    return (answers[0] + answers[1] + answers[2]).view(np.int32).astype(np.int64)


def numpy_top_k(answers, k):
    scores = numpy_scores(answers)[0]
    best = np.argpartition(-scores, k)[:k]
    return best[np.lexsort((best, -scores[best]))]


def packed(answers, width):
    """Answers cut to their low bits."""
    return [pack_score_shares(a, width, threads=1) for a in answers]


def numpy_pack(answer):
    """The low half of each word, in numpy."""
    return answer.astype(np.uint16)


def bench_pack(benchmark, answers):
    out = packed(answers[:1], WIDTH)[0]
    benchmark.pedantic(lambda: _core.pack_answers(answers[0], WIDTH, out, 1), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"pack_answers rows={ROWS} width={WIDTH}", cpu.active()["galois"], answers[0].nbytes)


def bench_pack_ratio(benchmark, answers):
    """Half a word, which numpy can cut to, too."""
    out = packed(answers[:1], 16)[0]
    ours = lambda: _core.pack_answers(answers[0], 16, out, 1)  # noqa: E731
    paired(benchmark, ours, lambda: numpy_pack(answers[0]), f"pack_answers rows={ROWS} ratio", ROUNDS)


def bench_reconstruct_top_k_packed_ratio(benchmark, answers):
    """Of packed answers, against whole ones."""
    k, cut = min(10, ROWS // 2), packed(answers, WIDTH)
    ours = lambda: _core.reconstruct_top_k_var(cut, k, 1, width=WIDTH, n=ROWS)  # noqa: E731
    whole = lambda: _core.reconstruct_top_k_var(answers, k, 1)  # noqa: E731
    paired(benchmark, ours, whole, f"reconstruct_top_k_var packed rows={ROWS} k={k} ratio", ROUNDS)


def bench_fold(benchmark, answers):
    """Four columns of weights, against the top-k of the same answers."""
    weights = np.random.default_rng(5).integers(0, 1 << 32, (4, ROWS), dtype=np.uint32)
    ours = lambda: _core.fold_answers(answers, weights, -(1 << 31), (1 << 31) - 1, 1)  # noqa: E731
    others = lambda: _core.reconstruct_top_k_var(answers, min(10, ROWS // 2), 1)  # noqa: E731
    paired(benchmark, ours, others, f"fold_answers rows={ROWS} columns=4 ratio to top-k", ROUNDS)


def bench_reconstruct(benchmark, answers):
    out = np.zeros((1, ROWS), np.int64)
    benchmark.pedantic(lambda: _core.reconstruct(answers, out, 1), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"reconstruct rows={ROWS}", cpu.active()["galois"], 20 * ROWS)


def bench_reconstruct_ratio(benchmark, answers):
    out = np.zeros((1, ROWS), np.int64)
    ours = lambda: _core.reconstruct(answers, out, 1)  # noqa: E731
    paired(benchmark, ours, lambda: numpy_scores(answers), f"reconstruct rows={ROWS} ratio", ROUNDS)


@pytest.mark.parametrize("k", [10, 1000])
def bench_reconstruct_top_k(benchmark, answers, k):
    k = min(k, ROWS // 2)
    benchmark.pedantic(lambda: _core.reconstruct_top_k_var(answers, k, 1), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"reconstruct_top_k_var rows={ROWS}", cpu.active()["galois"], 12 * ROWS)


@pytest.mark.parametrize("k", [10, 1000])
def bench_reconstruct_top_k_ratio(benchmark, answers, k):
    k = min(k, ROWS // 2)
    ours = lambda: _core.reconstruct_top_k_var(answers, k, 1)  # noqa: E731
    paired(benchmark, ours, lambda: numpy_top_k(answers, k), f"reconstruct_top_k_var rows={ROWS} k={k} ratio", ROUNDS)
