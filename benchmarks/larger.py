"""Search of an index larger than memory: ``python -m benchmarks.larger [--quick] [--limit-mib N] [--ranking server]``.

A process with at most ``--limit-mib`` of memory, page cache included, plays the user and all three servers of an
embedded deployment. Rows of each cloud take ``--times`` as much. One query and a batch (where the user ranks) in turn
with the disk's own speed: the same files in large reads past the cache (``O_DIRECT``, else with the cache dropped).
``over disk`` is bytes of rows that both clouds read in a second, over the disk's. Beside it the same with the kernel's
rule alone, which keeps what was used last. ``own`` is the most memory that the process had beside pages of files.

Servers that rank hold some 90 bytes a row together, and their selection comes after the products: ``--limit-mib 1792
--times 1.15`` is the least for 4 million rows, twice as many bytes as the process may have.

The limit is that of a memory control group, which root can make. Without one the index is ``--times`` as large as the
memory that is available on this machine, if the disk has room for it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np

import mipp
from benchmarks import machine
from benchmarks.common import seconds
from mipp.io import memory
from mipp.io.available import available_bytes

SCHEMA = "mipp-larger-1"
DIM = 128
ROW_BYTES = 4 * DIM
BATCH = 500_000
_READ = 8 << 20
_MIB = 1 << 20


def stored(folder: Path) -> list[Path]:
    """Files of rows of all clouds."""
    return sorted((folder / "servers").glob("*/shares/*/*"))


def build(folder: Path, rows: int) -> None:
    """A deployment with so many random rows, of which nothing stays in memory."""
    rng = np.random.default_rng(1)
    with mipp.Deployment.create(folder, mipp.Encoding("cosine", DIM)) as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        owner.grant(user, rankings=["server", "user"])
        for first in range(0, rows, BATCH):
            owner.add_vectors(rng.standard_normal((min(BATCH, rows - first), DIM), np.float32))
            print(f"\r{min(first + BATCH, rows):,} of {rows:,} rows", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    evict(folder)


def evict(folder: Path) -> None:
    for path in stored(folder):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(folder: Path) -> None:
    """All files of rows from beginning to end, by the disk."""
    buffer = mmap.mmap(-1, _READ)
    for path in stored(folder):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        except OSError:  # a file system without
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            at = 0
            while (got := os.preadv(fd, [buffer], at)) == _READ:
                at += got
        finally:
            os.close(fd)


class Own:
    """The most memory of this process beside pages of files, looked at a hundred times a second; MiB."""

    def __init__(self) -> None:
        self.most, self._end = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Own:
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._end.wait(0.01):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.most = max(self.most, int(line.split()[1]) / 1024)

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()


def measure(folder: Path, counts: Sequence[int], rounds: int, ranking: str) -> Iterator[dict[str, object]]:
    """Each number of queries by each rule, in turn with the disk."""
    size = sum(path.stat().st_size for path in stored(folder))
    with mipp.Deployment.open(folder) as deployment:
        for server in deployment.servers.values():
            server.store.views.check = False  # the first use of a file would be timed as its checksum
        user = deployment.user("ulla")
        for count in counts:
            queries = np.random.default_rng(count).standard_normal((count, DIM), np.float32)
            found: list[mipp.Nearest] = []

            def search(queries: np.ndarray = queries, found: list[mipp.Nearest] = found) -> None:
                found.append(user.nearest(queries, 10, ranking=ranking))

            for rule in ("ours", "kernel"):
                alone = contextlib.nullcontext() if rule == "ours" else mock.patch.object(
                    memory, "available_bytes", lambda: math.inf
                )  # fmt: skip
                with alone:
                    memory._ASKED[0] = -math.inf
                    search()
                    times, disk = [], []
                    with Own() as own:
                        for _ in range(rounds):
                            disk.append(seconds(lambda: read(folder)))
                            times.append(seconds(search))
                ratios = [theirs / mine for theirs, mine in zip(disk, times, strict=True)]
                yield {
                    "queries": count, "rule": rule, "seconds": statistics.median(times), "bytes": size,
                    "gb_per_s": size / statistics.median(times) / 1e9, "own_mib": own.most,
                    "disk_gb_per_s": size / statistics.median(disk) / 1e9, "over_disk": statistics.median(ratios),
                    "least": min(ratios), "most": max(ratios),
                }  # fmt: skip
            same = all(np.array_equal(found[0].scores, f.scores) and f.verified == (ranking == "user") for f in found)
            if not same:
                raise SystemExit("searches of the same queries differ")


class Group:
    """A memory control group with a limit, inside of the one that this process is in; gone at the end."""

    def __init__(self, limit: int) -> None:
        self.folder, name = _own_group()
        self.folder /= f"mipp-larger-{os.getpid()}"
        self.folder.mkdir()
        try:
            (self.folder / name).write_text(str(limit))
        except OSError:
            self.close()
            raise

    def command(self, command: Sequence[str]) -> list[str]:
        """The command, which joins the group before it begins."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def close(self) -> None:
        for _ in range(50):
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            time.sleep(0.1)
        print(f"{self.folder} is left: remove it with rmdir", file=sys.stderr)


