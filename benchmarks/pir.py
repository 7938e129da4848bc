"""Limits of private retrieval, each measured beside its baseline: ``python -m benchmarks.pir [--quick] [--file GIB]``.

Ratios are medians of pairs measured in turn (A B B A); one thread unless said. ``--file 8`` also writes a file of so
many GiB in the temporary folder, evicts it, and compares an answer from it with large sequential reads of it.
``--quick`` uses sizes whose figures mean nothing. Figures that others published were measured on other machines and of
other work: they stand beside ours and no ratio is made of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.common import Pairs, in_turns, seconds
from benchmarks.reading import numpy_sum, prefetched_sum
from mipp import cpu, pir

RECORD = 8192
PUBLISHED = """
published by others, on other machines (no ratio):
  sachaservan/tri-dpf, README, Apple M1, one thread: all of 3^14 = 4.8 M leaves of 128 bits, without early
    termination, in 14.6 ms (half-tree) and 18.5 ms: 0.33 and 0.26 G leaves/s
  google/distributed_point_functions, experiments/README, Xeon 2.3 GHz, one thread: 2^20 points of a domain of 2^32,
    values of 32 bits, incremental: 0.67 s evaluated directly, 1.36 to 3.31 s level by level
"""


class Limits:
    """Prints a line for each figure; counts the limits that are missed."""

    def __init__(self, quick: bool) -> None:
        self.missed, self._quick = 0, quick

    def line(self, what: str, figure: str, value: float, limit: str, kept: bool | None) -> None:
        if self._quick:
            kept = None
        verdict = {True: "kept", False: "MISSED", None: ""}[kept]
        self.missed += kept is False
        print(f"{what:58} {figure:>24} {value:9.3f}   {limit:14} {verdict}", flush=True)

    def at_most(self, what: str, pairs: Pairs, limit: float | None) -> None:
        ours, theirs = pairs.medians(1e3, 1)
        text = "" if limit is None else f"at most {limit}"
        self.line(what, f"{ours} / {theirs} ms", pairs.ratio, text, None if limit is None else pairs.ratio <= limit)


def expansions(limits: Limits, quick: bool) -> None:
    for tier, limit in (("avx512", 40), ("avx2", 22), ("portable", None)):
        if tier not in cpu.levels():
            continue
        for bits in (17, 20, 24):
            rows = 1 << (bits - 4 * quick)
            key = pir.generate_keys(rows // 3, rows)[0]
            with cpu.force(tier):
                spent = sorted(seconds(lambda k=key: pir.expand(k, threads=1)) for _ in range(3 if quick else 15))
            speed = rows / spent[len(spent) // 2] / 1e9
            of = limit if bits > 17 else None
            text = "" if of is None else f"at least {of}"
            what = f"expansion of {rows} rows, {tier}, G rows/s"
            limits.line(what, f"{len(key)} bytes a key", speed, text, None if of is None else speed >= of)
            limits.missed += len(key) > 500


def scans(limits: Limits, quick: bool) -> None:
    rows = 2_000 if quick else 100_000
    records = np.random.default_rng(5).integers(0, 2**64, (rows, RECORD // 8), np.uint64).view(np.uint8)
    read = lambda: seconds(lambda: prefetched_sum(records))  # noqa: E731
    plain = lambda: seconds(lambda: numpy_sum(records))  # noqa: E731
    rounds = 3 if quick else 11
    limits.at_most("read: sum of words, prefetched / numpy's sum", in_turns(read, plain, rounds), None)

    def scan(count: int, threads: int):
        selections = np.random.default_rng(6).integers(0, 2**64, (count, rows // 64 + 1), np.uint64)
        return lambda: seconds(lambda: pir.scan(records, selections, threads=threads))

    for tier, most in (("avx512", {1: 1.15, 4: None, 10: 1.3, 64: None}), ("avx2", {1: None, 4: None, 10: 2.1})):
        if tier not in cpu.levels():
            continue
        with cpu.force(tier):
            for count, limit in most.items():
                what = f"{count} selections of {rows} records of 8 KiB, {tier}"
                limits.at_most(f"{what} / read", in_turns(scan(count, 1), read, rounds), limit)
            for count in (1, 10):
                pairs = in_turns(scan(count, 2), scan(count, 1), rounds)
                ours, theirs = pairs.medians(1e3, 1)
                what = f"two threads, {count} selections, {tier}, times as fast"
                limits.line(what, f"{ours} / {theirs} ms", pairs.times, "at least 1.8", pairs.times >= 1.8)
    database = pir.Database(records, threads=1)
    key = database.query(rows // 2)[0]
    answer = lambda: seconds(lambda: database.answer(key))  # noqa: E731
    limits.at_most("Database.answer, expansion included / read", in_turns(answer, read, rounds), 1.15)


def pieces_of(path: Path) -> Iterator[int]:
    """Read a file from beginning to end into one buffer."""
    buffer = bytearray(8 << 20)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield count


def streaming(limits: Limits, gib: float) -> None:
    rows = int(gib * 2**30) // RECORD
    with tempfile.TemporaryDirectory(dir=os.environ.get("MIPP_BENCH_FOLDER")) as folder:
        path = Path(folder, "records")
        block = np.random.default_rng(7).integers(0, 2**64, (1 << 26) // 8, np.uint64)
        with open(path, "wb") as file:
            for at in range(0, rows * RECORD, block.nbytes):
                block[:: RECORD // 8] = at
                file.write(block.tobytes()[: rows * RECORD - at])
            os.fsync(file.fileno())

        def evicted(call) -> float:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return seconds(call)

        def answer() -> None:
            mapped = np.memmap(path, np.uint8, "r", shape=(rows, RECORD))
            database = pir.Database(mapped)
            database.answer(database.query(rows // 2)[0])

        pairs = in_turns(lambda: evicted(answer), lambda: evicted(lambda: sum(pieces_of(path))), 3)
        limits.at_most(f"answer from a cold file of {gib} GiB / sequential reads of it", pairs, 1.15)
        print(f"  {rows * RECORD / np.median(pairs.ours) / 1e9:.2f} GB/s")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Limits of private retrieval.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--file", type=float, metavar="GIB", default=0)
    given = parser.parse_args(arguments)
    print(machine.line(machine.facts()))
    limits = Limits(given.quick)
    expansions(limits, given.quick)
    scans(limits, given.quick)
    if given.file:
        streaming(limits, given.file)
    print(PUBLISHED)
    return limits.missed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
