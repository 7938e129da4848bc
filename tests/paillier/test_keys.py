"""Keys: textbook answers, generation, checks, randomness, pools."""

import copy
import math
import os
import pickle
import secrets
import threading

import gmpy2
import numpy as np
import pytest

from mipp.errors import DTypeError, ParameterError, ShapeError
from mipp.paillier import PrivateKey, PublicKey, RandomnessPool, generate_keypair
from mipp.paillier.limbs import from_limbs, random_below, to_limbs

# --- textbook Paillier, from the paper, with Python integers ---------------------------------------------------------


def textbook_encrypt(n, m, r):
    return pow(n + 1, m, n * n) * pow(r, n, n * n) % (n * n)


def textbook_decrypt(p, q, c):
    n, lam = p * q, math.lcm(p - 1, q - 1)
    mu = pow((pow(n + 1, lam, n * n) - 1) // n, -1, n)
    return (pow(c, lam, n * n) - 1) // n * mu % n


#: c by the textbook functions above, with Python's integers
KNOWN = [
    # p, q, m, r, c
    (293, 433, 521, 666, 13155545102),
    (293, 433, 0, 1, 1),
    (293, 433, 126868, 2, None),
]


@pytest.mark.parametrize(("p", "q", "m", "r", "c"), KNOWN)
def test_known_answers(bigint_tier, p, q, m, r, c):
    n = p * q
    expected = textbook_encrypt(n, m, r)
    assert c is None or c == expected
    key = PrivateKey(p, q, insecure=True)
    power = to_limbs([pow(r, n, n * n)], key.public.element_limbs)
    got = key.public.raw_encrypt(to_limbs([m], key.public.limbs), power)
    assert from_limbs(got) == [expected]
    assert textbook_decrypt(p, q, expected) == m == from_limbs(key.raw_decrypt(got))[0]


@pytest.mark.parametrize("bits", [128, 1024, 2048])
def test_against_the_textbook(bigint_tier, bits):
    key = generate_keypair(bits, insecure=True)
    n, limbs = int(key.public.n), key.public.limbs
    messages = [0, 1, n - 1, n // 2, int(key.p), secrets.randbelow(n)]
    for options in ({}, {"full_range": True}):
        ciphertexts = key.public.raw_encrypt(to_limbs(messages, limbs), **options)
        assert [textbook_decrypt(int(key.p), int(key.q), int(c)) for c in from_limbs(ciphertexts)] == messages
        assert from_limbs(key.raw_decrypt(ciphertexts)) == messages
    theirs = [textbook_encrypt(n, m, secrets.randbelow(n - 1) + 1) for m in messages[-2:]]
    assert from_limbs(key.raw_decrypt(to_limbs(theirs, 2 * limbs))) == messages[-2:]


def test_exhaustive_over_a_tiny_key(bigint_tier, tiny):
    """Every plaintext with every randomness."""
    n = 187
    units = [r for r in range(1, n) if math.gcd(r, n) == 1]
    for r in units:
        power = to_limbs([pow(r, n, n * n)] * n, tiny.public.element_limbs)
        ciphertexts = tiny.public.raw_encrypt(to_limbs(range(n), 1), power)
        assert from_limbs(ciphertexts) == [textbook_encrypt(n, m, r) for m in range(n)]
        assert from_limbs(tiny.raw_decrypt(ciphertexts)) == list(range(n))


@pytest.mark.parametrize("primes", [(11, 10**9 + 7), (2**89 - 1, 2**107 - 1), (2**127 - 1, 2**89 - 1)])
def test_primes_of_different_size(bigint_tier, primes):
    try:
        key = PrivateKey(*primes, insecure=True)
    except ParameterError as error:
        assert "similar size" in str(error)
        return
    n = primes[0] * primes[1]
    messages = [0, 1, n - 1, *(secrets.randbelow(n) for _ in range(9))]
    assert from_limbs(key.raw_decrypt(key.public.raw_encrypt(to_limbs(messages, key.public.limbs)))) == messages


# --- generation and checks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [16, 64, 512, 2048])
def test_generated_keys(bits):
    for _ in range(20 if bits < 512 else 1):
        key = generate_keypair(bits, insecure=bits < 2048)
        p, q = int(key.p), int(key.q)
        assert key.public.n == p * q and key.public.bits == bits
        assert p % 4 == q % 4 == 3 and math.gcd(p - 1, q - 1) == 2
        assert gmpy2.is_prime(p) and gmpy2.is_prime(q) and p.bit_length() == q.bit_length() == bits // 2
    # of 16 bits there are few: any of ten may differ
    assert any(generate_keypair(bits, insecure=True) != key for _ in range(10 if bits < 512 else 1))


@pytest.mark.parametrize("bits", [1024, 2047, 3000, 8192, 0, -2, 2048.0, True, "2048"])
def test_key_sizes_are_checked(bits):
    with pytest.raises(ParameterError):
        generate_keypair(bits)


def test_default_size():
    from mipp.paillier import DEFAULT_BITS

    assert DEFAULT_BITS == 3072


@pytest.mark.parametrize(
    ("p", "q", "what"),
    [
        (15, 23, "primes"),
        (23, 21, "primes"),
        (2, 23, "primes"),
        (23, 23, "differ"),
        (7, 29, "common"),
        (-11, 23, "primes"),
    ],
)
def test_defective_private_keys(p, q, what):
    with pytest.raises(ParameterError, match=what):
        PrivateKey(p, q, insecure=True)


def test_short_and_uneven_keys_need_to_be_wanted(key):
    with pytest.raises(ParameterError, match="2048"):
        PrivateKey(key.p, key.q)
    p, q = gmpy2.next_prime(1 << 1200), gmpy2.next_prime(1 << 1000)
    with pytest.raises(ParameterError, match="same number of bits"):
        PrivateKey(p, q)
    for bad in (1.5, "3", None, True):
        with pytest.raises(DTypeError):
            PrivateKey(bad, 23, insecure=True)


def test_defective_public_keys():
    p = gmpy2.next_prime(secrets.randbits(2100) | 1 << 2099)
    half = gmpy2.next_prime(secrets.randbits(1050) | 1 << 1049)
    for n, what in (
        (p, "prime"), (half * half, "power"), (p * 2, "odd"), (p * 31, "small factor"), (0, "bits"), (-15, "bits"),
    ):  # fmt: skip
        with pytest.raises(ParameterError, match=what):
            PublicKey(n)
    for n in (9, 13, 16, 27):
        with pytest.raises(ParameterError):
            PublicKey(n, insecure=True)
    with pytest.raises(ParameterError, match="2048 to 4096"):
        PublicKey(half)
    with pytest.raises(ParameterError, match="4096"):
        PublicKey((1 << 5000) + 1, insecure=True)


def test_bytes_and_pickle(key, other_key):
    public = key.public
    assert PublicKey.from_bytes(public.to_bytes(), insecure=True) == public
    again = PrivateKey.from_bytes(key.to_bytes(), insecure=True)
    assert again == key and again.public.fingerprint == public.fingerprint and hash(again) == hash(key)
    assert key != other_key and public != other_key.public and public != public.n
    public.prepare()
    unpickled = pickle.loads(pickle.dumps(public))
    assert unpickled == public and unpickled._base is None  # no base, no table
    assert len(pickle.dumps(public)) < 1000
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(key)
    with pytest.raises(ParameterError, match="2048"):
        PrivateKey.from_bytes(key.to_bytes())


@pytest.mark.parametrize("data", [b"", b"nonsense", b"mipp paillier public 2\n123", 7, "text"])
def test_bytes_that_are_no_key(data):
    with pytest.raises(ParameterError):
        PublicKey.from_bytes(data)
    with pytest.raises(ParameterError):
        PrivateKey.from_bytes(data)


def test_truncated_keys(key):
    for cut in (1, 2, 10):
        with pytest.raises(ParameterError):
            PrivateKey.from_bytes(key.to_bytes()[:-cut], insecure=True)
    with pytest.raises(ParameterError):
        PrivateKey.from_bytes(key.public.to_bytes(), insecure=True)


def test_nothing_secret_is_printed(key):
    for text in (repr(key), str(key), repr(key.public), repr(key._decryptor), repr(RandomnessPool(key.public))):
        for secret in (key.p, key.q):
            assert str(secret)[:12] not in text and hex(secret)[2:14] not in text


# --- raw numbers -------------------------------------------------------------------------------------------------


def test_bad_plaintexts_and_ciphertexts(key):
    public = key.public
    good = public.raw_encrypt(to_limbs([5], public.limbs))
    with pytest.raises(ParameterError):
        public.raw_encrypt(to_limbs([public.n], public.limbs))
    for bad in (np.zeros((2, public.limbs + 1), np.uint64), np.zeros(public.limbs, np.uint64)):
        with pytest.raises(ShapeError):
            public.raw_encrypt(bad)
    for number in (0, public.n, key.p, key.p * key.q * 2, public.n_squared, public.n_squared - public.n):
        with pytest.raises(ParameterError):
            key.raw_decrypt(np.concatenate([good, to_limbs([number], public.element_limbs)]))
    for bad in (good[:, 1:], good[0], good[None]):
        with pytest.raises(ShapeError):
            key.raw_decrypt(bad)
    for bad in (good.astype(np.int64), good.tolist()):
        with pytest.raises(DTypeError):
            key.raw_decrypt(bad)
    assert key.raw_decrypt(good[:0]).shape == (0, public.limbs)
    for count in (-1, True, 1.5):
        with pytest.raises(ParameterError):
            public.randomness(count)


# --- randomness --------------------------------------------------------------------------------------------------


def is_residue(key, numbers):
    """Whether these are n-th powers: encryptions of 0."""
    return set(from_limbs(key.raw_decrypt(numbers))) == {0}


@pytest.mark.parametrize("full_range", [False, True])
def test_randomness_is_fresh(bigint_tier, key, full_range):
    public = PublicKey(key.public.n, insecure=True)
    values = np.concatenate([public.randomness(40, full_range=full_range) for _ in range(3)])
    assert is_residue(key, values)
    assert len({v.tobytes() for v in values}) == 120
    assert public._base is None if full_range else public._base is not None


def test_few_encryptions_make_no_table(key):
    public = PublicKey(key.public.n, insecure=True)
    assert is_residue(key, public.randomness(3)) and public._base is None
    public.randomness(30)
    assert public._base is not None


def test_short_exponents_have_all_their_bits(monkeypatch, key):
    """Powers of a table whose base is 1 + n: decryption shows the exponents."""
    public = PublicKey(key.public.n, insecure=True)
    public.prepare()
    from mipp._native import _core

    base = to_limbs([public.n + 1], public.element_limbs)[0]
    public._base = _core.FixedBase(public.modulus, base, public.bits // 2)
    exponents = from_limbs(key.raw_decrypt(public.randomness(600)))
    half = public.bits // 2
    assert max(e.bit_length() for e in exponents) == half and len(set(exponents)) == 600
    ones = np.array([[e >> b & 1 for b in range(half)] for e in exponents], int).mean(axis=0)
    assert (abs(ones - 0.5) < 0.11).all()  # 5 sigma: every bit is fair
    monkeypatch.setattr("mipp.paillier.keys.random_bytes", bytes)  # planted: no randomness
    assert set(from_limbs(key.raw_decrypt(public.randomness(5)))) == {0}


def test_bases_differ_between_objects(key):
    values = []
    for _ in range(3):
        public = PublicKey(key.public.n, insecure=True)
        public.prepare()
        values.append(public._base.pow(np.ones((1, 4), np.uint64)).tobytes())
    assert len(set(values)) == 3


def test_random_numbers_are_uniform():
    """By rejection: no number below the bound is more likely."""
    counts = np.bincount([int(x) for x in random_below(13, 12_000)], minlength=13)
    assert counts[0] == 0 and len(counts) == 13
    assert ((counts[1:] - 1000) ** 2 / 1000).sum() < 40  # 11 degrees of freedom: once in 3 * 10^4


# --- pools -------------------------------------------------------------------------------------------------------


def test_pool_hands_out_once(key):
    pool = RandomnessPool(key.public)
    pool.prepare(10)
    pool.prepare(4)
    assert len(pool) == 10
    taken = np.concatenate([pool.take(4), pool.take(0), pool.take(9)])
    assert len(pool) == 0 and taken.shape == (13, key.public.element_limbs)
    assert len({v.tobytes() for v in taken}) == 13 and is_residue(key, taken)
    with pytest.raises(TypeError):
        pickle.dumps(pool)


def test_pool_between_threads(key):
    pool, taken = RandomnessPool(key.public), []
    pool.prepare(30)
    threads = [threading.Thread(target=lambda: taken.extend(v.tobytes() for v in pool.take(7))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(taken) == len(set(taken)) == 56


def test_pool_after_a_fork(key):
    pool = RandomnessPool(key.public)
    pool.prepare(3)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(pool) == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(pool) == 3
