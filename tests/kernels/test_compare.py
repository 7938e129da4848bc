"""Comparison kernels: every tier against plain integers, three simulated parties, distributions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp import cpu
from mipp._native import _core
from tests.reference import compare as oracle

DTYPES = [np.uint16, np.uint32, np.uint64]
SIZES = [1, 63, 64, 65, 511, 512, 513, 1000]
THREADS = [1, 2, 3]
KEYS = [bytes([i]) * 32 for i in range(8)]


@pytest.fixture
def rng():
    return np.random.default_rng(23)


@pytest.fixture(params=DTYPES, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def words(rng, shape, dtype=np.uint64):
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def empty(*shape):
    """Not zeros: a word that a kernel leaves out is seen."""
    return np.full(shape, 0xDEAD, np.uint64)


def extremes(rng, n, dtype):
    """Random words among the smallest and largest."""
    values = words(rng, n, dtype)
    top = np.iinfo(dtype).max
    for i, v in enumerate((0, top, 1, top - 1, top // 2, top // 2 + 1)):
        values[i::11] = v
    return values


def sliced(values, width, first_bit=0, threads=1):
    planes = empty(width, oracle.plane_words(len(values)))
    _core.slice_bits(values, first_bit, planes, threads)
    return planes


# --- planes --------------------------------------------------------------------------------------------------------


def test_forced_tier_runs(tier):
    assert cpu.active()["compare"] == tier


@pytest.mark.parametrize("n", [0, *SIZES])
def test_slice(tier, dtype, rng, n):
    bits = np.dtype(dtype).itemsize * 8
    values = extremes(rng, n, dtype)
    for first, width in ((0, bits), (0, 1), (bits - 1, 1), (3, bits - 7)):
        expected = oracle.to_planes(oracle.slice_bits(values, first, width), oracle.plane_words(n))
        assert np.array_equal(sliced(values, width, first), expected)


@pytest.mark.parametrize("n", [1, 70, 600])
def test_slice_every_width(tier, dtype, rng, n):
    bits = np.dtype(dtype).itemsize * 8
    values = words(rng, n, dtype)
    planes = oracle.to_planes(oracle.slice_bits(values, 0, bits), oracle.plane_words(n))
    for width in range(1, bits + 1):
        first = (7 * width) % (bits - width + 1)
        assert np.array_equal(sliced(values, width, first), planes[first : first + width])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=700), st.integers(1, 64), st.data())
def test_slice_and_back(values, width, data):
    first = data.draw(st.integers(0, 64 - width))
    planes = sliced(np.array(values, np.uint64), width, first)
    back = oracle.unslice_bits(oracle.from_planes(planes), len(values))
    assert back == [v >> first & 2**width - 1 for v in values]


def test_planes_by_threads(tier, dtype, rng):
    n, width = 100_003, 11
    values = words(rng, n, dtype)
    planes = sliced(values, width, 2)
    raised = np.zeros(oracle.plane_words(n) * 64, np.uint64)
    raised[:n] = values >> np.array(2, dtype)
    by_numpy = [np.packbits((raised >> np.uint64(b) & np.uint64(1)).astype(np.uint8), bitorder="little")
                for b in range(width)]  # fmt: skip
    assert np.array_equal(planes, np.array(by_numpy).view(np.uint64))
    for threads in (2, 3, 0, None):
        assert np.array_equal(sliced(values, width, 2, threads), planes)


def test_views_of_consecutive_planes(tier, rng):
    values = words(rng, 300)
    planes = empty(20, 8)
    _core.slice_bits(values, 4, planes[5:15], 1)
    assert np.array_equal(planes[5:15], sliced(values, 10, 4))
    assert (planes[:5] == 0xDEAD).all() and (planes[15:] == 0xDEAD).all()


# --- streams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 7, 16, 63, 64, 65, 129, 1000])
def test_streams(tier, rng, n):
    x, out = words(rng, n), empty(n)
    _core.prf_words(KEYS[0], out, 1)
    assert out.tolist() == oracle.stream(KEYS[0], n)
    masks = np.array(oracle.stream(KEYS[1], n), np.uint64)
    for call, expected in (
        (lambda a: _core.prf_xor(KEYS[1], a, 1), x ^ masks),
        (lambda a: _core.prf_add(KEYS[1], a, False, 1), x + masks),
        (lambda a: _core.prf_add(KEYS[1], a, True, 1), x - masks),
    ):
        out = x.copy()
        call(out)
        assert np.array_equal(out, expected)


def test_streams_by_threads(tier):
    expected = np.array(oracle.stream(KEYS[2], 3 * 70_008), np.uint64).reshape(3, -1)
    for threads in (*THREADS, None):
        out = empty(3, 70_008)
        _core.prf_words(KEYS[2], out, threads)
        assert np.array_equal(out, expected)
        _core.prf_xor(KEYS[2], out, threads)
        assert not out.any()


# --- gates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("planes", "width"), [(0, 8), (1, 0), (1, 8), (3, 16), (5, 72), (2, 1032)])
def test_and_layer(tier, rng, planes, width):
    operands, out = words(rng, (4, planes, width)), empty(planes, width)
    _core.and_layer(*operands, KEYS[0], KEYS[1], out, 1)
    expected = oracle.and_layer(*map(oracle.from_planes, operands), KEYS[0], KEYS[1], width)
    assert np.array_equal(out, oracle.to_planes(expected, width))


def random_layer(rng, n, width):
    return words(rng, (2, n, width)), words(rng, (2, n, width))


@pytest.mark.parametrize("n", [*range(1, 12), 63, 64, 65, 131])
def test_tree_layer(tier, rng, n):
    """One layer, both summands' combination, also in place."""
    width, half = 24, (n + 1) // 2
    g, p = random_layer(rng, n, width)
    gates = len(oracle.tree_gates(n))
    assert gates == (2 * (n // 2) - 1 if n > 1 else 0)
    z = empty(gates, width)
    _core.tree_layer(*g, *p, KEYS[0], KEYS[1], z, 1)
    lists = [oracle.from_planes(a) for a in (*g, *p)]
    expected = oracle.tree_layer(*lists, KEYS[0], KEYS[1], width)
    assert np.array_equal(z, oracle.to_planes(expected, width))
    for s in (0, 1):
        out_g, out_p = empty(half, width), empty(half, width)
        _core.tree_combine(g[s], p[s], z, out_g, out_p, 1)
        expected_g, expected_p = oracle.tree_combine(lists[s], lists[2 + s], oracle.from_planes(z))
        assert np.array_equal(out_g, oracle.to_planes(expected_g, width))
        assert np.array_equal(out_p, oracle.to_planes(expected_p, width))
        same_g, same_p = g[s].copy(), p[s].copy()
        _core.tree_combine(same_g, same_p, z, same_g[:half], same_p[:half], 1)
        assert np.array_equal(same_g[:half], out_g) and np.array_equal(same_p[:half], out_p)


@pytest.mark.parametrize(("n", "width"), [(2, 40_000), (9, 5_000), (70, 648)])
def test_gates_by_threads(tier, rng, n, width):
    g, p = random_layer(rng, n, width)
    pairs, half = n // 2, (n + 1) // 2
    lower = np.concatenate([g[:, 0 : 2 * pairs : 2], p[:, 2 : 2 * pairs : 2]], axis=1)
    upper = np.concatenate([p[:, 1::2], p[:, 3::2]], axis=1)
    masks = [np.empty((len(lower[0]), width), np.uint64) for _ in range(2)]
    for key, mask in zip(KEYS, masks, strict=False):
        _core.prf_words(key, mask, 1)
    expected = (upper[0] & lower[0]) ^ (upper[0] & lower[1]) ^ (upper[1] & lower[0]) ^ masks[0] ^ masks[1]
    for threads in THREADS:
        z, flat = empty(*expected.shape), empty(*expected.shape)
        _core.tree_layer(*g, *p, KEYS[0], KEYS[1], z, threads)
        _core.and_layer(*upper, *lower, KEYS[0], KEYS[1], flat, threads)
        assert np.array_equal(z, expected) and np.array_equal(flat, expected)
        out_g, out_p = g[0].copy(), p[0].copy()
        _core.tree_combine(out_g, out_p, z, out_g[:half], out_p[:half], threads)
        assert np.array_equal(out_g[:pairs], g[0, 1::2] ^ z[:pairs])
        assert np.array_equal(out_p[1:pairs], z[pairs:]) and not out_p[0].any()


# --- three parties -------------------------------------------------------------------------------------------------

# Party a holds summands a+1 and a+2 (modulo 3), makes summand a+1 of a product and sends it to party a-1, which holds
# a and a+1. Every two parties share a key.


def shared(rng, planes):
    """Three summands."""
    first, second = words(rng, (2, *planes.shape))
    return [first, second, planes ^ first ^ second]


def held(summands, party):
    return summands[(party + 1) % 3], summands[(party + 2) % 3]


def pair_keys(party, step):
    """The keys that the party shares with the next and with the one before."""
    keys = [bytes([step, pair]) * 16 for pair in range(3)]
    return keys[party], keys[(party + 2) % 3]


def opened(summands):
    return summands[0] ^ summands[1] ^ summands[2]


def multiply(kernel, operands, gates, width, step):
    """Every party's local step; returns the three summands of the products."""
    result = [None] * 3
    for party in range(3):
        result[(party + 1) % 3] = out = empty(gates, width)
        kernel(*(h for x in operands for h in held(x, party)), *pair_keys(party, step), out, 1)
    return result


def xor(a, b):
    return [x ^ y for x, y in zip(a, b, strict=True)]


def sign_by_tree(rng, a, b, width):
    """Sign bit of a + b modulo 2^width, the ANDs and the rounds."""
    x, y = shared(rng, sliced(a, width)), shared(rng, sliced(b, width))
    columns = x[0].shape[1]
    p = xor(x, y)
    top = [s[-1:] for s in p]
    if width == 1:
        return opened(top)[0], 0, 0
    p = [s[:-1] for s in p]
    g = multiply(_core.and_layer, [[s[:-1] for s in x], [s[:-1] for s in y]], width - 1, columns, 0)
    ands, rounds = width - 1, 0
    while len(g[0]) > 1:
        n, rounds = len(g[0]), rounds + 1
        z = multiply(_core.tree_layer, [g, p], n // 2 * 2 - 1, columns, rounds)
        ands += len(z[0])
        for s in range(3):
            out_g, out_p = empty((n + 1) // 2, columns), empty((n + 1) // 2, columns)
            _core.tree_combine(g[s], p[s], z[s], out_g, out_p, 1)
            g[s], p[s] = out_g, out_p
    return opened(xor(top, g))[0], ands, rounds


def sign_by_ripple(rng, a, b, width):
    """One AND a bit and round: the next carry is (x ^ c) & (y ^ c) ^ c."""
    x, y = shared(rng, sliced(a, width)), shared(rng, sliced(b, width))
    columns = x[0].shape[1]
    carry = [np.zeros((1, columns), np.uint64) for _ in range(3)]
    for i in range(width - 1):
        left, right = xor([s[i : i + 1] for s in x], carry), xor([s[i : i + 1] for s in y], carry)
        carry = xor(multiply(_core.and_layer, [left, right], 1, columns, i), carry)
    return opened(xor(xor([s[-1:] for s in x], [s[-1:] for s in y]), carry))[0]


def signs(a, b, width):
    return [(int(x) + int(y)) >> (width - 1) & 1 for x, y in zip(a, b, strict=True)]


def bits_of(plane, n):
    return np.unpackbits(plane.view(np.uint8), bitorder="little")[:n].tolist()


@pytest.mark.parametrize("width", range(1, 6))
def test_sign_exhaustively(tier, rng, width):
    """All pairs of small values."""
    values = np.arange(2**width, dtype=np.uint64)
    a, b = np.repeat(values, len(values)), np.tile(values, len(values))
    plane, _, _ = sign_by_tree(rng, a, b, width)
    assert bits_of(plane, len(a)) == signs(a, b, width)
    assert bits_of(sign_by_ripple(rng, a, b, width), len(a)) == signs(a, b, width)


@pytest.mark.parametrize("width", [6, 16, 17, 32, 33, 40, 53, 63, 64])
def test_sign(tier, rng, width):
    """Random values, long carries, and the opposite of each other."""
    top = 2**width - 1
    a = words(rng, 700) & np.uint64(top)
    b = words(rng, 700) & np.uint64(top)
    b[100:200] = np.uint64(top) - a[100:200]
    b[200:300] = np.uint64(top) - a[200:300] + np.uint64(1) & np.uint64(top)
    a[300:400], b[300:400] = top, 1
    plane, _, _ = sign_by_tree(rng, a, b, width)
    assert bits_of(plane, 700) == signs(a, b, width)
    assert bits_of(sign_by_ripple(rng, a, b, width), 700) == signs(a, b, width)


def test_cost_of_a_sign(rng):
    """3v - 5 - ceil(log2(v-1)) ANDs; after the generate layer ceil(log2(v-1)) rounds."""
    a = words(rng, 9)
    for width in range(2, 65):
        layers = math.ceil(math.log2(width - 1))
        assert sign_by_tree(rng, a, a, width)[1:] == (3 * width - 5 - layers, layers)


def balanced(samples):
    """Whether each bit of many words is set about as often as not, and equal to its neighbour about as often as not."""
    bits = np.unpackbits(samples.view(np.uint8).reshape(len(samples), -1), axis=1).astype(float)
    turned = (bits[:, 1:] == bits[:, :-1]).astype(float)
    limit = 6 * 0.5 / np.sqrt(len(bits))
    return all(np.abs(b.mean(axis=0) - 0.5).max() < limit for b in (bits, turned))


@pytest.mark.parametrize("value", [0, 2**64 - 1])
def test_products_are_masked(tier, value):
    """Over many keys, what a party sends is uniform whatever its inputs; without masks the test would fail."""
    inputs = [np.full((1, 8), value, np.uint64)] * 4
    samples, bare = empty(600, 8), empty(600, 8)
    for i in range(600):
        a, b = i.to_bytes(32, "little"), (i + 600).to_bytes(32, "little")
        _core.and_layer(*inputs, a, b, samples[i : i + 1], 1)
        _core.and_layer(*inputs, a, a, bare[i : i + 1], 1)
    assert balanced(samples)
    assert not balanced(bare) and (bare == (value if value else 0)).all()


def test_masks_of_gates_differ(tier):
    """No word of a stream masks two gates."""
    n, width = 40, 64
    zeros = np.zeros((n, width), np.uint64)
    out = empty(n // 2 * 2 - 1, width)
    _core.tree_layer(zeros, zeros, zeros, zeros, KEYS[0], KEYS[1], out, 1)
    assert len(np.unique(out)) == out.size
