"""What three servers carry, and what they need: ``python -m benchmarks.network.load [--rows N] [--quick]``.

Three server processes and eight users, each a process of its own, on this machine's cores: searches a second, both
rankings, and errors; memory of a server at rest; seconds from the start of all servers over a large index to ready.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import mipp
from benchmarks.common import seconds
from mipp.demo.servers import LocalServers

DIM, USERS = 128, 8


def memory(pid: int) -> float:
    """MB of a process that no other one shares, and of what it shares its part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1e3
    raise RuntimeError("the system tells no memory of a process")


def _user(folder: Path, name: str, ranking: str, seconds: float, pipe) -> None:
    """Search one query after another; tells how many were answered, and failed."""
    os.environ["OMP_NUM_THREADS"] = "1"
    done = failed = 0
    with mipp.Deployment.connect(folder) as deployment:
        user = deployment.user(name)
        data = np.random.default_rng(os.getpid()).normal(size=(64, DIM)).astype(np.float32)
        user.search(data[0], 10, ranking=ranking)
        pipe.send("ready")
        pipe.recv()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                user.search(data[(done + failed) % len(data)], 10, ranking=ranking)
                done += 1
            except mipp.errors.MippError:
                failed += 1
    pipe.send((done, failed))


def load(servers: LocalServers, names: list[str], ranking: str, seconds: float) -> tuple[float, int]:
    """Searches a second of all users together, and how many failed."""
    spawn = multiprocessing.get_context("spawn")
    pipes = []
    with contextlib.ExitStack() as stack:
        for name in names:
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_user, args=(servers.folder / "client", name, ranking, seconds, theirs))
            process.start()
            stack.callback(process.join)
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()
        for pipe in pipes:
            pipe.send("go")
        counts = [pipe.recv() for pipe in pipes]
    return sum(done for done, _ in counts) / seconds, sum(failed for _, failed in counts)


def fairness(
    servers: LocalServers, names: list[str], data: np.ndarray, ranking: str, times: int
) -> tuple[float, float]:
    """Median milliseconds of one user's query: alone, and while another user sends one batch of 256 after the other."""
    spawn = multiprocessing.get_context("spawn")
    pipe, theirs = spawn.Pipe()
    with servers.connect() as network:
        user = network.user(names[0])

        def median() -> float:
            user.search(data[0], 10, ranking=ranking)
            return 1e3 * statistics.median(
                seconds(lambda: user.search(data[1], 10, ranking=ranking)) for _ in range(times)
            )

        alone = median()
        process = spawn.Process(target=_batches, args=(servers.folder / "client", names[1], ranking, theirs))
        process.start()
        pipe.recv()
        beside = median()
        pipe.send("stop")
        process.join()
    return alone, beside


def _batches(folder: Path, name: str, ranking: str, pipe) -> None:
    with mipp.Deployment.connect(folder) as deployment:
        user = deployment.user(name)
        queries = np.random.default_rng(5).normal(size=(256, DIM)).astype(np.float32)
        user.nearest(queries[:2], 10, ranking=ranking)
        pipe.send("ready")
        while not pipe.poll():
            with contextlib.suppress(mipp.errors.BusyError):
                user.nearest(queries, 10, ranking=ranking)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000, help="Of the index that is searched.")
    parser.add_argument("--large", type=int, default=1_000_000, help="Rows at the start that is timed.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true", help="Show that it runs; the figures mean nothing.")
    given = parser.parse_args()
    rows, large, seconds = (1000, 4000, 1.0) if given.quick else (given.rows, given.large, given.seconds)
    names = [f"ulla{i}" for i in range(2 if given.quick else USERS)]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        servers = LocalServers(Path(folder) / "network", mipp.Encoding("cosine", DIM))
        with servers:
            pids = {i: process.pid for i, process in servers.processes.items()}
            time.sleep(2.0)
            print("memory at rest:", ", ".join(f"server {i} {memory(pid):.0f} MB" for i, pid in pids.items()))
            with servers.connect() as network:
                owner = network.create_owner("anna", invitation=servers.invitation("owner", "anna"))
                data = np.random.default_rng(0).normal(size=(large, DIM)).astype(np.float32)
                owner.add_vectors(data[:rows])
                for name in names:
                    user = network.create_user(name, invitation=servers.invitation("user", name))
                    owner.grant(user.id, rankings=("server", "user"))
                print(f"{len(names)} users, {rows} rows of {DIM}, {os.cpu_count()} cores for all")
                for ranking in ("user", "server"):
                    rate, errors = load(servers, names, ranking, seconds)
                    failed += errors
                    print(f"  ranked by {ranking:6s} {rate:7.1f} searches a second, {errors} failed", flush=True)
                owner.add_vectors(data[rows:])
            begin = time.monotonic()
            for server in list(servers.processes):
                servers.stop(server)
            stopped = time.monotonic()
            for server in servers.names:
                servers.start(server)
            servers.wait_ready()
            ready = time.monotonic()
            with servers.connect() as network:
                network.user(names[0]).search(data[0], 10, ranking="user")
            print(
                f"{large} rows: stop {stopped - begin:.1f} s, start to ready {ready - stopped:.1f} s, "
                f"first search {time.monotonic() - ready:.1f} s"
            )
            for ranking in ("user", "server"):
                alone, beside = fairness(servers, names, data, ranking, 5 if given.quick else 30)
                print(f"  one query ranked by {ranking:6s} alone {alone:7.1f} ms, beside a batch {beside:7.1f} ms")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
