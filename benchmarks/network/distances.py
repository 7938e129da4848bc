"""Searches over lines of some length and rate: ``python -m benchmarks.network.distances [--rows N ...] [--quick]``.

Three server processes and relays on this machine (``relay.py``). Printed beside each median is a prediction: the time
over lines without delay and limit, which this machine's cores take, and what :meth:`mipp.User.cost` says of rounds and
bytes, for these lines (:func:`mipp.schemes.base.seconds_on_lines`, as ``mipp search --explain-cost --line``).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import mipp
from benchmarks.common import seconds
from benchmarks.network.relay import Lines
from mipp.demo.servers import LocalServers, free_ports
from mipp.deployment.settings import SETTINGS_NAME
from mipp.schemes.base import seconds_on_lines

DIM = 128
ROUND_TRIPS = (0.001, 0.020, 0.080)
RATES = (1e9, 1e10)


class Far(LocalServers):
    """Servers behind relays."""

    def __init__(self, folder: Path, encoding: mipp.Encoding) -> None:
        super().__init__(folder, encoding)
        behind = dict(zip(self.names, free_ports(len(self.names)), strict=True))
        for server, port in behind.items():
            (self.home(server) / SETTINGS_NAME).write_text(f'listen = "127.0.0.1:{port}"\n')
        self.lines = Lines({self.config.addresses[server].port: port for server, port in behind.items()})


class Measured(NamedTuple):
    rows: int
    ranking: str
    round_trip: float
    rate: float
    taken: float
    predicted: float


def measured(rows: int, times: int, round_trips: tuple[float, ...], rates: tuple[float, ...]) -> Iterator[Measured]:
    """Both rankings over all lines."""
    data = np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        servers = Far(Path(folder) / "network", mipp.Encoding("cosine", DIM))
        with servers.lines as lines, servers, servers.connect() as network:
            owner = network.create_owner("anna", invitation=servers.invitation("owner", "anna"))
            user = network.create_user("ulla", invitation=servers.invitation("user", "ulla"))
            owner.add_vectors(data)
            owner.grant(user.id, rankings=("server", "user"))
            for ranking in ("user", "server"):

                def taken(ranking: str = ranking) -> float:
                    # first: connections, and a state that is remembered
                    assert user.search(data[0], 10, ranking=ranking).hits[0].row == 0
                    return statistics.median(
                        seconds(lambda: user.search(data[1], 10, ranking=ranking)) for _ in range(times)
                    )

                lines.set(0.0, 0.0)
                here, cost = taken(), user.cost(10, ranking=ranking)
                yield Measured(rows, ranking, 0.0, 0.0, here, here)
                for round_trip in round_trips:
                    for rate in rates:
                        lines.set(round_trip, rate)
                        predicted = here + seconds_on_lines(cost, round_trip, rate)
                        yield Measured(rows, ranking, round_trip, rate, taken(), predicted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="Show that it runs; the figures mean nothing.")
    given = parser.parse_args()
    sizes, times, trips, rates = given.rows, given.times, ROUND_TRIPS, RATES
    if given.quick:
        sizes, times, trips, rates = [2000], 1, (0.002,), (1e9,)
    print("     rows ranking  RTT ms  Gb/s    median s  predicted   ratio")
    for rows in sizes:
        for m in measured(rows, times, trips, rates):
            line = f"{1e3 * m.round_trip:7.0f} {m.rate / 1e9:5.0f}" if m.rate else "      -     -"
            print(
                f"{m.rows:9d} {m.ranking:7s} {line}  {m.taken:10.3f} {m.predicted:10.3f}  {m.taken / m.predicted:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
