"""Comparison and shuffle kernels against numpy with `cryptography`'s keystream: one party's local steps.

``pytest benchmarks/kernels/bench_compare.py --benchmark-enable``. All data is random, every page touched; 1,000,000
values are 125 KB a plane, so a layer of 32 planes lies outside a core's caches, and 1,000 values inside the first.
``MIPP_BENCH_ROWS`` sets another number of values for a quick run, ``MIPP_CPU`` another level. ``bench_*_ratio`` time
both sides in turn and give the median of paired ratios, ours / baseline, on one thread.
"""

import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks import common
from benchmarks.common import seconds
from mipp import cpu
from mipp._native import _core

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "1000000"))
ROUNDS = 15
KEYS = [bytes([i]) * 32 for i in range(4)]
COUNTS = {"1": 1, "all": cpu.threads()}


def columns(n):
    return -(-n // 512) * 8


@pytest.fixture(scope="module")
def words():
    """words(n, i): array i of n random words, kept for the module."""
    kept = {}

    def get(n, i):
        if (n, i) not in kept:
            kept[n, i] = np.random.default_rng(i).integers(0, 2**64, n, dtype=np.uint64)
        return kept[n, i]

    return get


def describe(benchmark, group, **rates):
    """Names of rates end in their unit; values are amounts a call."""
    benchmark.group = group
    benchmark.extra_info["tier"] = cpu.active()["compare"]
    if benchmark.enabled and benchmark.stats:
        for unit, amount in rates.items():
            benchmark.extra_info[unit] = round(amount / benchmark.stats.stats.median, 3)


def paired(benchmark, ours, baseline, group, rounds=ROUNDS):
    """The time shown is ours; ``ratio`` is the median of ours / baseline, timed in turn."""
    ours()
    common.paired(benchmark, ours, lambda: seconds(baseline), rounds=rounds)
    describe(benchmark, group)


def keystream(key, n):
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * n)), np.uint64)


# --- sign of a sum -------------------------------------------------------------------------------------------------


