"""Products on the workers of a cluster, bit for bit those of ``cpu``."""

from __future__ import annotations

import itertools
import threading
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..params import Params
from .base import Backend, Keystream, RecordScan, Rows, Segment, Slots, StoredFile, ZeroShare, keys_of
from .cpu import CpuBackend
from .pool import Pool, Task
from .tasks import Asked, KeystreamPart, ScanAsked, SlotsPart, StoredPart, sealed_task

__all__ = ["DaskBackend"]

#: bytes of stored or made rows of a task: tens of milliseconds; and bytes of its result
_TASK_BYTES, _RESULT_BYTES = 128 << 20, 16 << 20
#: records of smaller files are scanned here
_LEAST_BYTES = 4 << 20
#: rows of a task are a multiple: whole cache lines of products
_LINE = 512
_RowsPart = StoredPart | KeystreamPart
_Masks = tuple[np.ndarray, np.ndarray, np.ndarray]


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
        self.pool = pool
        self.cpu, self._worker_threads = CpuBackend(params, threads), worker_threads or 0

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
        self.cpu.select(here, keys, rows, live, out)

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

    def fill(self, given: Iterable[tuple[Task, Sequence[_Cut]]], out: np.ndarray) -> None:
        """Have tasks computed; the products of each come in order where its cuts are."""
        places: dict[Task, Sequence[_Cut]] = {}

        def sent() -> Iterator[Task]:
            for task, cuts in given:
                places[task] = cuts
                yield task

        def take(task: Task, products: np.ndarray) -> None:
            at = 0
            for cut in places.pop(task):
                count = cut.stop - cut.first
                out[:, cut.at : cut.at + count] = products[:, at : at + count]
                at += count

        self.pool.run(sent(), take)

    def asked(self, query_share: np.ndarray, queries: int, zero: ZeroShare, masks: Sequence[_Masks]) -> Asked:
        """What all parts of a task have, whose products are masked so."""
        nonces, rows, first = (np.concatenate(one) for one in zip(*masks, strict=True))
        others = sorted(set(zero.servers) - {zero.server})
        return Asked(
            zero.server, list(zero.servers), others, [zero.pair_keys[i] for i in others], zero.header,
            self._worker_threads, queries, np.ascontiguousarray(query_share), nonces, rows, first,
        )  # fmt: skip

    def slots_asked(
        self, query_shares: np.ndarray, zero: ZeroShare, given: Sequence[Slots]
    ) -> tuple[Asked, list[SlotsPart]]:  # fmt: skip
        """What all parts of a task of slots have, with the query shares of its groups alone; and its slots."""
        groups = sorted({g for some in given for g in range(some.first_group, some.last_group + 1)})
        shares = query_shares[:, groups].transpose(1, 0, 2).reshape(-1, query_shares.shape[2])
        asked = self.asked(shares, len(query_shares), zero, [_slots_masks(zero, some) for some in given])
        parts, place = list[SlotsPart](), 0
        for some in given:
            share = groups.index(some.first_group)
            dead = np.ascontiguousarray(some.dead, "<i8")
            parts.append(SlotsPart(some.size, some.group, some.first, some.count, place, share, dead))
            place += some.count
        return asked, parts

    def step(self, queries: int, row_bytes: int, word: int) -> int:
        """Rows of a task."""
        most = min(_TASK_BYTES // row_bytes, _RESULT_BYTES // (queries * word))
        return max(1, most // _LINE * _LINE or most)


def _masks(zero: ZeroShare, start: int, stop: int) -> _Masks:
    """What masks products of rows ``start`` to ``stop``: by batch its nonce, rows, and the first of these."""
    nonces, rows, row = zero.batches(start, stop)
    first = np.zeros(len(rows), np.int64)
    first[0] = row
    return nonces, rows.astype(np.int64), first


def _slots_masks(zero: ZeroShare, slots: Slots) -> _Masks:
    """What masks products of slots: they are of one batch, whose rows are counted from one place."""
    edges = np.array(list(slots.masked()), np.int64)
    nonces, _, row = zero.batches(*edges[0].tolist())
    return np.repeat(nonces, len(edges), axis=0), edges[:, 1] - edges[:, 0], edges[:, 0] - edges[0, 0] + row


class _Cut(NamedTuple):
    """Rows ``first`` to ``stop``, or such slots ``of`` a batch, whose products come from ``at`` on."""

    first: int
    stop: int
    at: int
    of: Slots | None = None

    @property
    def slots(self) -> Slots:
        assert self.of is not None  # of cuts of slots
        return self.of.cut(self.first, self.stop)


def _packed(cuts: Iterable[_Cut], step: int) -> Iterator[list[_Cut]]:
    """The cuts of each task, ``step`` rows or slots in all."""
    some, room = list[_Cut](), step
    for cut in cuts:
        first, stop, at, of = cut
        while first < stop:
            end = min(first + room, stop)
            some.append(_Cut(first, end, at, of))
            first, at, room = end, at + end - first, room - (end - first)
            if not room:
                yield some
                some, room = [], step
    if some:
        yield some


def _first(segment: Segment) -> int:
    return segment.first


class _DaskRows(Rows):
    """Rows whose products are computed by workers, or here where that takes less time."""

    #: fewer rows are computed here
    _few = 0

    def __init__(self, backend: DaskBackend, here: Rows) -> None:
        self._backend, self._here = backend, here

    def words(self, dim: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self._here.words(dim, start, stop)

    def scores(
        self, query_share: np.ndarray, runs: Sequence[tuple[int, int]], zero: ZeroShare, out: np.ndarray
    ) -> None:
        queries, width = query_share.shape
        row = width * query_share.itemsize
        step = self._backend.step(queries, row, query_share.itemsize)
        if out.shape[1] <= min(step, self._few):
            self._here.scores(query_share, runs, zero, out)
            return
        here, there, at = list[_Cut](), list[_Cut](), 0
        for start, stop in runs:
            for first, end, remote in self._split(start, stop):
                (there if remote else here).append(_Cut(first, end, at + first - start))
            at += stop - start

        def task(cuts: Sequence[_Cut]) -> Task:
            def seal(session: bytes, key: AESGCM) -> bytes:
                parts, place = list[_RowsPart](), 0
                for cut in cuts:
                    parts += self._parts(cut.first, cut.stop, row, place)
                    place += cut.stop - cut.first
                masks = [_masks(zero, cut.first, cut.stop) for cut in cuts]
                return sealed_task(session, key, self._backend.asked(query_share, queries, zero, masks), parts)

            return self._task([(cut.first, cut.stop) for cut in cuts], seal)

        if there:
            self._backend.fill(((task(cuts), cuts) for cuts in _packed(there, step)), out)
        for cut in here:
            self._here.scores(
                query_share, [(cut.first, cut.stop)], zero, out[:, cut.at : cut.at + cut.stop - cut.first]
            )

    def slots(self, query_shares: np.ndarray, given: Sequence[Slots], zero: ZeroShare, out: np.ndarray) -> None:
        queries, _, width = query_shares.shape
        step = self._backend.step(queries, width * query_shares.itemsize, query_shares.itemsize)
        few = min(step * max((some.size for some in given), default=1), self._few)
        if sum(some.count * some.size for some in given) <= few:
            self._here.slots(query_shares, given, zero, out)
            return
        here, there, at = list[_Cut](), list[_Cut](), 0
        for some in given:
            (_, _, remote), *_ = self._split(*some.rows)  # of one batch
            (there if remote else here).append(_Cut(some.first, some.first + some.count, at, some))
            at += some.count

        def task(cuts: Sequence[_Cut]) -> Task:
            some = [cut.slots for cut in cuts]

            def seal(session: bytes, key: AESGCM) -> bytes:
                asked, slots = self._backend.slots_asked(query_shares, zero, some)
                parts = list[_RowsPart | SlotsPart]()
                for one, part in zip(some, slots, strict=True):
                    parts += [part, *self._parts(*one.rows, width // one.size * query_shares.itemsize, 0)]
                return sealed_task(session, key, asked, parts)

            return self._task([one.rows for one in some], seal)

        if there:
            self._backend.fill(((task(cuts), cuts) for cuts in _packed(there, step)), out)
        for cut in here:
            self._here.slots(query_shares, [cut.slots], zero, out[:, cut.at : cut.at + cut.stop - cut.first])

    def _task(self, runs: Sequence[tuple[int, int]], seal: Callable[[bytes, AESGCM], bytes]) -> Task:
        files = {file.digest: file for start, stop in runs for file in self._files(start, stop)}
        start = runs[0][0]
        return Task(start, start + sum(stop - first for first, stop in runs), seal, files)

    @abstractmethod
    def _split(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """Rows that follow each other, (first, stop), and whether workers can have them."""

    @abstractmethod
    def _files(self, start: int, stop: int) -> Iterator[StoredFile]:
        """Files that have these rows."""

    @abstractmethod
    def _parts(self, start: int, stop: int, row: int, place: int) -> Iterator[_RowsPart]:
        """Parts of a task that have these rows, of ``row`` bytes each; their products come from ``place`` on."""


class _StoredRows(_DaskRows):
    def __init__(self, backend: DaskBackend, segments: Sequence[Segment], rows: int) -> None:
        super().__init__(backend, backend.cpu.load(segments, rows))
        self._segments = segments

    def _between(self, start: int, stop: int) -> Iterator[Segment]:
        """Segments of these rows."""
        at = max(0, bisect_right(self._segments, start, key=_first) - 1)
        return itertools.takewhile(lambda segment: segment.first < stop, self._segments[at:])

    def _split(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        begin, remote = start, False
        for segment in self._between(start, stop):
            if (segment.file is not None) != remote:
                at = max(start, segment.first)
                if at > begin:
                    yield begin, at, remote
                begin, remote = at, segment.file is not None
        if stop > begin:
            yield begin, stop, remote

    def _files(self, start: int, stop: int) -> Iterator[StoredFile]:
        for segment in self._between(start, stop):
            assert segment.file is not None  # the run is of files
            yield segment.file

    def _parts(self, start: int, stop: int, row: int, place: int) -> Iterator[_RowsPart]:
        for segment in self._between(start, stop):
            file, stored, at = segment.file, len(segment.words), segment.first - start + place
            assert file is not None  # the run is of files
            a, b = start - segment.first, stop - segment.first
            if segment.ordinals is None:
                a, b = max(a, 0), min(b, stored)
                yield StoredPart(file.digest, str(file.path), file.size, file.offset, a, b - a, at + a, -1)
            else:
                a, b = np.searchsorted(segment.ordinals, [a, b]).tolist()
                numbers = file.offset + stored * row
                yield StoredPart(file.digest, str(file.path), file.size, file.offset, a, b - a, -at, numbers)


class _KeystreamRows(_DaskRows):
    _few = _LINE << 4  # a task takes longer than these rows

    def __init__(self, backend: DaskBackend, parts: Sequence[Keystream]) -> None:
        super().__init__(backend, backend.cpu.load_keys(parts))
        self._keys = parts

    def _split(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        yield start, stop, True

    def _files(self, start: int, stop: int) -> Iterator[StoredFile]:
        return iter(())

    def _parts(self, start: int, stop: int, row: int, place: int) -> Iterator[_RowsPart]:
        for part, a, b in keys_of(self._keys, start, stop):
            yield self._part(part, a, b, a - start + place)

    def _part(self, part: Keystream, a: int, b: int, place: int) -> KeystreamPart:
        run = part.cut(a, b)
        numbers, index = np.unique(run.index, return_inverse=True)
        facts = [part.batches(int(n)) for n in numbers]
        ids = np.frombuffer(b"".join(f[0] for f in facts), np.uint8).reshape(-1, 16)
        return KeystreamPart(
            part.key(), place, ids, np.array([f[1] for f in facts], "<i8"), np.array([f[2] for f in facts], "<i8"),
            index.astype("<i8"), np.ascontiguousarray(run.first_row, "<i8"), np.ascontiguousarray(run.count, "<i8"),
        )  # fmt: skip
