"""Both sides of a ratio, measured in turn: machines are noisy, so only paired figures are compared."""

import os
import statistics
import time

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "1000000"))
ROUNDS = int(os.environ.get("MIPP_BENCH_ROUNDS", "15"))
DIM = 128


def seconds(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def milliseconds(values):
    return round(1e3 * statistics.median(values), 2)


def compare(benchmark, call, baseline, *, rounds=ROUNDS):
    """Time ``call``, and before each round ``baseline``, which returns its seconds.

    Returns, as extra_info, the medians of both in milliseconds and of the paired ratios, and ``cores``: processor time
    over time. Far fewer cores than threads: other work kept the machine busy, or the call is not parallel throughout.
    """
    ours, theirs, cores = [], [], []
    call(), baseline()

    def measured():
        begin = time.process_time()
        ours.append(seconds(call))
        cores.append((time.process_time() - begin) / ours[-1])

    benchmark.pedantic(measured, setup=lambda: theirs.append(baseline()), rounds=rounds, warmup_rounds=0)
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "ms": milliseconds(ours),
        "baseline_ms": milliseconds(theirs),
        "ratio": round(statistics.median(o / t for o, t in pairs), 3),
        "cores": round(statistics.median(cores), 2),
    }