class Sign:
    """All local steps of one party for the signs of n sums of width v by a tree over bits.

    The protocol's tree is over digits of three bits: a third of these gates. What the party receives is its own output.
    """

    def __init__(self, words, n, v, threads):
        self.a, self.b, self.v, self.threads = words(n, 0), words(n, 1), v, threads
        w = columns(n)
        # summands of the two operands, then generate and propagate bits of each
        self.x, self.y, self.p = (np.zeros((2, v, w), np.uint64) for _ in range(3))
        self.g, self.z = np.zeros((2, v - 1, w), np.uint64), np.zeros((v - 1, w), np.uint64)
        self.sign = np.zeros((2, 1, w), np.uint64)
        self.prepare()

    def prepare(self):
        """Words to planes, one operand masked for the other party that gets it."""
        _core.slice_bits(self.a, 0, self.x[0], self.threads)
        _core.prf_words(KEYS[0], self.x[1], self.threads)
        np.bitwise_xor(self.x[0], self.x[1], out=self.x[0])
        _core.slice_bits(self.b, 0, self.y[0], self.threads)

    def gates(self):
        x, y, g, z, threads = self.x, self.y, self.g, self.z, self.threads
        for s in (0, 1):
            np.bitwise_xor(x[s], y[s], out=self.p[s])
        _core.and_layer(x[0][:-1], x[1][:-1], y[0][:-1], y[1][:-1], KEYS[0], KEYS[1], g[0], threads)
        g[1] = g[0]
        n = self.v - 1
        while n > 1:
            products, half = z[: n // 2 * 2 - 1], (n + 1) // 2
            _core.tree_layer(g[0][:n], g[1][:n], self.p[0][:n], self.p[1][:n], KEYS[0], KEYS[1], products, threads)
            for s in (0, 1):
                p = self.p[s]
                _core.tree_combine(g[s][:n], p[:n], products, g[s][:half], p[:half], threads)
            n = half
        for s in (0, 1):
            np.bitwise_xor(self.p[s][-1:], g[s][:1], out=self.sign[s])

    def __call__(self):
        self.prepare()
        self.gates()


def numpy_gates(sign):
    """The same gates in numpy, operands by slices of planes."""
    x, y, v = sign.x, sign.y, sign.v

    def product(x, y):
        masks = [keystream(key, x[0].size).reshape(x[0].shape) for key in KEYS[:2]]
        return (x[0] & (y[0] ^ y[1])) ^ (x[1] & y[0]) ^ masks[0] ^ masks[1]

    def call():
        p = x ^ y
        g = np.stack([product(x[:, :-1], y[:, :-1])] * 2)
        top, p = p[:, -1], p[:, : v - 1]
        while g.shape[1] > 1:
            pairs = 2 * (g.shape[1] // 2)
            z_g = product(p[:, 1:pairs:2], g[:, 0:pairs:2])
            z_p = product(p[:, 3:pairs:2], p[:, 2:pairs:2])
            g = np.concatenate([g[:, 1::2] ^ z_g, g[:, pairs:]], axis=1)
            p = np.concatenate([p[:, :1], np.stack([z_p, z_p]), p[:, pairs:]], axis=1)
        return top ^ g[:, 0]

    return call


@pytest.mark.parametrize("threads", COUNTS)
@pytest.mark.parametrize("v", [16, 32, 40, 53])
def bench_sign(benchmark, words, v, threads):
    benchmark.pedantic(Sign(words, ROWS, v, COUNTS[threads]), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"sign, one party, n={ROWS}", **{"M/s": ROWS / 1e6})


@pytest.mark.parametrize("n", [1_000, 20_000])
def bench_sign_of_few(benchmark, words, n):
    benchmark.pedantic(Sign(words, n, 40, 1), rounds=10 * ROUNDS, warmup_rounds=1)
    describe(benchmark, "sign of few, one party", **{"M/s": n / 1e6})


@pytest.mark.parametrize("v", [16, 32])
def bench_sign_gates_ratio(benchmark, words, v):
    sign = Sign(words, ROWS, v, 1)
    paired(benchmark, sign.gates, numpy_gates(sign), f"gates of a sign, n={ROWS} ratio", 5)


@pytest.mark.parametrize("threads", COUNTS)
def bench_and_layer(benchmark, words, threads):
    sign = Sign(words, ROWS, 32, COUNTS[threads])
    operands = [*sign.x, *sign.y]
    out = np.zeros_like(sign.x[0])
    call = lambda: _core.and_layer(*operands, KEYS[0], KEYS[1], out, COUNTS[threads])  # noqa: E731
    benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"and_layer, 32 planes, n={ROWS}", **{"GB/s": 5 * out.nbytes / 1e9})


# --- planes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", COUNTS)
@pytest.mark.parametrize("width", [64, 40, 32, 16])
def bench_slice_bits(benchmark, words, width, threads):
    dtype = np.uint64 if width > 32 else np.uint32 if width > 16 else np.uint16
    values, planes = words(ROWS, 0).astype(dtype), np.zeros((width, columns(ROWS)), np.uint64)
    benchmark.pedantic(
        lambda: _core.slice_bits(values, 0, planes, COUNTS[threads]), rounds=ROUNDS, warmup_rounds=1
    )  # fmt: skip
    describe(benchmark, f"slice_bits n={ROWS}", **{"GB/s": (values.nbytes + planes.nbytes) / 1e9})


def bench_slice_bits_ratio(benchmark, words):
    values, planes = words(ROWS, 0), np.zeros((64, columns(ROWS)), np.uint64)

    def by_numpy():
        bits = np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        return np.packbits(bits.T, axis=1, bitorder="little")

    paired(benchmark, lambda: _core.slice_bits(values, 0, planes, 1), by_numpy, f"slice_bits n={ROWS} ratio", 5)


@pytest.mark.parametrize("threads", COUNTS)
def bench_prf_words(benchmark, threads):
    out = np.zeros(ROWS, np.uint64)
    benchmark.pedantic(lambda: _core.prf_words(KEYS[0], out, COUNTS[threads]), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"prf_words n={ROWS}", **{"GB/s": out.nbytes / 1e9})


def bench_prf_words_ratio(benchmark):
    out = np.zeros(ROWS, np.uint64)
    ours = lambda: _core.prf_words(KEYS[0], out, 1)  # noqa: E731
    paired(benchmark, ours, lambda: keystream(KEYS[0], ROWS), f"prf_words n={ROWS} ratio")


# --- shuffle -------------------------------------------------------------------------------------------------------


def shuffle(words, n, kind, threads):
    x, out, perm = words(n, 0), np.zeros(n, np.uint64), _core.permutation(KEYS[0], n)
    key = None if kind == "permute" else KEYS[1]
    return lambda: _core.shuffle_pass(x, perm, key, 1, out, threads)


@pytest.mark.parametrize("threads", COUNTS)
@pytest.mark.parametrize("kind", ["permute", "mask"])
@pytest.mark.parametrize("n", [ROWS, 4 * ROWS])
def bench_shuffle_pass(benchmark, words, n, kind, threads):
    benchmark.pedantic(shuffle(words, n, kind, COUNTS[threads]), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"shuffle_pass n={n}", **{"GB/s": 20 * n / 1e9, "M words/s": n / 1e6})


@pytest.mark.parametrize("n", [ROWS, 4 * ROWS])
def bench_shuffle_pass_ratio(benchmark, words, n):
    x, perm = words(n, 0), _core.permutation(KEYS[0], n)
    ours = shuffle(words, n, "mask", 1)
    paired(benchmark, ours, lambda: x[perm] + keystream(KEYS[1], n), f"shuffle_pass n={n} ratio")


@pytest.mark.parametrize("n", [ROWS, 4 * ROWS])
def bench_permutation(benchmark, n):
    benchmark.pedantic(lambda: _core.permutation(KEYS[0], n), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"permutation n={n}", **{"M/s": n / 1e6})


def bench_permutation_ratio(benchmark):
    rng = np.random.default_rng(1)
    paired(benchmark, lambda: _core.permutation(KEYS[0], ROWS), lambda: rng.permutation(ROWS), "permutation ratio")


# --- digits and packing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", COUNTS)
def bench_digit_products(benchmark, words, threads):
    bits, out = words(42 * columns(ROWS), 0).reshape(42, -1), np.zeros((98, columns(ROWS)), np.uint64)
    benchmark.pedantic(lambda: _core.digit_products(bits, out, COUNTS[threads]), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"digit_products v=43 n={ROWS}", **{"GB/s": (bits.nbytes + out.nbytes) / 1e9})


@pytest.mark.parametrize("threads", COUNTS)
def bench_digit_carries(benchmark, words, threads):
    t, shares = words(42 * columns(ROWS), 0).reshape(42, -1), words(98 * columns(ROWS), 1).reshape(98, -1)
    out = np.zeros((27, columns(ROWS)), np.uint64)
    benchmark.pedantic(
        lambda: _core.digit_carries(shares, t, True, out, COUNTS[threads]), rounds=ROUNDS, warmup_rounds=1
    )
    describe(benchmark, f"digit_carries v=43 n={ROWS}", **{"GB/s": (t.nbytes + shares.nbytes + out.nbytes) / 1e9})


@pytest.mark.parametrize("threads", COUNTS)
def bench_packing(benchmark, words, threads):
    whole, packed = words(ROWS, 0), np.zeros(-(-43 * ROWS // 64), np.uint64)

    def there_and_back():
        _core.pack_words(whole, 43, packed, COUNTS[threads])
        _core.unpack_words(packed, 43, whole, COUNTS[threads])

    benchmark.pedantic(there_and_back, rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"pack_words and unpack_words 43 bits n={ROWS}", **{"GB/s": 2 * 13.375 * ROWS / 1e9})


# --- sums of squares -----------------------------------------------------------------------------------------------


def squares(words, bits, hint_bits, dim=128):
    """Two arrays of words, weights, an output, three arrays of hints or None: ROWS / dim rows."""
    n = max(1, ROWS // dim)

    def array(i, width):
        dtype = np.dtype(f"uint{width}")
        return words(n * dim, i).view(dtype)[: n * dim].reshape(n, dim).copy()

    hints = [array(2 + i, hint_bits) if hint_bits else None for i in range(3)]
    return array(0, bits), array(1, bits), words(dim, 5), np.zeros(n, np.uint64), hints


SQUARES = pytest.mark.parametrize(("bits", "hint_bits"), [(16, 8), (32, 8), (32, 32), (64, 0)])


@SQUARES
@pytest.mark.parametrize("threads", COUNTS)
def bench_square_dealer(benchmark, words, bits, hint_bits, threads):
    r1, r2, weights, out, hints = squares(words, bits, hint_bits)
    call = lambda: _core.square_dealer(r1, r2, weights, out, *hints, COUNTS[threads])  # noqa: E731
    benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"square_dealer {bits}/{hint_bits} bits n={r1.size}", **{"M/s": r1.size / 1e6})


@SQUARES
@pytest.mark.parametrize("threads", COUNTS)
def bench_square_share(benchmark, words, bits, hint_bits, threads):
    m, r, weights, out, hints = squares(words, bits, hint_bits)
    call = lambda: _core.square_share(m, r, weights, True, out, *hints, COUNTS[threads])  # noqa: E731
    benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"square_share {bits}/{hint_bits} bits n={m.size}", **{"M/s": m.size / 1e6})


@SQUARES
def bench_square_share_ratio(benchmark, words, bits, hint_bits):
    m, r, weights, out, hints = squares(words, bits, hint_bits)
    one, k = np.uint64(1), np.uint64(bits)

    def by_numpy():
        wide = m.astype(np.uint64)
        mu = wide - (one << (k - np.uint64(2)))
        factor = mu - np.uint64(2) * r.astype(np.uint64)
        if not hint_bits:
            return (mu * factor) @ weights
        carry, msb, delta = (h.astype(np.uint64) for h in hints)
        low = (wide >> (k - one)) - one
        factor += (carry + (msb & low)) << (k + one)
        return (mu * factor - ((delta & low) << (k + one))) @ weights

    ours = lambda: _core.square_share(m, r, weights, True, out, *hints, 1)  # noqa: E731
    ours()
    assert np.array_equal(out, by_numpy())
    paired(benchmark, ours, by_numpy, f"square_share ratio {bits}/{hint_bits} bits n={m.size}")
