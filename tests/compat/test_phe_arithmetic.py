"""The drop-in's arithmetic with numbers of every kind, and its batches, keep every check that single calls make."""

import json
import math
import operator
import pickle
from decimal import Decimal
from fractions import Fraction

import gmpy2
import numpy as np
import pytest

import mipp.compat.phe as phe

KEYS = phe.generate_paillier_keypair(n_length=512)
OTHER = phe.generate_paillier_keypair(n_length=512)
PUBLIC, PRIVATE = KEYS
INTEGERS = [np.dtype(c).type for c in "bBhHiIlLqQ"]
FLOATS = [np.float16, np.float32, np.float64, np.longdouble]


def extremes(dtype):
    info = np.iinfo(dtype) if issubclass(dtype, np.integer) else np.finfo(dtype)
    if dtype is np.longdouble:
        return [np.longdouble(x) for x in (-1.5, 3, 0)]
    return [dtype(x) for x in (info.min, info.max, 0, 3)]


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_numpy_scalars_compute_as_python_numbers(dtype, op):
    x = PUBLIC.encrypt(5)
    for scalar in extremes(dtype):
        number = scalar.item() if dtype is not np.longdouble else float(scalar)
        sides = [(x, scalar, x, number)]
        if op is not operator.truediv:
            sides.append((scalar, x, number, x))
        elif not number:
            continue
        for a, b, c, d in sides:
            try:
                expected = op(c, d)
            except ValueError:  # too large for the key
                with pytest.raises(ValueError, match="within"):
                    op(a, b)
                continue
            found = op(a, b)
            assert found.exponent == expected.exponent
            assert PRIVATE.decrypt_encoded(found).encoding == PRIVATE.decrypt_encoded(expected).encoding
    assert phe.EncodedNumber.encode(PUBLIC, dtype(3)).decode() == 3


def test_operands_at_the_edge_of_a_narrow_type():
    x = PUBLIC.encrypt(1)
    assert PRIVATE.decrypt(x - np.int8(-128)) == 129 and PRIVATE.decrypt(x - np.uint8(5)) == -4
    assert PRIVATE.decrypt(np.int8(-128) - x) == -129 and PRIVATE.decrypt(x / np.int8(3)) == 1 / 3
    assert PRIVATE.decrypt(x + np.True_) == 2 == PRIVATE.decrypt(x - np.True_) + 2


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "i8", "f2", "f4", ">f8"])
def test_arrays_of_narrow_types(dtype):
    x, a = PUBLIC.encrypt(100), np.array([100, 3], dtype)
    for op in (operator.add, operator.sub, operator.mul):
        expected = [op(100, v) for v in a.tolist()]
        assert PRIVATE.decrypt_batch(op(x, a)) == expected
        assert PRIVATE.decrypt_batch(op(a, x)) == [op(v, 100) for v in a.tolist()]
    assert PRIVATE.decrypt_batch(x / a) == [100 * (1 / v) for v in a.tolist()]
    assert PRIVATE.decrypt(x + np.array(7, dtype)) == 107


