"""Beyond phe: batches, inner products, numpy operands, and conversion to phe and back."""

import gmpy2
import numpy as np
import pytest

import mipp.compat.phe as phe


@pytest.fixture(scope="module")
def keys():
    return phe.generate_paillier_keypair(n_length=512)


VALUES = [0, 1, -1, 2**80, 1.5, -2.25e-7, 3.1e11, np.int8(-5), np.float32(0.5)]


def test_batches_equal_single_calls(bigint_tier, keys):
    public, private = keys
    batch = public.encrypt_batch(VALUES)
    single = [public.encrypt(v) for v in VALUES]
    assert [b.exponent for b in batch] == [s.exponent for s in single]
    assert (
        private.decrypt_batch(batch) == [private.decrypt(s) for s in single] == private.decrypt_batch(single) == VALUES
    )
    assert [type(v) for v in private.decrypt_batch(batch)] == [type(private.decrypt(s)) for s in single]
    assert batch[0].ciphertext() == batch[0].ciphertext(False)  # already obfuscated
    assert len({b.ciphertext() for b in public.encrypt_batch([7] * 40)}) == 40
    assert private.decrypt_batch(public.encrypt_batch(np.arange(6).reshape(2, 3))) == list(range(6))
    assert private.decrypt_batch(public.encrypt_batch([1.23456], precision=1e-3)) == [
        private.decrypt(public.encrypt(1.23456, precision=1e-3))
    ]
    assert public.encrypt_batch([]) == [] == private.decrypt_batch([])
    assert private.decrypt_batch(public.encrypt_batch([1, 2], full_range=True)) == [1, 2]


def test_batches_refuse_what_single_calls_refuse(keys):
    public, private = keys
    other, _ = phe.generate_paillier_keypair(n_length=512)
    with pytest.raises(ValueError, match="different key"):
        private.decrypt_batch([public.encrypt(1), other.encrypt(1)])
    with pytest.raises(TypeError):
        private.decrypt_batch([public.encrypt(1), 5])
    with pytest.raises(TypeError):
        public.encrypt_batch([1, "x"])
    with pytest.raises(ValueError, match="NaN"):
        public.encrypt_batch([float("nan")])
    with pytest.raises(OverflowError):
        private.decrypt_batch([public.encrypt(public.max_int) + 1])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.float64, object])
def test_dot(bigint_tier, keys, dtype):
    public, private = keys
    rng = np.random.default_rng(2)
    weights = rng.integers(-100, 100, (5, 3)) if dtype is not np.uint8 else rng.integers(0, 200, (5, 3))
    weights = weights / 8 if dtype is np.float64 else weights.astype(dtype)
    x = [3, -1, 2.5, 0.125, 2**40]
    encrypted = public.encrypt_batch(x)
    expected = np.array(x) @ weights.astype(float)
    assert [private.decrypt(v) for v in phe.dot(encrypted, weights)] == expected.tolist()
    one = phe.dot(encrypted, weights[:, 0])
    assert isinstance(one, phe.EncryptedNumber) and private.decrypt(one) == expected[0]
    slow = sum(a * b for a, b in zip(encrypted, weights[:, 0].tolist(), strict=True))
    assert private.decrypt(slow) == expected[0]
    matrix = np.array([encrypted, encrypted[::-1]], object)
    got = phe.dot(matrix, weights)
    assert got.shape == (2, 3) and private.decrypt_batch(got[0]) == expected.tolist()
    assert one.ciphertext(False) == one.ciphertext(False) != one.ciphertext()  # not obfuscated by itself


def test_dot_refuses(keys):
    public, _ = keys
    other, _ = phe.generate_paillier_keypair(n_length=512)
    x = public.encrypt_batch([1, 2])
    for left, right in ((x, [1, 2, 3]), ([], []), (x, np.ones((2, 2, 2)))):
        with pytest.raises(ValueError, match="multiply"):
            phe.dot(left, right)
    with pytest.raises(TypeError):
        phe.dot([1, 2], [1, 2])
    with pytest.raises(TypeError):
        phe.dot(x, ["a", "b"])
    with pytest.raises(ValueError, match="different public keys"):
        phe.dot([x[0], other.encrypt(1)], [1, 2])


