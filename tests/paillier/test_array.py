"""Encrypted arrays: numpy's arithmetic on what decrypts, bounds, packing, files."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mipp import cpu
from mipp.errors import DTypeError, IntegrityError, ParameterError, PlaintextRangeError, ShapeError, StoreError
from mipp.paillier import (
    EncryptedArray,
    array_from_bytes,
    array_to_bytes,
    concatenate,
    decrypt,
    encrypt,
    encrypt_packed,
    load_array,
    pack,
    save_array,
)

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32]
SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def random(rng, shape, dtype):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


# --- there and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*INTEGERS, np.uint64])
@pytest.mark.parametrize("shape", [(), (1,), (9,), (2, 3), (0,), (2, 0, 3)])
def test_integers(key, rng, dtype, shape):
    x = random(rng, shape, dtype)
    array = encrypt(key.public, x)
    assert array.shape == shape and array.ndim == len(shape) and array.size == x.size
    back = decrypt(key, array)
    assert back.shape == shape and back.tolist() == x.tolist()
    assert back.dtype == (object if dtype is np.uint64 else np.int64)


def test_large_python_integers(key):
    values = [0, -1, 2**70, -(2**130), int(key.public.n) // 4]
    array = encrypt(key.public, values, max_abs=int(key.public.n) // 4)
    assert decrypt(key, array).tolist() == values


def test_methods_of_keys_go_on_for_one_release(key):
    with pytest.warns(DeprecationWarning, match="encrypt"):
        array = key.public.encrypt([1, -2], max_abs=5)
    with pytest.warns(DeprecationWarning, match="decrypt"):
        assert key.decrypt(array).tolist() == [1, -2]


@SETTINGS
@given(
    values=st.lists(st.floats(-(2**31), 2**31), min_size=1, max_size=9),
    bits=st.integers(0, 80),
)
def test_floats_are_rounded_to_fraction_bits(key, values, bits):
    from fractions import Fraction

    back = decrypt(key, encrypt(key.public, np.array(values), fraction_bits=bits))
    for v, b in zip(values, back.tolist(), strict=True):
        assert b == float(Fraction(round(Fraction(v) * 2**bits), 2**bits))


def test_ties_round_to_even(key):
    assert decrypt(key, encrypt(key.public, [0.5, 1.5, 2.5, -0.5, -1.5], fraction_bits=0)).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize("bad", [["a"], [True], True, [1j], [None], np.array(["1"]), {}])
def test_values_of_the_wrong_type(key, bad):
    with pytest.raises(DTypeError):
        encrypt(key.public, bad)


@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [-np.inf, 1.0]])
def test_values_that_are_not_finite(key, bad):
    with pytest.raises(ParameterError):
        encrypt(key.public, bad)


def test_bounds_of_values(key):
    limit = int(key.public.n) // 3 - 1
    assert decrypt(key, encrypt(key.public, [limit, -limit], max_abs=limit)).tolist() == [limit, -limit]
    for values, options in (
        ([limit + 1], {"max_abs": limit + 1}), ([limit + 1], {}), ([5, -6], {"max_abs": 5}), ([2.0**33], {}),
        ([1.0], {"fraction_bits": 1000}),
    ):  # fmt: skip
        with pytest.raises(PlaintextRangeError):
            encrypt(key.public, values, **options)
    for options in (
        {"max_abs": 0}, {"max_abs": -1}, {"max_abs": np.nan}, {"fraction_bits": -1}, {"fraction_bits": 2000},
        {"fraction_bits": 1.5}, {"fraction_bits": True},
    ):  # fmt: skip
        with pytest.raises(ParameterError):
            encrypt(key.public, [1], **options)


# --- arithmetic ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
def test_arithmetic_with_plain_arrays(bigint_tier, key, rng, dtype):
    x, y = random(rng, (3, 4), np.int32), random(rng, (4,), dtype)
    a = encrypt(key.public, x)
    wide, plain = x.astype(object), y.astype(object)
    for got, expected in ((a + y, wide + plain), (y + a, wide + plain), (a - y, wide - plain), (y - a, plain - wide),
                          (a * y, wide * plain), (y * a, wide * plain), (-a, -wide)):  # fmt: skip
        assert got.shape == expected.shape and decrypt(key, got).tolist() == expected.tolist()
    assert decrypt(key, a @ y).tolist() == (wide @ plain).tolist()
    w = random(rng, (4, 5), dtype)
    assert decrypt(key, a @ w).tolist() == (wide @ w.astype(object)).tolist()
    assert decrypt(key, w.T @ a.T).tolist() == (w.T.astype(object) @ wide.T).tolist()
    assert decrypt(key, w.T @ a[0]).tolist() == (w.T.astype(object) @ wide[0]).tolist()
    assert decrypt(key, y @ a[1]).tolist() == int(plain @ wide[1])


def test_arithmetic_between_ciphertexts(bigint_tier, key, rng):
    x, y = random(rng, (3, 4), np.int32), random(rng, (4,), np.int16)
    a, b = encrypt(key.public, x), encrypt(key.public, y)
    wide = x.astype(np.int64)
    assert decrypt(key, a + b).tolist() == (wide + y).tolist()
    assert decrypt(key, b - a).tolist() == (y - wide).tolist()
    assert decrypt(key, a + b[0]).tolist() == (wide + int(y[0])).tolist()
    assert decrypt(key, a.sum()).tolist() == int(wide.sum())
    for axis in (0, 1, -1, -2):
        assert decrypt(key, a.sum(axis)).tolist() == wide.sum(axis).tolist()
    assert decrypt(key, b.sum(0)).tolist() == int(y.sum())
    assert decrypt(key, sum(b)).tolist() == int(y.sum())  # Python's own, from 0


@pytest.mark.parametrize("scalar", [0, 1, -1, 5, -7, 2**40, -(2**90), np.int8(-128), 0.5, -0.25, 1e-3])
def test_scalars(bigint_tier, key, rng, scalar):
    x = random(rng, 5, np.int16)
    a = encrypt(key.public, x)
    exact = int(scalar) if not isinstance(scalar, float) else round(scalar * 2**32) / 2**32
    as_numbers = [int(v) for v in x]
    for got, expected in (
        (a * scalar, [v * exact for v in as_numbers]), (a + scalar, [v + exact for v in as_numbers]),
        (scalar - a, [exact - v for v in as_numbers]),
    ):  # fmt: skip
        assert decrypt(key, got).tolist() == expected


def test_fixed_point(bigint_tier, key, rng):
    x, w = rng.normal(size=6), rng.normal(size=(6, 2))
    a = encrypt(key.public, x, fraction_bits=20)
    xq, wq = np.rint(x * 2**20) / 2**20, np.rint(w * 2**32) / 2**32
    assert (a @ w).fraction_bits == 52
    assert np.allclose(decrypt(key, a @ w), xq @ wq, rtol=0, atol=1e-12)
    b = encrypt(key.public, x, fraction_bits=30)
    assert (a + b).fraction_bits == 30
    assert np.array_equal(decrypt(key, a + b), xq + np.rint(x * 2**30) / 2**30)
    assert np.array_equal(decrypt(key, a + 1), xq + 1)
    assert np.array_equal(decrypt(key, a * 3), xq * 3)
    assert np.array_equal(decrypt(key, a.rescale(40)), xq)
    with pytest.raises(ParameterError):
        a.rescale(10)


@SETTINGS
@given(data=st.data())
def test_homomorphism(key, data):
    """Any ciphertexts, any plain integers, every tier."""
    size = data.draw(st.integers(1, 5))
    numbers = st.lists(st.integers(-(2**63), 2**63), min_size=size, max_size=size)
    x, y, w = data.draw(numbers), data.draw(numbers), data.draw(numbers)
    weights = np.array(w, object)
    for level in cpu.levels():
        with cpu.force(level):
            a, b = encrypt(key.public, x), encrypt(key.public, y)
            assert decrypt(key, a + b).tolist() == [i + j for i, j in zip(x, y, strict=True)]
            assert decrypt(key, a - weights).tolist() == [i - j for i, j in zip(x, w, strict=True)]
            assert decrypt(key, a * weights).tolist() == [i * j for i, j in zip(x, w, strict=True)]
            assert decrypt(key, a @ weights).tolist() == sum(i * j for i, j in zip(x, w, strict=True))


def test_exhaustive_over_a_tiny_key(bigint_tier, tiny):
    """All pairs of plaintexts from -30 to 30: their sums; and all products that fit."""
    values = np.arange(-30, 31)
    a = encrypt(tiny.public, values, max_abs=30)
    for shift in values.tolist():
        assert decrypt(tiny, a + shift).tolist() == (values + shift).tolist()
        assert decrypt(tiny, a + a[shift + 30]).tolist() == (values + shift).tolist()
    for factor in range(-61, 62):
        small = encrypt(tiny.public, [-1, 0, 1], max_abs=1)
        assert decrypt(tiny, small * factor).tolist() == [-factor, 0, factor]


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_results_that_could_overflow_are_refused(key):
    limit = int(key.public.n) // 3 - 1
    half = encrypt(key.public, [1], max_abs=limit // 2 + 1)
    with pytest.raises(PlaintextRangeError):
        half + half
    with pytest.raises(PlaintextRangeError):
        half * 2
    with pytest.raises(PlaintextRangeError):
        half @ np.array([2**62])
    with pytest.raises(PlaintextRangeError):
        half + np.array([limit], object)
    with pytest.raises(PlaintextRangeError):
        half.rescale(1)
    with pytest.raises(PlaintextRangeError):
        concatenate([half] * 2).sum()
    assert decrypt(key, half * 1).tolist() == [1]
    assert issubclass(PlaintextRangeError, OverflowError)


def test_an_overflow_is_seen_on_decryption(key):
    n = int(key.public.n)
    from mipp.paillier.limbs import to_limbs

    for middle in (n // 3, n // 2, n - n // 3):
        data = key.public.raw_encrypt(to_limbs([middle], key.public.limbs))
        with pytest.raises(PlaintextRangeError, match="overflowed"):
            decrypt(key, EncryptedArray(key.public, data, 0, 1))


# --- shape ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index", [0, -1, slice(1, 3), (slice(None), 1), (1, 2), ..., (..., 0), slice(None, None, -2), [0, 2], (None, 1)]
)
def test_indexing_is_numpys(key, rng, index):
    x = random(rng, (3, 4), np.int8)
    assert decrypt(key, encrypt(key.public, x)[index]).tolist() == x[index].tolist()


def test_masks_reshape_transpose(key, rng):
    x = random(rng, (3, 4), np.int8)
    a = encrypt(key.public, x)
    assert decrypt(key, a[x > 0]).tolist() == x[x > 0].tolist()
    assert decrypt(key, a.reshape(2, -1)).tolist() == x.reshape(2, -1).tolist()
    assert decrypt(key, a.reshape((6, 2))).tolist() == x.reshape(6, 2).tolist()
    assert decrypt(key, a.T).tolist() == x.T.tolist() and decrypt(key, a.ravel()).tolist() == x.ravel().tolist()
    assert [decrypt(key, row).tolist() for row in a] == x.tolist() and len(a) == 3
    assert decrypt(key, concatenate([a, a], axis=1)).tolist() == np.concatenate([x, x], 1).tolist()
    assert decrypt(key, concatenate([a, a], axis=-1)).tolist() == np.concatenate([x, x], 1).tolist()
    assert a.nbytes == 12 * 8 * key.public.element_limbs
    with pytest.raises(DTypeError):
        len(a[0, 0])


def test_misuse(key, other_key, rng):
    a, b = encrypt(key.public, [1, 2, 3]), encrypt(other_key.public, [1, 2, 3])
    for call in (lambda: a + b, lambda: a - b, lambda: concatenate([a, b]), lambda: concatenate([])):
        with pytest.raises(ParameterError):
            call()
    with pytest.raises(ParameterError, match="another key"):
        decrypt(other_key, a)
    for call in (lambda: a * a, lambda: a == a, lambda: a != a, lambda: hash(a), lambda: a * "x", lambda: a + None):
        with pytest.raises(TypeError):
            call()
    for call in (lambda: a @ np.ones((2, 2), int), lambda: a @ np.ones((3, 1, 1), int), lambda: np.ones(2, int) @ a):
        with pytest.raises(ShapeError):
            call()
    with pytest.raises(ValueError, match="broadcast"):
        a + np.ones(2, int)
    with pytest.raises(ParameterError):
        a.sum(axis=1)
    with pytest.raises(ShapeError):
        EncryptedArray(key.public, np.zeros((3, 4), np.uint64), 0, 1)


def test_rerandomised_ciphertexts_are_new(key):
    a = encrypt(key.public, [1, 2, 3])
    for options in ({}, {"full_range": True}):
        b = a.rerandomise(**options)
        assert decrypt(key, b).tolist() == [1, 2, 3] and not (a.data == b.data).all(axis=1).any()


# --- packing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 24, 25, 26, 60])
def test_packed(bigint_tier, key, rng, count):
    x = random(rng, count, np.int8)
    packed = encrypt_packed(key.public, x, 20)
    assert len(packed) == -(-count // 25)
    assert packed.decrypt(key).tolist() == x.tolist()
    total = packed + packed * -7 + packed.rerandomise()
    assert total.decrypt(key).tolist() == (x.astype(int) * -5).tolist()
    under_encryption = pack(encrypt(key.public, x), 20)
    assert under_encryption.decrypt(key).tolist() == x.tolist()


def test_packed_extremes(key):
    """Slots filled to the last bit do not run into each other."""
    for value in (127, -127):
        x = np.full((3, 9), value)
        packed = encrypt_packed(key.public, x, 8, max_abs=127)
        assert packed.decrypt(key).tolist() == x.tolist()
    alternating = np.array([127, -127] * 30)
    assert encrypt_packed(key.public, alternating, 8, max_abs=127).decrypt(key).tolist() == alternating.tolist()


def test_packed_fixed_point(key, rng):
    x = rng.normal(size=(2, 5))
    packed = encrypt_packed(key.public, x, 40, fraction_bits=16, max_abs=8)
    assert np.array_equal(packed.decrypt(key), np.rint(x * 2**16) / 2**16)
    assert np.array_equal((packed * 3).decrypt(key), np.rint(x * 2**16) * 3 / 2**16)


def test_packed_misuse(key, other_key):
    x = np.array([1, -2], np.int8)
    packed = encrypt_packed(key.public, x, 12)
    for call in (
        lambda: encrypt_packed(key.public, x, 8), lambda: packed * 16, lambda: pack(encrypt(key.public, [1, 2]), 12),
        lambda: packed * 8 + packed * 8,
    ):  # fmt: skip
        with pytest.raises(PlaintextRangeError):
            call()
    for call in (
        lambda: packed + encrypt_packed(key.public, x, 13), lambda: packed + encrypt_packed(key.public, x[:1], 12),
        lambda: packed + encrypt_packed(other_key.public, x, 12), lambda: packed.decrypt(other_key),
        lambda: encrypt_packed(key.public, x, 1), lambda: encrypt_packed(key.public, x, 511),
    ):  # fmt: skip
        with pytest.raises(ParameterError):
            call()
    for call in (lambda: packed + 1, lambda: packed * 1.5, lambda: packed * True):
        with pytest.raises(DTypeError):
            call()


# --- bytes ----------------------------------------------------------------------------------------------------------


def test_bytes_files_pickle(tmp_path, key, rng):
    x = rng.normal(size=(2, 3))
    a = encrypt(key.public, x, fraction_bits=24)
    for again in (array_from_bytes(array_to_bytes(a), key.public), pickle.loads(pickle.dumps(a)), copy.deepcopy(a)):
        assert np.array_equal(again.data, a.data) and again.public == a.public
        assert (again.shape, again.fraction_bits, again.bound) == (a.shape, a.fraction_bits, a.bound)
    save_array(a, tmp_path / "a")
    assert np.array_equal(load_array(tmp_path / "a", key.public).data, a.data)
    save_array(a[0], tmp_path / "a")
    assert load_array(tmp_path / "a", key.public).shape == (3,)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    empty = encrypt(key.public, np.empty((0, 2), int))
    assert array_from_bytes(array_to_bytes(empty), key.public).shape == (0, 2)


def test_damaged_files(tmp_path, key, other_key):
    a = encrypt(key.public, [1, 2, 3])
    data = array_to_bytes(a)
    for cut in (1, 31, 32, 33, len(data) - 3, len(data)):
        with pytest.raises(IntegrityError):
            array_from_bytes(data[: len(data) - cut], key.public)
    for position in range(0, len(data), 37):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(IntegrityError):
            array_from_bytes(bytes(changed), key.public)
    with pytest.raises(ParameterError, match="another key"):
        array_from_bytes(data, other_key.public)
    with pytest.raises(StoreError):
        load_array(tmp_path / "missing", key.public)
    with pytest.raises(StoreError):
        save_array(a, tmp_path / "missing" / "a")


@pytest.mark.parametrize("number", ["zero", "n", "p", "n_squared"])
def test_files_of_numbers_that_are_no_ciphertexts(key, number):
    from mipp.paillier.limbs import to_limbs

    public = key.public
    value = {"zero": 0, "n": public.n, "p": key.p, "n_squared": public.n_squared}[number]
    a = EncryptedArray(public, to_limbs([value], public.element_limbs), 0, 1)
    with pytest.raises(ParameterError):
        array_from_bytes(array_to_bytes(a), public)


def test_repr_tells_shapes_only(key):
    a = encrypt(key.public, [11, 22])
    assert "shape=(2,)" in repr(a) and "11" not in repr(a).replace(key.public.fingerprint[:8].hex(), "")


# --- phe ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1024, 2048])
def test_phe_reads_ours_and_we_read_its(bigint_tier, bits):
    phe = pytest.importorskip("phe")
    from mipp.paillier import PrivateKey
    from mipp.paillier.limbs import from_limbs, to_limbs

    public, private = phe.generate_paillier_keypair(n_length=bits)
    ours = PrivateKey(private.p, private.q, insecure=True)
    values = [0, 1, -1, 2**60, -(2**60), 12345]
    mine = encrypt(ours.public, values)
    for c, v in zip(from_limbs(mine.flat_data), values, strict=True):
        assert private.decrypt(phe.EncryptedNumber(public, int(c), 0)) == v
    theirs = [public.encrypt(v).ciphertext() for v in values]
    assert (
        decrypt(ours, EncryptedArray(ours.public, to_limbs(theirs, ours.public.element_limbs), 0, 2**60)).tolist()
        == values
    )
    total = mine + EncryptedArray(ours.public, to_limbs(theirs, ours.public.element_limbs), 0, 2**60) * -3
    for c, v in zip(from_limbs(total.flat_data), values, strict=True):
        assert private.decrypt(phe.EncryptedNumber(public, int(c), 0)) == v * -2
