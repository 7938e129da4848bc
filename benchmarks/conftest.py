"""One BLAS thread for the baselines, and a closing table of what the benchmarks found out beside their times."""

import os
import sys

import pytest

# numpy's library reads it once, when it is loaded
if "numpy" not in sys.modules:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    found = [b for b in session.benchmarks if b.extra_info] if session else []
    if found:
        terminalreporter.section("findings")
    for b in found:
        facts = ", ".join(f"{name}={value}" for name, value in b.extra_info.items())
        terminalreporter.write_line(f"{b.name}: {facts}")


@pytest.fixture(params=["avx512", "portable"])
def bigint_tier(request):
    """Tiers of the big-integer kernels, each forced; skipped where the machine lacks it."""
    from mipp import cpu  # after the environment is set

    if request.param not in cpu.levels():
        pytest.skip(f"this machine lacks {request.param}")
    with cpu.force(request.param):
        yield request.param
