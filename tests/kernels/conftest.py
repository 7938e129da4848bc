"""``tier``: every kernel level as itself; skipped where the machine lacks it."""

import pytest

from mipp import cpu


def tier_fixture(*levels):
    @pytest.fixture(params=levels, name="tier")
    def made(request):
        if request.param not in cpu.levels():
            pytest.skip(f"this machine lacks {request.param}")
        with cpu.force(request.param):
            yield request.param

    return made


tier = tier_fixture("portable", "avx2", "avx512")
#: for families that have an amx tier
tier_to_amx = tier_fixture("portable", "avx2", "avx512", "amx")
