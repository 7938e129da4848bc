"""``tier``: every kernel level as itself; skipped where the machine lacks it."""

import pytest

from mipp import cpu


def pytest_generate_tests(metafunc):
    """A test module of a family that has an amx tier says so: ``HAS_AMX = True``."""
    if "tier" in metafunc.fixturenames:
        amx = ["amx"] if getattr(metafunc.module, "HAS_AMX", False) else []
        metafunc.parametrize("tier", ["portable", "avx2", "avx512", *amx], indirect=True)


@pytest.fixture
def tier(request):
    if request.param not in cpu.levels():
        pytest.skip(f"this machine lacks {request.param}")
    with cpu.force(request.param):
        yield request.param
