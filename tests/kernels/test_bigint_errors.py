"""What the big-integer kernels refuse, and the passage of numbers to limbs and back."""

import copy
import pickle

import gmpy2
import numpy as np
import pytest

from mipp._native import _core
from mipp._native._mpz import from_limbs, to_limbs
from mipp.errors import DTypeError, ParameterError, ShapeError

M = (1 << 100) - 15


@pytest.fixture
def modulus():
    return _core.Modulus(to_limbs([M], 2)[0], True)


def one(x, limbs=4):
    return to_limbs([x], limbs)


@pytest.mark.parametrize("bad", [0, 1, 2, 4, 1 << 64, (1 << 100) - 16])
def test_even_and_tiny_moduli_are_refused(bad):
    with pytest.raises(ParameterError, match="odd and at least 3"):
        _core.Modulus(to_limbs([bad], 2)[0])


def test_long_moduli_are_refused():
    _core.Modulus(np.full(128, 2**64 - 1, np.uint64))
    _core.Modulus(np.full(64, 2**64 - 1, np.uint64), True)
    for limbs, square in ((129, False), (65, True)):
        with pytest.raises(ParameterError, match="8192"):
            _core.Modulus(np.full(limbs, 2**64 - 1, np.uint64), square)


def test_leading_zero_limbs_do_not_count():
    assert _core.Modulus(to_limbs([M], 9)[0]).limbs == 2


@pytest.mark.parametrize("bad", [[1, 2], np.zeros(2, np.int64), np.zeros(2, np.uint32), np.zeros(2), None])
def test_wrong_types(modulus, bad):
    with pytest.raises(DTypeError):
        _core.Modulus(bad)
    with pytest.raises(DTypeError):
        modulus.mul(bad, one(1))
    with pytest.raises(DTypeError):
        modulus.reduce(bad)
    with pytest.raises(DTypeError):
        modulus.pow_var(one(1), bad)
    with pytest.raises(DTypeError):
        _core.FixedBase(modulus, bad, 5)
    with pytest.raises(DTypeError):
        _core.FixedBase(bad, one(1)[0], 5)


def test_numbers_that_are_not_reduced(modulus):
    for x in (M * M, M * M + 1, (1 << 256) - 1):
        for call in (
            lambda x: modulus.mul(x, one(1)), lambda x: modulus.mul(one(1), x), lambda x: modulus.product(x[None]),
            lambda x: modulus.pow(x, one(1), 9), lambda x: modulus.pow_var(x, one(3)[0]),
            lambda x: modulus.multi_pow(x, np.ones((1, 1, 1), np.uint8), 8, 8),
            lambda x: modulus.add_plain(x, one(1, 2)), lambda x: _core.FixedBase(modulus, x[0], 5),
        ):  # fmt: skip
            with pytest.raises(ParameterError, match="below the modulus"):
                call(one(x))
    with pytest.raises(ParameterError, match="below the modulus"):
        modulus.add_plain(one(1), one(M, 2))
    assert modulus.mul(one(M * M - 1), one(1)).shape == (1, 4)


def test_wrong_shapes(modulus):
    rows = np.ones((3, 4), np.uint64)
    for bad in (rows[:, :3].copy(), rows[0], rows[None], rows[:, ::-1], np.asfortranarray(rows)):
        with pytest.raises(ShapeError):
            modulus.mul(bad, rows)
        with pytest.raises(ShapeError):
            modulus.pow(bad, one(1), 9)
    for bad in (np.ones((2, 4), np.uint64), np.ones((4, 4), np.uint64)):
        with pytest.raises(ShapeError):
            modulus.mul(rows, bad)
        with pytest.raises(ShapeError):
            modulus.pow(rows, bad, 256)
    with pytest.raises(ShapeError):
        modulus.add_plain(rows, np.ones((2, 2), np.uint64))
    with pytest.raises(ShapeError):
        modulus.reduce(np.ones((2, 11), np.uint64))
    with pytest.raises(ShapeError):
        modulus.reduce(np.ones((2, 0), np.uint64))
    for bad in (np.ones((2, 1, 2), np.uint8), np.ones((2, 3), np.uint8), np.ones((2, 0, 3), np.uint8)):
        with pytest.raises(ShapeError):
            modulus.multi_pow(rows, bad, 8, 8)


