"""Which positions are to be compared next: quickselect and sorting of the first k ranks, driven by opened bits.

Public from end to end: positions of shuffled keys and opened bits, no shares. The keys are distinct and their order at
the shuffled positions is uniform, so bits, choices and counts are a function of a uniform permutation and independent
of the data.

Positions are kept in segments, best first. Each call of the comparison may spend :func:`spare` comparisons, a sixteenth
of one a row, so that few calls are needed: a call takes rounds. A segment that reaches into the first k ranks is sorted
by all its pairs if they are not more. A larger one is compared with each of its first members, a uniform sample, in one
call, and falls apart at all of them. Of one that is too large for that, a sample is sorted by all its pairs first, one
of the sample becomes the pivot, just below the rank that is wanted, and all members are compared with that. About 1.13
comparisons a row and 4 calls in all for the first ten of 1M.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ProtocolError

__all__ = ["Compare", "Quickselect", "cross_size", "pivot_rank", "sample_size", "spare"]

#: what a call may spend: this many comparisons, or one for so many rows if that is more
_LEAST_SPARE, _ROWS_A_SPARE = 3 << 12, 16
#: the least sample that is worth dividing a segment by in one call
_LEAST_CROSS = 4
#: a pivot may lie above the wanted rank with this chance: then the rest has to be searched, too
_TOO_HIGH = 0.01
#: all pairs of so many members are kept for the next call
_KEPT_PAIRS = 128


class Compare(NamedTuple):
    """Asks for ``size`` times [key at a > key at b].

    Parameters
    ----------
    members : positions; None means all
    others : one position, with which all members are compared; or positions, with each of which in turn all members
        are; or None: each member is compared with all later ones
    size : number of comparisons
    """

    members: np.ndarray | None
    others: np.ndarray | int | None
    size: int

    def positions(self, start: int, stop: int) -> tuple[np.ndarray | slice, np.ndarray | int]:
        """a and b of comparisons ``start`` to ``stop``. Made when they are needed: all of a call may be very many."""
        if isinstance(self.others, int):
            return slice(start, stop) if self.members is None else self.members[start:stop], self.others
        assert self.members is not None
        if self.others is None:
            i, j = (index[start:stop] for index in all_pairs(len(self.members)))
            return self.members[i], self.members[j]
        which = np.arange(start, stop)
        return self.members[which % len(self.members)], self.others[which // len(self.members)]


def spare(rows: int) -> int:
    """Comparisons that a call may spend, besides one a row, when ``rows`` are ranked."""
    return max(_LEAST_SPARE, rows // _ROWS_A_SPARE)


def sample_size(rows: int) -> int:
    """Members whose pairs are what a call may spend: so many are sorted at once, as a segment or as a sample of one."""
    return math.isqrt(2 * spare(rows))


def cross_size(n: int, rows: int) -> int:
    """Sampled members by which a segment of n > :func:`sample_size` is divided in one call; 0: that costs too much."""
    s = spare(rows) // n
    return s if s >= _LEAST_CROSS else 0


@functools.lru_cache(maxsize=256)
def pivot_rank(n: int, wanted: int, sample: int) -> int:
    """Rank (0 is best) in a sorted sample of n members of the pivot that ``wanted`` of the n reach, almost surely.

    The least rank p such that more than p of the sample are among the first ``wanted`` with a chance below one in a
    hundred (binomial), at most the middle. Sums, products and quotients alone: they are rounded alike at all servers.
    """
    if 2 * wanted >= n:
        return sample // 2
    one, chance, rank = wanted / n, 1.0, 0
    for _ in range(sample):
        chance *= 1 - one
    above = 1 - chance
    while above > _TOO_HIGH and rank < sample // 2:
        chance *= (sample - rank) * one / ((rank + 1) * (1 - one))
        rank += 1
        above -= chance
    return rank


def all_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs i < j."""
    return _kept_pairs(n) if n <= _KEPT_PAIRS else _made_pairs(n)


def _made_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    others = np.arange(n - 1, -1, -1)
    i = np.repeat(np.arange(n), others)
    before = np.cumsum(others) - others
    return i, np.arange(len(i)) - before[i] + i + 1


_kept_pairs = functools.lru_cache(maxsize=_KEPT_PAIRS)(_made_pairs)


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
        return self.first(self.size)

    def first(self, count: int) -> np.ndarray:
        """The first members, or all if they are fewer."""
        return np.arange(min(count, self.size)) if self.positions is None else self.positions[:count]


class Quickselect:
    """The first ``k`` of ``n`` positions, best first.

    Ask :meth:`requests`, answer with :meth:`feed`, until ``done``; then :attr:`order` is (k,) int64.

    Parameters
    ----------
    n, k : 1 <= k <= n
    """

    def __init__(self, n: int, k: int) -> None:
        self._k, self._rows, self._sample = k, n, sample_size(n)
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
        if s.size > self._sample and (cross := cross_size(s.size, self._rows)):
            members = s.members
            return Compare(members, members[:cross], cross * s.size)
        some = s.first(self._sample)
        return Compare(some, None, len(some) * (len(some) - 1) // 2)

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
        self._segments = _joined(after)

    def _learn(self, s: _Segment, bits: np.ndarray, wanted: int) -> list[_Segment]:
        """The segments that one answer splits a segment into, of which the first ``wanted`` members are needed."""
        if s.pivot >= 0:
            return self._split(s, bits, wanted)
        if s.size > self._sample and (cross := cross_size(s.size, self._rows)):
            return _divide(s, unpack(bits, cross * s.size).reshape(cross, s.size))
        some = s.first(self._sample)
        order = some[_order(unpack(bits, len(some) * (len(some) - 1) // 2), len(some))]
        if s.size <= self._sample:
            s.positions, s.sorted = order, True
        else:
            s.sample = order
            s.pivot = int(order[pivot_rank(s.size, wanted, self._sample)])
        return [s]

    def _split(self, s: _Segment, bits: np.ndarray, wanted: int) -> list[_Segment]:
        """What is above the pivot, the pivot, and what is below it unless that is not ``wanted``: it is nearly all."""
        assert s.sample is not None
        chosen = unpack(bits, s.size)
        above = np.flatnonzero(chosen) if s.positions is None else s.positions[chosen]
        rank = int(np.flatnonzero(s.sample == s.pivot)[0])
        known = np.isin(s.sample, above, assume_unique=True)
        if not known[:rank].all() or known[rank:].any():
            raise _contradiction()
        parts = [(above, len(above)), (np.array([s.pivot]), 1)]
        if len(above) + 1 < wanted:
            below = s.members[~chosen]
            parts.append((below[below != s.pivot], s.size - 1 - len(above)))
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


def _joined(segments: Sequence[_Segment]) -> list[_Segment]:
    """Sorted segments that are neighbours as one: of many ranks each would be an object of its own."""
    out: list[_Segment] = []
    for done, some in itertools.groupby(segments, key=lambda s: s.sorted):
        group = list(some)
        if done and len(group) > 1:
            whole = _Segment(np.concatenate([s.members for s in group]), sum(s.size for s in group))
            whole.sorted = True
            group = [whole]
        out += group
    return out


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
    return ProtocolError("bits that were opened (open) contradict every order: a server is at fault")
