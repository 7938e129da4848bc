"""The nearest of many rows by the servers: ``python -m benchmarks.ranking [--quick] [--rows N ...] [--json FILE]``.

Three servers in this process, each with score shares of all rows, compare them (:func:`mipp.mpc.topk.top_k`, k = 10,
keys of 24 bits of score and the rows' own). Counted is what one server sends, and what it holds at once: a third of the
most memory that the three took beyond the scores, beside what :func:`mipp.mpc.cost.top_k_memory` says. The answer is
compared with a plain sort.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.scale import peak_mib, reset_peak
from mipp.mpc.cost import top_k_cost, top_k_memory
from mipp.mpc.link import PARTIES
from mipp.mpc.session import Counters, Party, Public, run_local
from mipp.mpc.topk import KeyRoom, combine_top_k, top_k

ROWS, QUICK_ROWS = (1_000_000, 10_000_000), (20_000, 100_000)
K, HALF = 10, 1 << 21
SCHEMA = "mipp-ranking-1"
_PART = 1 << 20


@dataclass
class Figure:
    """One size; bytes and memory are of one server."""

    rows: int
    seconds: float
    ns_per_row: float
    rounds: int
    bytes_per_row: float
    expected_bytes_per_row: float
    memory_mib: float
    stated_mib: float
    peak_bytes_per_row: float

    @property
    def line(self) -> str:
        return (
            f"{self.rows:11,} rows: {self.seconds:7.2f} s, {self.ns_per_row:5.0f} ns a row, {self.rounds:3} rounds, "
            f"{self.bytes_per_row:5.1f} bytes a row sent (expected {self.expected_bytes_per_row:5.1f}), "
            f"{self.memory_mib:6.0f} MiB held (said to be at most {self.stated_mib:6.0f})"
        )


def measure(rows: int) -> Figure:
    """One search of the nearest ``K`` of so many rows."""
    public = Public(os.urandom(32), os.urandom(32), rows, 32, -HALF, HALF)
    rng = np.random.default_rng(rows)
    scores = rng.integers(-HALF, HALF, rows, dtype=np.int32)
    pairs = {pair: os.urandom(32) for pair in ((1, 2), (1, 3), (2, 3))}
    keys = {i: {j: pairs[min(i, j), max(i, j)] for j in PARTIES if j != i} for i in PARTIES}
    counters: dict[int, Counters] = {}
    reset_peak()
    before = peak_mib()
    rooms = {i: KeyRoom(1, public) for i in PARTIES}
    for start in range(0, rows, _PART):  # additive shares, made some at a time
        some = slice(start, min(start + _PART, rows))
        last = scores[some].view(np.uint32).copy()
        for i in PARTIES[:2]:
            share = np.frombuffer(os.urandom(4 * len(last)), np.uint32)
            rooms[i].words[0, some] = share
            last -= share
        rooms[3].words[0, some] = last

    def task(party: Party):
        counters[party.index] = party.counters
        return top_k(party, rooms.pop(party.index), K, public)

    began = time.perf_counter()
    parts = run_local(task, keys)
    took = time.perf_counter() - began
    held = (peak_mib() - before) / 3
    found, values = combine_top_k(list(parts.values()), public)
    assert values is not None
    best = np.sort(scores)[::-1][:K] if rows < 4 * K else np.sort(np.partition(scores, -K)[-K:])[::-1]
    if values[0].tolist() != best.tolist() or scores[found[0]].tolist() != best.tolist():
        raise RuntimeError("the servers' ranking is not the plain one")
    expected = top_k_cost(public, 1, K).typical
    sent = sum(c.payload_bytes + c.framing_bytes for c in counters.values()) / 3
    return Figure(
        rows, took, took / rows * 1e9, counters[1].rounds, sent / rows, max(expected.bytes.values()) / rows,
        held, top_k_memory(public, 1, K) / 2**20, held * 2**20 / rows,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print every size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", help="sizes; 32 bytes a row and server are needed")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args(argv)
    busy = machine.busy()
    print(machine.line(machine.facts()), busy or "", sep="\n", end="\n" if busy else "")
    figures = []
    for rows in asked.rows or (QUICK_ROWS if asked.quick else ROWS):
        figures.append(measure(rows))
        print(figures[-1].line, flush=True)
    if asked.json:
        content = {**machine.head(SCHEMA, quick=asked.quick, busy=busy), "results": [asdict(f) for f in figures]}
        asked.json.write_text(json.dumps(content, indent=1))
        print("JSON:", asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
