"""A whole search in the Paillier scheme: one cloud, a key centre, 2048-bit key, ranked by the user.

``pytest benchmarks/end_to_end/bench_paillier_scheme.py --benchmark-only``: 10,000 rows of 64 words, two threads,
randomness prepared ahead. Limit 5 s a query. ``MIPP_BENCH_ROWS`` sets another number of rows.
"""

import os
import statistics
import time

import numpy as np
import pytest

import mipp

ROWS = min(10_000, int(os.environ.get("MIPP_BENCH_ROWS", "10000")) // (10 if "MIPP_BENCH_ROWS" in os.environ else 1))
ROUNDS = min(5, int(os.environ.get("MIPP_BENCH_ROUNDS", "5")))
DIM = 64


@pytest.mark.parametrize("ahead", [True, False], ids=["prepared", "unprepared"])
def bench_search(benchmark, tmp_path, ahead):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", DIM), scheme="paillier", threads=2) as made:
        owner, user = made.create_owner("anna"), made.create_user("ulla", key_bits=2048)
        owner.add_vectors(x)
        owner.grant(user.id)
        expected = mipp.Encoding("cosine", DIM).encode_rows(x).astype(int)
        q = mipp.Encoding("cosine", DIM).encode_queries(x[:1]).astype(int)[0]
        best = np.argsort(-(expected @ q), kind="stable")[:10]
        assert [h.row for h in user.search(x[0], 10).hits] == best.tolist()
        made.channel.bytes_sent.clear()
        times = []

        def prepare():
            if ahead:
                made.prepare(user.id)

        def search():
            begin = time.perf_counter()
            user.search(x[0], 10)
            times.append(time.perf_counter() - begin)

        benchmark.pedantic(search, setup=prepare, rounds=ROUNDS, warmup_rounds=0)
        sent = made.channel.bytes_sent
        benchmark.extra_info |= {
            "rows": ROWS,
            "dim": DIM,
            "threads": 2,
            "tier": mipp.cpu.active()["bigint"],
            "s": round(statistics.median(times), 3),
            "limit_s": 5,
            "bytes_to_servers": sent["Query"] // ROUNDS,
            "bytes_to_user": sent["Answer"] // ROUNDS,
        }
