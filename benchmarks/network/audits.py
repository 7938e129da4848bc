"""What an audit takes: ``python -m benchmarks.network.audits [--rows N ...] [--quick]``.

Seconds and bytes of a whole audit of all clouds, divided by the clouds: embedded, and over three server processes on
loopback; of all rows, and of a sample of 1%. Beside it, in the same run, one cloud's product of the same rows by one
query. Exit code 1 if an audit of 1,000,000 rows takes more than 0.2 s a cloud; ``--quick`` shows that it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mipp
from benchmarks.common import seconds
from mipp import ring
from mipp.demo.servers import LocalServers

DIM = 128
LIMIT = 0.2


@contextlib.contextmanager
def deployments(encoding: mipp.Encoding) -> Iterator[dict[str, Any]]:
    """An owner of each kind of deployment; servers do not test rows for range, which would take minutes."""
    options: dict[str, Any] = {"rankings": ("user",)}
    with (
        tempfile.TemporaryDirectory() as folder,
        mipp.Deployment.create(Path(folder) / "embedded", encoding, **options) as embedded,
        LocalServers(Path(folder) / "network", encoding, **options) as servers,
        servers.connect() as network,
    ):
        yield {
            "embedded": embedded.create_owner("anna"),
            "network": network.create_owner("anna", invitation=servers.invitation("owner", "anna")),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    missed = False
    for rows in [2000] if given.quick else given.rows:
        data = np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float32)
        words = np.random.default_rng(1).integers(0, 2**32, (rows, DIM), np.uint32)
        product = statistics.median(seconds(lambda w=words: ring.matmul(w, w[:1])) for _ in range(given.rounds))
        print(f"{rows} rows of {DIM} features; a product by one query takes {1e3 * product:.1f} ms")
        with deployments(mipp.Encoding("cosine", DIM)) as owners:
            for where, owner in owners.items():
                owner.add_vectors(data)
                clouds = len(owner.config.params.clouds)
                for sample in (1.0, 0.01):
                    assert owner.audit(sample).ok  # the first reads and checks all files
                    before = sum(owner.channel.bytes_sent.values())
                    took = statistics.median(seconds(lambda o=owner, s=sample: o.audit(s)) for _ in range(given.rounds))
                    traffic = (sum(owner.channel.bytes_sent.values()) - before) / given.rounds / clouds
                    limit = rows == 1_000_000 and took / clouds > LIMIT
                    print(f"{where:9s} sample {sample:5.0%}  {1e3 * took / clouds:8.1f} ms a cloud  "
                          f"{traffic / 1024:6.1f} KiB a cloud{'  MISSED' * limit}", flush=True)  # fmt: skip
                    missed |= limit
    if missed and not given.quick:
        sys.exit(1)


if __name__ == "__main__":
    main()
