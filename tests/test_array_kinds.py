"""The same numbers in another memory layout, byte order or dtype give the same answer, or a typed error."""

import functools

import numpy as np
import pytest

import mipp.compat.phe as phe
from mipp import paillier, ring, sharing
from mipp.compat import faiss
from mipp.encoding import Encoding, Projection, rotation
from mipp.errors import DTypeError, MippError
from mipp.evaluation import metrics
from mipp.features import registry
from mipp.params import Params

VALUES = np.array([[1, 0, 3, 2], [0, 2, 1, 5], [4, 1, 0, 7], [2, 2, 1, 0]])


def big(a):
    return a.astype(a.dtype.newbyteorder(">"))


def spread(a):
    out = np.zeros(tuple(2 * n for n in a.shape), a.dtype)
    at = tuple(slice(None, None, 2) for _ in a.shape)
    out[at] = a
    return out[at]


def backwards(a):
    at = tuple(slice(None, None, -1) for _ in a.shape)
    return a[at].copy()[at]


def sealed(a):
    out = a.copy()
    out.setflags(write=False)
    return out


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    out = raw[1:].view(a.dtype).reshape(a.shape)
    out[:] = a
    return out


LAYOUTS = {
    "big-endian": big,
    "strided": spread,
    "negative strides": backwards,
    "read-only": sealed,
    "Fortran": np.asfortranarray,
    "big-endian backwards": lambda a: backwards(big(a)),
    "unaligned": unaligned,
}


@functools.cache
def key():
    return paillier.generate_keypair(256, insecure=True)


@functools.cache
def phe_keys():
    return phe.generate_paillier_keypair(n_length=256)


@functools.cache
def encrypted():
    return paillier.encrypt(key().public, np.arange(1, 5))


@functools.cache
def numbers():
    return phe_keys()[0].encrypt_batch([1, 2, 3, 4])


def plain(array):
    return paillier.decrypt(key(), array).tolist()


def opened(array):
    private = phe_keys()[1]
    return [private.decrypt(v) for v in np.asarray(array, object).reshape(-1)]


def shared(a):
    params = Params(3, 1, 32)
    keys = sharing.OwnerKeys(bytes(32), bytes(16), bytes(16), params)
    keys.fresh_nonce(a, b"")
    got = sharing.share_rows(a, keys)
    return sharing.open_share(got.shares[1], 1, got.nonce, 4, keys).tolist()


def asked(a):
    params = Params(3, 1, 32)
    made = sharing.query_shares(a, params)
    return {s: share.shape for s, share in made.items()}


def searched(a):
    with faiss.IndexFlatL2(4, ring_bits=32) as index:
        index.add(a)
        return [x.tolist() for x in index.search(a, 2)]


ENCODING = Encoding("l2", 4, ring_bits=32)
INTEGERS = {
    "encrypt": lambda a: plain(paillier.encrypt(key().public, a)),
    "encrypt_packed": lambda a: paillier.encrypt_packed(key().public, a, 40, max_abs=100).decrypt(key()).tolist(),
    "encrypted @ plain": lambda a: plain(encrypted() @ a),
    "plain @ encrypted": lambda a: plain(a @ encrypted()),
    "encrypted * plain": lambda a: plain(encrypted() * a),
    "encrypted + plain": lambda a: plain(encrypted() + a),
    "plain - encrypted": lambda a: plain(a - encrypted()),
    "phe.dot": lambda a: opened(phe.dot(numbers(), a)),
    "phe.encrypt_batch": lambda a: opened(phe_keys()[0].encrypt_batch(a)),
    "phe array *": lambda a: opened(a * numbers()[1]),
    "phe array -": lambda a: opened(a - numbers()[1]),
    "share_rows": shared,
    "query_shares": asked,
    "encode_rows": lambda a: ENCODING.encode_rows(a).tolist(),
    "encode_queries": lambda a: ENCODING.encode_queries(a).tolist(),
    "values": lambda a: ENCODING.values(a, VALUES).tolist(),
    "ranking": lambda a: metrics.ranking_from_scores(a).tolist(),
    "faiss": searched,
    "features": lambda a: registry.get("cedd").distance(np.tile(a, 36), np.tile(a, 36)).tolist(),
}


def outcome(call, a):
    try:
        return call(a)
    except (MippError, TypeError, ValueError) as error:
        return type(error)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "g"])
def test_layouts_do_not_matter(name, dtype):
    call, a = INTEGERS[name], VALUES.astype(dtype)
    expected = outcome(call, a)
    assert dtype in "f2f4f8g" or not isinstance(expected, type)
    for layout, change in LAYOUTS.items():
        assert outcome(call, change(a)) == expected, layout
    assert outcome(call, np.broadcast_to(a[:1], a.shape)) == outcome(call, np.repeat(a[:1], 4, axis=0))


@pytest.mark.parametrize("name", INTEGERS)
def test_other_kinds_are_taken_whole_or_refused(name):
    call = INTEGERS[name]
    expected = outcome(call, VALUES.astype(np.int64))
    assert outcome(call, VALUES.astype(object)) in (expected, TypeError, DTypeError)
    truths = outcome(call, VALUES > 1)
    assert isinstance(truths, type) or truths == outcome(call, (VALUES > 1).astype(np.uint8))
    for refused in (np.array(["1", "2"]), np.array([1j]), np.zeros(4, "M8[s]")):
        assert isinstance(outcome(call, refused), type)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u4", ">u4", ">i4", ">i8", ">u8"])
def test_the_least_and_the_largest_number_of_a_dtype_as_weights(dtype):
    info = np.iinfo(dtype)
    weights = np.array([info.max, info.min, 1, 0], dtype)
    big_key = phe.generate_paillier_keypair(n_length=512)
    exact = info.max + 2 * info.min + 3
    assert big_key[1].decrypt(phe.dot(big_key[0].encrypt_batch([1, 2, 3, 4]), weights)) == exact
    assert int(paillier.decrypt(key(), encrypted() @ weights)) == exact


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_the_ring_product_refuses_foreign_byte_order(bits):
    a = np.arange(8, dtype=f"u{bits // 8}").reshape(2, 4)
    for rows, other in ((big(a), a), (a, big(a)), (big(a), big(a))):
        with pytest.raises(MippError):
            ring.matmul(rows, other)


def test_a_projection_keeps_its_numbers():
    matrix = rotation(4).matrix
    for change in LAYOUTS.values():
        assert (Projection.of(change(matrix)).matrix == matrix).all()


def test_numbers_beyond_float64_are_not_encoded():
    rows = np.full((1, 4), 1, np.longdouble) * np.longdouble(2) ** 2000
    if np.isfinite(rows).all():
        with pytest.raises(MippError):
            ENCODING.encode_rows(rows)
