"""Keys that are made once, and ``tier``: the native tiers, each as itself."""

import pytest

from mipp import cpu
from mipp.paillier import PrivateKey, generate_keypair


@pytest.fixture(params=["portable", "avx512"])
def tier(request):
    if request.param not in cpu.levels():
        pytest.skip(f"this machine lacks {request.param}")
    with cpu.force(request.param):
        yield request.param


@pytest.fixture(scope="session")
def key():
    """512 bits: the arithmetic is the same, and tests are quick."""
    return generate_keypair(512, insecure=True)


@pytest.fixture(scope="session")
def other_key():
    return generate_keypair(512, insecure=True)


@pytest.fixture(scope="session")
def tiny():
    """n = 11 * 17 = 187; plaintexts from -61 to 61."""
    return PrivateKey(11, 17, insecure=True)
