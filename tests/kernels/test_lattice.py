"""Polynomials modulo X^N + 1: every tier against plain integers, all of small degrees, extremes, known answers."""

import hashlib
import itertools
import json
import math
import os
from decimal import Decimal, getcontext
from pathlib import Path

import gmpy2
import numpy as np
import pytest

from mipp import cpu
from mipp._native import _core
from mipp.errors import DTypeError, ParameterError, ShapeError
from tests.kernels.test_galois import THREADS
from tests.reference import lattice as slow

SANITIZED = os.environ.get("MIPP_SANITIZE") == "1"
VECTORS = Path(__file__).parents[1] / "vectors" / "lattice.json"


def primes_below(bits, degree, count):
    """The largest primes of so many bits that are 1 modulo twice the degree."""
    found, p = [], ((1 << bits) - 1) // (2 * degree) * 2 * degree + 1
    while len(found) < count:
        if p < 1 << bits and gmpy2.is_prime(p):
            found.append(p)
        p -= 2 * degree
    return found


#: degree, bits and number of primes: no blocks, blocks alone, each number of levels before them, the sizes in use
RINGS = [(4, 10, 2), (16, 12, 3), (32, 46, 1), (64, 48, 2), (128, 20, 2), (256, 46, 3), (512, 30, 1), (1024, 48, 2),
         (2048, 46, 1), (4096, 48, 2), (8192, 46, 4), (8192, 48, 1), (16384, 47, 1)]  # fmt: skip


def ring_of(degree, bits, count):
    return _core.LatticeRing(degree, primes_below(bits, degree, count))


def schedules(count, seed=5):
    infos = np.zeros((count, 4), np.uint8)
    infos[:, 0], infos[:, 1] = np.arange(count) % 256, np.arange(count) // 256
    return _core.KeySchedules(bytes([seed]) * 32, infos)


@pytest.fixture
def rng():
    return np.random.default_rng(21)


def residues(rng, ring, *leading):
    columns = [rng.integers(0, p, (*leading, ring.degree), dtype=np.uint64) for p in ring.primes]
    return np.stack(columns, axis=-2)


