"""Both sides of a ratio, measured in turn: machines are noisy, so only paired figures are compared."""

import os
import statistics
import time

from benchmarks.common import paired

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "1000000"))
ROUNDS = int(os.environ.get("MIPP_BENCH_ROUNDS", "15"))
DIM = 128


def milliseconds(values):
    return round(1e3 * statistics.median(values), 2)


def compare(benchmark, call, baseline, *, rounds=ROUNDS):
    """Time ``call``, and before each round ``baseline``, which returns its seconds.

    Returns, as extra_info, the medians of both in milliseconds and of the paired ratios, and ``cores``: processor time
    over time. Far fewer cores than threads: other work kept the machine busy, or the call is not parallel throughout.
    """
    cores = []
    call(), baseline()

    def measured():
        processor, begin = time.process_time(), time.perf_counter()
        call()
        cores.append((time.process_time() - processor) / (time.perf_counter() - begin))

    pairs = paired(benchmark, measured, baseline, rounds=rounds)
    ours, theirs = pairs.medians(1e3)
    return {"ms": ours, "baseline_ms": theirs, "ratio": pairs.ratio, "cores": round(statistics.median(cores), 2)}
