"""One search in each scheme, all in turn: the table *Which scheme* of the page *Performance*.

``pytest benchmarks/end_to_end/bench_schemes.py --benchmark-only -s``: cosines, so scores of at most 20 bits; ``shares``
ranked by the user and by the servers, ``lattice`` and ``paillier`` with one cloud. Paillier keys have 2048 bits, and no
randomness is made ahead. Prints the median of each, bytes of a query and of an answer, and how many times as long as
``lattice`` the others take. ``MIPP_BENCH_ROWS`` sets another number of rows, ``MIPP_BENCH_ROUNDS`` one of rounds.
"""

import contextlib
import os
import statistics
import time

import numpy as np
import pytest

import mipp

#: rows, words a row, threads
CASES = [(10_000, 64, 1), (100_000, 64, 1), (10_000, 64, 2), (1_000, 93, 2)]
if "MIPP_BENCH_ROWS" in os.environ:
    CASES = [(int(os.environ["MIPP_BENCH_ROWS"]) // 10, 64, 1)]
ROUNDS = int(os.environ.get("MIPP_BENCH_ROUNDS", "3"))
#: name of a way, scheme, ranking
WAYS = [("shares, user", "shares", "user"), ("shares, server", "shares", "server"), ("lattice", "lattice", "user"),
        ("paillier", "paillier", "user")]  # fmt: skip


@pytest.mark.parametrize(("rows", "dim", "threads"), CASES)
def bench_search(benchmark, tmp_path, rows, dim, threads):
    x = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    encoding, times, sizes = mipp.Encoding("cosine", dim), {way: [] for way, _, _ in WAYS}, {}
    scores = encoding.encode_rows(x).astype(int) @ encoding.encode_queries(x[:1]).astype(int)[0]
    best = sorted(np.argsort(-scores, kind="stable")[:10].tolist())
    with contextlib.ExitStack() as held:
        users, channels = {}, {}
        for scheme in {scheme for _, scheme, _ in WAYS}:
            made = mipp.Deployment.create(tmp_path / scheme, encoding, scheme=scheme, threads=threads)
            held.enter_context(made)
            owner, users[scheme] = made.create_owner("anna"), made.create_user("ulla", key_bits=2048)
            owner.add_vectors(x)
            owner.grant(users[scheme], rankings=["user", "server"] if scheme == "shares" else None)
            users[scheme].index()
            channels[scheme] = made.channel
        for _, scheme, ranking in WAYS[:3]:
            users[scheme].search(x[1], 10, ranking=ranking)  # pages, tables of the ring

        def search():
            for way, scheme, ranking in WAYS:
                sent = channels[scheme].bytes_sent
                sent.clear()
                begin = time.perf_counter()
                hits = users[scheme].search(x[0], 10, ranking=ranking).hits
                times[way].append(time.perf_counter() - begin)
                sizes[way] = sent["Query"] // (3 if scheme == "shares" else 2), sent["Answer"] // 2
                assert sorted(h.row for h in hits) == best

        benchmark.pedantic(search, rounds=ROUNDS, warmup_rounds=0)
    medians = {way: statistics.median(found) for way, found in times.items()}
    print(f"\n{rows:,} rows of {dim}, {threads} thread{'s' * (threads > 1)}")
    for way, seconds in medians.items():
        ratio = seconds / medians["lattice"]
        print(f"  {way}: {1000 * seconds:.1f} ms, {ratio:.3g} times lattice, bytes sent, received: {sizes[way]}")
    benchmark.extra_info |= {"rows": rows, "dim": dim, "threads": threads, "rounds": ROUNDS}
    benchmark.extra_info |= {f"{way}_ms": round(1000 * seconds, 2) for way, seconds in medians.items()}
    benchmark.extra_info["ratio"] = round(medians["paillier"] / medians["lattice"], 1)
