"""Vectors that are added in batches: in the memory of one batch, exactly once, whatever interrupts it."""

from __future__ import annotations

import errno
import gc
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

import mipp
from mipp.client import row_ids
from mipp.client.row_ids import AddedRun, FileRows, RowIds, stored_places
from mipp.errors import DTypeError, EncodingError, MippError, NotFoundError, ParameterError, ShapeError, StoreError
from mipp.io.streams import open_rows
from mipp.store import files
from tests.network import Network

DIM = 8
RUN = [sys.executable, "-c", "from mipp.cli import main; main()"]


def made(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (rows, DIM)).astype(np.uint8)


def bin_file(path, data):
    item = "<f4" if path.suffix == ".fbin" else "u1"
    path.write_bytes(np.array(data.shape, "<u4").tobytes() + data.astype(item).tobytes())
    return path


@pytest.fixture
def batch(monkeypatch):
    """Batches of 40 rows."""
    monkeypatch.setattr(row_ids, "BATCH_BYTES", 40 * 48)
    return 40


@pytest.fixture
def owner(tmp_path):
    encoding = mipp.Encoding.fit("l2", made(500).astype(np.float32))
    with mipp.Deployment.create(tmp_path / "d", encoding) as deployment:
        yield deployment.create_owner("o")


def same_rows(owner, x):
    """The servers have exactly these rows, each as often as it is there, in any order."""
    encoding = owner.config.encoding
    got = np.concatenate([owner.rows_of(b.id)[1] for b in owner.batches() if b.live])
    wanted = encoding.decode_rows(encoding.encode_rows(x))
    assert got.shape == wanted.shape and np.array_equal(got[np.lexsort(got.T)], wanted[np.lexsort(wanted.T)])


# --- ids --------------------------------------------------------------------------------------------------------------


def test_ids_are_a_sequence_of_pairs():
    a, b = b"a" * 16, b"b" * 16
    ids = RowIds([(a, 0, 3), (b, 7, 2)])
    pairs = [(a, 0), (a, 1), (a, 2), (b, 7), (b, 8)]
    assert list(ids) == pairs and ids == pairs and pairs == ids and len(ids) == 5
    for at in range(-5, 5):
        assert ids[at] == pairs[at] and ids[np.int64(at)] == pairs[at]
        for stop in range(-6, 7):
            assert ids[at:stop] == pairs[at:stop] and ids[at:stop:2] == pairs[at:stop:2]
            assert ids[stop:at:-1] == pairs[stop:at:-1]
    assert isinstance(ids[1:4], RowIds) and len(ids[1:4].runs) == 2
    for at in (5, -6):
        with pytest.raises(IndexError):
            ids[at]
    assert (a, 2) in ids and (a, 3) not in ids and "x" not in ids
    assert isinstance(ids + ids, RowIds) and ids + ids == pairs * 2
    one = [(a, 9)]
    assert ids + one == pairs + one and one + ids == one + pairs
    assert ids != pairs[:4] and ids != pairs[::-1] and not RowIds() and ids != "x"
    assert ids == RowIds([(a, 0, 1), (a, 1, 2), (b, 7, 2)]) and a.hex() not in repr(ids)
    with pytest.raises(TypeError):
        hash(ids)


def test_ids_in_another_order():
    """As of a batch with clusters: runs and what is said of a file compare and have hashes."""
    a, order = b"a" * 16, np.array([2, 0, 1, 4, 3])
    ids = [RowIds([(a, 10, 5, stored_places(order))]) for _ in range(2)]
    pairs = [(a, 11), (a, 12), (a, 10), (a, 14), (a, 13)]
    assert list(ids[0]) == pairs and ids[0] == ids[1] == pairs and ids[0][1:3] == pairs[1:3] == list(ids[0][1:3])
    assert ids[0].runs == ids[1].runs and ids[0].runs != ids[0][:4].runs and len({ids[0].runs, ids[1].runs}) == 1
    runs = [AddedRun(0, *some.runs[0]) for some in ids]
    assert runs[0] == runs[1] and len(set(runs)) == 1 and runs[0].id(1) == (a, 12)
    assert runs[0] != AddedRun(0, a, 10, 5) and runs[0] != AddedRun(0, a, 10, 5, stored_places(order[::-1]))
    assert (a, 13) in ids[0] and (a, 15) not in ids[0] and (a, "13") not in ids[0] and (a, None) not in ids[0]
    assert "rows" in repr(runs[0])