def test_exponents_out_of_range(modulus):
    for bits in (0, -1, 1 << 30):
        with pytest.raises(ParameterError):
            modulus.pow(one(2), one(1), bits)
        with pytest.raises(ParameterError):
            _core.FixedBase(modulus, one(2)[0], bits)
    for bits, exponent in ((8, 256), (63, 1 << 63), (64, 1 << 64), (1, 2), (65, 1 << 65)):
        with pytest.raises(ParameterError, match="exponent_bits"):
            modulus.pow(one(2), one(exponent), bits)
        with pytest.raises(ParameterError, match="exponent_bits"):
            _core.FixedBase(modulus, one(2)[0], bits).pow(one(exponent))
        assert modulus.pow(one(2), one(exponent - 1), bits).shape == (1, 4)
    exponents = np.full((1, 2, 1), 16, np.uint8)
    for bits, slot in ((4, 9), (9, 9), (0, 9), (5, 4)):
        with pytest.raises(ParameterError):
            modulus.multi_pow(one(2), exponents, bits, slot)
    for dtype in (np.int8, np.float64, np.dtype(">u4")):
        with pytest.raises(DTypeError):
            modulus.multi_pow(one(2), exponents.astype(dtype), 8, 8)
    for window in (-1, 9):
        with pytest.raises(ParameterError):
            _core.FixedBase(modulus, one(2)[0], 5, window)


def test_add_plain_needs_a_square():
    with pytest.raises(ParameterError, match="square"):
        _core.Modulus(to_limbs([M], 2)[0]).add_plain(one(1, 2), one(1, 2))


def test_bad_decryptors():
    good = [11, 13, 1, 1, 6]
    _core.PaillierDecryptor(*to_limbs(good, 1))
    for position, bad in ((0, 10), (1, 0), (1, 1)):
        numbers = list(good)
        numbers[position] = bad
        with pytest.raises(ParameterError, match="primes"):
            _core.PaillierDecryptor(*to_limbs(numbers, 1))
    with pytest.raises(ParameterError, match="similar size"):
        _core.PaillierDecryptor(*to_limbs([11, (1 << 200) + 1, 1, 1, 1], 4))
    with pytest.raises(ParameterError, match="reduced"):
        _core.PaillierDecryptor(*to_limbs([11, 13, 1 << 70, 1, 1], 2))
    made = _core.PaillierDecryptor(*to_limbs(good, 1))
    for bad in (np.ones((1, 1), np.uint64), np.ones(2, np.uint64)):
        with pytest.raises(ShapeError):
            made.decrypt(bad)


def test_secrets_are_not_told():
    made = _core.PaillierDecryptor(*to_limbs([11, 13, 1, 1, 6], 1))
    assert "11" not in repr(made).split(" at ")[0]
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(made)


def test_limbs_there_and_back():
    values = [0, 1, 2**64 - 1, 2**64, 2**128 - 1, gmpy2.mpz(2) ** 127]
    array = to_limbs(values, 2)
    assert array.dtype == np.uint64 and array.shape == (6, 2)
    assert array.tolist() == [[v & (2**64 - 1), v >> 64] for v in map(int, values)]
    back = from_limbs(array)
    assert back == values and all(type(v) is gmpy2.mpz for v in back)
    assert from_limbs(array[::2]) == values[::2]  # any strides
    assert to_limbs([], 3).shape == (0, 3) and from_limbs(np.empty((0, 3), np.uint64)) == []
    assert to_limbs(range(3), 1).tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("bad", [-1, 1 << 128, gmpy2.mpz(-5), gmpy2.mpz(1) << 200])
def test_numbers_that_fit_no_limbs(bad):
    with pytest.raises(ParameterError):
        to_limbs([1, bad], 2)


@pytest.mark.parametrize("bad", [True, 1.0, "1", None, np.int64(1), gmpy2.mpq(1)])
def test_numbers_of_the_wrong_type(bad):
    with pytest.raises(DTypeError):
        to_limbs([bad], 2)


def test_bad_limb_arrays():
    for bad in (np.ones((2, 2), np.int64), [[1, 2]], np.ones((2, 2))):
        with pytest.raises(DTypeError):
            from_limbs(bad)
    with pytest.raises(ShapeError):
        from_limbs(np.ones(2, np.uint64))
    with pytest.raises(ParameterError):
        to_limbs([1], 0)
