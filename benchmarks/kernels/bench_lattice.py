"""Lattice encryption: products of rows with an encrypted query in each tier, its expansion, and the user's side.

``pytest benchmarks/kernels/bench_lattice.py --benchmark-enable``, one thread. Of products ``ratio`` is the median of
the tier's time / that of the machine's highest tier, timed in turn, and ``Mrows/s`` what one thread does of rows that
are transformed on the fly. ``MIPP_BENCH_ROWS`` sets another number of rows.
"""

import os

import numpy as np
import pytest

from benchmarks import common
from benchmarks.common import seconds
from mipp import cpu
from mipp.lattice import EvaluationKey, Parameters, SecretKey, answer_words, decrypt, encrypt, matvec, prepare

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "100000"))
#: bits of scores, coordinates
CASES = [(20, 64), (20, 128), (32, 64), (32, 128)]
NOISE = bytes(range(32))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} bits, {case[1]}")
def made(request):
    """A user's keys, its query and rows."""
    bits, dim = request.param
    rng = np.random.default_rng(8)
    parameters = Parameters.choose(dim, bits, 32)
    secret = SecretKey.generate(parameters)
    key = EvaluationKey.generate(secret, dim) if parameters.special else None
    query = rng.integers(-1000, 1000, dim)
    rows = rng.integers(0, 2**32, (ROWS, dim), dtype=np.uint32)
    return parameters, secret, key, query, rows


tiers = pytest.mark.parametrize("tier", ["avx512", "avx2", "portable"])


@tiers
def bench_products(benchmark, made, tier):
    """A server's answer: products, encryption of zero, flood, modulus switching."""
    if tier not in cpu.levels():
        pytest.skip(f"this machine lacks {tier}")
    parameters, secret, key, query, rows = made
    prepared = prepare(encrypt(secret, query), key)
    best = cpu.levels()[-1]

    def at(level):
        with cpu.force(level):
            return matvec(rows, prepared, noise_key=NOISE, context=b"benchmark", threads=1)

    common.paired(benchmark, lambda: at(tier), lambda: seconds(lambda: at(best)), rounds=5)
    benchmark.group = f"{parameters.name}, {len(query)} coordinates, {ROWS} rows"
    if benchmark.enabled and benchmark.stats:
        benchmark.extra_info["Mrows/s"] = round(ROWS / benchmark.stats.stats.median / 1e6, 2)
        benchmark.extra_info["bytes a row"] = round(8 * answer_words(parameters, ROWS) / ROWS, 2)


@tiers
def bench_prepare(benchmark, made, tier):
    """What a server makes of a query before it meets rows: uniform polynomials, or expansion."""
    if tier not in cpu.levels():
        pytest.skip(f"this machine lacks {tier}")
    parameters, secret, key, query, _ = made
    encrypted = encrypt(secret, query)
    with cpu.force(tier):
        benchmark(lambda: prepare(encrypted, key, threads=1))
    benchmark.group = f"{parameters.name}, {len(query)} coordinates, prepare"


def bench_user(benchmark, made):
    """Encryption, with the query's own key where that is new each time, and decryption of an answer."""
    parameters, secret, key, query, rows = made
    answer = matvec(rows, encrypt(secret, query), key, noise_key=NOISE, context=b"benchmark")

    def run():
        mine = secret if parameters.special else SecretKey.generate(parameters)
        words = encrypt(mine, query, threads=1).to_words(threads=1)
        decrypt(secret, answer, ROWS, threads=1)
        return words

    words = benchmark(run)
    benchmark.group = f"{parameters.name}, {len(query)} coordinates, {ROWS} rows, user"
    benchmark.extra_info["query MB"] = round(words.nbytes / 1e6, 2)