def test_rows_of_a_file_are_a_sequence():
    rows = FileRows("x.npy")
    rows.runs += [AddedRun(0, b"a" * 16, 0, 2), AddedRun(5, b"b" * 16, 0, 1)]
    listed = [("x.npy:0", (b"a" * 16, 0)), ("x.npy:1", (b"a" * 16, 1)), ("x.npy:5", (b"b" * 16, 0))]
    assert list(rows) == listed and [rows[at] for at in range(-3, 3)] == listed * 2 and rows[1:] == listed[1:]
    for at in (3, -4):
        with pytest.raises(IndexError):
            rows[at]
    assert rows.ids == [pair for _, pair in listed] and "x.npy" not in repr(rows)


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_an_iterator_becomes_batches_of_one_size(owner, batch):
    x = made(150)
    buffer = np.empty((30, DIM), np.float32)

    def arrays():  # in one buffer, as readers do
        for start in range(0, 150, 30):
            buffer[:] = x[start : start + 30]
            yield buffer
        buffer[:] = np.nan

    receipts = []
    ids = owner.add_vectors(arrays(), acknowledged=receipts.append)
    assert len(ids) == 150 and [len(some) for some in receipts] == [40, 40, 40, 30]
    assert ids == [pair for some in receipts for pair in some]
    assert [b.rows for b in owner.batches()] == [40, 40, 40, 30]
    for number in (0, 39, 40, 149):
        assert np.abs(owner.rows_of(ids[number][0])[1][ids[number][1]] - x[number]).max() <= 1
    assert owner.delete(ids[35:45]) == 10


def test_what_an_iterator_may_not_be(owner, batch):
    for bad in ([np.ones(DIM)], [np.ones((2, DIM - 1))], [np.array([["a"] * DIM])], [], [np.empty((0, DIM))], ["x"]):
        with pytest.raises((ShapeError, DTypeError)):
            owner.add_vectors(iter(bad))
    for more in ({"images": [None]}, {"labels": ["a"]}, {"metadata": [None]}):
        with pytest.raises(ParameterError):
            owner.add_vectors(iter([made(1)]), **more)
    for bad in (5, b"x", {"a": 1}, None):
        with pytest.raises(DTypeError):
            owner.add_stream(bad)
    with pytest.raises(ParameterError):
        owner.add_stream([made(1)], metadata=[None])
    with pytest.raises(NotFoundError):
        owner.add_stream("nowhere.npy")
    assert not owner.batches()


@pytest.mark.parametrize("end", [RuntimeError("the source failed"), KeyboardInterrupt()])
def test_arrays_that_end_in_the_middle_go_on(owner, batch, end):
    x = made(150)

    def arrays(until):
        for start in range(0, 150, 25):
            if start == until:
                raise end
            yield x[start : start + 25]

    done = []
    with pytest.raises(type(end)):
        owner.add_stream(arrays(100), progress=done.append)
    # reading is a batch ahead: Ctrl-C ends at once, and a source that fails after the batch before
    assert sum(done) == sum(b.rows for b in owner.batches()) == (80 if isinstance(end, Exception) else 40)
    report = owner.add_stream(arrays(-1))
    assert (len(report.added), report.skipped) == (150 - sum(done), sum(done))
    same_rows(owner, x)
    assert owner.add_stream([x]).skipped == 150, "a batch is known by its content, whatever arrays it came in"


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".fbin", ".u8bin"])
def test_every_point_of_dying_leaves_each_row_once(owner, batch, tmp_path, suffix, monkeypatch):
    x, path = made(280), tmp_path / f"x{suffix}"
    np.save(path, x) if suffix == ".npy" else bin_file(path, x)
    make = owner._changes.make
    for number, after in ((1, False), (1, True), (2, True)):
        left = iter(range(number))

        def die(*given, left=left, after=after):
            last = next(left, None) is None
            if last and not after:
                raise RuntimeError("dead")
            make(*given)
            if last:
                raise RuntimeError("dead")

        monkeypatch.setattr(owner._changes, "make", die)
        with pytest.raises(RuntimeError):
            owner.add_stream(path)
    monkeypatch.setattr(owner._changes, "make", make)
    there = sum(b.rows for b in owner.batches())
    report = owner.add_stream(path)
    assert there == 240 and report.skipped == there and len(report.added) == 280 - there
    assert [run.start for run in report.added.runs] == list(range(there, 280, 40))
    same_rows(owner, x)
    [file] = owner.vectors()
    assert (file.path, file.rows) == (path, 280)


