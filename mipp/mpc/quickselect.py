"""Which positions are to be compared next: quickselect and sorting of the first k ranks, driven by opened bits.

Public from end to end: positions of shuffled keys and opened bits, no shares. The keys are distinct and their order at
the shuffled positions is uniform, so bits, choices and counts are a function of a uniform permutation and independent
of the data.

Positions are kept in segments, best first. A segment that reaches into the first k ranks is sorted by all its pairs
when it is small. One of middling size is compared with each of its first members, a uniform sample, in one call, and
falls apart at all of them. Of a large one the sample is sorted by all its pairs first, one of it becomes the pivot,
just below the rank that is wanted, and all members are compared with that. About one comparison per row and a few
calls in all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ProtocolError
from . import kernels as local

__all__ = ["SMALL", "Compare", "Quickselect", "cross_size", "pivot_rank", "sample_size"]

#: segments up to this size are sorted by all pairs
SMALL = 128
_SAMPLES = (16, 160)
#: comparisons that a call may spend on dividing one segment by a whole sample, and the least sample for it
_CROSS = 3 << 12
_LEAST_CROSS = 6


class Compare(NamedTuple):
    """Asks for ``size`` times [key at a > key at b]: position arrays, or one position b; ``a`` None means all."""

    a: np.ndarray | None
    b: np.ndarray | int
    size: int


def sample_size(n: int) -> int:
    """Sampled members of a segment of n > SMALL."""
    return min(max(math.isqrt(n), _SAMPLES[0]), _SAMPLES[1])


def cross_size(n: int) -> int:
    """Sampled members by which a segment of n > SMALL is divided in one call; 0 if that would cost too much."""
    s = min(_CROSS // n, SMALL)
    return s if s >= _LEAST_CROSS else 0


def pivot_rank(n: int, wanted: int) -> int:
    """Rank (0 is best) in the sorted sample of the pivot that about ``wanted`` of n members reach, with a margin."""
    s = sample_size(n)
    mean = s * wanted / n
    return min(math.ceil(mean + 3 * math.sqrt(mean)), s // 2)


@functools.lru_cache(maxsize=512)
def all_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs i < j."""
    i, j = np.triu_indices(n, 1)
    return i.astype(np.int64), j.astype(np.int64)


class _Segment:
    """Positions that share a range of ranks (None: all), and what is known of their order."""

    __slots__ = ("pivot", "positions", "sample", "size", "sorted")

    def __init__(self, positions: np.ndarray | None, size: int) -> None:
        self.positions, self.size = positions, size
        self.sample: np.ndarray | None = None  # sorted, best first
        self.pivot = -1
        self.sorted = size == 1

    @property
    def members(self) -> np.ndarray:
        return np.arange(self.size) if self.positions is None else self.positions


