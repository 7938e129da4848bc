"""Three server processes against the embedded deployment: ``python -m benchmarks.network.ratios [--rows N] [--quick]``.

Both hold the same rows and are measured in turns in this run. The processes share the machine's cores and speak TLS
over loopback. Exit code 1 if a limit was missed; ``--quick`` shows that it runs, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mipp
from benchmarks.common import Pairs, in_turns, seconds
from mipp.demo.servers import LocalServers

DIM = 128
#: the network's time over the embedded one's, at most
LIMITS = {"upload": 1.3, "user-ranked query": 1.4, "256 user-ranked queries": 2.0, "server-ranked top-10": 1.5}


def ratios(rows: int, rounds: int, queries: int) -> Iterator[tuple[str, Pairs]]:
    """Each work, and pairs of its seconds over the network and embedded."""
    data = np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float32)
    encoding = mipp.Encoding("cosine", DIM)
    with (
        tempfile.TemporaryDirectory() as folder,
        mipp.Deployment.create(Path(folder) / "embedded", encoding) as embedded,
        LocalServers(Path(folder) / "network", encoding) as servers,
        servers.connect() as network,
    ):
        owners = (
            network.create_owner("anna", invitation=servers.invitation("owner", "anna")),
            embedded.create_owner("anna"),
        )
        users = (
            network.create_user("ulla", invitation=servers.invitation("user", "ulla")), embedded.create_user("ulla")
        )  # fmt: skip

        def turns(work: Callable[[Any], object], sides: Sequence[object], times: int) -> Pairs:
            ours, theirs = (partial(seconds, partial(work, side)) for side in sides)
            return in_turns(ours, theirs, times)

        yield "upload", turns(lambda owner: owner.add_vectors(data), owners, 1)
        for owner, user in zip(owners, users, strict=True):
            owner.grant(user.id, rankings=("server", "user"))
            user.search(data[0], 10, ranking="user")
            user.search(data[0], 10, ranking="server")
        yield "user-ranked query", turns(lambda u: u.search(data[1], 10, ranking="user"), users, rounds)
        batch = turns(lambda u: u.nearest(data[:queries], 10, ranking="user"), users, max(1, rounds // 4))
        yield "256 user-ranked queries", batch
        yield "server-ranked top-10", turns(lambda u: u.search(data[1], 10, ranking="server"), users, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    rows, rounds, queries = (5000, 2, 16) if given.quick else (given.rows, given.rounds, 256)
    missed = []
    print(f"{rows} rows of {DIM} features; milliseconds, median ratio of pairs")
    for work, pairs in ratios(rows, rounds, queries):
        network, embedded = pairs.medians(1e3)
        limit = LIMITS[work]
        print(f"{work:26s} embedded {embedded:9.1f}  network {network:9.1f}  ratio {pairs.ratio:5.2f}  limit {limit}")
        if pairs.ratio > limit:
            missed.append(work)
    if missed and not given.quick:
        sys.exit(1)


if __name__ == "__main__":
    main()
