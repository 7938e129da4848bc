"""Workloads of ``benchmarks.compare``: small, quick, on one thread, on data made by formula.

Each function ``bench_NAME`` makes its data and returns a call without arguments, or yields it and cleans up after. A
parameter ``small`` says that instructions are counted: make it a few million of them. The same file runs on both
builds: a name that only one of them has is reported and left out. Files of other projects look the same.
"""

import itertools
import os
import tempfile
from pathlib import Path

import numpy as np

DIM = 128
KEY = bytes(range(32))
ARRAYS = itertools.count()


def zeros(shape, dtype):
    """In one large page where the machine has them: where small pages lie makes a process some percent slower.

    Arrays start at different lines of a page: stores would wait for loads of the same place in another page.
    """
    size, large = int(np.prod(shape)) * np.dtype(dtype).itemsize, 1 << 21
    room = np.empty(max(size + 2 * large, 2 * large), np.uint8)
    start = -room.ctypes.data % large + 64 * (next(ARRAYS) * 23 % 64)
    made = room[start : start + size].view(dtype).reshape(shape)
    made[...] = 0
    return made


def words(shape, dtype, seed=5):
    made = zeros(shape, dtype)
    made[...] = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return made


def ring(rows, dtype, queries):
    from mipp import ring

    x, columns = words((rows, DIM), dtype), words((queries, DIM), dtype, 6)
    out = zeros((queries, rows), dtype)
    return lambda: ring.matmul(x, columns, out=out, threads=1)


def bench_ring_u32(small=False):
    return ring(1_000 if small else 4_000, np.uint32, 1)


def bench_ring_u16(small=False):
    return ring(1_000 if small else 8_000, np.uint16, 1)


def bench_ring_u32_16_queries(small=False):
    return ring(500 if small else 1_000, np.uint32, 16)


def bench_ring_u16_256_queries(small=False):
    return ring(100 if small else 1_000, np.uint16, 256)


def bench_ring_u32_from_memory():
    return ring(100_000, np.uint32, 1)


def keystream(rows, dtype, queries):
    from mipp._native import _core

    schedules = _core.KeySchedules(KEY, np.zeros((1, 50), np.uint8), 1)
    columns, out = words((queries, DIM), dtype), zeros((queries, rows), dtype)
    zero, count = np.zeros(1, np.int64), np.full(1, rows, np.int64)
    return lambda: _core.keystream_matmul(schedules, zero, zero, count, columns, out, 1)


def bench_keystream_u32(small=False):
    return keystream(500 if small else 10_000, np.uint32, 1)


def bench_keystream_u16_16_queries(small=False):
    return keystream(200 if small else 4_000, np.uint16, 16)


def bench_zero_share(small=False):
    from mipp._native import _core

    lengths = np.full(20 if small else 2_000, 100)
    infos = words((len(lengths), 64), np.uint8)
    out = zeros((1, int(lengths.sum())), np.uint32)
    return lambda: _core.zero_share_add(out, KEY, infos, lengths, False, 1)


def bench_share_rows(small=False):
    from mipp._native import _core
    from mipp.params import Params
    from mipp.sharing import constants

    params = Params(3, 1, 32)
    rows = words((500 if small else 4_000, DIM), np.uint32)
    outs = [zeros((len(rows), params.padded(DIM)), np.uint32) for _ in params.clouds]
    schedules, matrices = [_core.KeySchedules(KEY, np.zeros((1, 50), np.uint8), 1)], constants.row_matrices(params)
    return lambda: _core.share_rows(rows, schedules, [0], 0, matrices, outs, 1)


def bench_reconstruct_top_k(small=False):
    from mipp.sharing import top_k

    scores = [words((1, 20_000 if small else 400_000), np.uint32, seed) for seed in range(3)]
    return lambda: top_k(scores, 10, threads=1)