def _own_group() -> tuple[Path, str]:
    """Folder of this process's group, and the name of the file with a limit."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.strip("/"), "memory.limit_in_bytes"
    if not Path("/sys/fs/cgroup/memory").exists():
        path = Path("/proc/self/cgroup").read_text().strip().split(":", 2)[2]
        return Path("/sys/fs/cgroup") / path.strip("/"), "memory.max"
    raise OSError("no memory control groups")


def report(one: dict[str, object]) -> str:
    return (
        f"{one['queries']:7} {one['rule']:7} {one['seconds']:8.2f} s {one['gb_per_s']:6.2f} GB/s "
        f"{one['disk_gb_per_s']:6.2f} GB/s {one['over_disk']:6.2f} ({one['least']:.2f}-{one['most']:.2f}) "
        f"{one['own_mib']:6.0f} MiB"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.larger", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument("--limit-mib", type=int, default=512, help="memory of the process, page cache included")
    parser.add_argument("--times", type=float, default=4.0, help="rows of each cloud, over that memory")
    parser.add_argument("--queries", type=int, nargs="+", help="default 1, and 64 where the user ranks")
    parser.add_argument("--ranking", choices=("user", "server"), default="user")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the index lies while it runs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    asked.queries = asked.queries or ([1, 64] if asked.ranking == "user" else [1])
    if min([*asked.queries, asked.rounds]) < 1 or not 0 < asked.times < 1000 or asked.limit_mib < 256:
        parser.error("queries, rounds and times must be positive, and a process needs 256 MiB")
    if asked.child is not None:
        for one in measure(asked.child, asked.queries, asked.rounds, asked.ranking):
            print(json.dumps(one), flush=True)
        return 0
    if asked.quick:
        asked.limit_mib, asked.times, asked.rounds = 256, 0.125, 1
    if asked.json is not None:
        try:
            asked.json.open("a").close()
        except OSError as error:
            parser.error(f"{asked.json} cannot be written: {error.strerror}")
    group: Group | None = None
    try:
        group = Group(asked.limit_mib * _MIB)
        limit = asked.limit_mib * _MIB
    except OSError as error:
        limit = asked.limit_mib * _MIB if asked.quick else int(available_bytes())
        print(f"no control group limits the memory ({error.strerror or error}): it is {limit // _MIB:,} MiB here")
    try:
        return run(asked, group, limit)
    finally:
        if group is not None:
            group.close()


def run(asked: argparse.Namespace, group: Group | None, limit: int) -> int:
    rows = max(1, int(asked.times * limit / ROW_BYTES))
    with tempfile.TemporaryDirectory(prefix="mipp-larger-", dir=asked.folder) as folder:
        free = shutil.disk_usage(folder).free
        if 2.1 * rows * ROW_BYTES > free:
            print(f"two clouds need {2.1 * rows * ROW_BYTES / 1e9:.0f} GB of disk, and {free / 1e9:.0f} GB are free")
            return 2
        facts, busy = machine.facts(), machine.busy()
        print(machine.line(facts))
        if busy:
            print(busy)
        index = Path(folder) / "deployment"
        build(index, rows)
        print(f"{rows:,} rows: {rows * ROW_BYTES // _MIB:,} MiB at each of two clouds, {limit // _MIB:,} MiB of memory")
        print("queries rule        time     search        disk  over disk           own", flush=True)
        command = [
            sys.executable, "-m", "benchmarks.larger", "--child", str(index), "--rounds", str(asked.rounds),
            "--ranking", asked.ranking, "--queries", *map(str, asked.queries),
        ]  # fmt: skip
        results = []
        with subprocess.Popen(
            command if group is None else group.command(command), stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                results.append(json.loads(line))
                print(report(results[-1]), flush=True)
        if child.returncode:
            print(f"the process ended with {child.returncode}", file=sys.stderr)
            return 1
    if asked.json:
        content = {
            **machine.head(SCHEMA, quick=asked.quick, busy=busy), "rows": rows, "limit_mib": limit // _MIB,
            "limited": group is not None, "ranking": asked.ranking, "results": results,
        }  # fmt: skip
        asked.json.write_text(json.dumps(content, indent=1))
        print("JSON:", asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