@pytest.mark.parametrize("bad", [Fraction(1, 2), Decimal("0.5"), np.complex64(1), "1", None, [1], gmpy2.mpq(1, 2)])
def test_what_is_no_number_is_refused_everywhere(bad):
    x = PUBLIC.encrypt(1)
    for call in (
        lambda: x + bad, lambda: x - bad, lambda: x * bad, lambda: PUBLIC.encrypt(bad),
        lambda: PUBLIC.encrypt_batch([1, bad]), lambda: x._add_scalar(bad), lambda: x / bad,
        lambda: phe.dot([x], np.array([bad, None], object)[:1]),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            call()


def test_fractions_and_decimals_with_a_precision():
    """As phe: a precision says what it does not know by itself."""
    for value in (Fraction(1, 3), Decimal("0.3333")):
        assert phe.EncodedNumber.encode(PUBLIC, value, 1e-3).decode() == pytest.approx(1 / 3, abs=1e-3)


def test_a_longdouble_is_not_cut():
    if np.finfo(np.longdouble).nmant > 52:
        with pytest.raises(ValueError, match="longdouble"):
            PUBLIC.encrypt(np.longdouble(1) / 3)
    for bad, error in ((np.float32("nan"), ValueError), (np.longdouble("inf"), OverflowError)):
        with pytest.raises(error):
            PUBLIC.encrypt(1) + bad
        with pytest.raises(error):
            phe.dot([PUBLIC.encrypt(1)], [bad])


# --- other bases ---------------------------------------------------------------------------------------------------


def based(base):
    return type("Based", (phe.EncodedNumber,), {"BASE": base, "LOG2_BASE": math.log(base, 2)})


@pytest.mark.parametrize("base", [2, 10, 64, 256])
def test_numbers_of_another_base_compute_right(base):
    encoding = based(base)
    # exponents far enough apart to differ in every base
    a, b = encoding.encode(PUBLIC, 0.5), encoding.encode(PUBLIC, 2e-9, 1e-15)
    x, y = PUBLIC.encrypt(a), PUBLIC.encrypt_batch([b])[0]
    near = pytest.approx(0.5 + 2e-9, abs=1e-14)
    for total in (x + y, y + x, x + b, y + a, phe.dot([x, y], [1, 1]), phe.dot([y, x], np.array([1, 1], np.int8))):
        for found in (PRIVATE.decrypt_encoded(total, encoding).decode(), PRIVATE.decrypt(total),
                      PRIVATE.decrypt_batch([total])[0]):  # fmt: skip
            assert found == near
    assert PRIVATE.decrypt(x - y) == pytest.approx(0.5 - 2e-9, abs=1e-14)
    assert PRIVATE.decrypt(x - b) == pytest.approx(0.5 - 2e-9, abs=1e-14)
    assert PRIVATE.decrypt(x * b) == pytest.approx(1e-9, rel=1e-5)
    assert PRIVATE.decrypt(x + 0.25) == 0.75 and PRIVATE.decrypt(7 - x) == 6.5 and PRIVATE.decrypt(x * 0.5) == 0.25
    assert PRIVATE.decrypt(PUBLIC.encrypt(3) + a) == 3.5 == PRIVATE.decrypt(x + PUBLIC.encrypt(3))
    assert PRIVATE.decrypt(pickle.loads(pickle.dumps(x)) + y) == near
    assert PRIVATE.decrypt(x.decrease_exponent_to(x.exponent - 3)) == 0.5


def test_numbers_without_a_common_base_are_refused():
    x, y = PUBLIC.encrypt(based(10).encode(PUBLIC, 0.5)), PUBLIC.encrypt(0.5)
    for call in (lambda: x + y, lambda: y + x, lambda: x - y, lambda: y + based(10).encode(PUBLIC, 0.5),
                 lambda: phe.dot([x, y], [1, 1]), lambda: x * phe.EncodedNumber.encode(PUBLIC, 0.5)):  # fmt: skip
        with pytest.raises(ValueError, match="base"):
            call()


def test_a_rebuilt_number_takes_the_base_of_the_other():
    encoding = based(10)
    x = PUBLIC.encrypt(encoding.encode(PUBLIC, 0.5))
    rebuilt = phe.EncryptedNumber(PUBLIC, x.ciphertext(), x.exponent)
    total = rebuilt + encoding.encode(PUBLIC, 2e-9, 1e-15)
    assert PRIVATE.decrypt_encoded(total, encoding).decode() == pytest.approx(0.5 + 2e-9, abs=1e-14)


# --- batches -------------------------------------------------------------------------------------------------------


def outcome(call):
    try:
        return call()
    except (TypeError, ValueError, OverflowError) as error:
        return type(error)


@pytest.mark.parametrize(
    "weights",
    [[1, 2], [1e300, 1e-300], [1e40, 1.0], [2**600, 1], [math.inf, 1], [math.nan, 1], [True, False], [0, 0], [-1, 0.5],
     [1e-300, 1e-300]],
)  # fmt: skip
@pytest.mark.parametrize("values", [[3, -4], [1e30, 1e-30], [1e300, 1e-300], [0.5, 7]])
def test_dot_answers_or_refuses_as_single_calls(weights, values):
    if outcome(lambda: PUBLIC.encrypt_batch(values)) is ValueError:
        return
    x = PUBLIC.encrypt_batch(values)
    single = outcome(lambda: PRIVATE.decrypt(x[0] * weights[0] + x[1] * weights[1]))
    found = outcome(lambda: PRIVATE.decrypt(phe.dot(x, weights)))
    # alignment of all weights may need more room than that of all products, never give another number
    assert found in (single, ValueError) or issubclass(found, OverflowError)
    if max(map(abs, weights)) < 1e30 and not isinstance(single, type):
        assert found == single


def test_weights_beyond_the_key_are_refused():
    public, private = phe.generate_paillier_keypair(n_length=32)
    x = public.encrypt(1)
    for weights in (
        np.array([2**40]),
        np.array([-(2**40)]),
        [2**40],
        np.array([2**63], np.uint64),
        np.array([2.0**40]),
    ):
        with pytest.raises(ValueError, match="within"):
            phe.dot([x], weights)
    assert private.decrypt(phe.dot([x], np.array([-1000]))) == -1000


def test_exponents_too_far_apart_are_refused_before_memory_is_taken():
    far = phe.EncryptedNumber(PUBLIC, PUBLIC.encrypt(1).ciphertext(), 10**12)
    near = PUBLIC.encrypt(1)
    for call in (lambda: far + near, lambda: phe.dot([far, near], [1, 1]), lambda: near.decrease_exponent_to(-(10**12)),
                 lambda: phe.EncodedNumber.encode(PUBLIC, 1.0, max_exponent=-(10**12)), lambda: far + 1.5):  # fmt: skip
        with pytest.raises(ValueError):
            call()
    with pytest.raises(OverflowError):
        PRIVATE.decrypt(far)
    assert PRIVATE.decrypt(phe.EncryptedNumber(PUBLIC, near.ciphertext(), -(10**12))) == 0.0
    assert phe.EncodedNumber(PUBLIC, 1, 0).decrease_exponent_to(-(10**12)).exponent == -(10**12)


def test_keys_do_not_mix():
    mine, theirs = PUBLIC.encrypt(1), OTHER[0].encrypt(1)
    foreign = phe.EncodedNumber.encode(OTHER[0], 1)
    for call in (lambda: mine + theirs, lambda: phe.dot([mine, theirs], [1, 1]), lambda: mine + foreign,
                 lambda: mine - foreign, lambda: PRIVATE.decrypt_batch([mine, theirs]),
                 lambda: phe.dot([mine], [foreign])):  # fmt: skip
        with pytest.raises(ValueError, match="different"):
            call()


def test_numbers_that_are_no_integers_are_no_ciphertexts():
    for bad in (1.5, "5", None, PUBLIC.encrypt(1)):
        with pytest.raises(TypeError):
            phe.EncryptedNumber(PUBLIC, bad)
        for call in (PUBLIC.encrypt, lambda e: PUBLIC.encrypt_batch([e])):
            with pytest.raises(TypeError):
                call(phe.EncodedNumber(PUBLIC, bad, 0))
    with pytest.raises(TypeError):
        phe.EncryptedNumber(PUBLIC.n, 5)


def test_empty():
    assert PUBLIC.encrypt_batch(np.zeros((0, 3))) == [] == PRIVATE.decrypt_batch([])
    assert phe.dot([PUBLIC.encrypt(1)], np.zeros((1, 0))).shape == (0,)
    with pytest.raises(ValueError):
        phe.dot([], [])


def test_numbers_are_python_integers_that_json_takes():
    x = PUBLIC.encrypt(2.5)
    made = [x, x + 1, x * 3, x - np.int8(1), x + x, x * -1, x.decrease_exponent_to(-20),
            *PUBLIC.encrypt_batch([1, 2]), phe.dot([x, x], [1, 2]),
            phe.EncryptedNumber(PUBLIC, gmpy2.mpz(5)), pickle.loads(pickle.dumps(x))]  # fmt: skip
    for number in made:
        assert type(number._EncryptedNumber__ciphertext) is int and type(number.ciphertext()) is int
        json.dumps([number.ciphertext(), number._EncryptedNumber__ciphertext, number.exponent])
    private = phe.PaillierPrivateKey(PUBLIC, gmpy2.mpz(PRIVATE.p), gmpy2.mpz(PRIVATE.q))
    json.dumps([v for k, v in vars(private).items() if k not in ("public_key", "batched")])
    assert all(type(v) is int for v in (PRIVATE.raw_decrypt(x.ciphertext()), PRIVATE.decrypt_encoded(x).encoding))


def test_raw_calls():
    x, y = PUBLIC.encrypt(5), PUBLIC.encrypt(7)
    a, b = x.ciphertext(), y.ciphertext()
    assert x._raw_add(a, b) == a * b % PUBLIC.nsquare and type(x._raw_add(a, b)) is int
    assert x._raw_mul(3) == pow(a, 3, PUBLIC.nsquare) and type(x._raw_mul(3)) is int
    assert PRIVATE.raw_decrypt(x._raw_mul(PUBLIC.n - 2)) == PUBLIC.n - 10
    assert PRIVATE.decrypt(x._add_scalar(1.5)) == 6.5 and PRIVATE.decrypt(x._add_encrypted(y)) == 12
    for bad, error in ((-1, ValueError), (PUBLIC.n, ValueError), (1.5, TypeError)):
        with pytest.raises(error):
            x._raw_mul(bad)
