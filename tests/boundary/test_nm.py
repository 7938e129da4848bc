"""No tier library defines what another could pick up; a search of the sources finds every kernel's name."""

import shutil
from pathlib import Path

import pytest

from tests.boundary import check_nm

ROOT = Path(__file__).resolve().parents[2]


def test_tier_libraries():
    found = check_nm.libraries(ROOT / "build")
    if not found or shutil.which("nm") is None:
        pytest.skip("needs nm and an in-place build, which leaves its libraries in build/")
    assert [line for library in found for line in check_nm.check(library)] == []


def test_the_check_sees_what_it_looks_for():
    listing = """
ring.o:
0000000000000000 T ring_matmul_u32_avx2
0000000000000010 t _ZN12_GLOBAL__N_1L4tileEv
0000000000000020 W _ZSt3minImERKT_S2_S2_
0000000000000030 T helper
"""
    assert len(check_nm.problems(listing, "avx2")) == 2
    assert len(check_nm.problems(listing, "avx512")) == 3
    pasted = listing.replace("helper", "ring_matmul_u128_avx2")
    assert check_nm.unwritten(pasted) == ["ring_matmul_u128_avx2 is not written out under csrc/"]