def test_a_file_that_changes_after_an_interruption_leaves_no_old_rows(owner, batch, tmp_path):
    x, path = made(200), bin_file(tmp_path / "x.fbin", made(200))
    left = iter(range(3))

    def stop(_):
        if next(left, None) == 2:
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        owner.add_stream(path, progress=stop)
    assert sum(b.rows for b in owner.batches()) == 120
    y = x.copy()
    y[50] = 7  # in the second batch
    bin_file(path, y)
    report = owner.add_stream(path)
    assert (len(report.added), report.skipped, report.replaced) == (120, 80, 40)
    same_rows(owner, y)
    bin_file(path, np.concatenate([y, made(30, 5)]))  # longer: new rows alone
    report = owner.add_stream(path)
    assert (len(report.added), report.skipped, report.replaced) == (30, 200, 0)


def test_a_bad_row_is_named_and_what_was_acknowledged_stays(owner, batch, tmp_path):
    x = made(150).astype(np.float32)
    bad = x.copy()
    bad[93, 2] = np.nan
    path = bin_file(tmp_path / "x.fbin", bad)
    with pytest.raises(EncodingError, match=r"row 93: .*; the 80 rows before are in the index"):
        owner.add_stream(path)
    assert sum(b.rows for b in owner.batches()) == 80
    bin_file(path, x)
    report = owner.add_stream(path)
    assert (len(report.added), report.skipped) == (70, 80)
    same_rows(owner, x)


def test_check_sends_nothing_of_a_file_with_a_bad_row(owner, batch, tmp_path):
    bad = made(150).astype(np.float32)
    bad[149, 7] = np.inf
    path = bin_file(tmp_path / "x.fbin", bad)
    with pytest.raises(EncodingError, match=r"row 149: [^;]*$"):
        owner.add_stream(path, check=True)
    with open_rows(path) as stream, pytest.raises(ParameterError, match="metadata"):
        owner.add_stream(stream.path, metadata=[None])
    assert not owner.batches()


