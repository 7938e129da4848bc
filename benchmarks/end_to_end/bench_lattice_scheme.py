"""One search with one cloud and a key centre: the schemes ``lattice`` and ``paillier`` in turn, one thread.

``pytest benchmarks/end_to_end/bench_lattice_scheme.py --benchmark-only -s``: 10,000 and 100,000 rows of 64 words,
scores of 16 bits, ranked by the user. Paillier keys have 2048 bits, and no randomness is made ahead. Prints both
medians and their ratio. ``MIPP_BENCH_ROWS`` sets another number of rows, ``MIPP_BENCH_ROUNDS`` one of rounds.
"""

import contextlib
import os
import statistics
import time

import numpy as np
import pytest

import mipp

ALL_ROWS = [int(os.environ["MIPP_BENCH_ROWS"]) // 10] if "MIPP_BENCH_ROWS" in os.environ else [10_000, 100_000]
ROUNDS = int(os.environ.get("MIPP_BENCH_ROUNDS", "2"))
DIM, SCHEMES = 64, ("lattice", "paillier")


@pytest.mark.parametrize("rows", ALL_ROWS)
def bench_search(benchmark, tmp_path, rows):
    x = np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float32)
    encoding, times, sizes = mipp.Encoding("cosine", DIM), {s: [] for s in SCHEMES}, {}
    scores = encoding.encode_rows(x).astype(int) @ encoding.encode_queries(x[:1]).astype(int)[0]
    best = np.argsort(-scores, kind="stable")[:10].tolist()
    with contextlib.ExitStack() as held:
        users, channels = {}, {}
        for scheme in SCHEMES:
            made = held.enter_context(mipp.Deployment.create(tmp_path / scheme, encoding, scheme=scheme, threads=1))
            owner, users[scheme] = made.create_owner("anna"), made.create_user("ulla", key_bits=2048)
            owner.add_vectors(x)
            owner.grant(users[scheme])
            users[scheme].index()
            channels[scheme] = made.channel
        users["lattice"].search(x[1], 10)  # tables of the ring

        def search():
            for scheme, user in users.items():
                channels[scheme].bytes_sent.clear()
                begin = time.perf_counter()
                hits = user.search(x[0], 10).hits
                times[scheme].append(time.perf_counter() - begin)
                sizes[scheme] = channels[scheme].bytes_sent["Query"] // 2, channels[scheme].bytes_sent["Answer"] // 2
                assert [h.row for h in hits] == best

        benchmark.pedantic(search, rounds=ROUNDS, warmup_rounds=0)
    medians = {scheme: statistics.median(found) for scheme, found in times.items()}
    ratio = medians["paillier"] / medians["lattice"]
    for scheme in SCHEMES:
        sent, received = sizes[scheme]
        print(f"\n{rows:,} rows, {scheme}: {medians[scheme]:.3f} s, {sent:,} bytes to and {received:,} from a server")
    print(f"paillier takes {ratio:.1f} times as long as lattice")
    benchmark.extra_info |= {
        "rows": rows,
        "dim": DIM,
        "threads": 1,
        "rounds": ROUNDS,
        "lattice_s": round(medians["lattice"], 3),
        "paillier_s": round(medians["paillier"], 3),
        "ratio": round(ratio, 1),
    }
