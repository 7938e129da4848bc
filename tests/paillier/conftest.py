"""Keys that are made once."""

import pytest

from mipp.paillier import PrivateKey, generate_keypair


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