@pytest.mark.parametrize("suffix", [".npy", ".fvecs"])
def test_a_file_that_becomes_shorter_is_an_error(owner, batch, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    x = made(200).astype(np.float32)
    np.save(path, x) if suffix == ".npy" else mipp.io.vectors.save_fvecs(path, x)
    with pytest.raises(ParameterError, match="shorter"):
        owner.add_stream(path, progress=lambda _: os.truncate(path, 3000))
    assert 40 <= sum(b.rows for b in owner.batches()) <= 80


def test_records_of_vectors_are_sent_with_their_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(row_ids, "BATCH_BYTES", 10 * (48 + 1024))
    path = bin_file(tmp_path / "x.fbin", made(25))
    encoding = mipp.Encoding.fit("l2", made(500).astype(np.float32))
    with mipp.Deployment.create(tmp_path / "d", encoding, preview_size=1024) as deployment:
        owner = deployment.create_owner("o")
        report = owner.add_stream(path, metadata=[{"n": n} for n in range(25)])
        assert [run.rows for run in report.added.runs] == [10, 10, 5]
        assert [record.metadata for record in owner.records(report.added.ids)] == [{"n": n} for n in range(25)]
        assert owner.add_stream(path).skipped == 25, "without metadata the batches are the same"


@pytest.mark.parametrize("after", [0, 7, 8, 9, 15])
def test_a_full_disk(owner, batch, tmp_path, monkeypatch, after):
    x, path, real = made(200), bin_file(tmp_path / "x.fbin", made(200)), files.write_all
    left = [after]

    def write(fd, view):
        left[0] -= 1
        if left[0] < 0:
            os.write(fd, view[: len(view) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd, view)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", write)
        with pytest.raises(StoreError, match="No space left"):
            owner.add_stream(path)
    there = sum(b.rows for b in owner.batches())
    assert there < 200
    report = owner.add_stream(path)
    assert (len(report.added), report.skipped) == (200 - there, there)
    same_rows(owner, x)


@pytest.mark.slow  # three server processes, one of which is stopped and started again
def test_a_server_that_goes_away(tmp_path, batch):
    x, path = made(400), bin_file(tmp_path / "x.fbin", made(400))
    network = Network(tmp_path / "net", mipp.Encoding.fit("l2", x.astype(np.float32))).start().ready()
    try:
        with network.connect() as client:
            owner, done = client.create_owner("o"), []

            def told(rows):
                done.append(rows)
                if len(done) == 3:
                    network.stop(2)

            with pytest.raises(MippError):
                owner.add_stream(path, progress=told)
            network.start(2).ready()
            report = owner.add_stream(path)
            assert len(done) == 3 and (len(report.added), report.skipped) == (280, 120)
            same_rows(owner, x)
    finally:
        network.stop()


# --- processes --------------------------------------------------------------------------------------------------------


def test_two_processes_add_one_file(owner, tmp_path, monkeypatch):
    monkeypatch.setenv("MIPP_DEPLOYMENT", str(tmp_path / "d"))
    x, path = made(5000), bin_file(tmp_path / "x.u8bin", made(5000))
    both = [
        subprocess.Popen([*RUN, "owner", "add", "o", "--vectors", str(path)], stdout=subprocess.PIPE) for _ in range(2)
    ]
    said = sorted(process.communicate()[0].decode().split(" (")[0] for process in both)
    assert said == ["0 added, 5000 already there, 0 left out", "5000 added, 0 already there, 0 left out"]
    same_rows(owner, x)


_KILLED = """
import sys
import mipp
from mipp.client import row_ids
row_ids.BATCH_BYTES = 50 * 48
with mipp.Deployment.open(sys.argv[1]) as deployment:
    print("ready", flush=True)
    deployment.owner("o").add_stream(sys.argv[2])
"""


@pytest.mark.slow  # forty processes, most of them killed
def test_kills_at_random_moments_leave_each_row_once(owner, tmp_path):
    x, path, dice = made(3000), bin_file(tmp_path / "x.fbin", made(3000)), random.Random(4)
    killed = 0
    for _ in range(60):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(tmp_path / "d"), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0.02, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            break
        killed += 1
    process = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "d"), str(path)], check=True)
    assert killed >= 5
    same_rows(owner, x)
    [file] = owner.vectors()
    assert (file.path, file.rows) == (path, 3000)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_no_object_a_row(owner):
    """Objects, memory that stays, the peak, and the journal, of 10^5 and 10^6 rows."""

    def arrays(rows, seed):
        for start in range(0, rows, 50_000):
            yield made(50_000, seed + start)

    user_rows, peaks = [], []
    journal = owner.journal._path
    owner.add_stream(arrays(50_000, 7))
    for rows, seed in ((100_000, 1), (1_000_000, 2)):
        gc.collect()
        size, blocks = journal.stat().st_size, sys.getallocatedblocks()
        tracemalloc.start()
        report = owner.add_stream(arrays(rows, seed))
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        gc.collect()
        user_rows.append(((sys.getallocatedblocks() - blocks) / rows, kept / rows, journal.stat().st_size - size))
        peaks.append(peak)
        assert len(report.added) == rows and len(report.added.runs) < 10
    objects, kept, grown = user_rows[1]
    assert objects < 0.01 and kept < 1 and grown < 1 << 16
    assert peaks[1] < peaks[0] + (96 << 20)
