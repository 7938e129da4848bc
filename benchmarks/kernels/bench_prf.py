"""PRF kernels against numpy float32 (the product), hashlib and `cryptography` (keys, masks).

``pytest benchmarks/kernels/bench_prf.py --benchmark-only``. Key centres hold no rows: GB/s are those of the keystream
that the product consumes. ``MIPP_BENCH_ROWS`` sets another number of rows, words and keys for a quick run, ``MIPP_CPU``
another level. ``bench_*_ratio`` and ``bench_key_centre_to_cloud`` time both sides in turn and give the median of paired
ratios, ours / baseline.
"""

import hashlib
import hmac
import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.common import blas_threads, fastest, numpy_products, paired, random_words, seconds
from mipp import cpu, ring
from mipp._native import _core

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "500000"))
WORDS = 2 * ROWS
SEGMENTS = max(1, ROWS // 5)
DIM = 128
DTYPES = {"u16": np.uint16, "u32": np.uint32, "u64": np.uint64}
KEY = bytes(range(32))
ROUNDS = 15


@pytest.fixture(scope="module", autouse=True)
def one_blas_thread():
    with blas_threads(1):
        yield


@pytest.fixture(scope="module")
def float_rows():
    return np.random.default_rng(5).random((ROWS, DIM), np.float32)


@pytest.fixture(scope="module")
def infos():
    return np.random.default_rng(7).integers(0, 256, (SEGMENTS, 64), dtype=np.uint8)


def describe(benchmark, group, tier, size, unit, scale):
    """extra_info: the tier, and `size` per second in units of `scale`."""
    benchmark.group = group
    benchmark.extra_info["tier"] = tier
    if benchmark.enabled and benchmark.stats:
        benchmark.extra_info[unit] = round(size / benchmark.stats.stats.median / scale, 2)


def against(benchmark, ours, theirs, group, rounds=15):
    """The time shown is ours; ``ratio`` is the median of ours / theirs, timed in turn."""
    paired(benchmark, ours, theirs, rounds=rounds)
    benchmark.group = group
    benchmark.extra_info["tier"] = cpu.active()["prf"]


# --- the fused product ---------------------------------------------------------------------------------------------


def product(kind, queries, threads=1, runs=1):
    """The product of ROWS keystream rows, in `runs` equal runs, each of its own batch."""
    dtype = DTYPES[kind]
    rng = np.random.default_rng(6)
    schedules = _core.KeySchedules(KEY, rng.integers(0, 256, (runs, 50), dtype=np.uint8), 1)
    columns = rng.integers(0, np.iinfo(dtype).max, (queries, DIM), dtype, endpoint=True)
    count = np.full(runs, ROWS // runs, np.int64)
    first, index = np.zeros(runs, np.int64), np.arange(runs)
    out = np.zeros((queries, int(count.sum())), dtype)
    return lambda: _core.keystream_matmul(schedules, index, first, count, columns, out, threads)


def product_group(queries):
    return f"keystream_matmul rows={ROWS} dim={DIM} queries={queries}"


@pytest.mark.parametrize("queries", [1, 4, 16, 256])
@pytest.mark.parametrize("threads", ["1", "all"])
@pytest.mark.parametrize("kind", DTYPES)
def bench_keystream_matmul(benchmark, kind, threads, queries):
    call = product(kind, queries, 1 if threads == "1" else cpu.threads())
    benchmark.pedantic(call, rounds=ROUNDS if queries < 100 else 3, warmup_rounds=1)
    size = ROWS * DIM * np.dtype(DTYPES[kind]).itemsize
    describe(benchmark, product_group(queries), cpu.active()["prf"], size, "GB/s", 1e9)


@pytest.mark.parametrize("threads", ["1", "all"])
def bench_keystream_matmul_many_batches(benchmark, threads):
    """Batches of ten rows: schedules change every ten rows."""
    call = product("u32", 1, 1 if threads == "1" else cpu.threads(), max(1, ROWS // 10))
    benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, product_group(1), cpu.active()["prf"], ROWS * DIM * 4, "GB/s", 1e9)


@pytest.mark.parametrize("queries", [1, 4, 16])
def bench_numpy_float32(benchmark, float_rows, queries):
    ways = numpy_products(float_rows, queries)
    best = min(ways, key=lambda way: min(seconds(way) for _ in range(3)))
    benchmark.pedantic(best, rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, product_group(queries), "numpy", float_rows.nbytes, "GB/s", 1e9)


@pytest.mark.parametrize("kind", ["u16", "u32"])
def bench_keystream_matmul_ratio(benchmark, float_rows, kind):
    ways = numpy_products(float_rows, 1)
    against(benchmark, product(kind, 1), lambda: fastest(ways), f"{product_group(1)} ratio")


@pytest.mark.parametrize("queries", [1, 16, 256])
@pytest.mark.parametrize("kind", ["u16", "u32"])
def bench_key_centre_to_cloud(benchmark, kind, queries):
    """The product from keys alone against that of stored rows of the same shape."""
    stored, columns = random_words((ROWS, DIM), DTYPES[kind]), random_words((queries, DIM), DTYPES[kind], 6)
    out = ring.matmul(stored, columns)
    theirs = lambda: seconds(lambda: ring.matmul(stored, columns, out=out, threads=1))  # noqa: E731
    against(benchmark, product(kind, queries), theirs, f"{product_group(queries)} to stored rows", 7)


# --- masks ---------------------------------------------------------------------------------------------------------


def zero_share(lengths, infos, threads):
    out = np.zeros((1, int(lengths.sum())), np.uint32)
    return lambda: _core.zero_share_add(out, KEY, infos, lengths, False, threads)


def cryptography_zero_share(lengths, infos):
    """HKDF by hmac, AES-CTR by `cryptography`, the sum by numpy."""
    out = np.zeros(int(lengths.sum()), np.uint32)

    def call():
        prk = hmac.digest(b"\0" * 32, KEY, hashlib.sha256)
        at = 0
        for info, length in zip(infos, lengths, strict=True):
            key = hmac.digest(prk, info.tobytes() + b"\x01", hashlib.sha256)
            cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
            out[at : at + length] += np.frombuffer(cipher.update(bytes(4 * int(length))), np.uint32)
            at += length

    return call


SHAPES = {"one segment": lambda: np.array([WORDS]), "segments of 10": lambda: np.full(SEGMENTS, 10)}


@pytest.mark.parametrize("threads", ["1", "all"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_zero_share(benchmark, infos, shape, threads):
    lengths = SHAPES[shape]()
    call = zero_share(lengths, infos[: len(lengths)], 1 if threads == "1" else cpu.threads())
    benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=1)
    group = f"zero_share_add {shape}, {lengths.sum()} words"
    describe(benchmark, group, cpu.active()["prf"], lengths.sum(), "G words/s", 1e9)


@pytest.mark.parametrize("shape", SHAPES)
def bench_zero_share_ratio(benchmark, infos, shape):
    lengths = SHAPES[shape]()
    some = infos[: len(lengths)]
    base = cryptography_zero_share(lengths, some)
    group = f"zero_share_add {shape}, {lengths.sum()} words ratio"
    against(benchmark, zero_share(lengths, some, 1), lambda: seconds(base), group, rounds=5)


# --- keys ----------------------------------------------------------------------------------------------------------


def bench_hkdf(benchmark, infos):
    benchmark.pedantic(lambda: _core.hkdf_expand_batch(KEY, infos, 1), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"hkdf keys={SEGMENTS}", cpu.active()["prf"], SEGMENTS, "M keys/s", 1e6)


def bench_key_schedules(benchmark, infos):
    benchmark.pedantic(lambda: _core.KeySchedules(KEY, infos, 1), rounds=ROUNDS, warmup_rounds=1)
    describe(benchmark, f"hkdf keys={SEGMENTS}", cpu.active()["prf"], SEGMENTS, "M keys/s", 1e6)


def bench_hkdf_ratio(benchmark, infos):
    prk = hmac.digest(b"\0" * 32, KEY, hashlib.sha256)
    messages = [info.tobytes() + b"\x01" for info in infos]

    def base():
        for message in messages:
            hmac.digest(prk, message, hashlib.sha256)

    ours = lambda: _core.hkdf_expand_batch(KEY, infos, 1)  # noqa: E731
    against(benchmark, ours, lambda: seconds(base), f"hkdf keys={SEGMENTS} ratio", rounds=5)
