"""The oracle itself: transforms against products from the definition, expansion against the numbers encrypted."""

import numpy as np
import pytest

from tests.reference import lattice as oracle


@pytest.mark.parametrize(("degree", "primes"), [(4, [17, 41]), (16, [97, 193]), (4096, [281474976694273])])
def test_pointwise_products_are_products_of_polynomials(degree, primes):
    rng = np.random.default_rng(1)
    ring = oracle.LatticeRing(degree, primes)
    a, b = (np.stack([rng.integers(0, p, degree, np.uint64) for p in primes])[None] for _ in range(2))
    expected = [oracle.kronecker(a[0, i], b[0, i], p) for i, p in enumerate(primes)]
    if degree <= 16:
        assert expected == [oracle.schoolbook(a[0, i], b[0, i], p) for i, p in enumerate(primes)]
    before = a.copy()
    for x in (a, b):
        oracle.lattice_forward(ring, x)
    assert (a != before).any()
    oracle.lattice_multiply(ring, a, b, a)
    oracle.lattice_inverse(ring, a)
    assert a[0].tolist() == expected


def test_the_transform_is_evaluation_at_odd_powers():
    ring = oracle.LatticeRing(8, [97])
    a = np.arange(8, dtype=np.uint64)[None, None]
    values = a.copy()
    oracle.lattice_forward(ring, values)
    at = [sum(int(c) * pow(ring.roots[0], k * i, 97) for i, c in enumerate(a[0, 0])) % 97 for k in range(1, 16, 2)]
    assert sorted(values[0, 0].tolist()) == sorted(at)
    assert values[0, 0, 0] == at[0]


def forward(ring, a):
    a = a.copy()
    oracle.lattice_forward(ring, a)
    return a


def encrypted(ring, secret, message, rng):
    """(b, a) with b + a s = message + e modulo q, coefficients; integers."""
    a = [int(x) % ring.q for x in rng.integers(0, 2**63, ring.degree)]
    noise = rng.integers(-4, 5, ring.degree)
    return [
        (int(m) + int(e) - x) % ring.q
        for m, e, x in zip(message, noise, oracle.product(a, secret, ring.q), strict=True)
    ], a


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_expansion_gives_every_coefficient_as_a_constant(count):
    rng, degree = np.random.default_rng(2), 16
    primes = [p for p in range(2**40 + 1, 2**40 + 10**5, 32) if oracle.gmpy2.is_prime(p)][:4]
    ring, key_ring = oracle.LatticeRing(degree, primes[:3]), oracle.LatticeRing(degree, primes)
    secret = rng.integers(-1, 2, degree)
    levels = (count - 1).bit_length()
    keys = np.empty((levels, 3, 2, 4, degree), np.uint64)
    for i in range(levels):
        turned = oracle.automorphism(secret, degree // 2**i + 1)
        for d, p in enumerate(primes[:3]):
            rest = ring.q // p
            factor = primes[3] * rest * pow(rest, -1, p)
            pair = encrypted(key_ring, secret, [factor * x for x in turned], rng)
            keys[i, d] = forward(key_ring, np.stack([oracle.decomposed(key_ring, np.array(x, object)) for x in pair]))
    message = [int(x) * 2**80 for x in rng.integers(-100, 100, degree)]
    message[count:] = [0] * (degree - count)
    pair = encrypted(ring, secret, message, rng)
    out = np.empty((count, 2, 3, degree), np.uint64)
    oracle.lattice_expand(
        ring, key_ring, np.stack([oracle.decomposed(ring, np.array(x, object)) for x in pair]), keys, count, out
    )
    oracle.lattice_inverse(ring, out)
    for j in range(count):
        b, a = (oracle.composed(ring, x) for x in out[j])
        phase = [(int(x) + y) % ring.q for x, y in zip(b, oracle.product(a, secret, ring.q), strict=True)]
        phase[0] -= 2**levels * message[j]
        assert max(abs((x + ring.q // 2) % ring.q - ring.q // 2) for x in phase) < 2**16
