"""Growth of products with rows and queries: ``python -m benchmarks.scale [--quick] [--json FILE] [--html FILE]``.

10,000 to 8,000,000 rows of 128 words, 1 to 1024 queries, u32 and u16, one and all threads. Rows are computed in blocks
so that the score shares of a block stay below ``--block-mib``; memory is rows plus one block. Beside each figure the
limit of this machine's memory, measured in turn with it: rows read once, score shares written once.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import machine, pages, plots
from benchmarks.bandwidth import Memory
from benchmarks.common import blas_threads, in_turns, random_words, seconds
from mipp import ring

DIM = 128
SCHEMA = "mipp-scale-1"
DTYPES = {"u32": np.uint32, "u16": np.uint16}
ROWS = (10_000, 100_000, 1_000_000, 8_000_000)
QUERIES = (1, 4, 16, 64, 256, 1024)
QUICK_ROWS, QUICK_QUERIES = (2_000, 20_000), (1, 16)


@dataclass
class Figure:
    """One size: the median time, and speeds."""

    kind: str
    threads: int
    rows: int
    queries: int
    block_rows: int
    seconds: float
    rounds: int
    ns_per_row: float
    gb_per_s: float
    g_products_per_s: float
    #: time of reading rows and writing score shares at memory's speed of the moment; measured time over it
    limit_s: float
    over_limit: float
    #: peak of the process while it ran; memory before, plus rows and one block of score shares
    peak_mib: float
    expected_mib: float


def block_of(rows: int, queries: int, size: int, mib: int) -> int:
    """Rows of a block whose score shares take at most ``mib`` MiB: a multiple of 64, at least 64."""
    return max(64, min(rows, (mib << 20) // (queries * size)) // 64 * 64)


def blocks(stored: np.ndarray, columns: np.ndarray, out: np.ndarray, threads: int) -> None:
    """All products, block by block into the same array."""
    step = out.shape[1]
    for start in range(0, len(stored), step):
        part = stored[start : start + step]
        ring.matmul(part, columns, out=out[:, : len(part)], threads=threads)


def reset_peak() -> None:
    """Resets the kernel's peak of memory; where that fails, the peak is that of the whole run."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Peak resident memory since :func:`reset_peak`, MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def figure(
    kind: str, stored: np.ndarray, queries: int, threads: int, asked: argparse.Namespace, memory: Memory, before: float
) -> Figure:
    """Times one size for about ``asked.budget`` seconds, in turn with memory's own speed."""
    rows, size = len(stored), stored.itemsize
    columns = random_words((queries, DIM), stored.dtype.type, 6)
    reset_peak()
    out = np.zeros((queries, block_of(rows, queries, size, asked.block_mib)), stored.dtype)
    times, speeds = [], []
    blocks(stored[: out.shape[1]], columns, out, threads)
    began = time.perf_counter()
    while not times or (time.perf_counter() - began < asked.budget and len(times) < 50):
        times.append(seconds(lambda: blocks(stored, columns, out, threads)))
        if len(times) <= 5:
            speeds.append(memory.once())
    took, read, written = statistics.median(times), stored.nbytes, rows * queries * size
    reads, writes = (statistics.median(side) for side in zip(*speeds, strict=True))
    limit = (read / reads + written / writes) / 1e9
    return Figure(
        kind, threads, rows, queries, out.shape[1], took, len(times), 1e9 * took / rows, read / took / 1e9,
        rows * DIM * queries / took / 1e9, limit, took / limit, peak_mib(), before + (read + out.nbytes) / 2**20,
    )  # fmt: skip


def measure(asked: argparse.Namespace, memories: dict[int, Memory]) -> Iterator[Figure]:
    """All sizes; rows are held for one size at a time, so that peaks are those of one size."""
    for kind in asked.kinds:
        for rows in asked.rows:
            reset_peak()
            before = peak_mib()
            stored = random_words((rows, DIM), DTYPES[kind])
            for threads, memory in memories.items():
                for queries in asked.queries:
                    yield figure(kind, stored, queries, threads, asked, memory, before)
            del stored


