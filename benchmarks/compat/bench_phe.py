"""Single calls of the drop-in against phe itself, in turn: never slower, also the first on a key, but for what
README.md of the drop-in says of decryption without IFMA.

``pytest benchmarks/compat --benchmark-only``. One thread; medians of paired ratios, ours to theirs.
"""

import os

import pytest

import mipp.compat.phe as ours
from benchmarks.common import paired, seconds

phe = pytest.importorskip("phe", reason="phe is the baseline; pip install phe gmpy2")

QUICK = "MIPP_BENCH_ROWS" in os.environ
ROUNDS = int(os.environ.get("MIPP_BENCH_ROUNDS", "31"))
CALLS = {
    "encrypt": (lambda s: s.public.encrypt(12345), 1),
    "first_encrypt": (lambda s: s.module.PaillierPublicKey(s.public.n).encrypt(12345), 1),
    "encrypt_float": (lambda s: s.public.encrypt(-1.5), 1),
    "add": (lambda s: s.a + s.b, 100),
    "add_plain": (lambda s: s.a + 5, 100),
    "times_5": (lambda s: s.a * 5, 100),
    "times_minus_5": (lambda s: s.a * -5, 20),
    "times_half": (lambda s: s.a * 0.5, 20),
    "decrypt": (lambda s: s.private.decrypt(s.a), 1),
}


class Side:
    def __init__(self, module, p, q):
        self.module = module
        self.public = module.PaillierPublicKey(p * q)
        self.private = module.PaillierPrivateKey(self.public, p, q)
        self.a, self.b = self.public.encrypt(3), self.public.encrypt(4)


@pytest.fixture(params=[2048] if QUICK else [512, 1024, 2048, 3072], scope="module")
def sides(request):
    _, private = phe.generate_paillier_keypair(n_length=request.param)
    return Side(ours, private.p, private.q), Side(phe, private.p, private.q)


def repeated(call, side, repeat):
    for _ in range(repeat):
        call(side)


@pytest.mark.parametrize("name", list(CALLS))
def bench_single_call(benchmark, sides, bigint_tier, name):
    call, repeat = CALLS[name]
    # tables belong to the tier that they were made on
    sides = Side(ours, sides[0].private.p, sides[0].private.q), sides[1]
    call(sides[0]), call(sides[1])
    if name == "encrypt":  # as in a program that encrypts more than a few numbers
        for _ in range(9):
            call(sides[0])
        if sides[0].public.n.bit_length() >= 2048:
            sides[0].public.batched.prepare()
    pairs = paired(
        benchmark,
        lambda: repeated(call, sides[0], repeat),
        lambda: seconds(lambda: repeated(call, sides[1], repeat)) / repeat,
        rounds=ROUNDS,
        items=repeat,
    )
    mine, theirs = pairs.medians(1e6)
    limited = ["encrypt", "first_encrypt", "add", "times_5"] + ["decrypt"] * (bigint_tier == "avx512")
    benchmark.extra_info |= {
        "tier": bigint_tier,
        "bits": sides[0].public.n.bit_length(),
        "us": mine,
        "phe_us": theirs,
        "limit": 1.0 if name in limited else None,
    }
