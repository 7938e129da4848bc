"""Bandwidth of reading and writing this machine's memory by the fastest way found: the limit of every kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from benchmarks.common import seconds

Part = Callable[[np.ndarray], object]


@numba.njit(nogil=True)
def _sum(words):
    """Four streams at a time, so that the hardware's prefetchers have several to follow."""
    quarter = len(words) // 4
    a = b = c = d = np.uint64(0)
    for i in range(quarter):
        a += words[i]
        b += words[i + quarter]
        c += words[i + 2 * quarter]
        d += words[i + 3 * quarter]
    return a + b + c + d


def _set(words: np.ndarray) -> None:
    """The C library's memset, which bypasses the caches for large blocks."""
    ctypes.memset(words.ctypes.data, 1, words.nbytes)


READS: dict[str, Part] = {
    "numba, 4 streams": _sum,
    "numpy sum": np.sum,
    "BLAS dot": lambda words: np.dot(words.view(np.float32), words.view(np.float32)),
}
WRITES: dict[str, Part] = {"memset": _set, "numpy fill": lambda words: words.fill(3)}


class Memory:
    """A block of memory, and the fastest ways found to read and to write it with some threads.

    BLAS must be limited to one thread outside: it runs in each of ours.
    """

    def __init__(self, mib: int, threads: int) -> None:
        # small numbers as floats, too: sums and products of them stay numbers
        self._words = np.full((mib << 20) // 4, 1.0, np.float32).view(np.uint64)
        self._parts = np.array_split(self._words, threads)
        self._pool = ThreadPoolExecutor(threads)
        self.ways = {kind: self._fastest(ways) for kind, ways in (("read", READS), ("write", WRITES))}

    def _run(self, way: Part) -> float:
        return seconds(lambda: list(self._pool.map(way, self._parts)))

    def _fastest(self, ways: dict[str, Part]) -> Part:
        best = {name: min(self._run(way) for _ in range(5)) for name, way in ways.items()}
        return ways[min(best, key=best.__getitem__)]

    def once(self) -> tuple[float, float]:
        """GB/s of reading and of writing now."""
        read, write = (self._words.nbytes / self._run(self.ways[kind]) / 1e9 for kind in ("read", "write"))
        return read, write
