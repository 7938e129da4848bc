"""What verified answers cost: ``python -m benchmarks.network.verification [--rows N ...] [--quick]``.

Searches that the user ranks, with check columns and without, in turns in this run: embedded, and over three server
processes on loopback. Check columns come back whole, or are folded by the servers. Exit code 1 if a limit was missed by
the way that the client takes by itself; ``--quick`` shows that it runs, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mipp
from benchmarks.common import Pairs, in_turns, seconds
from mipp.client.query import Querier
from mipp.demo.servers import LocalServers

DIM = 128
#: the time of verified answers over that of others, at most, by where and the number of queries: of 1,000,000 rows
LIMITS = {("embedded", 1): 1.2, ("network", 1): 1.1, ("embedded", 256): 1.05, ("network", 256): 1.05}


@contextlib.contextmanager
def way(name: str) -> Iterator[None]:
    """Have check columns come back ``whole``, ``folded``, or as the client ``chooses``."""
    real = Querier.folds
    if name != "chooses":
        Querier.folds = lambda self, index: name == "folded"  # type: ignore[method-assign]
    try:
        yield
    finally:
        Querier.folds = real  # type: ignore[method-assign]


def measured(user: Any, data: np.ndarray, queries: int, name: str, rounds: int) -> Pairs:
    """Seconds with and without verification, in turns."""

    def search(verify: bool) -> None:
        found = user.nearest(data[:queries], 10, ranking="user", verify=verify)
        assert found.verified == verify

    with way(name):
        search(True)
        return in_turns(partial(seconds, partial(search, True)), partial(seconds, partial(search, False)), rounds)


def ratios(rows: int, rounds: int, most: int) -> Iterator[tuple[str, int, str, Pairs]]:
    """Where, number of queries, how check columns come back, and the times."""
    data = np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float32)
    encoding = mipp.Encoding("cosine", DIM)
    with (
        tempfile.TemporaryDirectory() as folder,
        mipp.Deployment.create(Path(folder) / "embedded", encoding) as embedded,
        LocalServers(Path(folder) / "network", encoding) as servers,
        servers.connect() as network,
    ):
        made = {
            "embedded": (embedded.create_owner("anna"), embedded.create_user("ulla")),
            "network": (
                network.create_owner("anna", invitation=servers.invitation("owner", "anna")),
                network.create_user("ulla", invitation=servers.invitation("user", "ulla")),
            ),
        }
        for where, (owner, user) in made.items():
            owner.add_vectors(data)
            owner.grant(user.id, rankings=("user",))
            for queries in (1, 16, most):
                for name in ("chooses", "whole", "folded"):
                    times = max(2, rounds // (4 if queries > 16 else 1))
                    yield where, queries, name, measured(user, data, queries, name, times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    sizes, rounds, most = ([2000], 2, 32) if given.quick else (given.rows, given.rounds, 256)
    missed = False
    for rows in sizes:
        print(f"{rows} rows of {DIM} features; milliseconds, median ratio of pairs")
        for where, queries, name, pairs in ratios(rows, rounds, most):
            verified, plain = pairs.medians(1e3)
            limit = LIMITS.get((where, queries)) if rows == 1_000_000 and name == "chooses" else None
            told = "" if limit is None else f"  limit {limit}"
            print(f"{where:9s}{queries:4d} queries  {name:8s} plain {plain:9.1f}  verified {verified:9.1f}  "
                  f"ratio {pairs.ratio:5.2f}{told}", flush=True)  # fmt: skip
            missed |= limit is not None and pairs.ratio > limit
    if missed and not given.quick:
        sys.exit(1)


if __name__ == "__main__":
    main()
