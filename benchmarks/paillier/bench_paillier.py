"""Paillier in batches against python-paillier (phe 1.5 with gmpy2): one thread, per item, in turn.

``pytest benchmarks/paillier --benchmark-only``. phe's side is a few items scaled to one; ours is a batch of 1024
(``MIPP_BENCH_ITEMS`` sets another), 1000 rows for the products. Limits: encryption 40 times (portable tier 5),
decryption 4 (0.8), encrypted query of 128 times plain int8 rows 40 (5).
"""

import os

import numpy as np
import pytest

from benchmarks.common import paired, seconds
from mipp.paillier import PrivateKey, PublicKey, decrypt, encrypt

phe = pytest.importorskip("phe", reason="phe is the baseline; pip install phe gmpy2")

ITEMS = int(os.environ.get("MIPP_BENCH_ITEMS", "1024"))
ROUNDS = int(os.environ.get("MIPP_BENCH_ROUNDS", "7"))
QUICK = "MIPP_BENCH_ROWS" in os.environ
DIM = 128
LIMITS = {"avx512": {"encrypt": 40, "decrypt": 4, "dot": 40}, "portable": {"encrypt": 5, "decrypt": 0.8, "dot": 5}}


@pytest.fixture(params=[2048] if QUICK else [2048, 3072], scope="module")
def keys(request):
    public, private = phe.generate_paillier_keypair(n_length=request.param)
    return public, private, PrivateKey(private.p, private.q)


def compare(benchmark, call, items, baseline, baseline_items, work, bigint_tier, keys):
    """Medians per item, and of the paired ratios of phe's time to ours."""
    call()
    pairs = paired(benchmark, call, lambda: seconds(baseline) / baseline_items, rounds=ROUNDS, items=items)
    ours, theirs = pairs.medians(1e6, 1)
    benchmark.extra_info |= {
        "tier": bigint_tier,
        "bits": keys[0].n.bit_length(),
        "items": items,
        "us": ours,
        "phe_us": theirs,
        "phe_items": baseline_items,
        "times": pairs.times,
        "limit": LIMITS[bigint_tier][work],
    }


def bench_encrypt(benchmark, keys, bigint_tier):
    public = PublicKey(keys[0].n)
    public.prepare(threads=1)  # the table is ready
    items = ITEMS if bigint_tier == "avx512" else ITEMS // 8
    values = np.random.default_rng(0).integers(-(2**31), 2**31, items)
    plain = values.tolist()[:4]
    compare(
        benchmark, lambda: encrypt(public, values, threads=1), items,
        lambda: [keys[0].encrypt(v) for v in plain], 4, "encrypt", bigint_tier, keys,
    )  # fmt: skip


def bench_decrypt(benchmark, keys, bigint_tier):
    items = ITEMS if bigint_tier == "avx512" else ITEMS // 8
    values = np.random.default_rng(0).integers(-(2**31), 2**31, items)
    array = encrypt(keys[2].public, values)
    theirs = [keys[0].encrypt(v) for v in values.tolist()[:8]]
    assert np.array_equal(decrypt(keys[2], array), values)
    compare(
        benchmark, lambda: decrypt(keys[2], array, threads=1), items,
        lambda: [keys[1].decrypt(c) for c in theirs], 8, "decrypt", bigint_tier, keys,
    )  # fmt: skip


def bench_query_times_plain_rows(benchmark, keys, bigint_tier):
    rows = 1000 if bigint_tier == "avx512" else 250
    rng = np.random.default_rng(1)
    x = rng.integers(-127, 128, (rows, DIM), dtype=np.int8)
    query = rng.integers(-127, 128, DIM, dtype=np.int8)
    array = encrypt(keys[2].public, query)
    theirs = [keys[0].encrypt(v) for v in query.tolist()]
    weights = x[:2].tolist()

    def dots():
        for row in weights:
            total = theirs[0] * row[0]
            for c, w in zip(theirs[1:], row[1:], strict=True):
                total = total + c * w

    result = array.dot(x.T, threads=1)
    assert np.array_equal(decrypt(keys[2], result), x.astype(int) @ query)
    compare(benchmark, lambda: array.dot(x.T, threads=1), rows, dots, len(weights), "dot", bigint_tier, keys)
