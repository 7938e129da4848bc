"""Products of one server on workers: ``python -m benchmarks.scale --cluster [--rows N ...] [--workers N ...]``.

Rows of 128 words of 32 bits lie in files of a million rows; the workers are processes of this machine, reached over TLS
as in ``mipp server run --backend dask --workers N``. A model is fitted to the smallest runs with one worker and checked
against all others that memory holds; then it says what 10^9 rows on 100 workers would take. Answers are compared with
this process's. Rows that memory does not hold are read from the disk, once: their bytes a second are the disk's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.common import random_words
from mipp.backends import CpuBackend, Segment, StoredFile, ZeroShare
from mipp.backends.dask import DaskBackend
from mipp.backends.pool import Pool, local_cluster
from mipp.io.available import available_bytes
from mipp.params import Params

DIM, WORD, HEAD = 128, 4, 256
FILE_ROWS = 1_000_000
SCHEMA = "mipp-cluster-1"
ROWS, WORKERS, QUERIES = (1_000_000, 10_000_000), (1, 2, 4), (1, 16)
#: what the model is asked
FAR_ROWS, FAR_WORKERS = 10**9, 100


@dataclass
class Run:
    """One size: medians of the wall time, of this process's own part of it, and of the workers' computing together."""

    workers: int
    rows: int
    queries: int
    seconds: float
    front_seconds: float
    worker_seconds: float
    tasks: int
    reply_bytes: int
    predicted: float = 0.0


@dataclass(frozen=True)
class Model:
    """Seconds of a product: the slower of the workers, who share the rows, and of the process that takes results.

    ``row``: a worker's seconds a row and query count (by queries), with the sending of its results. ``task``, ``byte``:
    this process's seconds for each task, and for each byte of a result. ``start``: what does not grow with the rows.
    """

    start: float
    row: dict[int, float]
    task: float
    byte: float

    def seconds(self, rows: int, queries: int, workers: int, tasks: int) -> float:
        return self.start + max(rows * self.row[queries] / workers, self.front(rows, queries, tasks))

    def here(self, rows: int, queries: int, workers: int, tasks: int, cores: int) -> float:
        """Workers and this process on the same cores."""
        shared = (rows * self.row[queries] + self.front(rows, queries, tasks)) / cores
        return max(self.seconds(rows, queries, min(workers, cores), tasks), self.start + shared)

    def front(self, rows: int, queries: int, tasks: int) -> float:
        return tasks * self.task + rows * queries * WORD * self.byte


def make_files(folder: Path, rows: int) -> Iterator[Segment]:
    """Files as a cloud keeps them; each has other words."""
    words = random_words((min(rows, FILE_ROWS), DIM), np.uint32, 3)
    for number, first in enumerate(range(0, rows, FILE_ROWS)):
        some = words[: min(FILE_ROWS, rows - first)]
        some[:, 0] += np.uint32(number)
        head = number.to_bytes(8, "little").ljust(HEAD, b"\0")
        digest = hashlib.sha256(head)
        digest.update(some.data.cast("B"))
        path = folder / f"{number}.rows"
        with open(path, "wb") as file:
            file.write(head)
            file.write(some.data.cast("B"))
            file.write(digest.digest())
        mapped = np.memmap(path, np.uint32, "r", HEAD, some.shape)
        yield Segment(mapped, first, None, StoredFile(path, path.stat().st_size, digest.digest(), HEAD))


def zero_share() -> ZeroShare:
    def batches(start: int, stop: int) -> tuple[np.ndarray, np.ndarray, int]:
        return np.zeros((1, 16), np.uint8), np.array([stop - start]), start

    return ZeroShare(1, [1, 2, 3], {2: os.urandom(32), 3: os.urandom(32)}, os.urandom(32), batches)


def measure(segments: Sequence[Segment], rows: int, workers: int, queries: int, pool: Pool, rounds: int) -> Run:
    """Times a product; its first round, in which workers compare hashes of files, is not counted."""
    params, zero = Params(3, 1, 32), zero_share()
    query = random_words((queries, DIM), np.uint32, 5)
    cores = machine.cores()
    loaded = DaskBackend(params, cores, pool, max(1, cores // workers)).load(segments, rows)
    out = np.empty((queries, rows), np.uint32)
    real, spent = pool._taken, [0.0]

    def taken(*given: object) -> bool:
        began = time.perf_counter()
        done = real(*given)  # type: ignore[arg-type]
        spent[0] += time.perf_counter() - began
        return done

    pool._taken = taken  # type: ignore[method-assign]
    walls, fronts, computed, tasks = [], [], [], 0
    for number in range(rounds + 1):
        spent[0] = 0.0
        before = sum(c.seconds for c in pool.counts.values()), sum(c.tasks for c in pool.counts.values())
        began = time.perf_counter()
        loaded.scores(query, [(0, rows)], zero, out)
        if number:
            walls.append(time.perf_counter() - began)
            fronts.append(spent[0])
            computed.append(sum(c.seconds for c in pool.counts.values()) - before[0])
            tasks = sum(c.tasks for c in pool.counts.values()) - before[1]
    pool._taken = real  # type: ignore[method-assign]
    some = slice(rows // 2, min(rows // 2 + 5000, rows))
    expected = np.empty((queries, some.stop - some.start), np.uint32)
    CpuBackend(params, cores).load(segments, rows).scores(query, [(some.start, some.stop)], zero, expected)
    if not np.array_equal(expected, out[:, some]):
        raise RuntimeError("workers gave other score shares than this process")
    middle = statistics.median
    return Run(workers, rows, queries, middle(walls), middle(fronts), middle(computed), tasks, out.nbytes)


def fitted(runs: Sequence[Run]) -> Model:
    """A model from the runs of the fewest rows with one worker, of one query and of several, and of the next size."""
    sizes = sorted({r.rows for r in runs})[:2]
    few, next_few = (
        sorted((r for r in runs if r.workers == 1 and r.rows == rows), key=lambda r: r.queries)
        for rows in (sizes[0], sizes[-1])
    )
    more = sizes[-1] - sizes[0]
    row = {a.queries: max((b.seconds - a.seconds) / more, 0.0) if more else a.seconds / a.rows
           for a, b in zip(few, next_few, strict=True)}  # fmt: skip
    one, many = few[0], few[-1]
    # two equations: a task costs the same in both, a byte as well
    matrix = np.array([[one.tasks, one.reply_bytes], [many.tasks, many.reply_bytes]], float)
    task, byte = np.linalg.solve(matrix, [one.front_seconds, many.front_seconds])
    start = statistics.median(r.seconds - r.rows * row[r.queries] for r in few)
    return Model(max(start, 0.0), row, max(float(task), 0.0), max(float(byte), 0.0))


def main(asked: argparse.Namespace) -> int:
    rows_list = sorted(asked.rows or ((20_000, 60_000) if asked.quick else ROWS))
    workers_list = sorted(asked.workers or ((1, 2) if asked.quick else WORKERS))
    queries_list = sorted(asked.queries or QUERIES)
    if workers_list[0] != 1 or len(queries_list) < 2:
        raise SystemExit("the model needs a run with one worker, and two numbers of queries")
    facts = machine.facts()
    print(machine.line(facts))
    if busy := machine.busy():
        print(busy)
    runs: list[Run] = []
    held = available_bytes() // (DIM * WORD)  # rows; those of larger runs come from the disk each time
    with tempfile.TemporaryDirectory(prefix="mipp-cluster-", dir=asked.folder) as folder:
        segments = list(make_files(Path(folder), rows_list[-1]))
        for workers in workers_list:
            pool = Pool(local_cluster(workers))
            try:
                for rows in rows_list:
                    some = [s for s in segments if s.first < rows]
                    if len(some[-1].words) + some[-1].first > rows:
                        last = some[-1]
                        some[-1] = Segment(last.words[: rows - last.first], last.first, None, last.file)
                    for queries in queries_list:
                        rounds = 1 if asked.quick or rows > held else 5
                        runs.append(measure(some, rows, workers, queries, pool, rounds))
            finally:
                pool.close()
    model = fitted(runs)
    print("workers       rows queries   seconds  ns/row  front s  worker s  tasks   model  measured/model")
    for r in runs:
        r.predicted = model.here(r.rows, r.queries, r.workers, r.tasks, machine.cores())
        print(
            f"{r.workers:7} {r.rows:10,} {r.queries:7} {r.seconds:9.3f} {1e9 * r.seconds / r.rows:7.1f} "
            f"{r.front_seconds:8.3f} {r.worker_seconds:9.3f} {r.tasks:6} {r.predicted:7.3f} "
            f"{r.seconds / r.predicted:15.2f}"
        )
    flat = {}
    for workers in workers_list:
        for queries in queries_list:
            same = [r for r in runs if (r.workers, r.queries) == (workers, queries) and r.rows <= held]
            if same:
                flat[f"{workers} workers, {queries} queries"] = (
                    same[-1].seconds / same[-1].rows / (same[0].seconds / same[0].rows)
                )
    most = max((rows for rows in rows_list if rows <= held), default=0)
    print(f"time per row, {most:,} rows over {rows_list[0]:,}, in memory (limit 1.10):")
    print("\n".join(f"  {name}: {ratio:.3f}" for name, ratio in flat.items()))
    for r in runs:
        if r.rows > held:
            rate = r.rows * DIM * WORD / r.seconds / 1e9
            print(f"{r.rows:,} rows from the disk, {r.workers} workers, {r.queries} queries: {rate:.2f} GB/s")
    far = far_away(model, queries_list)
    print("\n".join(far))
    if asked.json:
        content = {
            **machine.head(SCHEMA, quick=asked.quick, busy=busy), "results": [asdict(r) for r in runs], "flat": flat,
            "model": asdict(model), "far": far,
        }  # fmt: skip
        asked.json.write_text(json.dumps(content, indent=1))
        print("JSON:", asked.json)
    return 0


def far_away(model: Model, queries_list: Sequence[int]) -> list[str]:
    """What the model says of many rows on many workers, and what it supposes."""
    out = [f"model: {FAR_ROWS:.0e} rows x {DIM} on {FAR_WORKERS} workers, each of them as fast as one here, in memory:"]
    for queries in queries_list:
        rows_a_task = max(512, min((128 << 20) // (DIM * WORD), (16 << 20) // (queries * WORD)) // 512 * 512)
        tasks = -(-FAR_ROWS // rows_a_task)
        total, front = model.seconds(FAR_ROWS, queries, FAR_WORKERS, tasks), model.front(FAR_ROWS, queries, tasks)
        replies = FAR_ROWS * queries * WORD
        out.append(
            f"  {queries} queries: {total:.1f} s, of which workers {FAR_ROWS * model.row[queries] / FAR_WORKERS:.1f} s "
            f"and, beside them, the server's process {front:.1f} s; {replies / 1e9:.0f} GB of score shares to it, "
            f"{replies / FAR_WORKERS / 1e6:.0f} MB over each worker's link"
        )
    size = FAR_ROWS * DIM * WORD / FAR_WORKERS / 1e9
    out.append(
        f"  memory: {size:.1f} GB of rows a worker; {FAR_ROWS * WORD / 1e9:.0f} GB a query in the server's process"
    )
    out.append("  supposed: no link is slower than loopback here; every worker has its rows in memory; no worker dies")
    return out
