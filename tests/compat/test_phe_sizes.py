"""Keys of every length work in every call, also where the native engine ends (4096 bits) and at odd lengths."""

import numpy as np
import pytest

import mipp.compat.phe as phe

# primes 2^b - top and 3 * 2^(b-2) + low
TOP = {1024: 105, 2048: 1557, 2049: 1449, 2080: 3339, 2560: 75, 3072: 47, 4096: 2549}
LOW = {1024: 1037, 2048: 439, 2049: 115, 2080: 461, 2560: 2995, 3072: 1319, 4096: 3389}
SIZES = [(1024, 1024), (2048, 2048), (2048, 2049), (2049, 2049), (2080, 2080), (2560, 2560), (3072, 3072)]
DEAR = pytest.param(4096, 4096, marks=pytest.mark.slow)


def keys(a, b):
    p, q = 3 * 2 ** (a - 2) + LOW[a], 2**b - TOP[b]
    public = phe.PaillierPublicKey(p * q)
    return public, phe.PaillierPrivateKey(public, p, q)


@pytest.mark.parametrize(("a", "b"), [*SIZES, DEAR])
def test_every_call_works(a, b):
    public, private = keys(a, b)
    assert public.n.bit_length() == a + b
    dear = a + b >= 6144
    values = [3, -2.5]
    # the first of the batch also passes the call after which tables are made
    public._calls = 5
    singles = [public.encrypt(v) for v in values * (2 if dear else 3)]
    assert [private.decrypt(x) for x in singles[:2]] == values
    assert len({x.ciphertext() for x in singles}) == len(singles)
    batch = public.encrypt_batch(values)
    assert private.decrypt_batch(batch) == values and public.encrypt_batch([]) == []
    for weights in ([2, -1], [0.5, -4.0], np.array([-128, 127], np.int8), np.array([200, 3], np.uint8)):
        expected = 3 * float(weights[0]) - 2.5 * float(weights[1])
        assert private.decrypt(phe.dot(batch, weights)) == expected
    matrix = phe.dot(np.array([batch, batch[::-1]], object), np.array([[1, 0], [-2, 1]]))
    assert [private.decrypt(x) for x in matrix[0]] == [8, -2.5]
    assert private.decrypt(batch[0] * -3 + batch[1] / 2 - 1) == -11.25
    if not dear:
        batch[0].obfuscate()
        assert private.decrypt(batch[0]) == 3
    for bad in ([1], [float("nan"), 1], [public.max_int + 1, 1]):
        with pytest.raises(ValueError):
            phe.dot(batch, bad)


@pytest.mark.parametrize("bits", [9, 11, 17, 33, 65, 127, 513])
def test_odd_lengths(bits):
    for _ in range(3):
        public, private = phe.generate_paillier_keypair(n_length=bits)
        assert public.n.bit_length() == bits
        limit = min(public.max_int, 20)
        values = [limit, -limit, 1, 0] * 4
        # a random r may share a factor with a tiny n
        if bits > 60:
            assert [private.decrypt(public.encrypt(v)) for v in values] == values
        batch = public.encrypt_batch(values)
        if bits > 60:
            assert private.decrypt_batch(batch) == values
            assert private.decrypt(phe.dot(batch[:2], np.array([1, 1], np.int64))) == 0
