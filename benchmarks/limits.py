"""Promises of the project against their baselines: ``python -m benchmarks.limits [--quick] [--only ..] [--html FILE]``.

Each line is measured in turns (A B B A) in this run: medians, and the median ratio of pairs against its limit. Limits
are those of a machine with AMX; on others the lines show what its best tier reaches. ``--quick`` takes seconds and its
figures mean nothing. Exit code 1 if a limit that applies to this machine was missed.
"""

from __future__ import annotations

import os

# numpy's library reads it once, when it is loaded; more threads are asked for by threadpoolctl
os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import mipp
from benchmarks import machine, pages, peers
from benchmarks.bandwidth import Memory
from benchmarks.common import Call, Pairs, blas_threads, fastest, in_turns, numpy_products, random_words, seconds
from benchmarks.scale import peak_mib, reset_peak
from mipp import cpu, ring
from mipp._native import _core
from mipp.io.memory import aligned_words

DIM = 128
SCHEMA = "mipp-limits-1"
U16, U32 = np.uint16, np.uint32


@dataclass(frozen=True)
class Line:
    """One promise: ``ratio`` must be at most (or with ``least`` at least) ``limit``, on machines of ``level``."""

    work: str
    against: str
    ratio: float
    limit: float
    least: bool = False
    level: str = "amx"
    ms: float = 0.0

    @property
    def kept(self) -> bool:
        return self.ratio >= self.limit if self.least else self.ratio <= self.limit

    @classmethod
    def times(cls, work: str, against: str, pairs: Pairs, limit: float, level: str = "amx") -> Line:
        """Times as fast as the other side, at least."""
        return cls(work, against, pairs.times, limit, True, level, pairs.medians(1e3)[0])

    @classmethod
    def share(cls, work: str, against: str, pairs: Pairs, limit: float, level: str = "amx") -> Line:
        """Part of the other side's time, at most."""
        return cls(work, against, pairs.ratio, limit, False, level, pairs.medians(1e3)[0])


@dataclass(frozen=True)
class Sizes:
    rows: int
    rounds: int
    quick: bool


def score_shares(queries: int, rows: int, dtype: type) -> np.ndarray:
    """An array for score shares as the servers allocate it, pages touched."""
    out = aligned_words(queries, rows, np.dtype(dtype))
    out.fill(0)
    return out


def product(stored: np.ndarray, queries: int, threads: int = 1, out: np.ndarray | None = None) -> Call:
    columns = random_words((queries, stored.shape[1]), stored.dtype.type, 6)
    into = score_shares(queries, len(stored), stored.dtype.type) if out is None else out
    return lambda: ring.matmul(stored, columns, out=into, threads=threads)


def timed(call: Call) -> Callable[[], float]:
    call()
    return lambda: seconds(call)


