"""Big-integer kernels against GMP (gmpy2) on one thread, per number, in turn.

``pytest benchmarks/kernels/bench_bigint.py --benchmark-only``. Moduli are squares n^2, as Paillier's: a number has
twice the bits named.
"""

import os
import secrets

import gmpy2
import numpy as np
import pytest

from benchmarks.common import paired, seconds
from mipp._native import _core
from mipp._native._mpz import to_limbs

ROUNDS = int(os.environ.get("MIPP_BENCH_ROUNDS", "7"))
QUICK = "MIPP_BENCH_ROWS" in os.environ
COUNT = 64


@pytest.fixture(params=[1024] if QUICK else [1024, 2048, 3072])
def modulus(request):
    n = secrets.randbits(request.param) | 1 << request.param - 1 | 1
    return gmpy2.mpz(n), _core.Modulus(to_limbs([n], request.param // 64)[0], True)


def compare(benchmark, call, count, baseline, baseline_count, facts):
    call()
    pairs = paired(benchmark, call, lambda: seconds(baseline) / baseline_count, rounds=ROUNDS, items=count)
    ours, theirs = pairs.medians(1e6, 3)
    benchmark.extra_info |= facts | {"us": ours, "gmp_us": theirs, "times": pairs.times}


def numbers(n, count):
    values = [gmpy2.mpz(secrets.randbelow(int(n * n))) for _ in range(count)]
    return values, to_limbs(values, -(-(n * n).bit_length() // 64))


def bench_product(benchmark, modulus, bigint_tier):
    n, native = modulus
    values, a = numbers(n, COUNT * 8)
    square = n * n
    compare(
        benchmark, lambda: native.mul(a, a, 1), len(a),
        lambda: [x * x % square for x in values], len(values), {"tier": bigint_tier, "bits": n.bit_length()},
    )  # fmt: skip


@pytest.mark.parametrize("way", ["pow", "pow_var"])
def bench_power(benchmark, modulus, bigint_tier, way):
    """An exponent of 256 bits: secret and the same for all, or public."""
    n, native = modulus
    values, a = numbers(n, COUNT)
    e = secrets.randbits(256) | 1 << 255
    limbs = to_limbs([e], 4)
    call = (lambda: native.pow(a, limbs, 256, 1)) if way == "pow" else (lambda: native.pow_var(a, limbs[0], 1))
    power = gmpy2.powmod_sec if way == "pow" else gmpy2.powmod
    compare(
        benchmark, call, COUNT, lambda: [power(x, e, n * n) for x in values[:8]], 8,
        {"tier": bigint_tier, "bits": n.bit_length(), "exponent_bits": 256},
    )  # fmt: skip


def bench_fixed_base(benchmark, modulus, bigint_tier):
    """Powers of one base by tables, exponents of half of n's bits: what encryption does."""
    n, native = modulus
    values, a = numbers(n, 1)
    bits = n.bit_length() // 2
    fixed = _core.FixedBase(native, a[0], bits, threads=1)
    exponents = np.frombuffer(secrets.token_bytes(512 * bits // 8), np.uint64).reshape(512, -1)
    e = int.from_bytes(exponents[0].tobytes(), "little")
    compare(
        benchmark, lambda: fixed.pow(exponents, 1), 512, lambda: gmpy2.powmod_sec(values[0], e, n * n), 1,
        {"tier": bigint_tier, "bits": n.bit_length(), "exponent_bits": bits, "table_mb": fixed.table_bytes // 10**6},
    )  # fmt: skip


def bench_multi_power(benchmark, modulus, bigint_tier):
    """128 shared bases to 8-bit powers for 256 outputs."""
    n, native = modulus
    values, a = numbers(n, 128)
    e = np.random.default_rng(0).integers(0, 256, (256, 1, 128), dtype=np.uint8)
    weights = e[0, 0].tolist()

    def by_gmp():
        total, square = gmpy2.mpz(1), n * n
        for x, w in zip(values, weights, strict=True):
            total = total * gmpy2.powmod(x, w, square) % square

    compare(
        benchmark, lambda: native.multi_pow(a, e, 8, 8, 1), 256, by_gmp, 1,
        {"tier": bigint_tier, "bits": n.bit_length(), "bases": 128, "exponent_bits": 8},
    )  # fmt: skip
