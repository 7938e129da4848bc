"""Stored rows and rows that are made from keys, as servers give them to a backend, and what workers answer with."""

import hashlib
import os
import secrets
import signal

import numpy as np

from mipp.backends import CpuBackend, Keystream, Segment, StoredFile, ZeroShare, tasks
from mipp.backends.dask import DaskBackend
from mipp.params import Params
from mipp.sharing import Run, batch_schedules

KEYS = {2: b"K" * 31 + b"2", 3: b"K" * 31 + b"3"}
DIM, HEAD = 16, 256


def words_of(rows, dtype, seed):
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(0, info.max, (rows, DIM), dtype, endpoint=True)


def stored(folder, words, ordinals=None):
    """A file as the store writes it: a head, words, numbers of rows, SHA-256."""
    body = bytes(HEAD) + words.tobytes() + (b"" if ordinals is None else ordinals.astype("<i8").tobytes())
    digest = hashlib.sha256(body).digest()
    path = folder / digest.hex()[:8]
    path.write_bytes(body + digest)
    mapped = np.memmap(path, words.dtype, "r", HEAD, words.shape)
    return mapped, StoredFile(path, len(body) + 32, digest, HEAD)


def zero_share(nonces, rows):
    """A mask over batches of so many rows each."""
    starts = np.concatenate([[0], np.cumsum(rows)])

    def batches(start, stop):
        a, b = int(np.searchsorted(starts, start, side="right")) - 1, int(np.searchsorted(starts, stop))
        edges = starts[a : b + 1].copy()
        first = start - int(edges[0])
        edges[0], edges[-1] = start, stop
        return nonces[a:b], np.diff(edges), first

    return ZeroShare(1, [1, 2, 3], KEYS, secrets.token_bytes(32), batches)


class Index:
    """Batches of one cloud: in files, in memory, with rows that were compacted away."""

    def __init__(self, folder, dtype=np.uint32, rows=(5000, 300, 4000, 700, 6000)):
        self.rows, self.segments, first = rows, [], 0
        for n, count in enumerate(rows):
            words, ordinals = words_of(count, dtype, n), None
            if n == 2:
                ordinals = np.flatnonzero(np.random.default_rng(9).random(count) < 0.7)
                words = words[ordinals]
            if count >= 1000:
                mapped, file = stored(folder, words, ordinals)
                self.segments.append(Segment(mapped, first, ordinals, file))
            else:
                self.segments.append(Segment(words, first, ordinals))
            first += count
        self.total, self.dtype = first, dtype
        self.live = np.ones(first, bool)
        gone = np.setdiff1d(np.arange(rows[2]), self.segments[2].ordinals)
        self.live[rows[0] + rows[1] + gone] = False
        self.zero = zero_share(np.random.default_rng(1).integers(0, 256, (len(rows), 16), np.uint8), rows)

    def query(self, count):
        return words_of(count, self.dtype, 77)

    def expected(self, query, start, stop):
        out = np.empty((len(query), stop - start), self.dtype)
        params = Params(3, 1, 8 * out.itemsize)
        CpuBackend(params, 1).load(self.segments, self.total).scores(query, [(start, stop)], self.zero, out)
        return out

    def check(self, backend, query, start=0, stop=None):
        stop = self.total if stop is None else stop
        out = np.empty((len(query), stop - start), self.dtype)
        backend.load(self.segments, self.total).scores(query, [(start, stop)], self.zero, out)
        live = self.live[start:stop]
        assert np.array_equal(out[:, live], self.expected(query, start, stop)[:, live])


def keystreams(rows_of_owners, dtype=np.uint32):
    """Rows of the key centre: batches of several owners, and how many rows all have."""
    owners, start = [], 0
    for n, rows in enumerate(rows_of_owners):
        key, ids = bytes([n + 1]) * 32, [bytes([n, b]) * 8 for b in range(len(rows))]
        starts = np.concatenate([[start], start + np.cumsum(rows)])

        def cut(a, b, starts=starts):
            lo, hi = int(np.searchsorted(starts, a, side="right")) - 1, int(np.searchsorted(starts, b))
            edges = np.clip(starts[lo : hi + 1], a, b)
            skip = np.zeros(hi - lo, np.int64)
            skip[0] = a - int(starts[lo])
            return Run(np.arange(lo, hi), skip, np.diff(edges))

        def schedules(key=key, ids=ids, rows=rows):
            return batch_schedules(key, ids, [DIM] * len(rows), rows, 8 * np.dtype(dtype).itemsize)

        run = Run(np.arange(len(rows)), np.zeros(len(rows), np.int64), np.array(rows))
        facts = lambda i, ids=ids, rows=rows: (ids[i], DIM, rows[i])  # noqa: E731
        owners.append(Keystream(schedules, start, int(starts[-1]), run, cut, lambda key=key: key, facts))
        start = int(starts[-1])
    return owners, start


def backend_of(pool, dtype=np.uint32):
    return DaskBackend(Params(3, 1, 8 * np.dtype(dtype).itemsize), 1, pool, 1)


def kill_in_the_middle(pool):
    """A worker is killed when the first result of the next product comes; the list that is given has an entry then."""
    pids = [pid for _, _, pid in pool.client.run(tasks.hello).values()]
    real, killed = pool._taken, []

    def taken(*given):
        if not killed:
            killed.append(os.kill(pids[0], signal.SIGKILL))
        return real(*given)

    pool._taken = taken
    return killed
