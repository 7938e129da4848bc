"""Top-k of shared scores: nobody but the user learns which rows, or anything else but how many.

Before the shuffle each server forms locally K = 2^r score + (2^r - 1 - row) mod 2^(w+r), r = ceil(log2 N), w the least
width that holds differences of scores: keys are distinct, larger is better, ties go to the smaller row. Shuffled keys
are compared with opened bits (:mod:`.quickselect`); the winners' K, or only K mod 2^r, goes to the user in rank order.

Cost: hello, 3 rounds of shuffle, a few calls of the comparison (a little over N comparisons in all), confirm; see
:func:`mipp.mpc.cost.top_k_cost`, and :func:`mipp.mpc.cost.top_k_memory` for what a server holds at once. Leakage to the
servers: none beyond N, k, the number of queries; opened bits are a function of a uniform permutation that no server
knows. To the user: k rows in order, and their scores if granted.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import MessageError, ParameterError, ProtocolError
from ..io.memory import aligned_words
from ..params import RING_DTYPES
from .comparison import Circuit, check_circuit, less_than, pieces
from .query_proof import check_relations
from .quickselect import Compare, Quickselect
from .replicated import Pair, UserShare, together
from .session import Party, Public
from .shuffle import shuffle

__all__ = ["KeyRoom", "combine_top_k", "distinct_keys", "top_k"]

#: bytes of a cache line
_LINE = 64
#: keys that are made at once
_AT_ONCE = 1 << 18


def distinct_keys(party_index: int, words: np.ndarray, row_bits: int, out: np.ndarray | None = None) -> np.ndarray:
    """This party's additive shares of K for (N,) score words: (N,) uint64, of which the low w + r bits count.

    A share times 2^r is a share mod 2^(w+r) of the score times 2^r; party 1 adds the public part. ``out``, if given,
    may end where ``words`` end.
    """
    keys = np.empty(len(words), np.uint64) if out is None else out
    last = (1 << row_bits) - 1
    for start in range(0, len(words), _AT_ONCE):
        # a copy: what is written may lie where these words lie, but not where later ones do
        some = words[start : start + _AT_ONCE].astype(np.uint64)
        np.left_shift(some, np.uint64(row_bits), out=some)
        if party_index == 1:
            some += np.arange(last - start, last - start - len(some), -1, dtype=np.int64).view(np.uint64)
        keys[start : start + len(some)] = some
    return keys


class KeyRoom:
    """Memory for keys, at first used for the score shares that they are made of: 8 bytes a row, and nothing beside.

    Parameters
    ----------
    queries : B
    public : what all parties agree on

    Secret: what is written here. Taken over by :func:`top_k`, once.
    """

    def __init__(self, queries: int, public: Public) -> None:
        self._shape = queries, public.rows
        dtype = np.dtype(RING_DTYPES[public.ring_bits])
        line = _LINE // dtype.itemsize
        width = -(-public.rows // line) * line
        raw = aligned_words(queries, width * 8 // dtype.itemsize, dtype)
        self._keys: list[np.ndarray] = [row.view(np.uint64)[: public.rows] for row in raw]
        start = raw.shape[1] - width
        #: (B, N) words of the ring: where score shares go. Each row begins at a cache line
        self.words = raw[:, start : start + public.rows]

    def __repr__(self) -> str:
        return f"KeyRoom({self._shape[0]} queries, {self._shape[1]} rows, secret hidden)"

    def __reduce__(self) -> str:
        raise TypeError("score shares and keys are secret and do not pickle")

    def keys(self, party_index: int, row_bits: int) -> list[np.ndarray]:
        """The keys, where the score shares were; ``words`` is gone."""
        words, keys = self.words, self._keys
        del self.words, self._keys
        for row, into in zip(words, keys, strict=True):
            distinct_keys(party_index, row, row_bits, into)
        return keys


def top_k(
    party: Party, shares: np.ndarray | KeyRoom, k: int, public: Public, *, scores: bool = True,
    circuit: Circuit = "tree", zero: np.ndarray | None = None, fill: Callable[[Party], None] | None = None,
) -> UserShare:  # fmt: skip
    """The k best rows of each query: this party's shares of them, for the user alone.

    Parameters
    ----------
    party : new, one per attempt
    shares : (B, N) or (N,) words of the ring, this party's additive shares of B queries' scores; secret. A
        :class:`KeyRoom` that has them is used up, and takes no second copy
    k : 1 <= k <= N, public
    public : what all parties agree on
    scores : whether the user also gets the scores
    circuit : as in :func:`mipp.mpc.comparison.sign_shares`
    zero : this party's shares of what is zero for a query in range (:func:`mipp.mpc.query_proof.relations`).
        Without it the queries are trusted to keep the bounds; opened bits may tell about rows if they do not
    fill : writes the score shares into the KeyRoom, where they take rounds of their own (:mod:`.probes`): called after
        ``zero`` goes along with its first round

    Returns
    -------
    UserShare
        For :func:`combine_top_k`; words (B, k) in rank order, uniform without the other two.

    Raises
    ------
    ParameterError, ScoreRangeError, ShapeError, DTypeError
        Bad input, before the first round.
    OutOfRangeError
        A query is out of range; known before any score is compared.
    StaleSnapshotError, ProtocolError, MessageError
        The parties disagree, one failed, or bits contradict an order: nothing is known to anybody.
    """
    with party.attempt():
        words = public.words(shares.words if isinstance(shares, KeyRoom) else shares)
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= public.rows:
            raise ParameterError(f"k must be from 1 to {public.rows}, not {k!r}")
        check_circuit(circuit)
        width, queries = public.key_bits, len(words)
        parameters = public.digest("top-k", queries, k, scores)
        party.hello(public.header, public.digest("top-k", queries, k, scores, circuit), public.snapshot)
        if zero is not None:
            check_relations(party, zero)
        if fill is not None:
            fill(party)
        if isinstance(shares, KeyRoom):
            keys = shares.keys(party.index, public.row_bits)
        else:
            keys = [distinct_keys(party.index, row, public.row_bits) for row in words]
        del words, shares
        shuffled = shuffle(party, keys, width)
        orders = _select(party, shuffled, k, width, circuit)
        bits = width if scores else public.row_bits
        mask = np.uint64((1 << bits) - 1)
        out = np.stack([pair.lo[order] for pair, order in zip(shuffled, orders, strict=True)]) & mask
        party.confirm()
        return UserShare(party.index, party.session, parameters, queries, public.rows, out)


def _select(party: Party, keys: Sequence[Pair], k: int, width: int, circuit: Circuit) -> list[np.ndarray]:
    """Positions of the first k ranks of each query; all queries' comparisons of a step share their rounds."""
    selects = [Quickselect(len(pair.lo), k) for pair in keys]
    while not all(s.done for s in selects):
        asked = [s.requests() for s in selects]
        starts = [0, *itertools.accumulate(_padded(c) for cs in asked for c in cs)]
        flat = [(pair, c) for pair, cs in zip(keys, asked, strict=True) for c in cs]
        bits = np.concatenate([
            less_than(party, _differences(flat, starts, some), width, circuit) for some in pieces(starts[-1])
        ])  # fmt: skip
        at = 0
        for select, cs in zip(selects, asked, strict=True):
            answers = []
            for c in cs:
                answers.append(bits[at : at + _padded(c) // 64])
                at += _padded(c) // 64
            select.feed(answers)
    return [s.order for s in selects]


def _padded(c: Compare) -> int:
    """Comparisons that a request takes up: whole words."""
    return -(-c.size // 64) * 64


def _differences(flat: Sequence[tuple[Pair, Compare]], starts: Sequence[int], wanted: range) -> Pair:
    """K[b] - K[a] of the wanted ones of all requests, which begin at ``starts``; padding is zero."""
    out = Pair(np.zeros(len(wanted), np.uint64), np.zeros(len(wanted), np.uint64))
    for number in range(bisect.bisect_right(starts, wanted.start) - 1, len(flat)):
        (keys, c), at = flat[number], starts[number]
        if at >= wanted.stop:
            break
        first, last = max(wanted.start, at), min(wanted.stop, at + c.size)
        if first < last:
            a, b = c.positions(first - at, last - at)
            for key, differences in zip(keys, out, strict=True):
                np.subtract(key[b], key[a], out=differences[first - wanted.start : last - wanted.start])
    return out


def combine_top_k(
    shares: Sequence[UserShare], public: Public, *, scores: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """The user's part of :func:`top_k`: rows and scores from the three servers' shares.

    Parameters
    ----------
    shares : one of each server
    public, scores : as the servers had them

    Returns
    -------
    rows : (B, k) int64, best first, ties by smaller row
    scores : (B, k) int64, or None when they were not granted

    Raises
    ------
    ProtocolError, MessageError
        Not one part of each server, parts of different sessions, or parts that add up to no ranking.
    """
    first, *others = together(shares)
    if first.rows != public.rows or first.words.ndim != 2 or len(first.words) != first.queries:
        raise MessageError("the user's parts: shares of a ranking of other shape")
    r = public.row_bits
    bits = public.key_bits if scores else r
    if first.parameters != public.digest("top-k", first.queries, first.words.shape[1], scores):
        raise ProtocolError("the user's parts: these are shares of a ranking with other parameters")
    keys = (first.words + others[0].words + others[1].words) & np.uint64((1 << bits) - 1)
    last = np.uint64((1 << r) - 1)
    rows = (last - (keys & last)).astype(np.int64)
    distinct = all(len(set(ranking)) == len(ranking) for ranking in rows.tolist())
    if not distinct or int(rows.max()) >= public.rows:
        raise ProtocolError("the user's parts: the shares add up to no ranking")
    if not scores:
        return rows, None
    w = public.score_bits
    # the one value of low..high that is the high bits mod 2^w
    offset = ((keys >> np.uint64(r)) - np.uint64(public.low % (1 << w))) & np.uint64((1 << w) - 1)
    if int(offset.max()) > public.high - public.low:
        raise ProtocolError("the user's parts: the shares add up to scores out of range")
    values = (offset.astype(np.int64) + np.int64(public.low)).astype(np.int64)
    worse = (values[:, 1:] < values[:, :-1]) | ((values[:, 1:] == values[:, :-1]) & (rows[:, 1:] > rows[:, :-1]))
    if not worse.all():
        raise ProtocolError("the user's parts: the shares add up to no ranking")
    return rows, values
