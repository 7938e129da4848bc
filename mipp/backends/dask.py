"""Products on the workers of a cluster, bit for bit those of ``cpu``."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..params import Params
from .base import Backend, Keystream, RecordScan, Rows, Segment, StoredFile, ZeroShare
from .cpu import CpuBackend
from .pool import Pool, Task
from .tasks import Asked, KeystreamPart, ScanAsked, StoredPart, sealed_task

__all__ = ["DaskBackend"]

#: bytes of stored or made rows of a task: tens of milliseconds; and bytes of its result
_TASK_BYTES, _RESULT_BYTES = 128 << 20, 16 << 20
#: records of smaller files are scanned here
_LEAST_BYTES = 4 << 20
#: rows of a task are a multiple: whole cache lines of products
_LINE = 512


class DaskBackend(Backend):
    """Products on workers. What lies in this process's memory (small batches) is multiplied here.

    Parameters
    ----------
    params : of the deployment
    threads : native threads of this process
    pool : the workers
    worker_threads : native threads of each worker, None for all of its cores
    """

    def __init__(self, params: Params, threads: int | None, pool: Pool, worker_threads: int | None = None) -> None:
        self._params, self.pool = params, pool
        self._cpu, self._worker_threads = CpuBackend(params, threads), worker_threads or 0

    def load(self, segments: Sequence[Segment], rows: int) -> Rows:
        return _StoredRows(self, segments, rows)

    def load_keys(self, parts: Sequence[Keystream]) -> Rows:
        return _KeystreamRows(self, parts)

    def select(
        self, scans: Sequence[RecordScan], keys: Sequence[bytes], rows: int, live: np.ndarray, out: np.ndarray
    ) -> None:
        here, there = list[RecordScan](), list[RecordScan]()
        for scan in scans:
            (here if scan.file is None or scan.records.nbytes < _LEAST_BYTES else there).append(scan)
        self._cpu.select(here, keys, rows, live, out)

        def given() -> Iterator[Task]:
            for scan in there:
                step = max(1, _TASK_BYTES // scan.records.shape[1])
                for first in range(0, len(scan.records), step):
                    yield self._scan(scan, first, min(step, len(scan.records) - first), keys, rows, live)

        def take(task: Task, selected: np.ndarray) -> None:
            np.bitwise_xor(out, selected, out=out)

        if there:
            self.pool.run(given(), take)

    def _scan(
        self, scan: RecordScan, first: int, count: int, keys: Sequence[bytes], rows: int, live: np.ndarray
    ) -> Task:
        file, row = scan.file, scan.first + first
        assert file is not None  # of those that have one
        words = np.ascontiguousarray(live[row // 64 : (row + count + 63) // 64])

        def seal(session: bytes, key: AESGCM) -> bytes:
            return sealed_task(session, key, ScanAsked(
                file.digest, str(file.path), file.size, file.offset, scan.records.shape[1], first, count, row, rows,
                self._worker_threads, list(keys), words,
            ))  # fmt: skip

        return Task(row, row + count, seal, {file.digest: file})

    @property
    def reason(self) -> str:
        return self.pool.reason

    def keep_only(self, files: Callable[[], Iterable[bytes]]) -> None:
        self.pool.live = files
        # in a thread of its own: a worker that does not answer holds nobody up
        threading.Thread(target=self.pool.prune, name="mipp prune", daemon=True).start()

    def gauges(self) -> dict[str, tuple[str, dict[str, float]]]:
        counts = dict(self.pool.counts)
        return {
            f"mipp_worker_{name}": (text, {worker: float(getattr(c, name)) for worker, c in counts.items()})
            for name, text in (
                ("tasks", "Parts of products that a worker computed."), ("rows", "Rows of these parts."),
                ("seconds", "Seconds of computing them."), ("failed", "Parts that it could not compute."),
            ) if counts
        }  # fmt: skip

    def close(self) -> None:
        self.pool.close()

    def fill(self, given: Iterable[Task], start: int, out: np.ndarray) -> None:
        """Have tasks computed; their products come where their rows are, from row ``start`` on."""

        def take(task: Task, products: np.ndarray) -> None:
            out[:, task.start - start : task.stop - start] = products

        self.pool.run(given, take)

    def asked(self, query_share: np.ndarray, zero: ZeroShare, start: int, stop: int) -> Asked:
        nonces, rows, first = zero.batches(start, stop)
        others = sorted(set(zero.servers) - {zero.server})
        return Asked(
            zero.server, list(zero.servers), others, [zero.pair_keys[i] for i in others], zero.header, first,
            self._worker_threads, np.ascontiguousarray(query_share), np.ascontiguousarray(nonces),
            np.ascontiguousarray(rows, np.int64),
        )  # fmt: skip

    def step(self, query_share: np.ndarray) -> int:
        """Rows of a task."""
        row, word = query_share.shape[1] * query_share.itemsize, query_share.itemsize
        return max(_LINE, min(_TASK_BYTES // row, _RESULT_BYTES // (len(query_share) * word)) // _LINE * _LINE)


def _first(segment: Segment) -> int:
    return segment.first


class _StoredRows(Rows):
    def __init__(self, backend: DaskBackend, segments: Sequence[Segment], rows: int) -> None:
        self._backend, self._segments = backend, segments
        self._here = backend._cpu.load(segments, rows)

    def words(self, dim: int) -> np.ndarray:
        return self._here.words(dim)

    def scores(self, query_share: np.ndarray, start: int, stop: int, zero: ZeroShare, out: np.ndarray) -> None:
        here, there = list[tuple[int, int]](), list[tuple[int, int]]()
        for a, b, remote in self._runs(start, stop):
            (there if remote else here).append((a, b))
        step = self._backend.step(query_share)

        if there:
            cuts = ((a, min(a + step, last)) for first, last in there for a in range(first, last, step))
            self._backend.fill((self._task(query_share, zero, a, b) for a, b in cuts), start, out)
        for a, b in here:
            self._here.scores(query_share, a, b, zero, out[:, a - start : b - start])

    def _between(self, start: int, stop: int) -> Iterator[Segment]:
        """Segments of these rows."""
        at = max(0, bisect_right(self._segments, start, key=_first) - 1)
        return itertools.takewhile(lambda segment: segment.first < stop, self._segments[at:])

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """Rows that follow each other and are all in files, or all here."""
        begin, remote = start, False
        for segment in self._between(start, stop):
            if (segment.file is not None) != remote:
                at = max(start, segment.first)
                if at > begin:
                    yield begin, at, remote
                begin, remote = at, segment.file is not None
        if stop > begin:
            yield begin, stop, remote

    def _task(self, query_share: np.ndarray, zero: ZeroShare, start: int, stop: int) -> Task:
        files: dict[bytes, StoredFile] = {}
        parts: list[StoredPart | KeystreamPart] = []
        row = query_share.shape[1] * query_share.itemsize
        for segment in self._between(start, stop):
            file = segment.file
            assert file is not None  # the run is of files
            stored = len(segment.words)
            if segment.ordinals is None:
                a, b = max(start - segment.first, 0), min(stop - segment.first, stored)
                place, at = segment.first + a - start, -1
            else:
                a, b = np.searchsorted(segment.ordinals, [start - segment.first, stop - segment.first]).tolist()
                place, at = start - segment.first, file.offset + stored * row
            if a < b:
                files[file.digest] = file
                parts.append(StoredPart(file.digest, str(file.path), file.size, file.offset, a, b - a, place, at))

        def seal(session: bytes, key: AESGCM) -> bytes:
            return sealed_task(session, key, self._backend.asked(query_share, zero, start, stop), parts)

        return Task(start, stop, seal, files)


class _KeystreamRows(Rows):
    def __init__(self, backend: DaskBackend, parts: Sequence[Keystream]) -> None:
        self._backend, self._parts = backend, parts
        self._here = backend._cpu.load_keys(parts)

    def words(self, dim: int) -> np.ndarray:
        return self._here.words(dim)

    def scores(self, query_share: np.ndarray, start: int, stop: int, zero: ZeroShare, out: np.ndarray) -> None:
        step = self._backend.step(query_share)
        if stop - start <= min(step, _LINE << 4):  # a task takes longer than the rows
            self._here.scores(query_share, start, stop, zero, out)
            return

        cuts = range(start, stop, step)
        self._backend.fill((self._task(query_share, zero, a, min(a + step, stop)) for a in cuts), start, out)

    def _task(self, query_share: np.ndarray, zero: ZeroShare, start: int, stop: int) -> Task:
        def seal(session: bytes, key: AESGCM) -> bytes:
            some = [p for p in self._parts if p.start < stop and start < p.stop]
            parts = [self._part(p, max(start, p.start), min(stop, p.stop), start) for p in some]
            return sealed_task(session, key, self._backend.asked(query_share, zero, start, stop), parts)

        return Task(start, stop, seal)

    def _part(self, part: Keystream, a: int, b: int, start: int) -> KeystreamPart:
        run = part.cut(a, b)
        numbers, index = np.unique(run.index, return_inverse=True)
        facts = [part.batches(int(n)) for n in numbers]
        ids = np.frombuffer(b"".join(f[0] for f in facts), np.uint8).reshape(-1, 16)
        return KeystreamPart(
            part.key(), a - start, ids, np.array([f[1] for f in facts], "<i8"), np.array([f[2] for f in facts], "<i8"),
            index.astype("<i8"), np.ascontiguousarray(run.first_row, "<i8"), np.ascontiguousarray(run.count, "<i8"),
        )  # fmt: skip