def test_numpy_operands(keys):
    public, private = keys
    x = public.encrypt(5)
    for scalar in (np.int8(3), np.int64(-3), np.float32(0.5), np.uint16(9), gmpy2.mpz(7)):
        assert private.decrypt(x * scalar) == 5 * float(scalar) and private.decrypt(x + scalar) == 5 + float(scalar)
        assert private.decrypt(scalar * x) == 5 * float(scalar)
    for result in (x * np.array([1, 2]), np.array([1, 2]) * x, x + np.array([0, 5]), np.array([0, 5]) + x):
        assert private.decrypt_batch(result) == [5, 10]
    assert private.decrypt_batch(np.array([10, 20]) - x) == [5, 15] and private.decrypt_batch(x - np.array([1, 2])) == [
        4,
        3,
    ]
    encoded = phe.EncodedNumber.encode(public, 2.5)
    assert private.decrypt(x - encoded) == 2.5


def test_an_obfuscator_of_zero_is_refused(keys):
    """phe takes 0 for "none given"."""
    public, _ = keys
    for bad in (0, public.n):
        with pytest.raises(ValueError, match="multiple of n"):
            public.raw_encrypt(5, bad)
    with pytest.raises(TypeError):
        public.raw_encrypt(5, 1.5)


def test_keys_compare_with_anything(keys):
    assert keys[0] != 5 and keys[1] != "x"


def test_primes_of_very_different_size():
    """No batch key exists for these; single decryption still works."""
    # not smaller: an r that is a multiple of p encrypts nothing, in phe as here
    p, q = (1 << 31) - 1, (1 << 127) - 1
    public = phe.PaillierPublicKey(p * q)
    private = phe.PaillierPrivateKey(public, p, q)
    assert private.batched is None and private.decrypt(public.encrypt(-12345)) == -12345
    assert private.decrypt_batch([public.encrypt(3)]) == [3]


def test_single_encryption_by_native_power(bigint_tier):
    """From 1024 bits on, one obfuscator is made by the vector kernels where they are, once the batch key is made."""
    public, private = phe.generate_paillier_keypair(n_length=1024)
    assert private.decrypt(public.encrypt(-3.5)) == -3.5 and "batched" not in vars(public)
    assert public.batched is not None
    assert private.decrypt(public.encrypt(-3.5)) == -3.5
    x = public.encrypt(1)
    x.obfuscate()
    assert private.decrypt(x + public.encrypt(1)) == 2


def test_many_single_encryptions_go_by_tables(bigint_tier):
    """After a few calls a thread makes tables; then every ciphertext is fresh all the same."""
    public, private = phe.generate_paillier_keypair(n_length=2048)
    first = public.encrypt(1)
    assert not public.batched.prepared
    for _ in range(8):
        public.encrypt(1)
    public.batched.prepare()  # waits for the thread
    values = [public.encrypt(v) for v in (3, -3, 0.5)]
    assert public.batched.prepared and private.decrypt_batch([first, *values]) == [1, 3, -3, 0.5]
    assert len({public.encrypt(7).ciphertext() for _ in range(20)}) == 20


def test_obfuscating_a_result_stays_full_range(monkeypatch, bigint_tier):
    """Tables are for new ciphertexts: who holds the private key could strip short randomness off a result."""
    public, private = phe.generate_paillier_keypair(n_length=1024)
    public.batched.prepare()
    public._calls = 100
    monkeypatch.setattr(type(public.batched), "randomness", None)
    result = public.encrypt_encoded(phe.EncodedNumber.encode(public, 2), 1) * 3
    result.obfuscate()
    assert private.decrypt(result) == 6
    with pytest.raises(TypeError):
        public.encrypt(1)  # this would have used them


def test_over_to_phe_and_back(bigint_tier):
    original = pytest.importorskip("phe")
    for make, to_other, back in (
        (phe, phe.to_phe, phe.from_phe), (original, phe.from_phe, phe.to_phe),
    ):  # fmt: skip
        public, private = make.generate_paillier_keypair(n_length=512)
        there_public, there_private = to_other(public), to_other(private)
        assert back(there_public) == public and back(there_private) == private
        for value in (5, -5, 2.5, -1e-9, 2**100):
            number = public.encrypt(value)
            moved = to_other(number)
            assert there_private.decrypt(moved) == value == private.decrypt(back(moved))
            mixed = moved * 3 + there_public.encrypt(1)
            assert private.decrypt(back(mixed)) == value * 3 + 1
            encoded = to_other(make.EncodedNumber.encode(public, value))
            assert encoded.decode() == value and back(encoded).encoding == encoded.encoding
    for bad in (5, object(), "x"):
        with pytest.raises(TypeError):
            phe.from_phe(bad)
        with pytest.raises(TypeError):
            phe.to_phe(bad)