def against_numpy(sizes: Sizes) -> Iterator[Line]:
    """Products of one to 256 queries against numpy float32, one thread."""
    with blas_threads(1):
        floats = np.random.default_rng(5).random((sizes.rows, DIM), np.float32)
        stored = {dtype: random_words((sizes.rows, DIM), dtype) for dtype in (U16, U32)}
        for dtype, queries, limit, level in (
            (U32, 1, 1.0, "avx512"), (U32, 16, 1.2, "amx"), (U32, 256, 2.0, "amx"), (U16, 256, 5.0, "amx"),
        ):  # fmt: skip
            ways, ours = numpy_products(floats, queries), timed(product(stored[dtype], queries))
            fastest(ways)
            rounds = sizes.rounds if queries < 256 else max(3, sizes.rounds // 3)
            pairs = in_turns(ours, lambda ways=ways: fastest(ways), rounds)
            name = f"{np.dtype(dtype).name}, {queries} queries"
            make = Line.share if queries == 1 else Line.times
            yield make(name, "numpy float32", pairs, limit, level)
        if "avx512" in cpu.levels():
            with cpu.force("avx512"):
                ways, ours = numpy_products(floats, 32), timed(product(stored[U16], 32))
                fastest(ways)
                pairs = in_turns(ours, lambda: fastest(ways), sizes.rounds)
                yield Line.times("uint16, 32 queries, avx512 forced", "numpy float32", pairs, 1.0, "avx512")


def against_memory(sizes: Sizes) -> Iterator[Line]:
    """Wide rows against reading as many bytes: the limit of any search that looks at every row."""
    rows, dim = sizes.rows // 2, 512
    with blas_threads(1):
        ours = timed(product(random_words((rows, dim), U16), 32))
        block = Memory(256, 1)
        gigabytes = rows * dim * 2 / 1e9
        pairs = in_turns(ours, lambda: gigabytes / block.once()[0], sizes.rounds)
    yield Line.times("uint16, 32 queries, D=512", "reading the rows", pairs, 0.55)


def key_centre(sizes: Sizes) -> Iterator[Line]:
    """The product from keys alone against the one of stored rows."""
    rows, one = sizes.rows, np.zeros(1, np.int64)
    stored = random_words((rows, DIM), U32)
    schedules = _core.KeySchedules(bytes(range(32)), np.zeros((1, 50), np.uint8), 1)
    for queries in (1, 256):
        columns, out = random_words((queries, DIM), U32, 6), score_shares(queries, rows, U32)
        ours = timed(lambda c=columns, o=out: _core.keystream_matmul(schedules, one, one, np.full(1, rows), c, o, 1))
        theirs = timed(product(stored, queries, out=score_shares(queries, rows, U32)))
        pairs = in_turns(ours, theirs, sizes.rounds if queries == 1 else max(3, sizes.rounds // 3))
        yield Line.share(f"key centre, uint32, {queries} queries", "stored rows", pairs, 1.1)


def threads(sizes: Sizes) -> Iterator[Line]:
    """Two threads against one."""
    if machine.cores() < 2:
        return
    stored = random_words((sizes.rows, DIM), U32)
    for queries in (1, 256):
        two, one = timed(product(stored, queries, 2)), timed(product(stored, queries))
        pairs = in_turns(two, one, sizes.rounds if queries == 1 else max(3, sizes.rounds // 3))
        yield Line.times(f"two threads, uint32, {queries} queries", "one thread", pairs, 1.8, "avx512")


def growth(sizes: Sizes) -> Iterator[Line]:
    """Time a row of eight times the rows."""
    rows = 8 * sizes.rows
    stored = random_words((rows, DIM), U32)
    many, few = timed(product(stored, 1)), timed(product(stored[: sizes.rows], 1))
    pairs = in_turns(lambda: many() / 8, lambda: float(np.median([few() for _ in range(3)])), max(3, sizes.rounds // 2))
    yield Line.share(f"uint32, 1 query, {rows:,} rows, a row", f"{sizes.rows:,} rows", pairs, 1.1, "avx512")


def end_to_end(sizes: Sizes) -> Iterator[Line]:
    """Three parties on two cores against faiss in the clear, ranked by the user."""
    for row in peers.end_to_end(peers.Scale(sizes.quick, None)):
        yield Line(row.work, f"{row.peer}, {row.notes['path']}", round(1 / row.ratio, 2), 0.5, True, "amx", row.ms)


def memory(sizes: Sizes) -> Iterator[Line]:
    """Growth of the resident memory of a process that opens both clouds and searches a batch of 256 queries."""
    rows = sizes.rows
    vectors = np.random.default_rng(1).integers(-7, 8, (rows, DIM)).astype(np.float32)
    queries = vectors[:256].copy()
    encoding = mipp.Encoding("ip", DIM, bits=4, query_bits=4, ring_bits=32)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "deployment")
        with mipp.Deployment.create(home, encoding) as made:
            owner, user = made.create_owner("owner"), made.create_user("user")
            owner.grant(user.id, rankings=["user"])
            for part in np.array_split(vectors, 20):
                owner.add_vectors(part)
        del vectors, part
        gc.collect()
        reset_peak()
        before = peak_mib()
        with mipp.Deployment.open(home) as made:
            made.user("user").nearest(queries, 10, ranking="user")
            grown = peak_mib() - before
    ratio = round(grown * 2**20 / (2 * rows * DIM * 4), 3)
    yield Line(f"memory, {rows:,} rows in 20 batches, peak of a search", "rows x D x bytes, twice", ratio, 1.1,
               level="portable")  # fmt: skip


WORKS: dict[str, Callable[[Sizes], Iterator[Line]]] = {
    "numpy": against_numpy, "memory_bound": against_memory, "key_centre": key_centre, "threads": threads,
    "growth": growth, "end_to_end": end_to_end, "memory": memory,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs; exit code 0")
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--rounds", type=int, default=15)
    pages.add_options(parser)
    asked = parser.parse_args(arguments)
    earlier = pages.check(parser, asked, SCHEMA)
    sizes = Sizes(5_000, 2, True) if asked.quick else Sizes(1_000_000, asked.rounds, False)
    print(machine.line(machine.facts()))
    if busy := machine.busy():
        print(busy)
    print(f"{'work':66} {'against':26} {'ms':>9}   ratio      limit", flush=True)
    missed = 0
    results: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    for name in asked.only:
        try:
            for line in WORKS[name](sizes):
                applies = line.level in cpu.levels() and not asked.quick
                results.append(asdict(line) | {"kept": line.kept, "applies": applies})
                missed += applies and not line.kept
                verdict = "kept" if line.kept else "MISSED"
                note = verdict if applies else f"{verdict.lower()}, limit of machines with {line.level}"
                sign = "at least" if line.least else "at most"
                figures = f"{line.ms:9.2f} {line.ratio:7.3f}   {sign} {line.limit:<5}"
                print(f"{line.work:66} {line.against:26} {figures} {note}", flush=True)
        except peers.Missing as missing:
            left_out[name] = str(missing)
            print(f"left out: {missing}")
    if asked.html:
        content = {
            **machine.head(SCHEMA, quick=asked.quick, busy=busy),
            "versions": peers.versions(),
            "results": results,
            "left_out": left_out,
        }
        pages.write(asked.html, pages.LIMITS, content, earlier, "benchmarks.limits")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
