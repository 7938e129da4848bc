"""Work of an owner: encrypting rows, and uploading them to the store.

``pytest benchmarks/end_to_end/bench_owner.py``; ``MIPP_BENCH_ROWS`` sets the number of rows (1,000,000; uploads have a
tenth), ``MIPP_BENCH_ROUNDS`` the rounds. Limit: shares of a million rows for two clouds take at most 1.5 s on two
cores, the nonce's hash over all rows included. The kernel alone is in ``benchmarks/kernels/bench_galois.py``.
"""

import os

import numpy as np
import pytest

import mipp
from benchmarks.common import seconds
from benchmarks.end_to_end.timing import DIM, ROUNDS, ROWS, compare, milliseconds
from mipp import cpu
from mipp.params import Params
from mipp.sharing import OwnerKeys, share_rows

UPLOAD = max(1, ROWS // 10)


def describe(benchmark, name, threads, rows, **facts):
    benchmark.group = f"{name} rows={rows} dim={DIM} k=32"
    benchmark.extra_info.update(tier=cpu.active()["galois"], threads=threads, rows=rows, ring_bits=32, **facts)


@pytest.mark.parametrize("threads", [1, 2])
def bench_share_rows(benchmark, threads):
    """Against copying the same rows into both outputs: the least cost of writing two shares."""
    rows = np.random.default_rng(2).integers(-127, 128, (ROWS, DIM), np.int32)
    keys = OwnerKeys(os.urandom(32), os.urandom(16), os.urandom(16), Params(3, 1, 32))
    facts = compare(
        benchmark,
        lambda: share_rows(rows, keys, threads=threads),
        lambda: seconds(lambda: [rows.copy() for _ in keys.params.clouds]),
        rounds=min(ROUNDS, 5),
    )
    describe(benchmark, "share_rows / two copies", threads, ROWS, **facts, limit_ms=1500)


def bench_upload(benchmark, tmp_path):
    """One batch, from float vectors to synced files on both clouds; against its parts without any check or catalog."""
    vectors = np.random.default_rng(4).normal(size=(UPLOAD, DIM)).astype(np.float32)
    encoding = mipp.Encoding.fit("ip", vectors[:10_000], ring_bits=32)
    with mipp.Deployment.create(tmp_path / "deployment", encoding) as deployment:
        owner = deployment.create_owner("owner")
        stages = {"encode": [], "share": [], "write": []}

        def write(shares):
            for server, share in shares.items():
                with open(tmp_path / f"plain{server}", "wb") as file:
                    file.write(share)
                    file.flush()
                    os.fsync(file.fileno())

        def parts():
            made = {}
            stages["encode"].append(seconds(lambda: made.update(rows=encoding.encode_rows(vectors))))
            stages["share"].append(seconds(lambda: made.update(shared=share_rows(made["rows"], owner.keys))))
            stages["write"].append(seconds(lambda: write(made["shared"].shares)))
            return sum(values[-1] for values in stages.values())

        facts = compare(benchmark, lambda: owner.add_vectors(vectors), parts, rounds=min(ROUNDS, 5))
    parts_ms = {f"{name}_ms": milliseconds(values[1:]) for name, values in stages.items()}
    describe(benchmark, "upload / encode, share, write", cpu.threads(), UPLOAD, **facts, **parts_ms)
