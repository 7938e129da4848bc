"""The drop-in for phe: every test runs on it and, where it is installed, on phe itself, with the same assertions."""

import json
import math
import operator
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mipp.compat.phe as ours

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Sides:
    """A module and two of its key pairs; the same primes for both modules."""

    def __init__(self, phe):
        self.phe = phe
        made = [KEYS[i] for i in range(2)]
        self.publics = [phe.PaillierPublicKey(p * q) for p, q in made]
        self.privates = [phe.PaillierPrivateKey(k, p, q) for k, (p, q) in zip(self.publics, made, strict=True)]
        self.public, self.private = self.publics[0], self.privates[0]

    def encode(self, *args, **kwargs):
        return self.phe.EncodedNumber.encode(self.public, *args, **kwargs)


KEYS = []
for _ in range(2):
    _, _private = ours.generate_paillier_keypair(n_length=512)
    KEYS.append((_private.p, _private.q))
MODULES = {"mipp": ours}
try:
    import phe as original
except ImportError:
    original = None
else:
    MODULES["phe"] = original
SIDES = {name: Sides(module) for name, module in MODULES.items()}


@pytest.fixture(params=list(SIDES))
def side(request):
    return SIDES[request.param]


# --- keys ----------------------------------------------------------------------------------------------------------