class Quickselect:
    """The first ``k`` of ``n`` positions, best first.

    Ask :meth:`requests`, answer with :meth:`feed`, until ``done``; then :attr:`order` is (k,) int64.

    Parameters
    ----------
    n, k : 1 <= k <= n
    """

    def __init__(self, n: int, k: int) -> None:
        self._k = k
        self._segments = [_Segment(None, n)]

    @property
    def done(self) -> bool:
        return all(s.sorted for s in self._segments)

    @property
    def order(self) -> np.ndarray:
        """Positions of ranks 0 .. k-1."""
        return np.concatenate([s.members for s in self._segments])[: self._k]

    def requests(self) -> list[Compare]:
        """The comparisons that are needed next, all at once."""
        return [self._request(s) for s in self._segments if not s.sorted]

    def _request(self, s: _Segment) -> Compare:
        if s.pivot >= 0:
            return Compare(s.positions, s.pivot, s.size)
        if s.size > SMALL and (cross := cross_size(s.size)):
            members = s.members
            return Compare(np.tile(members, cross), np.repeat(members[:cross], s.size), cross * s.size)
        some = s.members[: s.size if s.size <= SMALL else sample_size(s.size)]
        i, j = all_pairs(len(some))
        return Compare(some[i], some[j], len(i))

    def feed(self, answers: Sequence[np.ndarray]) -> None:
        """Opened bits for each of :meth:`requests`, in order: planes of uint64 words, bit i for comparison i.

        Raises
        ------
        ProtocolError
            The bits contradict every order.
        """
        left, rank, after = iter(answers), 0, []
        for s in self._segments:
            if rank >= self._k:
                break
            parts = [s] if s.sorted else self._learn(s, next(left), self._k - rank)
            for part in parts:
                if rank < self._k:
                    after.append(part)
                rank += part.size
        self._segments = after

    def _learn(self, s: _Segment, bits: np.ndarray, wanted: int) -> list[_Segment]:
        """The segments that one answer splits a segment into, of which the first ``wanted`` members are needed."""
        if s.pivot >= 0:
            return self._split(s, bits)
        if s.size > SMALL and (cross := cross_size(s.size)):
            return _divide(s, unpack(bits, cross * s.size).reshape(cross, s.size))
        some = s.members[: s.size if s.size <= SMALL else sample_size(s.size)]
        order = some[_order(unpack(bits, len(some) * (len(some) - 1) // 2), len(some))]
        if s.size <= SMALL:
            s.positions, s.sorted = order, True
        else:
            s.sample = order
            s.pivot = int(order[pivot_rank(s.size, wanted)])
        return [s]

    def _split(self, s: _Segment, bits: np.ndarray) -> list[_Segment]:
        assert s.sample is not None
        above, below = local.partition(s.members.view(np.uint64), bits)
        above, below = above.view(np.int64), below.view(np.int64)
        rank = int(np.flatnonzero(s.sample == s.pivot)[0])
        known = np.isin(s.sample, above, assume_unique=True)
        if not known[:rank].all() or known[rank:].any():
            raise _contradiction()
        below = below[below != s.pivot]
        parts = [(above, len(above)), (np.array([s.pivot]), 1), (below, len(below))]
        return [_Segment(p, size) for p, size in parts if size]


def _divide(s: _Segment, greater: np.ndarray) -> list[_Segment]:
    """Parts of a segment from [member > sampled member], (sample, members): what lies between, and each sampled one."""
    members, count = s.members, len(greater)
    rank = greater.sum(axis=1)
    order = np.argsort(rank, kind="stable")
    greater = greater[order]
    # each sampled member is below just those that have fewer above them, and whoever beats it beats the next
    nested = not (greater[:-1] & ~greater[1:]).any()
    own = greater[:, order]
    if not nested or not np.array_equal(own, np.tri(count, k=-1, dtype=bool)) or len(np.unique(rank)) != count:
        raise _contradiction()
    beaten = count - greater.sum(axis=0)  # how many of the sample a member does not beat: its place between them
    rest = np.ones(s.size, bool)
    rest[:count] = False
    parts = []
    for place in range(count + 1):
        between = members[rest & (beaten == place)]
        if len(between):
            parts.append(_Segment(between, len(between)))
        if place < count:
            parts.append(_Segment(members[order[place] : order[place] + 1], 1))
    return parts


def unpack(bits: np.ndarray, count: int) -> np.ndarray:
    """A plane's first ``count`` bits as bool."""
    return np.unpackbits(bits.astype("<u8").view(np.uint8), count=count, bitorder="little").view(bool)


def _order(greater: np.ndarray, n: int) -> np.ndarray:
    """Indices best first from [i > j] of all pairs i < j; each index must win a different number of times."""
    i, j = all_pairs(n)
    wins = np.bincount(np.where(greater, i, j), minlength=n)
    order = np.argsort(-wins, kind="stable")
    if not np.array_equal(wins[order], np.arange(n - 1, -1, -1)):
        raise _contradiction()
    return order


def _contradiction() -> ProtocolError:
    # rows and queries were checked: a server lies, or its data is damaged. Nothing more is said, nothing is tried again
    return ProtocolError("the servers' comparison contradicts every order; a server is at fault")
