"""A cloud's first product over rows that are on disk only, against reading the file from beginning to end.

``pytest benchmarks/end_to_end/bench_cold.py``; ``MIPP_BENCH_ROWS`` sets the rows (1,000,000 of 512 bytes),
``MIPP_BENCH_FOLDER`` where they lie (the temporary folder; on a tmpfs nothing is cold). Before each measurement the
file's pages are evicted. Baselines in the same round: large reads into one buffer (``ratio`` is against it), and the
product without reading ahead (``plain_gbs``). Checked: opening compares the SHA-256 first, as servers do by default;
``hash_gbs`` is hashing alone, from memory. GB/s of the file's bytes; disks of shared machines are noisy.
"""

import hashlib
import os
import statistics
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import mipp
from benchmarks.common import seconds
from benchmarks.end_to_end.timing import DIM, ROUNDS, ROWS, compare
from mipp import cpu
from mipp.server.plan import Plan


class Cold:
    """One large batch at a cloud, and ways to read it."""

    def __init__(self, folder):
        rng = np.random.default_rng(1)
        self.deployment = mipp.Deployment.create(folder, mipp.Encoding("cosine", DIM))
        owner = self.deployment.create_owner("owner")
        self.ids = owner.add_vectors(rng.normal(size=(ROWS, DIM)).astype(np.float32))
        self.owner = owner.id
        self.server = self.deployment.servers[1]
        (self.path,) = (folder / "servers/1/shares").glob("*/*")
        self.size = self.path.stat().st_size
        self.share = rng.integers(0, 1 << 32, (1, DIM), np.uint32)
        self.out = np.zeros((1, ROWS), np.uint32)
        self.buffer = bytearray(8 << 20)

    def evict(self):
        self.server.store.views.clear()  # unmaps: mapped pages are not evicted
        with open(self.path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def read(self):
        with open(self.path, "rb", buffering=0) as file:
            while file.readinto(self.buffer):
                pass

    def product(self, check):
        self.server.store.views.check = check
        view = self.server.store.view(self.owner)
        self.server.rows(Plan([view], view.ids)).product(self.share, 0, ROWS, self.out)

    def cold(self, call):
        self.evict()
        return seconds(call)


@pytest.fixture(scope="module")
def stored():
    with tempfile.TemporaryDirectory(dir=os.environ.get("MIPP_BENCH_FOLDER")) as folder:
        made = Cold(Path(folder) / "deployment")
        yield made
        made.deployment.close()


@pytest.mark.parametrize("check", [False, True], ids=["unchecked", "checked"])
def bench_cold_product(benchmark, stored, check):
    plain = []

    def without_reading_ahead():
        with mock.patch("mipp.io.memory._ADVISE", None):
            stored.product(check)

    def baseline():
        plain.append(stored.cold(without_reading_ahead))
        spent = stored.cold(stored.read)
        stored.evict()
        return spent

    facts = compare(benchmark, lambda: stored.product(check), baseline, rounds=min(ROUNDS, 7))
    gb = stored.size / 1e6
    raw = np.memmap(stored.path, np.uint8, "r")
    benchmark.group = f"cold product / sequential read, {stored.size >> 20} MiB"
    benchmark.extra_info.update(
        tier=cpu.active()["ring"], threads=cpu.threads(), rows=ROWS, dim=DIM, checked=check,
        gbs=round(gb / facts["ms"], 2), read_gbs=round(gb / facts["baseline_ms"], 2),
        plain_gbs=round(gb / 1e3 / statistics.median(plain[1:]), 2),
        hash_gbs=round(gb / 1e3 / seconds(lambda: hashlib.sha256(raw)), 2), **facts,
    )  # fmt: skip
