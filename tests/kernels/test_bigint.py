"""Big-integer kernels: every tier against plain integers, at edge and random moduli, exhaustively at tiny ones."""

import math
import os
import secrets

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp import cpu
from mipp._native import _core
from mipp._native._mpz import from_limbs, to_limbs
from tests.kernels.conftest import tier_fixture
from tests.reference import bigint as oracle

# around the edges of 52- and 64-bit limbs, and of the six spare bits of a radix
SIZES = [2, 3, 45, 46, 47, 51, 52, 53, 57, 58, 59, 63, 64, 65, 97, 98, 99, 104, 127, 128, 129, 416, 521, 1024]
LARGE = [1536, 2048, 3072, 4096]

tier = tier_fixture("portable", "avx512")


def moduli(bits, rng):
    """All ones, the top bit alone (and one), random."""
    found = {(1 << bits) - 1, (1 << bits - 1) + 1}
    found.add(int.from_bytes(rng.bytes(bits // 8 + 1), "big") % (1 << bits - 1) | 1 << bits - 1 | 1)
    return sorted(m for m in found if m >= 3)


def both(m, square):
    limbs = to_limbs([m], -(-m.bit_length() // 64))[0]
    return _core.Modulus(limbs, square), oracle.Modulus(limbs, square)


def numbers(rng, below, count, limbs):
    """Random ones after 0, 1 and the largest."""
    edges = [0, 1 % below, below - 1]
    size = (below.bit_length() + 7) // 8 + 8
    return to_limbs((edges + [int.from_bytes(rng.bytes(size), "big") % below for _ in range(count)])[:count], limbs)


@pytest.fixture
def rng():
    return np.random.default_rng(23)


def test_forced_tier_runs(tier):
    assert cpu.active()["bigint"] == tier


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("bits", SIZES)
def test_every_operation_at_every_size(tier, bits, square, rng):
    for m in moduli(bits, rng):
        ours, slow = both(m, square)
        a, b = (numbers(rng, slow.value, 11, ours.limbs) for _ in range(2))
        b = b[::-1].copy()
        assert np.array_equal(ours.mul(a, b), slow.mul(a, b))
        assert np.array_equal(ours.mul(a, a), slow.mul(a, a))
        assert np.array_equal(ours.product(a[None, 3:]), slow.product(a[None, 3:]))
        exponents = numbers(rng, 1 << 70, 11, 2)
        assert np.array_equal(ours.pow(a, exponents, 70), slow.pow(a, exponents, 70))
        assert np.array_equal(ours.pow_var(a, exponents[4]), slow.pow_var(a, exponents[4]))
        short = rng.integers(0, 1 << 9, (10, 2, 11), dtype=np.uint16)
        short[0], short[1] = 0, (1 << 9) - 1
        assert np.array_equal(ours.multi_pow(a, short, 9, 12), slow.multi_pow(a, short, 9, 12))
        fixed = _core.FixedBase(ours, b[4], 70)
        assert np.array_equal(fixed.pow(exponents), slow.pow(b[4:5], exponents, 70))
        for width in (1, 2 * ours.limbs, 5 * slow.root_limbs):
            wide = numbers(rng, 1 << 64 * width, 11, width)
            assert np.array_equal(ours.reduce(wide), slow.reduce(wide))
        if square:
            plain = numbers(rng, m, 11, slow.root_limbs)
            assert np.array_equal(ours.add_plain(a, plain), slow.add_plain(a, plain))


@pytest.mark.parametrize("bits", LARGE)
def test_large_moduli(tier, bits, rng):
    for m in moduli(bits, rng):
        for square in (False, True):
            ours, slow = both(m, square)
            a, b = (numbers(rng, slow.value, 9, ours.limbs) for _ in range(2))
            assert np.array_equal(ours.mul(a, b), slow.mul(a, b))
            assert np.array_equal(ours.mul(a, a[::-1].copy()), slow.mul(a, a[::-1].copy()))
            exponents = numbers(rng, 1 << 30, 9, 1)
            assert np.array_equal(ours.pow(a, exponents, 30), slow.pow(a, exponents, 30))
        plain = numbers(rng, m, 9, slow.root_limbs)
        assert np.array_equal(ours.add_plain(a, plain), slow.add_plain(a, plain))


def test_largest_modulus(tier, rng):
    for m in ((1 << 8192) - 1, (1 << 8191) + 1):
        ours, slow = both(m, False)
        a, b = (numbers(rng, m, 9, 128) for _ in range(2))
        assert np.array_equal(ours.mul(a, b), slow.mul(a, b))
        assert np.array_equal(ours.pow(a, b[:, :1].copy(), 64), slow.pow(a, b[:, :1], 64))


@pytest.mark.parametrize("square", [False, True])
def test_exhaustive_over_tiny_moduli(tier, square):
    for m in range(3, 40 if not square else 16, 2):
        ours, slow = both(m, square)
        everything = to_limbs(range(slow.value), ours.limbs)
        for x in range(slow.value):
            one = everything[x : x + 1]
            assert from_limbs(ours.mul(everything, one)[:, :1].copy()) == [
                x * y % slow.value for y in range(slow.value)
            ]
        small = to_limbs(range(17), 1)
        for x in range(slow.value):
            got = ours.pow(everything[x : x + 1], small, 5)
            assert oracle.to_ints(got) == [pow(x, e, slow.value) for e in range(17)]


def test_multiples_of_the_root(tier, rng):
    """Numbers whose first part is 0, or 1: what decryption ends with."""
    m = (1 << 512) - 569
    ours, slow = both(m, True)
    parts = numbers(rng, m, 9, 8)
    values = [m * v % slow.value for v in oracle.to_ints(parts)] + [1 + m * v for v in oracle.to_ints(parts)]
    a = to_limbs(values, ours.limbs)
    assert np.array_equal(ours.mul(a, a), slow.mul(a, a))
    assert np.array_equal(ours.mul(a, a[::-1].copy()), slow.mul(a, a[::-1].copy()))
    assert np.array_equal(ours.pow(a, parts[:1, :1].copy(), 64), slow.pow(a, parts[:1, :1], 64))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 15, 16, 17, 130])
def test_batch_sizes(tier, count, rng):
    ours, slow = both((1 << 127) - 1, True)
    a = numbers(rng, slow.value, count, ours.limbs)
    one = numbers(rng, slow.value, 5, ours.limbs)[4:]
    assert np.array_equal(ours.mul(a, a), slow.mul(a, a))
    if count:
        assert np.array_equal(ours.mul(a, one), slow.mul(a, one))
        assert np.array_equal(ours.mul(one, a), slow.mul(one, a))
        e = numbers(rng, 1 << 20, count, 1)
        assert np.array_equal(ours.pow(one, e, 20), slow.pow(one, e, 20))
        assert np.array_equal(ours.pow(a, e[:1], 20), slow.pow(a, e[:1], 20))
        assert np.array_equal(ours.pow(one, e[:1], 20), slow.pow(one, e[:1], 20))
    assert np.array_equal(ours.product(a[None]), slow.product(a[None]))
    assert np.array_equal(ours.product(a[:, None]), a)
    assert ours.product(np.empty((3, 0, ours.limbs), np.uint64)).tolist() == to_limbs([1] * 3, ours.limbs).tolist()
    assert ours.reduce(a).tolist() == a.tolist()
    assert ours.pow_var(a, np.zeros(1, np.uint64)).tolist() == to_limbs([1] * count, ours.limbs).tolist()


@pytest.mark.parametrize("groups", [1, 3])
def test_long_products(tier, groups, rng):
    ours, slow = both((1 << 89) - 1, True)
    a = numbers(rng, slow.value, groups * 201, ours.limbs).reshape(groups, 201, -1)
    a[:, 0] = a[:, 5]  # not 0
    a[:, 201 - 201 % 3 :] = a[:, 5:6]
    a[a.sum(axis=2) == 0] = a[0, 5]
    for threads in (1, 2):
        assert np.array_equal(ours.product(a, threads), slow.product(a))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("outputs", [1, 9, 40, 600])
def test_multi_pow_shapes(tier, dtype, slots, outputs, rng):
    """Few outputs take narrow windows, many take wide ones; full-width exponents."""
    ours, slow = both((1 << 61) - 1, False)
    bits = 8 * np.dtype(dtype).itemsize
    for bases in (1, 2, 9):
        a = numbers(rng, slow.value, bases + 3, 1)[3:]
        e = rng.integers(0, np.iinfo(dtype).max, (outputs, slots, bases), dtype=dtype, endpoint=True)
        got = ours.multi_pow(a, e, bits, bits + 7)
        order = slow.value - 1  # a prime: exponents by Fermat, so that the oracle is quick
        powers = [
            [int(e[i, s, j]) << (bits + 7) * s for s in range(slots) for j in range(bases)] for i in range(outputs)
        ]
        roots = oracle.to_ints(a) * slots
        for i in (0, outputs // 2, outputs - 1):
            expected = (
                math.prod(pow(r, x % order, slow.value) for r, x in zip(roots, powers[i], strict=True)) % slow.value
            )
            assert oracle.to_int(got[i]) == expected


def test_multi_pow_without_bases_or_outputs(tier):
    ours, _ = both(101, True)
    none = np.empty((0, ours.limbs), np.uint64)
    assert oracle.to_ints(ours.multi_pow(none, np.empty((3, 2, 0), np.uint8), 8, 8)) == [1, 1, 1]
    assert ours.multi_pow(none, np.empty((0, 1, 0), np.uint8), 8, 8).shape == (0, ours.limbs)


@pytest.mark.parametrize("window", range(1, 9))
def test_fixed_base_windows(tier, window, rng):
    ours, slow = both((1 << 107) - 1, True)
    base = numbers(rng, slow.value, 4, ours.limbs)[3]
    for bits in (1, 63, 64, 65, 130):
        fixed = _core.FixedBase(ours, base, bits, window)
        exponents = numbers(rng, 1 << bits, 11, -(-bits // 64))
        assert np.array_equal(fixed.pow(exponents), slow.pow(base[None], exponents, bits))
    assert fixed.table_bytes > 0


def test_fixed_base_outlives_the_change_of_level(rng):
    """A table belongs to the tier that it was made on."""
    ours, slow = both((1 << 107) - 1, True)
    base, exponents = numbers(rng, slow.value, 4, ours.limbs)[3], numbers(rng, 1 << 60, 9, 1)
    with cpu.force("portable"):
        fixed = _core.FixedBase(ours, base, 60)
    assert np.array_equal(fixed.pow(exponents), slow.pow(base[None], exponents, 60))
    del ours
    assert np.array_equal(fixed.pow(exponents), slow.pow(base[None], exponents, 60))


@pytest.mark.parametrize("bits", [(5, 7), (60, 60), (64, 64), (100, 130), (512, 512)])
def test_decryptor(tier, bits):
    """Against textbook Paillier: m = L(c^lambda mod n^2) / L(g^lambda mod n^2) mod n."""
    p, q = (int(gmpy2.next_prime(secrets.randbits(b) | 1 << b - 1)) for b in bits)
    if p == q:
        q = int(gmpy2.next_prime(q))
    n = p * q
    h_p, h_q = int(gmpy2.invert(-q, p)), int(gmpy2.invert(-p, q))
    size = max(-(-x.bit_length() // 64) for x in (p, q))
    made = _core.PaillierDecryptor(*to_limbs([p, q, h_p, h_q, int(gmpy2.invert(q, p))], size))
    slow = oracle.PaillierDecryptor(*to_limbs([p, q, h_p, h_q, int(gmpy2.invert(q, p))], size))
    messages = [0, 1, n - 1, p, q, *(secrets.randbelow(n) for _ in range(6))]
    units = [x for x in (secrets.randbelow(n - 1) + 1 for _ in range(40)) if math.gcd(x, n) == 1]
    ciphertexts = [(1 + m * n) * pow(units[i % len(units)], n, n * n) % (n * n) for i, m in enumerate(messages)]
    lam = math.lcm(p - 1, q - 1)
    if math.gcd(n, lam) == 1:
        textbook = [(pow(c, lam, n * n) - 1) // n * pow(lam, -1, n) % n for c in ciphertexts]
        assert textbook == messages
    c = to_limbs(ciphertexts, 2 * made.limbs)
    assert made.limbs == slow.limbs
    assert oracle.to_ints(made.decrypt(c)) == messages == oracle.to_ints(slow.decrypt(c))
    assert made.decrypt(c[:0]).shape == (0, made.limbs)


# every number of registers that one number fills, whole and with a rest; primes of one size, of different limbs
_PAIRS = [(b, b) for b in (8, 20, 26, 31, 32, 33, 63, 64, 65, 128, 155, 200, 205, 207, 256, 310, 384, 413, 512, 517,
                           621, 768, 830, 1024)]  # fmt: skip


@pytest.mark.parametrize("bits", [*_PAIRS, (63, 64), (192, 193), (250, 256), (1500, 1500), (1660, 1664), (2048, 2048)])
def test_few_are_decrypted_as_many(tier, bits):
    """One, two and three by the kernel for single numbers; also what is no ciphertext: 0, multiples of p and q."""
    made = []
    for b in bits:
        found = gmpy2.mpz(0)
        while not gmpy2.is_prime(found) or found in made:
            found = gmpy2.mpz(secrets.randbits(b)) | (gmpy2.mpz(3) << b - 2) | 1
        made.append(found)
    p, q = made
    n = p * q
    size = max(-(-x.bit_length() // 64) for x in made)
    secret = to_limbs([p, q, gmpy2.invert(-q, p), gmpy2.invert(-p, q), gmpy2.invert(q, p)], size)
    ours = _core.PaillierDecryptor(*secret)
    unit = gmpy2.mpz(0)
    while gmpy2.gcd(unit, n) != 1:  # of small primes, one in a hundred numbers is a multiple: no ciphertext
        unit = gmpy2.mpz(secrets.randbelow(int(n)))
    r = [gmpy2.powmod(x, n, n * n) for x in (2, 3, 5, unit)]
    messages = [0, 1, n - 1, secrets.randbelow(int(n))]
    good = [(1 + m * n) * x % (n * n) for m, x in zip(messages, r, strict=True)]
    wild = [0, 1, p, q, p * q, p * p, n * n - 1, (gmpy2.mpz(1) << 128 * ours.limbs) - 1]
    c = to_limbs([*good, *wild, *good], 2 * ours.limbs)
    whole = ours.decrypt(c)
    for few in (1, 2, 3):
        parts = [ours.decrypt(c[i : i + few].copy()) for i in range(0, len(c), few)]
        assert np.array_equal(np.concatenate(parts), whole)
    with cpu.force("portable"):
        assert np.array_equal(ours.decrypt(c), whole) and np.array_equal(ours.decrypt(c[:1].copy()), whole[:1])
    if ours.finishes:
        for i, x in enumerate(oracle.to_ints(c)):
            powers = [to_limbs([gmpy2.powmod(x, s - 1, s * s)], ours.power_limbs) for s in (p, q)]
            assert np.array_equal(ours.finish(*powers)[0], whole[i])
    assert oracle.to_ints(whole[:4]) == messages
    if max(bits) <= 256:
        assert np.array_equal(oracle.PaillierDecryptor(*secret).decrypt(c[:4]), whole[:4])


@pytest.mark.parametrize(("bits", "top", "low"), [(127, 1, 17), (128, 159, 51), (256, 189, 83), (512, 569, 243),
                                                   (1024, 105, 1037)])  # fmt: skip
def test_decryptor_with_primes_full_of_zeros_and_ones(tier, bits, top, low):
    """Primes next to powers of two: limbs full of ones, through which carries run."""
    p, q = gmpy2.next_prime(2**bits - top - 1), gmpy2.next_prime(3 * 2 ** (bits - 2) + low - 1)
    n, size = p * q, -(-bits // 64)
    ours = _core.PaillierDecryptor(
        *to_limbs([p, q, gmpy2.invert(-q, p), gmpy2.invert(-p, q), gmpy2.invert(q, p)], size)
    )
    messages = [0, 1, n - 1, p, q, n - p, p * p % n, 2**bits, n // 2, 3]
    roots = [1, n - 1, 2, 2**bits, p - 1, q + 1, 2**64, 2**52, 2**52 - 1, 2 ** (bits - 1)]
    good = [(1 + m * n) * gmpy2.powmod(r, n, n * n) % (n * n) for m, r in zip(messages, roots, strict=True)]
    for c, m in zip(good, messages, strict=True):
        assert oracle.to_ints(ours.decrypt(to_limbs([c], 2 * ours.limbs))) == [m]


def test_threads_agree(tier, rng):
    ours, slow = both((1 << 127) - 1, True)
    a, e = numbers(rng, slow.value, 300, ours.limbs), numbers(rng, 1 << 40, 300, 1)
    short = rng.integers(0, 256, (300, 2, 20), dtype=np.uint8)
    fixed = [_core.FixedBase(ours, a[5], 40, threads=t).pow(e, t) for t in (1, 2)]
    assert np.array_equal(*fixed)
    for call in (
        lambda t: ours.mul(a, a, t), lambda t: ours.pow(a, e, 40, t), lambda t: ours.reduce(a, t),
        lambda t: ours.multi_pow(a[:20], short, 8, 9, t), lambda t: ours.product(a[None, 3:], t),
    ):  # fmt: skip
        assert np.array_equal(call(1), call(2))


def test_forked_child_computes():
    ours, slow = both((1 << 127) - 1, True)
    a = numbers(np.random.default_rng(1), slow.value, 100, ours.limbs)
    expected = ours.mul(a, a, 2)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(ours.mul(a, a, 2), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_powers_of_any_modulus(data):
    m = data.draw(st.integers(1, 1 << 300)) * 2 + 1
    square = data.draw(st.booleans())
    ours, slow = both(m, square)
    values = data.draw(st.lists(st.integers(0, slow.value - 1), min_size=1, max_size=9))
    exponent = data.draw(st.integers(0, 1 << 130))
    a, e = to_limbs(values, ours.limbs), to_limbs([exponent], 3)
    for level in cpu.levels():
        with cpu.force(level):
            assert oracle.to_ints(ours.pow(a, e, 131)) == [pow(v, exponent, slow.value) for v in values]
            assert oracle.to_ints(ours.pow_var(a, e[0])) == [pow(v, exponent, slow.value) for v in values]


def test_known_powers_by_gmpy2(tier):
    """3072 bits, against GMP's own exponentiation."""
    m = gmpy2.mpz(secrets.randbits(3072) | 1 << 3071 | 1)
    ours = _core.Modulus(to_limbs([m], 48)[0], True)
    values = [gmpy2.mpz(secrets.randbelow(int(m * m))) for _ in range(3)]
    e = secrets.randbits(256)
    got = from_limbs(ours.pow(to_limbs(values, 96), to_limbs([e], 4), 256))
    assert got == [gmpy2.powmod(v, e, m * m) for v in values]