def growth(asked: argparse.Namespace, threads: Sequence[int]) -> dict[str, float]:
    """Time per row of the most rows over that of an eighth of them, in turn, medians of pairs: 1 where it is linear."""
    found = {}
    rows = max(asked.rows)
    for kind in asked.kinds:
        stored = random_words((rows, DIM), DTYPES[kind])
        for count in threads:
            for queries in (1, 16):
                columns = random_words((queries, DIM), DTYPES[kind], 6)
                out = np.zeros((queries, block_of(rows, queries, stored.itemsize, asked.block_mib)), stored.dtype)
                few = stored[: -(-rows // 8)]

                def large(columns=columns, out=out, count=count, stored=stored):
                    return seconds(lambda: blocks(stored, columns, out, count)) / len(stored)

                def small(columns=columns, out=out, count=count, few=few):
                    return statistics.median(seconds(lambda: blocks(few, columns, out, count)) for _ in range(3)) / len(
                        few
                    )

                large(), small()
                found[f"{kind}, {count} threads, {queries} queries"] = in_turns(large, small, 7).ratio
        del stored, few
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--queries", type=int, nargs="+")
    parser.add_argument("--kinds", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--block-mib", type=int, default=64, help="most MiB of score shares in a block")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each size")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--cluster", action="store_true", help="on worker processes instead (extra dask)")
    parser.add_argument("--workers", type=int, nargs="+", help="with --cluster")
    parser.add_argument("--folder", type=Path, help="with --cluster: where files of rows are made")
    pages.add_options(parser)
    asked = parser.parse_args(arguments)
    if asked.cluster:
        from benchmarks import cluster

        return cluster.main(asked)
    earlier = pages.check(parser, asked, SCHEMA)
    asked.rows = sorted(asked.rows or (QUICK_ROWS if asked.quick else ROWS))
    asked.queries = sorted(asked.queries or (QUICK_QUERIES if asked.quick else QUERIES))
    if min(asked.rows + asked.queries) < 1 or asked.block_mib < 1 or asked.budget <= 0:
        parser.error("rows, queries, block and budget must be positive")
    if asked.quick:
        asked.budget = min(asked.budget, 0.02)
    facts = machine.facts()
    print(machine.line(facts))
    if busy := machine.busy():
        print(busy)
    with blas_threads(1):
        memories = {t: Memory(16 if asked.quick else 256, t) for t in sorted({1, machine.cores()})}
        for threads, memory in memories.items():
            read, write = map(max, zip(*(memory.once() for _ in range(7)), strict=True))
            print(f"memory, {threads} threads: reads {read:.1f} GB/s, writes {write:.1f} GB/s (best of 7)")
        print(
            "kind threads     rows queries      time    ns/row   GB/s  G products/s  over limit  peak MiB", flush=True
        )
        figures = []
        for f in measure(asked, memories):
            figures.append(f)
            print(
                f"{f.kind:4} {f.threads:7} {f.rows:8} {f.queries:7} {f.seconds:9.4f} {f.ns_per_row:9.2f} "
                f"{f.gb_per_s:6.2f} {f.g_products_per_s:13.2f} {f.over_limit:11.2f} {f.peak_mib:9.0f}", flush=True,
            )  # fmt: skip
        grown = growth(asked, list(memories))
    print(f"time per row, {max(asked.rows):,} rows over {max(asked.rows) // 8:,} (limit 1.10):")
    print("\n".join(f"  {name}: {ratio:.3f}" for name, ratio in grown.items()))
    content = {
        **machine.head(SCHEMA, quick=asked.quick, busy=busy),
        "results": [asdict(f) for f in figures],
        "growth": grown,
    }
    if asked.json:
        asked.json.write_text(json.dumps(content, indent=1))
        print("JSON:", asked.json)
    if asked.html:
        pages.write(asked.html, pages.SCALE, content, earlier, "benchmarks.scale")
    if asked.plot:
        plot(figures, asked.plot, machine.line(facts))
    return 0


def plot(figures: Sequence[Figure], path: Path, title: str) -> None:
    """Left: time per row and its limit over rows. Middle: over queries. Right: memory, and rows plus one block."""
    threads = max(f.threads for f in figures)
    made, axes = plots.figure(3, figsize=(16, 4.8))
    by_rows, by_queries, memory = axes[0]
    for number, kind in enumerate(dict.fromkeys(f.kind for f in figures)):
        mine = [f for f in figures if f.kind == kind and f.threads == threads]
        most, queries = max(f.rows for f in mine), sorted({f.queries for f in mine})
        for count, style in zip(dict.fromkeys((queries[0], queries[-1])), ("-", ":"), strict=False):
            line = [f for f in mine if f.queries == count]
            x, label = [f.rows for f in line], f"{kind}, {count} queries"
            by_rows.plot(x, [f.ns_per_row for f in line], f"o{style}", color=f"C{number}", label=label)
            limit = [1e9 * f.limit_s / f.rows for f in line]
            by_rows.plot(x, limit, style, color=f"C{number}", alpha=0.35, label=f"{label}: memory's limit")
            memory.plot(x, [f.peak_mib for f in line], f"o{style}", color=f"C{number}", label=label)
        line = [f for f in mine if f.rows == most]
        x = [f.queries for f in line]
        by_queries.plot(x, [f.ns_per_row for f in line], "o-", color=f"C{number}", label=f"{kind}, {most:,} rows")
        by_queries.plot(x, [1e9 * f.limit_s / f.rows for f in line], "-", color=f"C{number}", alpha=0.35, label="limit")
        line = [f for f in mine if f.queries == queries[-1]]
        memory.plot([f.rows for f in line], [f.expected_mib for f in line], "--", color=f"C{number}", alpha=0.5)
    for axis, across, up in (
        (by_rows, "rows", "ns a row"),
        (by_queries, "queries", "ns a row"),
        (memory, "rows", "peak MiB of the process (dashed: rows and one block)"),
    ):
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(across)
        axis.set_ylabel(up)
        axis.legend(fontsize=6)
    made.suptitle(f"{threads} threads; {title}", fontsize=7)
    plots.save(made, path)


if __name__ == "__main__":
    sys.exit(main())