def test_key_attributes(side):
    k, n = side.public, side.public.n
    assert (k.g, k.nsquare, k.max_int) == (n + 1, n * n, n // 3 - 1)
    assert all(type(x) is int for x in (k.n, k.g, k.nsquare, k.max_int))
    s = side.private
    assert s.p < s.q and s.p * s.q == n and (s.psquare, s.qsquare) == (s.p**2, s.q**2)
    assert s.p_inverse * s.p % s.q == 1
    assert s.h_function(s.p, s.psquare) == s.hp and s.h_function(s.q, s.qsquare) == s.hq
    assert s.l_function(36, 7) == 5
    assert s.crt(3, 3) == 3 and s.crt(0, s.p) == s.p
    assert s.public_key is side.public


def test_keys_compare_and_hash(side):
    a, b = side.publics
    assert a == side.phe.PaillierPublicKey(a.n) and a != b and hash(a) == hash(a.n)
    s = side.private
    assert s == side.phe.PaillierPrivateKey(a, s.q, s.p) and hash(s) == hash((s.p, s.q)) and s != side.privates[1]
    assert repr(a).startswith("<PaillierPublicKey ") and repr(s) == f"<PaillierPrivateKey for {a!r}>"
    assert str(s.p)[:20] not in repr(s)


def test_bad_private_keys(side):
    with pytest.raises(ValueError, match="does not match"):
        side.phe.PaillierPrivateKey(side.public, 3, 5)
    with pytest.raises(ValueError, match="different"):
        side.phe.PaillierPrivateKey(side.phe.PaillierPublicKey(49), 7, 7)


def test_from_totient(side):
    s = side.private
    totient = (s.p - 1) * (s.q - 1)
    assert side.phe.PaillierPrivateKey.from_totient(side.public, totient) == s
    for bad in (totient + 1, totient - 1, 7):
        with pytest.raises(ValueError, match="do not match"):
            side.phe.PaillierPrivateKey.from_totient(side.public, bad)


@pytest.mark.parametrize("bits", [16, 64, 128])
def test_generated_keys(side, bits):
    ring = side.phe.PaillierPrivateKeyring()
    public, private = side.phe.generate_paillier_keypair(ring, bits)
    assert public.n.bit_length() == bits and ring[public] == private
    assert private.decrypt(public.encrypt(7)) == 7
    assert side.phe.paillier.DEFAULT_KEYSIZE == 3072


def test_pickles(side):
    number = side.public.encrypt(-2.5)
    for thing in (side.public, side.private):
        assert pickle.loads(pickle.dumps(thing)) == thing
    again = pickle.loads(pickle.dumps(number))
    assert side.private.decrypt(again) == -2.5 and again.ciphertext() == number.ciphertext()


def test_json_as_the_documentation_shows(side):
    """Public key and ciphertexts as numbers in JSON, rebuilt by the constructors."""
    numbers = [side.public.encrypt(x) for x in (3.1, 5, -4e-5)]
    text = json.dumps({
        "public_key": {"n": side.public.n},
        "values": [(str(x.ciphertext()), x.exponent) for x in numbers],
    })  # fmt: skip
    received = json.loads(text)
    key = side.phe.PaillierPublicKey(n=int(received["public_key"]["n"]))
    rebuilt = [side.phe.EncryptedNumber(key, int(c), int(e)) for c, e in received["values"]]
    assert [side.private.decrypt(x) for x in rebuilt] == [3.1, 5, -4e-5]


def test_keyring(side):
    (a, b), (s, r) = side.publics, side.privates
    ring = side.phe.PaillierPrivateKeyring([s])
    assert len(ring) == 1 and list(ring) == [a] and ring[a] == s and a in ring and b not in ring
    with pytest.raises(KeyError):
        ring.__getitem__(b)
    with pytest.raises(KeyError):
        ring.decrypt(b.encrypt(1))
    ring.add(r)
    ring.add(r)
    assert len(ring) == 2 and ring.decrypt(b.encrypt(1)) == 1
    del ring[b]
    assert len(ring) == 1
    with pytest.raises(TypeError):
        ring.add(5)
    with pytest.raises((TypeError, AttributeError)):
        ring[b] = r
    assert len(side.phe.PaillierPrivateKeyring()) == 0


# --- encoding ------------------------------------------------------------------------------------------------------


@SETTINGS
@given(value=st.one_of(st.integers(-(2**300), 2**300), st.floats(allow_nan=False, allow_infinity=False)))
def test_encodings_are_equal(value):
    """Integers and floats, subnormal and huge: encoding, exponent, and what decodes."""
    found = []
    for side in SIDES.values():
        try:
            e = side.encode(value)
            found.append((e.encoding, e.exponent, type(e.decode()), e.decode()))
        except (ValueError, OverflowError) as error:
            found.append(type(error))
    assert len(set(found)) == 1
    if isinstance(found[0], tuple):
        assert found[0][3] == value and found[0][2] is (int if found[0][1] >= 0 else float)


@SETTINGS
@given(
    value=st.one_of(st.integers(-(2**60), 2**60), st.floats(-1e18, 1e18)),
    precision=st.one_of(st.none(), st.floats(1e-20, 1e20), st.sampled_from([1, 16, 256, 0.0625])),
    top=st.one_of(st.none(), st.integers(-40, 10)),
)
def test_encodings_with_precision_and_exponent(value, precision, top):
    found = set()
    for side in SIDES.values():
        try:
            e = side.encode(value, precision, top)
            found.add((e.encoding, e.exponent))
        except ValueError:
            found.add("too large")
    assert len(found) == 1


@pytest.mark.parametrize(
    ("value", "error"),
    [(math.nan, ValueError), (math.inf, OverflowError), (-math.inf, OverflowError), ("1", TypeError), (None, TypeError),
     (1j, TypeError), ([1], TypeError), (Fraction(1, 2), TypeError)],
)  # fmt: skip
def test_values_that_cannot_be_encoded(side, value, error):
    for call in (
        side.encode,
        side.public.encrypt,
        lambda v: side.public.encrypt(1) + v,
        lambda v: side.public.encrypt(1) * v,
    ):
        with pytest.raises(error):
            call(value)


@pytest.mark.parametrize(
    ("precision", "error"), [(0, ValueError), (-1, ValueError), (math.nan, ValueError), ("a", TypeError)]
)
def test_bad_precision(side, precision, error):
    with pytest.raises(error):
        side.encode(5, precision=precision)


def test_range_of_integers(side):
    limit = side.public.max_int
    for value in (limit, -limit):
        assert side.encode(value).decode() == value == side.private.decrypt(side.public.encrypt(value))
    for value in (limit + 1, -limit - 1):
        with pytest.raises(ValueError, match="needs to be within"):
            side.encode(value)


def test_decoding(side):
    k, make = side.public, side.phe.EncodedNumber
    n, limit = k.n, k.max_int
    assert make(k, n - 1, 0).decode() == -1 and make(k, n - limit, 0).decode() == -limit
    assert make(k, n - 8, -1).decode() == -0.5 and make(k, 32, -1).decode() == 2.0
    assert make(k, 2, 3).decode() == 8192 and type(make(k, 2, 3).decode()) is int
    for middle in (limit + 1, n // 2, n - limit - 1):
        with pytest.raises(OverflowError):
            make(k, middle, 0).decode()
    for corrupt in (n, n + 5):
        with pytest.raises(ValueError, match="corrupted"):
            make(k, corrupt, 0).decode()


def test_smaller_exponents(side):
    e = side.encode(5)
    smaller = e.decrease_exponent_to(-2)
    assert (smaller.encoding, smaller.exponent, e.exponent) == (1280, -2, 0) and smaller.decode() == 5
    same = e.decrease_exponent_to(0)
    assert same is not e and same.encoding == 5
    with pytest.raises(ValueError, match="exponent"):
        e.decrease_exponent_to(1)


def test_another_base(side):
    class Decimal(side.phe.EncodedNumber):
        BASE = 10
        LOG2_BASE = math.log(10, 2)

    e = Decimal.encode(side.public, 1.5)
    assert (e.exponent, e.encoding, type(e)) == (-16, 15 * 10**15, Decimal)
    assert Decimal.encode(side.public, 1.2345, precision=1e-4).encoding == 12345
    product = side.public.encrypt(e) * Decimal.encode(side.public, 2)
    back = side.private.decrypt_encoded(product, Decimal)
    assert type(back) is Decimal and back.decode() == 3.0
    assert side.phe.EncodedNumber.BASE == 16


# --- encryption ----------------------------------------------------------------------------------------------------


def test_raw(side):
    k, s = side.public, side.private
    assert k.raw_encrypt(5, 1) == 5 * k.n + 1
    assert s.raw_decrypt(k.raw_encrypt(-1)) == k.n - 1 and s.raw_decrypt(k.raw_encrypt(k.n + 3)) == 3
    assert k.raw_encrypt(5) != k.raw_encrypt(5) and type(k.raw_encrypt(5)) is int
    assert k.raw_encrypt(5, 7) == (5 * k.n + 1) * pow(7, k.n, k.nsquare) % k.nsquare
    assert s.raw_decrypt(1) == 0 and s.raw_decrypt(k.nsquare + k.raw_encrypt(9)) == 9
    assert type(s.raw_decrypt(1)) is int and 0 < k.get_random_lt_n() < k.n
    for bad in ("x", 1.5, None):
        with pytest.raises(TypeError):
            k.raw_encrypt(bad)
        with pytest.raises(TypeError):
            s.raw_decrypt(bad)


def test_obfuscation(side):
    """When a ciphertext is made fresh, and when it stays."""
    x = side.public.encrypt(5)
    assert x.ciphertext() == x.ciphertext() == x.ciphertext(be_secure=False)
    y = x + 1
    bare = y.ciphertext(be_secure=False)
    assert bare == y.ciphertext(be_secure=False)
    fresh = y.ciphertext()
    assert fresh != bare and fresh == y.ciphertext() == y.ciphertext(False)
    given = side.public.encrypt(5, r_value=7)
    assert given.ciphertext(False) == side.public.raw_encrypt(5, 7) and given.ciphertext() != side.public.raw_encrypt(
        5, 7
    )
    assert x.obfuscate() is None and side.private.decrypt(x) == 5 == side.private.decrypt(given)
    rebuilt = side.phe.EncryptedNumber(side.public, bare)
    assert rebuilt.ciphertext() != bare and rebuilt.exponent == 0


def test_encoded_numbers_encrypt(side):
    e = side.encode(2.5)
    for number in (side.public.encrypt(e), side.public.encrypt_encoded(e, None), side.public.encrypt_encoded(e, 3)):
        assert side.private.decrypt(number) == 2.5
    assert side.private.decrypt_encoded(side.public.encrypt(e)).encoding == e.encoding
    assert side.private.decrypt(side.public.encrypt(1.2345, precision=1e-3)) == pytest.approx(1.2345, abs=1e-3)


# --- arithmetic ----------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(-1e20, 1e20).filter(lambda x: x == 0 or abs(x) > 1e-20))


@SETTINGS
@given(a=NUMBERS, b=NUMBERS)
def test_arithmetic_is_equal(a, b):
    """Values, types and exponents of every operator, on both modules."""
    found = set()
    for side in SIDES.values():
        x, y = side.public.encrypt(a), side.public.encrypt(b)
        results = [x + y, x - y, x + b, b + x, x - b, b - x, x * b, b * x]
        found.add(tuple((side.private.decrypt(r), type(side.private.decrypt(r)), r.exponent) for r in results))
    assert len(found) == 1
    (results,) = found
    exact = Fraction(a) + Fraction(b)
    assert results[0][0] == (int(exact) if results[0][1] is int else pytest.approx(float(exact), rel=1e-15))
    assert results[6][0] == pytest.approx(float(Fraction(a) * Fraction(b)), rel=1e-15)


@pytest.mark.parametrize("scalar", [0, 1, -1, 3, -3, 1.5, -0.25, True, 2**200, -(2**200), np.float64(0.5)])
def test_scalars(side, scalar):
    x = side.public.encrypt(5)
    assert side.private.decrypt(x * scalar) == 5 * scalar and side.private.decrypt(x + scalar) == 5 + scalar
    assert (x * scalar).exponent == side.encode(scalar).exponent


def test_division(side):
    x = side.public.encrypt(5)
    assert [side.private.decrypt(x / d) for d in (2, 3, 0.5)] == [2.5, 5 * (1 / 3), 10.0]
    with pytest.raises(ZeroDivisionError):
        x / 0
    with pytest.raises(TypeError):
        x / x
    with pytest.raises(TypeError):
        1 / x


def test_encoded_operands(side):
    x, e = side.public.encrypt(5), side.encode(2.5)
    assert side.private.decrypt(x + e) == 7.5 and side.private.decrypt(x * e) == 12.5
    with pytest.raises(ValueError, match="different public keys"):
        x + side.phe.EncodedNumber.encode(side.publics[1], 1)


def test_misuse(side):
    x = side.public.encrypt(5)
    with pytest.raises(NotImplementedError):
        x * x
    with pytest.raises(TypeError):
        operator.neg(x)
    with pytest.raises(ValueError, match="different public keys"):
        x + side.publics[1].encrypt(1)
    with pytest.raises(ValueError, match="different key"):
        side.privates[1].decrypt(x)
    for bad in (5, None, "x"):
        with pytest.raises(TypeError):
            side.private.decrypt(bad)
    with pytest.raises(ValueError, match="needs to be within"):
        x * (side.public.max_int + 1)
    assert x == x and x != side.public.encrypt(5) and isinstance(hash(x), int)


def test_exponents_of_ciphertexts(side):
    x = side.public.encrypt(5)
    smaller = x.decrease_exponent_to(-2)
    assert (smaller.exponent, side.private.decrypt(smaller), x.exponent) == (-2, 5.0, 0)
    assert x.decrease_exponent_to(0) is not x
    with pytest.raises(ValueError, match="exponent"):
        x.decrease_exponent_to(1)


def test_overflow_is_seen(side):
    top = side.public.encrypt(side.public.max_int)
    with pytest.raises(OverflowError):
        side.private.decrypt(top + 1)
    with pytest.raises(OverflowError):
        side.private.decrypt(top * 2 - side.public.max_int // 2)


def test_numpy_of_objects(side):
    """phe's documented way with numpy: arrays of EncryptedNumbers."""
    x = [side.public.encrypt(v) for v in (1, 2)]
    assert [side.private.decrypt(v) for v in np.array([1, 2]) * x[1]] == [2, 4]
    assert side.private.decrypt(np.dot(x, [2, -3.5])) == -5.0
    assert side.private.decrypt(np.mean(x)) == 1.5 and side.private.decrypt(sum(x)) == 3


def test_federated_averages(side):
    """The documentation's way of adding gradients of several clients."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(3, 4))
    total = [side.public.encrypt(v) for v in gradients[0]]
    for client in gradients[1:]:
        total = [t + side.public.encrypt(v) for t, v in zip(total, client, strict=True)]
    means = [side.private.decrypt(t) / 3 for t in total]
    assert means == pytest.approx(gradients.mean(axis=0).tolist(), rel=1e-14)


# --- util ----------------------------------------------------------------------------------------------------------


def test_util(side):
    u = side.phe.util
    assert (u.powmod(2, 10, 1000), u.mulmod(3, 4, 5), u.invert(3, 7), u.isqrt(17), u.improved_i_sqrt(10**40)) == (
        24, 2, 5, 4, 10**20,
    )  # fmt: skip
    assert all(type(x) is int for x in (u.powmod(2, 10**50, 10**60), u.invert(3, 7), u.isqrt(17)))
    assert u.extended_euclidean_algorithm(240, 46) == (2, -9, 47)
    assert u.base64url_encode(b"abc\xff") == "YWJj_w" and u.base64url_decode("YWJj_w") == b"abc\xff"
    for number in (1, 65537, 255 * 256, 2**521 - 1):
        assert u.base64_to_int(u.int_to_base64(number)) == number
    assert u.int_to_base64(65537) == "AQAB"
    assert [u.is_prime(k) for k in (-3, 0, 1, 2, 3, 4, 91, 97, 7919**2)] == [False] * 3 + [True] * 2 + [False] * 2 + [
        True, False,
    ]  # fmt: skip
    assert u.miller_rabin(97, 5) and not u.miller_rabin(91, 5)
    assert {u.getprimeover(20).bit_length() for _ in range(9)} == {20} and u.is_prime(u.getprimeover(64))
    assert u.first_primes[:5] == [2, 3, 5, 7, 11] and (len(u.first_primes), u.first_primes[-1]) == (2048, 17863)
    for error, call in (
        (ZeroDivisionError, lambda: u.invert(2, 4)), (ValueError, lambda: u.isqrt(-1)),
        (AssertionError, lambda: u.improved_i_sqrt(-1)), (AssertionError, lambda: u.int_to_base64(0)),
    ):  # fmt: skip
        with pytest.raises(error):
            call()


def test_public_names():
    if original is None:
        pytest.skip("phe is not installed")
    for theirs, mine in ((original, ours), (original.paillier, ours.paillier), (original.encoding, ours.encoding),
                         (original.util, ours.util)):  # fmt: skip
        wanted = {n for n in dir(theirs) if not n.startswith("_")} - {
            "command_line", "phe", "fractions", "math", "sys", "random", "os", "hexlify", "unhexlify", "Mapping",
            "gmpy2", "mulmod", "powmod", "urlsafe_b64decode", "urlsafe_b64encode",
        }  # fmt: skip
        assert wanted <= set(dir(mine))
    import inspect

    for name in (
        "PaillierPublicKey",
        "PaillierPrivateKey",
        "PaillierPrivateKeyring",
        "EncryptedNumber",
        "EncodedNumber",
    ):
        theirs, mine = getattr(original, name), getattr(ours, name)
        for method in [m for m in vars(theirs) if not m.startswith("_")]:
            attribute = getattr(theirs, method)
            if callable(attribute):
                assert list(inspect.signature(attribute).parameters) == list(
                    inspect.signature(getattr(mine, method)).parameters
                ), (name, method)