def bench_slice_bits(small=False):
    from mipp._native import _core

    n = 1 << (13 if small else 17)
    values, planes = words(n, np.uint64), zeros((64, n // 64), np.uint64)
    return lambda: _core.slice_bits(values, 0, planes, 1)


def bench_and_layer(small=False):
    from mipp._native import _core

    operands = [words((32, 32 if small else 2_048), np.uint64, seed) for seed in range(4)]
    out = zeros(operands[0].shape, np.uint64)
    return lambda: _core.and_layer(*operands, KEY, KEY, out, 1)


def bench_shuffle_pass(small=False):
    from mipp._native import _core

    n = 10_000 if small else 100_000
    x, out, perm = words(n, np.uint64), zeros(n, np.uint64), _core.permutation(KEY, n)
    return lambda: _core.shuffle_pass(x, perm, KEY, 1, out, 1)


def modulus():
    from mipp._native import _core

    n = words(32, np.uint64)
    n[0] |= 1
    n[-1] |= 1 << 63
    numbers = words((64, 64), np.uint64, 6)
    numbers[:, -1] >>= 2  # below n squared
    return _core.Modulus(n, True), numbers


def bench_bigint_product(small=False):
    native, numbers = modulus()
    a = np.tile(numbers, (1 if small else 16, 1))
    return lambda: native.mul(a, a, 1)


def bench_bigint_power(small=False):
    native, numbers = modulus()
    bits = 16 if small else 128
    a, exponent = numbers[:8], words((1, bits // 64 or 1), np.uint64, 7)
    if small:
        exponent &= 0xFFFF
    return lambda: native.pow(a, exponent, bits, 1)


def bench_paillier_encrypt():
    import gmpy2

    from mipp.paillier import PublicKey, encrypt

    key = PublicKey(int(gmpy2.next_prime(3 << 1022) * gmpy2.next_prime(7 << 1021)))
    key.prepare(threads=1)
    values = np.arange(16)
    return lambda: encrypt(key, values, threads=1)


def bench_lattice_products(small=False):
    """A server's answer of the lattice scheme to one query, without the checks around it."""
    from mipp.lattice import Parameters, SecretKey, encrypt, matvec, prepare

    parameters, dim = Parameters.choose(64, 20, 32), 4 if small else 64
    query = prepare(encrypt(SecretKey.generate(parameters), np.arange(dim)), threads=1)
    rows = words((parameters.degree, dim), np.uint32)
    return lambda: matvec(rows, query, noise_key=KEY, context=b"benchmark", threads=1)


def bench_search():
    """One query of ``User.search`` over 20,000 rows, ranked by the user."""
    import mipp

    vectors = np.random.default_rng(1).normal(size=(20_000, DIM)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        encoding = mipp.Encoding.fit("ip", vectors[:2_000], ring_bits=32)
        with mipp.Deployment.create(Path(folder) / "deployment", encoding, threads=1) as made:
            owner, user = made.create_owner("owner"), made.create_user("user")
            owner.grant(user.id, rankings=["user"])
            owner.add_vectors(vectors)
            yield lambda: user.search(vectors[7], 10, ranking="user")


def bench_server_top_k():
    """Top-10 of 20,000 shared scores by three parties in three threads of one process."""
    from mipp.mpc.session import Public, run_local
    from mipp.mpc.topk import top_k

    n, pair = 20_000, {(i, j): os.urandom(32) for i in (1, 2) for j in (2, 3) if i < j}
    keys = {i: {j: pair[min(i, j), max(i, j)] for j in (1, 2, 3) if j != i} for i in (1, 2, 3)}
    a, b = words(n, np.uint32, 1), words(n, np.uint32, 2)
    scores = np.random.default_rng(3).permutation(n).astype(np.uint32)
    shares, public = {1: a, 2: b, 3: scores - a - b}, Public(b"h" * 32, b"s" * 32, n, 32, 0, n)
    return lambda: run_local(lambda party: top_k(party, shares[party.index], 10, public), keys)