def signed(a, p):
    return np.where(a > p // 2, a.astype(np.int64) - np.int64(p), a.astype(np.int64))


def values(ring, a):
    out = a.copy()
    _core.lattice_forward(ring, out)
    return out


# --- transforms ------------------------------------------------------------------------------------------------------


def test_all_polynomials_of_degree_four_return(tier):
    p = 17
    ring = _core.LatticeRing(4, [p])
    every = np.array(list(itertools.product(range(p), repeat=4)), np.uint64)[:, None]
    at = values(ring, every)
    assert len(np.unique(at.reshape(-1, 4), axis=0)) == p**4
    roots = [r for r in range(p) if pow(r, 4, p) == p - 1]
    coefficients = every[:, 0].astype(np.int64)
    evaluated = {tuple(sum(coefficients[:, i] * pow(r, i, p) for i in range(4)) % p) for r in roots}
    assert {tuple(column) for column in at[:, 0].T.astype(np.int64)} == evaluated
    _core.lattice_inverse(ring, at)
    assert (at == every).all()


@pytest.mark.parametrize(("degree", "p"), [(4, 17), (8, 17), (16, 97)])
def test_products_of_all_monomials(tier, degree, p):
    """Products are bilinear, so these are all products."""
    ring = _core.LatticeRing(degree, [p])
    left = np.zeros((degree * p, 1, degree), np.uint64)
    for i, c in itertools.product(range(degree), range(p)):
        left[i * p + c, 0, i] = c
    for j in range(degree):
        right = np.zeros((1, degree), np.uint64)
        right[0, j] = 1
        out = np.empty_like(left)
        _core.lattice_multiply(ring, values(ring, left), values(ring, right), out)
        _core.lattice_inverse(ring, out)
        expected = np.zeros_like(left)
        for i, c in itertools.product(range(degree), range(p)):
            expected[i * p + c, 0, (i + j) % degree] = c if i + j < degree else -c % p
        assert (out == expected).all()


@pytest.mark.parametrize(("degree", "bits", "count"), RINGS)
def test_values_are_at_odd_powers_of_a_root(tier, degree, bits, count, rng):
    """The order of values is part of the format: bit-reversed, in blocks of 64 by columns."""
    ring = ring_of(degree, bits, count)
    a = residues(rng, ring)
    out = values(ring, a)
    order = np.array([int(format(i, f"0{degree.bit_length() - 1}b")[::-1], 2) for i in range(degree)])
    if degree >= 64:
        order = order.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1)
    for limb, p in enumerate(ring.primes):
        base = next(b for b in range(2, 10**6) if pow(b, (p - 1) // 2, p) == p - 1)
        root = pow(base, (p - 1) // (2 * degree), p)
        for at in {0, 1, degree // 2 + 1, degree - 1, int(rng.integers(degree))}:
            x, total = pow(root, 2 * int(order[at]) + 1, p), 0
            for coefficient in a[limb][::-1].tolist():
                total = (total * x + coefficient) % p
            assert out[limb, at] == total


@pytest.mark.parametrize(("degree", "bits", "count"), RINGS)
def test_transforms_return_for_extremes(tier, degree, bits, count, rng):
    """The largest residues everywhere, in turns, and in single places: numbers that grow most on the way."""
    ring = ring_of(degree, bits, count)
    top = np.array(ring.primes, np.uint64)[:, None] - np.uint64(1)
    turns = np.arange(degree, dtype=np.uint64) % np.uint64(2)
    one = np.zeros(degree, np.uint64)
    one[degree - 1] = 1
    cases = [top * np.ones(degree, np.uint64), top * turns, top * one, np.zeros((count, degree), np.uint64)]
    cases += [residues(rng, ring), np.sign(rng.standard_normal((count, degree))).clip(0).astype(np.uint64) * top]
    a = np.stack(cases)
    for threads in THREADS:
        out = values(ring, a)
        assert (out < top + np.uint64(1)).all()
        with cpu.force("portable"):
            assert (values(ring, a) == out).all()
        _core.lattice_inverse(ring, out, threads)
        assert (out == a).all()
        _core.lattice_inverse(ring, out, threads)
        with cpu.force("portable"):
            _core.lattice_forward(ring, out, threads)
        assert (out == a).all()


@pytest.mark.parametrize(("degree", "bits", "count"), RINGS)
def test_pointwise_arithmetic(tier, degree, bits, count, rng):
    ring = ring_of(degree, bits, count)
    primes = np.array(ring.primes, object)[:, None]
    a, b = residues(rng, ring, 3), residues(rng, ring, 3)
    a[0], b[0] = (primes - 1).astype(np.uint64), (primes - 1).astype(np.uint64)
    a[1, :, 0], b[1, :, 0] = 0, 0
    exact = a.astype(object), b.astype(object)
    for threads in THREADS:
        out = np.empty_like(a)
        _core.lattice_multiply(ring, a, b, out, threads)
        assert (out == (exact[0] * exact[1] % primes).astype(np.uint64)).all()
        _core.lattice_multiply(ring, a, b[2], out, threads)
        assert (out == (exact[0] * exact[1][2] % primes).astype(np.uint64)).all()
        for other, wanted in ((b, exact[1]), (b[2:], exact[1][2])):
            out = a.copy()
            _core.lattice_add(ring, out, other, threads)
            assert (out == ((exact[0] + wanted) % primes).astype(np.uint64)).all()
        out = a.copy()
        _core.lattice_negate(ring, out, threads)
        assert (out == (-exact[0] % primes).astype(np.uint64)).all()
        numbers = rng.integers(-(2**61), 2**61, (3, degree))
        numbers[0, :4] = 0, -1, -(2**62) + 1, 2**62 - 1
        numbers[1, :3] = ring.primes[0], -ring.primes[0], 1 - ring.primes[0]
        _core.lattice_residues(ring, numbers, out, threads)
        assert (out == (numbers.astype(object)[:, None] % primes).astype(np.uint64)).all()


# --- the product of rows with a query --------------------------------------------------------------------------------


def plain_matvec(ring, words, plain_bits, query):
    """By the oracle, from values to values of this order."""
    rows, dim = words.shape
    out = np.zeros((-(-rows // ring.degree), 2, len(ring.primes), ring.degree), np.uint64)
    coefficients = query.copy()
    _core.lattice_inverse(ring, coefficients)
    for limb, p in enumerate(ring.primes):
        for block, part in np.ndindex(len(out), 2):
            total = np.zeros(ring.degree, object)
            mine = words[block * ring.degree : (block + 1) * ring.degree]
            for d in range(dim):
                column = np.zeros(ring.degree, object)
                column[: len(mine)] = [int(x) for x in slow.centred(mine[:, d], plain_bits)]
                total += np.array(slow.product(column % p, coefficients[d, part, limb], p), object)
            out[block, part, limb] = (total % p).astype(np.uint64)
    _core.lattice_forward(ring, out)
    return out


@pytest.mark.parametrize(
    ("degree", "bits", "count", "rows", "dim", "plain_bits", "dtype"),
    [(4, 10, 2, 1, 1, 10, np.uint16), (16, 33, 1, 50, 5, 32, np.uint32), (32, 46, 2, 40, 19, 20, np.uint64),
     (64, 48, 2, 64, 4, 16, np.uint16), (64, 46, 3, 65, 33, 32, np.uint32), (128, 48, 1, 130, 16, 32, np.uint64),
     (256, 46, 2, 1, 7, 20, np.uint32), (256, 20, 2, 700, 3, 1, np.uint16), (512, 48, 2, 530, 6, 31, np.uint32)],
)  # fmt: skip
def test_matvec(tier, degree, bits, count, rows, dim, plain_bits, dtype, rng):
    ring = ring_of(degree, bits, count)
    words = rng.integers(0, np.iinfo(dtype).max, (rows, dim), dtype=dtype, endpoint=True)
    words[0] = np.iinfo(dtype).max
    words[-1] = 1 << (plain_bits - 1)
    query = residues(rng, ring, dim, 2)
    expected = plain_matvec(ring, words, plain_bits, query)
    for threads in THREADS:
        out = np.empty_like(expected)
        _core.lattice_matvec(ring, words, plain_bits, query, out, threads)
        assert (out == expected).all()


@pytest.mark.parametrize(("degree", "bits", "dim"), [(64, 48, 4096), (4096, 48, 130), (8192, 46, 70), (16384, 47, 37)])
def test_matvec_of_extremes(tier, degree, bits, dim):
    """The largest sums: every word -2^31, or every other one 2^31 - 1, times the largest residues."""
    if SANITIZED and degree > 8192:
        pytest.skip("slow with sanitizers")
    ring = ring_of(degree, bits, 1)
    (p,) = ring.primes
    query = np.full((dim, 2, 1, degree), p - 1, np.uint64)
    query[:, 1, 0, ::2] = 1
    for low, high in ((1 << 31, 1 << 31), (1 << 31, (1 << 31) - 1)):
        words = np.empty((degree, dim), np.uint32)
        words[::2], words[1::2] = low, high
        out = np.empty((1, 2, 1, degree), np.uint64)
        _core.lattice_matvec(ring, words, 32, query, out)
        column = np.array([[int(x) % p for x in slow.centred(words[:, 0], 32)]], np.uint64)
        factor = query[0].astype(object) * dim % p
        assert (out[0] == (values(ring, column).astype(object) * factor % p).astype(np.uint64)).all()


def test_tiers_give_the_same_bytes(tier, rng):
    """At the sizes in use, where the oracle is slow."""
    for degree, bits, count, plain_bits in ((4096, 48, 2, 20), (8192, 46, 3, 32)):
        ring = ring_of(degree, bits, count)
        words = rng.integers(0, 2**32, (degree + 9, 21), dtype=np.uint32)
        query = residues(rng, ring, 21, 2)
        out, portable = np.empty((2, 2, 2, count, degree), np.uint64)
        _core.lattice_matvec(ring, words, plain_bits, query, out)
        with cpu.force("portable"):
            _core.lattice_matvec(ring, words, plain_bits, query, portable)
        assert (out == portable).all()


# --- samplers --------------------------------------------------------------------------------------------------------


def keystream(keys, index, words):
    out = np.empty(words, np.uint64)
    _core.keystream_words(keys, index, 0, out)
    return out


@pytest.mark.parametrize(("degree", "bits", "count"), [(4, 10, 2), (64, 46, 2), (1024, 48, 2), (4096, 47, 1)])
def test_uniform_is_rejection_from_the_keystream(tier, degree, bits, count):
    ring, keys = ring_of(degree, bits, count), schedules(4)
    out = np.empty((3, count, degree), np.uint64)
    for threads in THREADS:
        _core.lattice_uniform(ring, keys, 1, out, threads)
        for m in range(3):
            # whole groups of words are cut for one prime at a time, so a rest goes to the next
            stream = iter(keystream(keys, 1 + m, 40 * degree * count).tolist())
            for limb, p in enumerate(ring.primes):
                kept = (w & ((1 << p.bit_length()) - 1) for w in stream)
                assert out[m, limb].tolist() == list(itertools.islice((w for w in kept if w < p), degree))


def test_ternary(tier):
    ring, keys = ring_of(4096, 48, 2), schedules(8)
    out = np.empty((8, 2, 4096), np.uint64)
    _core.lattice_ternary(ring, keys, 0, out)
    for m in range(8):
        expected = np.array([3 * int(w) >> 64 for w in keystream(keys, m, 4096)]) - 1
        for limb, p in enumerate(ring.primes):
            assert (signed(out[m, limb], p) == expected).all()
    counts = np.bincount(signed(out[:, 0], ring.primes[0]).ravel() + 1)
    assert len(counts) == 3
    assert ((counts - out[:, 0].size / 3) ** 2 / (out[:, 0].size / 3)).sum() < 30


def tail(k):
    """P(abs(X) >= k) for the rounded Gaussian, from the series of erf."""
    getcontext().prec = 70
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
    x = (Decimal(k) - Decimal("0.5")) / (Decimal("3.2") * Decimal(2).sqrt())
    term, total, n = x, x, 0
    while abs(term) > Decimal(10) ** -60:
        n += 1
        term = -term * x * x / n
        total += term / (2 * n + 1)
    return 1 - 2 * total / pi.sqrt()


def test_gaussian(tier):
    """Each number from its word by the exact table, and the distribution as a whole."""
    ring, keys = ring_of(4096, 48, 2), schedules(16)
    table = [int((tail(k) * 2**63).to_integral_value()) for k in range(1, 31)]
    assert table[28] == 5
    assert table[29] == 0
    out = np.empty((16, 2, 4096), np.uint64)
    _core.lattice_gaussian(ring, keys, 0, out)
    words = np.concatenate([keystream(keys, m, 4096) for m in range(16)])
    size = sum((words >> np.uint64(1)) < np.uint64(t) for t in table)
    expected = np.where(words & np.uint64(1), -size, size).reshape(16, 4096)
    for limb, p in enumerate(ring.primes):
        assert (signed(out[:, limb], p) == expected).all()
    assert abs(expected.std() - 3.2) < 0.05
    assert abs(expected.mean()) < 0.06


@pytest.mark.parametrize("bits", [1, 2, 47, 63, 64, 65, 74, 104, 126])
def test_flood(tier, bits):
    ring, keys = ring_of(256, 46, 3), schedules(3)
    out = np.empty((2, 3, 256), np.uint64)
    _core.lattice_flood(ring, keys, 1, bits, out)
    for m in range(2):
        words = keystream(keys, 1 + m, 512).tolist()
        wide = [(low | high << 64) & ((1 << bits) - 1) for low, high in zip(words[::2], words[1::2], strict=True)]
        for limb, p in enumerate(ring.primes):
            assert out[m, limb].tolist() == [(x - (1 << bits - 1)) % p for x in wide]


# --- from residues to numbers ----------------------------------------------------------------------------------------


def composed(ring, a):
    q = math.prod(ring.primes)
    weights = [(q // p) * pow(q // p, -1, p) for p in ring.primes]
    return sum(a[..., limb, :].astype(object) * w for limb, w in enumerate(weights)) % q, q


@pytest.mark.parametrize(("degree", "bits", "count"), RINGS)
@pytest.mark.parametrize("to", [1, 12, 31, 43, 52])
def test_modulus_switching_rounds(tier, degree, bits, count, to, rng):
    ring = ring_of(degree, bits, count)
    a = residues(rng, ring, 2)
    a[0, :, 0] = 0
    a[0, :, 1] = np.array(ring.primes, np.uint64) - np.uint64(1)
    exact, q = composed(ring, a)
    # just below and above a half
    half = [(q * (2 * k + 1) >> (to + 1)) + j for k, j in itertools.product(range(1), (-1, 2))]
    for i, x in enumerate(half):
        a[1, :, i] = [x % p for p in ring.primes]
    exact, q = composed(ring, a)
    out = np.empty((2, degree), np.uint64)
    for threads in THREADS:
        _core.lattice_switch(ring, a, to, out, threads)
        # a / q is right to 2^-60, and what is so near to a tie may go either way
        past = [((x << to + 1) + q) % (2 * q) for x in exact.ravel()]
        near = np.array([min(r, 2 * q - r) << 60 < 2 * q << to for r in past])
        expected = np.array([((x << to + 1) + q) // (2 * q) % (1 << to) for x in exact.ravel()], np.uint64)
        assert near.sum() < degree // 2
        assert (out.ravel() == expected)[~near].all()


@pytest.mark.parametrize("plain_bits", [1, 16, 20, 31, 32])
def test_encoding_rounds(tier, plain_bits, rng):
    ring = ring_of(64, 46, 3)
    q, half = math.prod(ring.primes), 1 << plain_bits - 1
    numbers = rng.integers(-half, half, 40)
    numbers[:3] = -half, half - 1, 0
    out = np.empty((40, 3), np.uint64)
    _core.lattice_encode(ring, numbers, plain_bits, out)
    for value, given in zip(numbers.tolist(), out.tolist(), strict=True):
        # a tie: q is odd, so q value / 2^bits is one where value is 2^(bits - 1) times an odd number
        low = -((-2 * q * value + (1 << plain_bits)) // (2 << plain_bits))
        high = (2 * q * value + (1 << plain_bits)) // (2 << plain_bits)
        assert given in ([low % p for p in ring.primes], [high % p for p in ring.primes])


@pytest.mark.parametrize(("degree", "bits", "to"), [(4, 46, 31), (64, 48, 31), (512, 46, 43), (1024, 48, 52)])
def test_phase(tier, degree, bits, to, rng):
    ring = ring_of(degree, bits, 2)
    secret = rng.integers(-1, 2, degree)
    key = np.empty((2, degree), np.uint64)
    _core.lattice_residues(ring, secret[None], key[None])
    c0, c1 = rng.integers(0, 1 << to, (2, 3, degree), dtype=np.uint64)
    c1[0] = (1 << to) - 1
    out = np.empty_like(c0)
    for threads in THREADS:
        _core.lattice_phase(ring, c0, c1, values(ring, key), to, out, threads)
        for m in range(3):
            product = slow.product(secret.astype(object) % (1 << to), c1[m], 1 << to)
            assert out[m].tolist() == [(x + int(y)) % (1 << to) for x, y in zip(product, c0[m], strict=True)]


# --- known answers ---------------------------------------------------------------------------------------------------


def digest(a):
    return hashlib.sha256(a.tobytes()).hexdigest()


def known():
    """What two parties must agree on: the order of values, roots, samples, sums, switched answers and expansion."""
    found = {}
    for name, degree, bits, limbs, plain_bits in (("n4096", 4096, 48, 2, 20), ("n8192", 8192, 46, 3, 32)):
        key_primes = primes_below(bits, degree, limbs + 1)
        ring, key_ring = _core.LatticeRing(degree, key_primes[:limbs]), _core.LatticeRing(degree, key_primes)
        keys = schedules(64)
        a = np.empty((10, limbs, degree), np.uint64)
        _core.lattice_uniform(ring, keys, 0, a)
        found[f"{name} uniform"] = digest(a)
        for kind in ("ternary", "gaussian"):
            out = np.empty((2, limbs, degree), np.uint64)
            getattr(_core, f"lattice_{kind}")(ring, keys, 20, out)
            found[f"{name} {kind}"] = digest(out)
        _core.lattice_flood(ring, keys, 20, 74, out)
        found[f"{name} flood"] = digest(out)
        found[f"{name} values"] = digest(values(ring, a))
        words = np.arange(5 * (degree + 3), dtype=np.uint32).reshape(-1, 5) * np.uint32(2654435761)
        sums = np.empty((2, 2, limbs, degree), np.uint64)
        _core.lattice_matvec(ring, words, plain_bits, a.reshape(5, 2, limbs, degree), sums)
        found[f"{name} sums"] = digest(sums)
        switched = np.empty((2, 2, degree), np.uint64)
        _core.lattice_switch(ring, sums, plain_bits + 11, switched)
        found[f"{name} switched"] = digest(switched)
        expanding = np.empty((2, limbs, 2, limbs + 1, degree), np.uint64)
        _core.lattice_uniform(key_ring, schedules(64, 6), 0, expanding)
        expanded = np.empty((3, 2, limbs, degree), np.uint64)
        _core.lattice_expand(ring, key_ring, a[:2].copy(), expanding, 3, expanded)
        found[f"{name} expanded"] = digest(expanded)
    return found


def test_known_answers(tier):
    assert known() == json.loads(VECTORS.read_text())


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degree", "primes"),
    [(2, [17]), (6, [37]), (1 << 15, [65537]), (4, []), (4, [17] * 2), (4, [19]), (4, [8 * 4 + 1]), (4, [25]),
     (4, primes_below(49, 4, 1)), (16384, primes_below(48, 16384, 1)), (4, primes_below(20, 4, 9))],
)  # fmt: skip
def test_rings_are_refused(degree, primes):
    with pytest.raises(ParameterError):
        _core.LatticeRing(degree, primes)


def test_numbers_that_are_none_are_refused():
    for degree, primes in ((4.0, [17]), (True, [17]), (4, [17.0]), (4, 17), ("4", [17])):
        with pytest.raises((DTypeError, ParameterError)):
            _core.LatticeRing(degree, primes)


def test_arrays_are_refused(rng):
    ring = ring_of(64, 46, 2)
    good, keys = residues(rng, ring, 3), schedules(3)
    frozen = good.copy()
    frozen.flags.writeable = False
    numbers = np.zeros((3, 64), np.uint64)
    for wrong, error in (
        (good[:, :1].copy(), ShapeError), (good[..., :32].copy(), ShapeError), (good[..., ::-1], ShapeError),
        (good.astype(np.int64), DTypeError), (good.astype(">u8"), DTypeError), (good.tolist(), DTypeError),
        (np.zeros(64, np.uint64), ShapeError),
    ):  # fmt: skip
        for call in (
            lambda w: _core.lattice_forward(ring, w), lambda w: _core.lattice_negate(ring, w),
            lambda w: _core.lattice_multiply(ring, w, good, good.copy()),
            lambda w: _core.lattice_multiply(ring, good, w, good.copy()),
            lambda w: _core.lattice_multiply(ring, good, good.copy(), w),
            lambda w: _core.lattice_add(ring, good.copy(), w), lambda w: _core.lattice_uniform(ring, keys, 0, w),
            lambda w: _core.lattice_switch(ring, w, 30, numbers),
        ):  # fmt: skip
            with pytest.raises(error):
                call(wrong)
    for call in (
        lambda: _core.lattice_forward(ring, frozen),
        lambda: _core.lattice_multiply(ring, good, good[:2].copy(), good.copy()),
        lambda: _core.lattice_uniform(ring, keys, 1, good),
        lambda: _core.lattice_switch(ring, good, 30, numbers[:2]),
        lambda: _core.lattice_residues(ring, np.zeros((2, 64), np.int64), good),
        lambda: _core.lattice_matvec(ring, np.zeros((5, 0), np.uint32), 20, good, good),
        lambda: _core.lattice_matvec(ring, np.zeros((5, 1), np.uint32), 20, good, good),
    ):
        with pytest.raises(ShapeError):
            call()
    for call in (
        lambda: _core.lattice_multiply(ring, good, good, good),
        lambda: _core.lattice_add(ring, good, good[:1]),
        lambda: _core.lattice_switch(ring, good, 53, numbers),
        lambda: _core.lattice_flood(ring, keys, 0, 127, good),
        lambda: _core.lattice_uniform(ring, keys, 4, good),
        lambda: _core.lattice_matvec(ring, np.zeros((5, 1), np.uint16), 17, good[:2, None].copy(), good),
        lambda: _core.lattice_phase(ring, numbers, numbers.copy(), good[0], 54, numbers.copy()),
        lambda: _core.lattice_phase(ring_of(1024, 20, 1), *np.zeros((2, 1, 1024), np.uint64),
                                    np.zeros((1, 1024), np.uint64), 43, np.zeros((1, 1024), np.uint64)),
        lambda: _core.lattice_expand(ring, ring, good[:2].copy(), good, 1, good),
    ):  # fmt: skip
        with pytest.raises(ParameterError):
            call()
