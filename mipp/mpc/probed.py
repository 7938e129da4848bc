"""Scores of a query that looks at one cluster in each group: which rows they are of, at servers and at the user.

First come the clusters of all batches that are laid out (:mod:`mipp.encoding.clusters`): ``groups * slots`` scores of
a batch, of whichever clusters the user chose. Then come all other live rows: those of small batches, and the rest of
large ones. Deleted rows keep their slots: their words count as zeros, and the servers add a score below all others
where such a row's cluster was chosen. So a query may ask for as many rows as are live whatever it chose. Public facts,
but for the choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ..encoding.bounds import QueryRule
from ..encoding.clusters import Clusters
from ..errors import ParameterError, ProtocolError
from ..rpc.grants import PROBE
from .probes import Layout, probe_memory
from .replicated import Pair

__all__ = ["PROBE", "Piece", "ProbedRows", "add_least"]


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """The clusters of one batch: its first row among all original rows, its layout, and deleted rows, from 0 here."""

    first: int
    layout: Layout
    dead: np.ndarray


#: scores of rows without clusters that are computed at a time, where some are deleted
OTHER_WORDS = 1 << 23


class ProbedRows:
    """The rows that a query with a choice covers, and the order of its scores.

    Parameters
    ----------
    clusters : of the index
    rows : original rows of each batch, in the order of the query
    dead : numbers of deleted rows among all original rows, ascending

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding
    >>> from mipp.encoding.clusters import Clusters
    >>> from mipp.mpc.probed import ProbedRows
    >>> clusters = Clusters.of(Encoding("cosine", 2), np.array([[1, 0], [0, 1], [1, 1], [1, -1]]), 2, least=1)
    >>> rows = ProbedRows(clusters, [9, 3], np.array([1]))  # two rows a cluster and one more; three rows without
    >>> rows.scores, rows.least_live
    (8, 7)
    >>> rows.originals(np.array([[1, 4, 7]]), np.array([[1, 0]]))
    array([[ 3,  8, 11]])
    """

    def __init__(self, clusters: Clusters, rows: Sequence[int], dead: np.ndarray) -> None:
        self.clusters = clusters
        self.pieces: list[Piece] = []
        #: runs of other original rows, (first, stop)
        self.runs: list[tuple[int, int]] = []
        first = 0
        for count in rows:
            slots, inside = clusters.slots(count), 0
            if slots:
                layout = Layout(clusters.groups, clusters.size, slots)
                inside = layout.rows
                a, b = np.searchsorted(dead, [first, first + inside]).tolist()
                self.pieces.append(Piece(first, layout, dead[a:b] - first))
            if inside < count:
                self._run(first + inside, first + count)
            first += count
        #: where the scores of each piece begin, and those of other rows
        self.starts = np.concatenate([[0], np.cumsum([p.layout.scores for p in self.pieces])]).astype(np.int64)
        self._dead = dead
        edges = np.array(self.runs, np.int64).reshape(-1, 2)
        before = np.searchsorted(dead, edges)
        # live rows of the runs up to the end of each, and of all original rows before the beginning of each
        self._others = np.cumsum(np.diff(edges - before).reshape(-1), dtype=np.int64)
        self._live_before = (edges - before)[:, 0]
        others = int(self._others[-1]) if self.runs else 0
        #: scores of a query
        self.scores = int(self.starts[-1]) + others
        #: rows that are live among them, whatever was chosen
        self.least_live = self.scores
        if self.pieces:
            # one choice for all batches: in each group that of the cluster which lost most rows
            gone = np.zeros((clusters.groups, clusters.size), np.int64)
            for piece in self.pieces:
                _count_gone(piece, gone)
            self.least_live -= int(gone.max(axis=1).sum())

    def _run(self, start: int, stop: int) -> None:
        if self.runs and self.runs[-1][1] == start:
            start = self.runs.pop()[0]
        self.runs.append((start, stop))

    @property
    def clustered(self) -> int:
        """Original rows that lie in clusters."""
        return sum(piece.layout.rows for piece in self.pieces)

    def others(self, queries: int) -> Iterator[list[tuple[int, int, np.ndarray | None]]]:
        """Runs of rows without clusters, as many together as are multiplied with ``queries`` queries at a time.

        Each is (first, stop, which of its rows are live, from 0, or None for all). Rows between live ones that lie far
        apart are left out.
        """
        some, room = list[tuple[int, int, np.ndarray | None]](), self._at_once(queries)
        for start, stop in self.runs:
            while start < stop:
                end = min(start + room, stop)
                first, last, live = self._live(start, end)
                start = end
                if first < last:
                    some.append((first, last, live))
                    room -= last - first
                if not room:
                    yield some
                    some, room = [], self._at_once(queries)
        if some:
            yield some

    @staticmethod
    def _at_once(queries: int) -> int:
        return max(1, OTHER_WORDS // queries)

    def other_words(self, queries: int) -> int:
        """Words of scores that a server holds at a time beside its results, for rows without clusters."""
        rows = sum(stop - start for start, stop in self.runs)
        return 0 if rows == self.scores - int(self.starts[-1]) else queries * min(rows, self._at_once(queries))

    def memory(self, queries: int, rule: QueryRule) -> int:
        """Bytes that a server holds at once for query shares and for rows without clusters, beside the ranking's."""
        made = probe_memory(self.clusters.count, queries, rule.width, rule.ring_bits)
        return made + self.other_words(queries) * rule.ring_bits // 8

    def _live(self, start: int, stop: int) -> tuple[int, int, np.ndarray | None]:
        """The first live row from ``start`` to ``stop``, the end of the last, and which are live between."""
        a, b = np.searchsorted(self._dead, [start, stop]).tolist()
        if a == b:
            return start, stop, None
        alive = np.ones(stop - start, bool)
        alive[self._dead[a:b] - start] = False
        live = np.flatnonzero(alive)
        if not len(live):
            return start, start, None
        first, last = int(live[0]), int(live[-1]) + 1
        return start + first, start + last, None if len(live) == last - first else live - first

    def require(self, k: int) -> None:
        """ParameterError for a k that is more than rows that are live whatever is chosen."""
        if k > self.least_live == 0:
            raise ParameterError(
                "a search of chosen clusters is sure to cover no row: all rows of some clusters are deleted; search "
                "all rows instead"
            )
        if k > self.least_live:
            raise ParameterError(
                f"k={k} is more than the {self.least_live} rows that a search of chosen clusters is sure to cover; "
                "search all rows instead"
            )

    def originals(self, positions: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Original rows of scores.

        Parameters
        ----------
        positions : (B, k) numbers of scores; secret
        chosen : (B, groups) the cluster of each group; secret

        Returns
        -------
        (B, k) int64; secret
        """
        out = np.empty(positions.shape, np.int64)
        piece_of = np.searchsorted(self.starts, positions, side="right") - 1
        query = np.broadcast_to(np.arange(len(positions))[:, None], positions.shape)
        for number, piece in enumerate(self.pieces):
            there = piece_of == number
            slot = positions[there] - self.starts[number]
            choice = chosen[query[there], slot // piece.layout.slots]
            out[there] = piece.first + slot * piece.layout.size + choice
        rest = positions >= self.starts[-1]
        at = positions[rest] - self.starts[-1]
        runs = np.searchsorted(self._others, at, side="right")
        # the n-th live row of all lies behind as many deleted ones as there are with fewer live rows than that before
        number = self._live_before[runs] + at - np.concatenate([[0], self._others])[runs]
        dead_after = self._dead - np.arange(len(self._dead))
        out[rest] = number + np.searchsorted(dead_after, number, side="right")
        if np.isin(out, self._dead).any():
            raise ProtocolError("the user's parts: the servers found rows that are deleted")
        return out


def add_least(words: np.ndarray, probed: ProbedRows, choice: Pair, least: int) -> None:
    """Add to this server's score shares the score ``least`` of deleted rows whose cluster was chosen; in place.

    The words of deleted rows count as zeros in the products, and whether a cluster was chosen is shared.

    Parameters
    ----------
    words : (B, scores) score shares, changed; secret
    probed : which rows they are of
    choice : this party's two summands; one of them, taken by each party, is an additive share; secret
    least : a public constant
    """
    factor = words.dtype.type(least % (1 << 8 * words.dtype.itemsize))
    for piece, start in zip(probed.pieces, probed.starts.tolist(), strict=False):
        slot, inside = np.divmod(piece.dead, piece.layout.size)
        cluster = slot // piece.layout.slots * piece.layout.size + inside
        for into, mine in zip(words, choice.lo.astype(words.dtype), strict=True):
            np.add.at(into, start + slot, mine[cluster] * factor)


def _count_gone(piece: Piece, gone: np.ndarray) -> None:
    """Add the number of deleted rows of each cluster to (groups, size) ``gone``."""
    if len(piece.dead):
        layout = piece.layout
        group, inside = np.divmod(piece.dead, layout.slots * layout.size)
        counts = np.bincount(group * layout.size + inside % layout.size, minlength=layout.clusters)
        gone += counts.reshape(gone.shape)
