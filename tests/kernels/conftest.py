"""``tier``: every kernel level as itself; skipped where the machine lacks it."""

import pytest

from mipp import cpu


@pytest.fixture(params=["portable", "avx2", "avx512"])
def tier(request):
    if request.param not in cpu.levels():
        pytest.skip(f"this machine lacks {request.param}")
    with cpu.force(request.param):
        yield request.param
