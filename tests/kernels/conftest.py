"""``tier``: every kernel tier of a family as itself; skipped where the machine lacks its level.

The families' usual tiers are those below. A module of a family that has others makes its own:
``tier = tier_fixture("portable", "avx512")``.
"""

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
