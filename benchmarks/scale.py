"""How the products grow: ``python -m benchmarks.scale [--quick] [--json FILE] [--plot FILE.png]``.

10,000 to 8,000,000 rows of 128 words, 1 to 1024 queries, u32 and u16, one and all threads. Rows are computed in blocks
so that the answers of a block stay below ``--block-mib``; memory is rows plus one block. Beside each figure the limit
of this machine's memory, measured in the same run: rows read once, answers written once.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from benchmarks import bandwidth, machine, plots
from benchmarks.common import blas_threads, random_words, seconds
from mipp import ring

DIM = 128
SCHEMA = "mipp-scale-1"
DTYPES = {"u32": np.uint32, "u16": np.uint16}
ROWS = (10_000, 100_000, 1_000_000, 8_000_000)
QUERIES = (1, 4, 16, 64, 256, 1024)
QUICK_ROWS, QUICK_QUERIES = (2_000, 20_000), (1, 16)


@dataclass
class Figure:
    """One size: the median time, and what it means."""

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
    #: GB/s of reading rows and writing answers at the speed of memory alone, as time; and how many times as long it took
    limit_s: float
    over_limit: float
    #: peak of the process while it ran, and what rows and one block of answers take
    peak_mib: float
    expected_mib: float


def block_of(rows: int, queries: int, size: int, mib: int) -> int:
    """Rows of a block whose answers take at most ``mib`` MiB: a multiple of 64, at least 64."""
    return max(64, min(rows, (mib << 20) // (queries * size)) // 64 * 64)


def blocks(stored: np.ndarray, columns: np.ndarray, out: np.ndarray, threads: int) -> None:
    """All products, block by block into the same answers."""
    step = out.shape[1]
    for start in range(0, len(stored), step):
        part = stored[start : start + step]
        ring.matmul(part, columns, out=out[:, : len(part)], threads=threads)


def reset_peak() -> None:
    """Starts the kernel's count of peak memory anew; where it cannot, the peak is that of the whole run."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_mib() -> float:
    """Peak resident memory since :func:`reset_peak`, MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def figure(kind: str, stored: np.ndarray, queries: int, threads: int, mib: int, budget: float, limits: dict) -> Figure:
    """Times one size, at least three times, and for about ``budget`` seconds."""
    rows, size = len(stored), stored.itemsize
    columns = random_words((queries, DIM), stored.dtype.type, 6)
    reset_peak()
    out = np.zeros((queries, block_of(rows, queries, size, mib)), stored.dtype)
    call = lambda: blocks(stored, columns, out, threads)  # noqa: E731
    times = [seconds(call)]
    if times[0] < budget:
        times.clear()
        began = time.perf_counter()
        while len(times) < 3 or (time.perf_counter() - began < budget and len(times) < 50):
            times.append(seconds(call))
    took, read, answers = statistics.median(times), stored.nbytes, rows * queries * size
    limit = (read / limits["read"] + answers / limits["write"]) / 1e9
    return Figure(
        kind, threads, rows, queries, out.shape[1], took, len(times), 1e9 * took / rows, read / took / 1e9,
        rows * DIM * queries / took / 1e9, limit, took / limit, peak_mib(), (read + out.nbytes) / 2**20,
    )  # fmt: skip


def measure(asked: argparse.Namespace, limits: dict[int, dict[str, float]]) -> Iterator[Figure]:
    most = max(asked.rows)
    for kind in asked.kinds:
        stored = random_words((most, DIM), DTYPES[kind])
        for threads in sorted(limits):
            for rows in asked.rows:
                for queries in asked.queries:
                    yield figure(kind, stored[:rows], queries, threads, asked.block_mib, asked.budget, limits[threads])
        del stored


def growth(figures: Sequence[Figure], small: int, large: int) -> list[str]:
    """Time per row of ``large`` rows over that of ``small``, for each kind, threads and queries that has both."""
    by = {(f.kind, f.threads, f.queries, f.rows): f.ns_per_row for f in figures}
    found = []
    for kind, threads, queries, rows in by:
        if rows == large and (base := by.get((kind, threads, queries, small))):
            ratio = by[kind, threads, queries, large] / base
            found.append(f"{kind}, {threads} threads, {queries} queries: {ratio:.3f}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--queries", type=int, nargs="+")
    parser.add_argument("--kinds", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--block-mib", type=int, default=64, help="answers of a block, at most")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each size")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    asked = parser.parse_args(arguments)
    asked.rows = sorted(asked.rows or (QUICK_ROWS if asked.quick else ROWS))
    asked.queries = sorted(asked.queries or (QUICK_QUERIES if asked.quick else QUERIES))
    if min(asked.rows + asked.queries) < 1 or asked.block_mib < 1 or asked.budget <= 0:
        parser.error("rows, queries, block and budget must be positive")
    if asked.quick:
        asked.budget = min(asked.budget, 0.02)
    facts = machine.facts()
    print(machine.line(facts))
    with blas_threads(1):
        limits = {t: bandwidth.measure(16 if asked.quick else 512, t) for t in sorted({1, machine.cores()})}
    for threads, found in limits.items():
        print(f"memory, {threads} threads: reads {found['read']:.1f} GB/s, writes {found['write']:.1f} GB/s")
    print("kind threads     rows queries      time    ns/row   GB/s  G products/s  over limit  peak MiB", flush=True)
    figures = []
    for f in measure(asked, limits):
        figures.append(f)
        print(
            f"{f.kind:4} {f.threads:7} {f.rows:8} {f.queries:7} {f.seconds:9.4f} {f.ns_per_row:9.2f} {f.gb_per_s:6.2f} "
            f"{f.g_products_per_s:13.2f} {f.over_limit:11.2f} {f.peak_mib:9.0f}", flush=True,
        )  # fmt: skip
    if compared := growth(figures, 1_000_000, 8_000_000):
        print("time per row, 8,000,000 rows over 1,000,000 (limit 1.10):")
        print("\n".join(f"  {text}" for text in compared))
    if asked.json:
        content = {
            "schema": SCHEMA,
            "datetime": datetime.now(timezone.utc).isoformat(),
            "quick": asked.quick,
            "machine": {"fingerprint": machine.fingerprint(facts), **facts},
            "limits_gb_per_s": {str(t): found for t, found in limits.items()},
            "results": [asdict(f) for f in figures],
        }
        asked.json.write_text(json.dumps(content, indent=1))
        print("JSON:", asked.json)
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
        for count, style in zip((queries[0], queries[-1]), ("-", ":"), strict=True):
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
