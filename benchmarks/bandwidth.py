"""How fast this machine's memory is read and written, by whatever does it fastest here: the limit of every kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from benchmarks.common import seconds

Part = Callable[[np.ndarray], object]


@numba.njit(nogil=True, cache=False)
def _sum(words):
    """Four sums at a time over four streams, so that the hardware's prefetchers have several to follow."""
    quarter = len(words) // 4
    a = b = c = d = np.uint64(0)
    for i in range(quarter):
        a += words[i]
        b += words[i + quarter]
        c += words[i + 2 * quarter]
        d += words[i + 3 * quarter]
    return a + b + c + d


def _set(words: np.ndarray) -> None:
    """The C library's memset, which goes past the caches for large blocks."""
    ctypes.memset(words.ctypes.data, 1, words.nbytes)


READS: dict[str, Part] = {
    "numba, 4 streams": _sum,
    "numpy sum": np.sum,
    "BLAS dot": lambda words: np.dot(words.view(np.float32), words.view(np.float32)),
}
WRITES: dict[str, Part] = {"memset": _set, "numpy fill": lambda words: words.fill(3)}


def measure(mib: int, threads: int, rounds: int = 7) -> dict[str, float]:
    """GB/s of reading and of writing ``mib`` MiB with so many threads: the fastest of all ways and rounds.

    BLAS must be limited to one thread outside (it runs in each of ours).
    """
    # small numbers as floats, too: sums and products of them stay numbers
    words = np.full((mib << 20) // 4, 1.0, np.float32).view(np.uint64)
    parts = np.array_split(words, threads)
    found = {}
    with ThreadPoolExecutor(threads) as pool:
        for kind, ways in (("read", READS), ("write", WRITES)):
            best = float("inf")
            for _ in range(rounds):
                for way in ways.values():
                    best = min(best, seconds(lambda way=way: list(pool.map(way, parts))))
            found[kind] = words.nbytes / best / 1e9
    return found
