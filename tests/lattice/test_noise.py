"""What a user's decryption shows besides scores: noise within its bounds, and the same for every database.

Noise is compared as a user can see it, with a modulus so small that rows' noise would show; and more exactly than a
user can, before moduli are switched. Each comparison must see a planted lack of flooding.
"""

import math

import gmpy2
import numpy as np
import pytest

from mipp._native import _core
from mipp.lattice import EvaluationKey, Parameters, SecretKey, decrypt, encrypt, matvec, prepare
from mipp.lattice import polynomials as poly
from tests.reference import lattice as oracle

KEY = bytes(range(32))


def phases(p, secret, ciphertexts):
    """c0 + c1 s modulo q, centred, of coefficients (M, 2, L, N): integers (M, N)."""
    key = [int(x) for x in secret.coefficients]
    ring = oracle.LatticeRing(p.degree, p.primes)
    found = []
    for c in ciphertexts:
        b, a = (oracle.composed(ring, x) for x in c)
        product = oracle.product(a, [x % ring.q for x in key], ring.q)
        found.append([(int(x) + y + ring.q // 2) % ring.q - ring.q // 2 for x, y in zip(b, product, strict=True)])
    return np.array(found, object)


def two_sample(a, b):
    """Kolmogorov-Smirnov: the largest difference of distribution functions, in units of its critical value at 1e-6."""
    a, b = np.sort(a), np.sort(b)
    both = np.concatenate([a, b])
    distance = np.abs(np.searchsorted(a, both, "right") / len(a) - np.searchsorted(b, both, "right") / len(b)).max()
    critical = math.sqrt(-math.log(1e-6 / 2) / 2 * (len(a) + len(b)) / (len(a) * len(b)))
    return distance / critical


@pytest.fixture
def without_flood(monkeypatch):
    real = _core.lattice_flood
    monkeypatch.setattr(_core, "lattice_flood", lambda r, s, first, bits, out, threads=None: real(r, s, first, 1, out))


@pytest.fixture
def without_encryption_of_zero(monkeypatch):
    monkeypatch.setattr(_core, "lattice_ternary", lambda r, s, first, out, threads=None: out.fill(0))


@pytest.fixture(scope="module")
def narrow():
    """Of a modulus so small that extreme rows' noise is about 4 units of an answer's last place."""
    primes = tuple(p for p in range(2**28 + 1, 2**28 + 2**16, 128) if gmpy2.is_prime(p))[:2]
    return Parameters("narrow", 64, primes, None, 20, insecure=True)


def databases(p, rows, coordinates):
    """All words 0, and all of the largest size."""
    signs = np.random.default_rng(3).integers(0, 2, (rows, coordinates)).astype(bool)
    half = 2 ** (p.plain_bits - 1)
    return np.zeros((rows, coordinates), np.uint32), np.where(signs, half - 1, 2**32 - half).astype(np.uint32)


def seen_noise(p, secret, query, words, context):
    """Noise as the user computes it: the answer's phase, less the score that it holds."""
    answer = matvec(words, query, noise_key=KEY, context=context)
    numbers = np.empty(len(answer) * 64 // p.switched_bits, np.uint64)
    _core.unpack_words(answer, p.switched_bits, numbers)
    modulus, found = 2**p.switched_bits, []
    for c0, c1 in numbers.reshape(-1, 2, p.degree):
        turned = oracle.product(c1, [int(x) % modulus for x in secret.coefficients], modulus)
        found += [(int(a) + b + 1024) % 2048 - 1024 for a, b in zip(c0, turned, strict=True)]
    return np.array(found)


def user_distance(p):
    secret = SecretKey.generate(p)
    rows, coordinates = 6400, 128
    query = prepare(encrypt(secret, np.random.default_rng(4).integers(-1000, 1000, coordinates)))
    none, extreme = databases(p, rows, coordinates)
    return two_sample(*(seen_noise(p, secret, query, w, c) for w, c in ((none, b"first"), (extreme, b"second"))))


def test_noise_that_a_user_sees_is_the_same_for_every_database(narrow):
    assert user_distance(narrow) < 1


def test_a_user_would_see_a_lack_of_flooding(narrow, without_flood):
    assert user_distance(narrow) > 2


def exact_noise(p, secret, query, words, context, monkeypatch):
    """Noise before moduli are switched, less a multiple of q/t."""
    seen, real = [], _core.lattice_switch
    with monkeypatch.context() as patch:
        patch.setattr(_core, "lattice_switch", lambda r, a, *rest: (seen.append(a.copy()), real(r, a, *rest))[1])
        matvec(words, query, noise_key=KEY, context=context)
    found = phases(p, secret, np.stack(seen, axis=1)).reshape(-1)
    t = 2**p.plain_bits
    return np.array([float(x - oracle.rounded(oracle.rounded(x * t, p.modulus) * p.modulus, t)) for x in found])


def exact_distance(p, monkeypatch):
    secret = SecretKey.generate(p)
    evaluation = EvaluationKey.generate(secret, 8) if p.special else None
    query = prepare(encrypt(secret, np.arange(8) - 3), evaluation)
    none, extreme = databases(p, 3200, 8)
    found = [exact_noise(p, secret, query, w, c, monkeypatch) for w, c in ((none, b"first"), (extreme, b"second"))]
    for noise in found:
        assert np.abs(noise).max() <= 2.0 ** (p.flood_bits - 1) * 1.001
    return two_sample(*found)


@pytest.mark.parametrize("name", ["small", "small_expanding"])
def test_exact_noise_is_the_same_for_every_database(name, request, monkeypatch):
    assert exact_distance(request.getfixturevalue(name), monkeypatch) < 1


@pytest.mark.parametrize("name", ["small", "small_expanding"])
def test_exact_noise_would_show_a_lack_of_flooding(name, request, monkeypatch, without_flood):
    assert exact_distance(request.getfixturevalue(name), monkeypatch) > 2


def second_component(p):
    """How far the second component is from the combination of rows that the user can compute, as a share of t."""
    secret = SecretKey.generate(p)
    query = prepare(encrypt(secret, np.array([3, 1, 4])))
    words = np.random.default_rng(6).integers(0, 2**32, (64, 3), np.uint32)
    answer = matvec(words, query, noise_key=KEY, context=b"query")
    numbers = np.empty(128, np.uint64)
    _core.unpack_words(answer, p.switched_bits, numbers)
    combination = np.empty((1, 2, p.limbs, p.degree), np.uint64)
    _core.lattice_matvec(poly.ring(p), words, p.plain_bits, query.polynomials, combination)
    _core.lattice_inverse(poly.ring(p), combination)
    known = np.empty((1, p.degree), np.uint64)
    _core.lattice_switch(poly.ring(p), np.ascontiguousarray(combination[:, 1]), p.switched_bits, known)
    modulus = 2**p.switched_bits
    away = (numbers[64:].astype(np.int64) - known[0].astype(np.int64)) % modulus
    return np.minimum(away, modulus - away) / modulus


def test_the_second_component_is_no_known_combination_of_the_rows(small):
    away = second_component(small)
    assert 0.15 < away.mean() < 0.35  # uniform: 1/4, standard deviation 0.018
    assert away.max() > 0.4


def test_a_lack_of_the_encryption_of_zero_is_seen(small, without_encryption_of_zero):
    assert second_component(small).max() < 2**-25


def test_servers_add_an_encryption_of_zero(small, monkeypatch):
    """To rows of zeros: v b + flood and v a + e1, v ternary, e1 Gaussian, the flood uniform."""
    query = prepare(encrypt(SecretKey.generate(small), np.array([3])))
    ternary, switched, draw, switch = [], [], _core.lattice_ternary, _core.lattice_switch

    def drawn(ring, schedules, first, out, *rest):
        draw(ring, schedules, first, out, *rest)
        ternary.append(out.copy())

    monkeypatch.setattr(_core, "lattice_ternary", drawn)
    monkeypatch.setattr(
        _core, "lattice_switch", lambda r, a, *rest: (switched.append(a.copy()), switch(r, a, *rest))[1]
    )
    matvec(np.zeros((4096, 1), np.uint32), query, noise_key=KEY, context=b"query")
    ring, found = oracle.LatticeRing(small.degree, small.primes), []
    for zero, component in zip(query.zero, switched, strict=True):
        _core.lattice_inverse(poly.ring(small), coefficients := zero.copy())
        known = oracle.composed(ring, coefficients)
        v = [oracle.composed(ring, x) for x in ternary[0]]
        product = np.array([oracle.product(known, x, ring.q) for x in v], object)
        found.append((oracle.composed(ring, component) - product + ring.q // 2) % ring.q - ring.q // 2)
    values, counts = np.unique(((np.array(v) + 1) % ring.q).astype(int), return_counts=True)
    assert values.tolist() == [0, 1, 2]
    assert np.abs(counts - 4096 / 3).max() < 6 * np.sqrt(4096 * 2 / 9)
    flood, error = (x.astype(float).reshape(-1) for x in found)
    assert np.std(error) == pytest.approx(3.2, rel=0.06)
    bound = 2.0 ** (small.flood_bits - 1)
    assert np.abs(flood).max() <= bound
    uniform = np.sort(flood) / (2 * bound) + 0.5
    assert np.abs(uniform - np.linspace(0, 1, len(uniform))).max() < 2.5 / math.sqrt(len(uniform))


@pytest.mark.parametrize("choice", [(16, 20, 32), (16, 32, 32)])
def test_noise_is_within_its_bound_and_near_it(choice):
    """Floods of two servers fill what the bound gives them: one that is too small fails as one that is too large."""
    p = Parameters.choose(*choice)
    secret = SecretKey.generate(p)
    evaluation = EvaluationKey.generate(secret, 3) if p.special else None
    query = prepare(encrypt(secret, np.array([1, 2, 3])), evaluation)
    _, words = databases(p, p.degree, 3)
    answers = [matvec(words, query, noise_key=bytes([i] * 32), context=b"query") for i in range(2)]
    flood = 2.0 ** (p.flood_bits + p.switched_bits - p.log_q)  # the largest of two servers
    assert flood == pytest.approx(512, rel=0.01)
    _, report = decrypt(secret, answers, p.degree)
    assert 0.9 * flood < report.largest <= p.largest_noise(2)
    assert report.bits_left > math.log2(1024 / p.largest_noise(2))
    _, alone = decrypt(secret, answers[0], p.degree)
    assert 0.45 * flood < alone.largest <= p.largest_noise(1)


def test_noise_of_expanded_ciphertexts_is_as_estimated():
    p = Parameters.choose(16, 32, 32)
    secret, coordinates = SecretKey.generate(p), 16
    values = np.arange(coordinates) * 12345678 - 10**8
    query = prepare(encrypt(secret, values), EvaluationKey.generate(secret, coordinates))
    coefficients = query.polynomials.copy()
    _core.lattice_inverse(poly.ring(p), coefficients)
    some = [0, 1, 7, 10, 15]
    noise = phases(p, secret, coefficients[some])
    for row, j in zip(noise, some, strict=True):
        row[0] -= oracle.rounded(int(values[j]) * p.modulus, 2**p.plain_bits)
    measured = math.sqrt(np.mean(noise.astype(float) ** 2))
    assert measured == pytest.approx(p.query_noise(coordinates), rel=0.05)


def test_noise_of_fresh_queries_is_the_errors(small):
    secret = SecretKey.generate(small)
    query = prepare(encrypt(secret, np.zeros(100, np.int64)))
    coefficients = np.concatenate([query.polynomials, query.zero[None]])
    _core.lattice_inverse(poly.ring(small), coefficients)
    noise = phases(small, secret, coefficients).astype(float)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(small.query_noise(100), rel=0.05)
    assert np.abs(noise).max() < 30
