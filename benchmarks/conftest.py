"""Facts in every benchmark's ``extra_info``: the machine, its tier and sizes, and a baseline of the same run.

One BLAS thread for the baselines, and a closing table of what the benchmarks found out beside their times.
"""

import os
import sys

import pytest

# numpy's library reads it once, when it is loaded
if "numpy" not in sys.modules:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

#: module constants that are sizes
SIZES = ("ROWS", "DIM", "WORDS", "ITEMS", "COUNT", "SEGMENTS", "UPLOAD", "K")
REFERENCE_ROWS = 20_000


@pytest.fixture(scope="session")
def reference_product():
    """Seconds of numpy's float32 product, 20,000 rows of 128 by one column, best of five: 10 MB read."""
    import numpy as np

    from benchmarks.common import fastest, numpy_products

    rows = np.random.default_rng(5).random((REFERENCE_ROWS, 128), np.float32)
    ways = numpy_products(rows, 1)
    return lambda: min(fastest(ways) for _ in range(5))


@pytest.fixture(autouse=True)
def facts_of_the_run(request):
    """Machine, tier, sizes and a baseline of the same moment, for every benchmark."""
    if "benchmark" not in request.fixturenames:
        yield
        return
    from benchmarks import machine
    from mipp import cpu

    measure = request.getfixturevalue("reference_product")
    benchmark = request.getfixturevalue("benchmark")
    before = measure()
    yield
    seconds = min(before, measure())
    info = benchmark.extra_info
    info.setdefault("tier", cpu.level())
    info.setdefault("threads", cpu.threads())
    facts = machine.facts()
    info["machine"] = {"fingerprint": machine.fingerprint(facts), **facts}
    sizes = {name.lower(): value for name in SIZES if isinstance(value := getattr(request.module, name, None), int)}
    spec = getattr(request.node, "callspec", None)
    given = {n: v for n, v in (spec.params if spec else {}).items() if isinstance(v, int | str)}
    info["sizes"] = sizes | given
    info["baseline"] = {"name": f"numpy float32, {REFERENCE_ROWS} x 128 x 1, one thread", "ms": round(1e3 * seconds, 3)}
    if benchmark.enabled and benchmark.stats:
        # to three digits: of a fast call three decimals would be 0
        info["baseline"]["ratio"] = float(f"{benchmark.stats.stats.median / seconds:.3g}")


def pytest_benchmark_update_machine_info(machine_info):
    from benchmarks import machine

    machine_info["mipp"] = {"fingerprint": machine.fingerprint(), **machine.facts()}


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    found = [b for b in session.benchmarks if b.extra_info] if session else []
    if found:
        from benchmarks import machine

        terminalreporter.section("findings")
        terminalreporter.write_line(machine.line(machine.facts()))
    for b in found:
        # sizes are in the name
        shown = {name: value for name, value in b.extra_info.items() if name not in ("machine", "sizes", "baseline")}
        if ratio := b.extra_info.get("baseline", {}).get("ratio"):
            shown["numpy_reference_ratio"] = ratio
        terminalreporter.write_line(f"{b.name}: {', '.join(f'{name}={value}' for name, value in shown.items())}")


@pytest.fixture(params=["avx512", "portable"])
def bigint_tier(request):
    """Tiers of the big-integer kernels, each forced; skipped where the machine lacks it."""
    from mipp import cpu  # after the environment is set

    if request.param not in cpu.levels():
        pytest.skip(f"this machine lacks {request.param}")
    with cpu.force(request.param):
        yield request.param
