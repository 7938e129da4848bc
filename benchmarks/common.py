"""Shared by the benchmarks: timing in turns, numpy's fair baseline, threads of both sides."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

Call = Callable[[], object]


def seconds(call: Call) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def fastest(ways: list[Call]) -> float:
    """Seconds of the fastest way, each called once."""
    return min(seconds(way) for way in ways)


@dataclass
class Pairs:
    """Seconds of both sides, measured in turn; only figures of one pair are compared."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Median of ours / theirs: smaller is better."""
        return round(statistics.median(o / t for o, t in zip(self.ours, self.theirs, strict=True)), 3)

    @property
    def times(self) -> float:
        """Median of theirs / ours: how many times as fast."""
        return round(statistics.median(t / o for o, t in zip(self.ours, self.theirs, strict=True)), 2)

    def medians(self, scale: float, digits: int = 2) -> tuple[float, float]:
        """Ours and theirs, in seconds times ``scale``."""
        ours, theirs = (round(scale * statistics.median(side), digits) for side in (self.ours, self.theirs))
        return ours, theirs


def in_turns(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> Pairs:
    """Both sides return their seconds; A B B A, so that a drift of the machine affects both."""
    pairs = Pairs()
    for turn in range(rounds):
        sides = [(ours, pairs.ours), (theirs, pairs.theirs)]
        for side, kept in sides if turn % 2 == 0 else reversed(sides):
            kept.append(side())
    return pairs


def paired(benchmark, ours: Call, theirs: Callable[[], float], *, rounds: int, items: int = 1) -> Pairs:
    """Run ``ours``, which does ``items`` at a time; before each round ``theirs``, which returns its seconds per item.

    The time shown is ours, of all items; ``ratio`` in extra_info is the median of paired ratios, ours / theirs.
    """
    pairs = Pairs()
    benchmark.pedantic(
        lambda: pairs.ours.append(seconds(ours) / items), setup=lambda: pairs.theirs.append(theirs()),
        rounds=rounds, warmup_rounds=0,
    )  # fmt: skip
    benchmark.extra_info["ratio"] = pairs.ratio
    return pairs


def numpy_products(rows: np.ndarray, queries: int) -> list[Call]:
    """The ways numpy offers for float32 ``rows`` times ``queries`` columns; the fastest is the fair baseline."""
    columns = np.random.default_rng(6).random((queries, rows.shape[1]), np.float32)
    wide, tall = np.zeros((queries, len(rows)), np.float32), np.zeros((len(rows), queries), np.float32)
    ways: list[Call] = [lambda: np.matmul(rows, columns.T, out=tall)]
    if queries == 1:
        flat = np.zeros(len(rows), np.float32)
        ways.append(lambda: np.matmul(rows, columns[0], out=flat))
    else:
        ways.append(lambda: np.matmul(columns, rows.T, out=wide))
    return ways


def random_words(shape: tuple[int, ...], dtype: type, seed: int = 5) -> np.ndarray:
    """Random words of an unsigned type; every page is touched."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@contextlib.contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Threads of numpy's BLAS; needs threadpoolctl, or for one thread OPENBLAS_NUM_THREADS=1 before numpy is loaded."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        if count != 1 or os.environ.get("OPENBLAS_NUM_THREADS") != "1":
            raise RuntimeError("install threadpoolctl, or set OPENBLAS_NUM_THREADS=1 before numpy is loaded") from None
        yield
        return
    with threadpool_limits(count):
        yield
