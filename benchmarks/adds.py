"""Adding vectors from files of growing size: ``python -m benchmarks.adds [--quick] [--rows N ...] [--json FILE]``.

``ImageOwner.add_stream`` of 128 numbers a row, l2, in a process of its own, which plays the owner and all three servers
of an embedded deployment. Beside it, in the same run and in turns: a plain copy of the file, synced, and the encryption
alone (:func:`mipp.sharing.share_rows` of rows that are encoded already). ``peak`` is the most memory that the process
had beyond what it had before; it must not grow with the rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

import mipp
from benchmarks import machine
from benchmarks.common import seconds
from mipp.client.row_ids import batch_rows
from mipp.sharing import OwnerKeys, share_rows

SCHEMA = "mipp adds 1"
DIM = 128
FORMATS = (".npy", ".fbin", ".bvecs")
_MIB = 1 << 20
_PART = 1 << 16


@dataclass(frozen=True)
class Figures:
    """Medians of one file: seconds of adding it, of adding it again, of copying it, of encrypting its rows."""

    format: str
    rows: int
    file_mib: float
    add: float
    again: float
    copy: float
    encrypt: float
    peak_mib: float

    @property
    def line(self) -> str:
        rate = self.rows / self.add
        return (
            f"{self.format:6} {self.rows:9,} rows {self.file_mib:7.0f} MiB: add {self.add:7.2f} s "
            f"({rate:9,.0f} rows/s, {self.file_mib / self.add:6.1f} MiB/s), {self.add / self.copy:5.1f} copies, "
            f"{self.add / self.encrypt:5.1f} encryptions, again {self.again:6.2f} s, peak {self.peak_mib:5.0f} MiB"
        )


def rows_of(first: int, count: int) -> np.ndarray:
    return np.random.default_rng(first).integers(0, 256, (count, DIM), np.uint8)


def write(path: Path, rows: int) -> None:
    """A file of vectors by formula, a part at a time."""
    with path.open("wb") as file:
        if path.suffix == ".npy":
            head = {"descr": "<f4", "fortran_order": False, "shape": (rows, DIM)}
            np.lib.format.write_array_header_1_0(file, head)
        elif path.suffix == ".fbin":
            file.write(np.array([rows, DIM], "<u4").tobytes())
        for first in range(0, rows, _PART):
            some = rows_of(first, min(_PART, rows - first))
            if path.suffix == ".bvecs":
                records = np.empty(len(some), [("dim", "<i4"), ("values", "u1", (DIM,))])
                records["dim"], records["values"] = DIM, some
                file.write(records.tobytes())
            else:
                file.write(some.astype("<f4").tobytes())


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _add(path: Path, folder: Path, told: Connection) -> None:
    """In a process of its own: adds a file, twice."""
    with mipp.Deployment.open(folder) as deployment:
        owner = deployment.owner("anna")
        before = _peak()
        first = seconds(lambda: owner.add_stream(path))
        peak = _peak() - before
        told.send((first, seconds(lambda: owner.add_stream(path)), peak))


def add(path: Path, encoding: mipp.Encoding) -> tuple[float, float, int]:
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        with mipp.Deployment.create(Path(name, "index"), encoding) as deployment:
            deployment.create_owner("anna")
        context = multiprocessing.get_context("spawn")
        mine, its = context.Pipe()
        process = context.Process(target=_add, args=(path, Path(name, "index"), its))
        process.start()
        its.close()
        figures: tuple[float, float, int] = mine.recv()
        process.join()
        return figures


def copy(path: Path) -> float:
    target = path.with_name("copy")

    def work() -> None:
        with path.open("rb") as source, target.open("wb") as file:
            while part := source.read(8 * _MIB):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())

    took = seconds(work)
    target.unlink()
    return took


def encrypt(rows: int, encoding: mipp.Encoding) -> float:
    """Shares of as many rows, in batches as adding makes them; the same rows in each."""
    with tempfile.TemporaryDirectory() as name, mipp.Deployment.create(Path(name, "index"), encoding) as deployment:
        config = deployment.config
        size = min(rows, batch_rows(config))
        encoded = encoding.encode_rows(rows_of(0, size))
        keys = OwnerKeys(os.urandom(32), config.id, os.urandom(16), config.params)
        share_rows(encoded, keys, encoding.hash)

        def work() -> None:
            for first in range(0, rows, size):
                share_rows(encoded[: rows - first], keys, encoding.hash)

        return seconds(work)


def measured(kind: str, rows: int, rounds: int, folder: Path, encoding: mipp.Encoding) -> Figures:
    path = folder / f"x{kind}"
    write(path, rows)
    added, copied, alone = [], [], []
    for _ in range(rounds):
        copied.append(copy(path))
        alone.append(encrypt(rows, encoding))
        added.append(add(path, encoding))
    size = path.stat().st_size / _MIB
    path.unlink()
    first, again, peaks = zip(*added, strict=True)
    return Figures(
        kind, rows, round(size, 1), *(round(statistics.median(s), 3) for s in (first, again, copied, alone)),
        round(max(peaks) / _MIB, 1),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small; the figures mean nothing")
    parser.add_argument("--rows", type=int, nargs="+", help="of .fbin, beside 1,000,000 of each format")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    base, rounds = (20_000, 1) if asked.quick else (1_000_000, asked.rounds)
    print(machine.line(machine.facts()))
    if busy := machine.busy():
        print(busy)
    encoding = mipp.Encoding.fit("l2", rows_of(0, 1000).astype(np.float32))
    results = []
    with tempfile.TemporaryDirectory() as name:
        work = [(kind, base, rounds) for kind in FORMATS] + [(".fbin", rows, 1) for rows in asked.rows or ()]
        for kind, rows, times in work:
            results.append(measured(kind, rows, times, Path(name), encoding))
            print(results[-1].line, flush=True)
    if asked.json:
        content = {**machine.head(SCHEMA, quick=asked.quick, busy=busy), "results": [asdict(one) for one in results]}
        asked.json.write_text(json.dumps(content, indent=1))
        print("JSON:", asked.json)


if __name__ == "__main__":
    main()
