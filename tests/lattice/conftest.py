"""Parameter sets of the tests: the real ones where it matters, a small one where a test needs many products."""

import pytest

from mipp.lattice import Parameters


@pytest.fixture(scope="session")
def small():
    """Degree 64: the arithmetic is the same, and tests are quick."""
    return Parameters("small", 64, (281474976694273, 281474976636929), None, 20, insecure=True)


@pytest.fixture(scope="session")
def small_expanding():
    primes = (70368743669761, 70368743587841, 70368743489537)
    return Parameters("small expanding", 64, primes, 70368743374849, 32, insecure=True)
