"""Flat indexes with faiss's argument conventions over an encrypted deployment."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ...encoding import Encoding
from ...encoding.finest import MISSES, check_queries, check_whole, judged, misses, query_factors
from ...errors import DTypeError, EncodingError, NotFoundError, ParameterError, ScoreRangeError, ShapeError
from .home import Home
from .selectors import as_ids, selected

__all__ = ["METRIC_INNER_PRODUCT", "METRIC_L2", "Index"]

METRIC_INNER_PRODUCT, METRIC_L2 = 0, 1
METRICS = ("ip", "l2")
_OWNER = "owner"
#: what faiss gives for a neighbour that there is not
_FAR = np.float32(np.finfo(np.float32).max)
_SCORE_BYTES = 1 << 28
#: what indexes of faiss have and these have not, by name
_NOT_HERE = {
    "codes": "rows are encrypted; reconstruct_n decrypts them",
    "get_xb": "rows are encrypted; reconstruct_n decrypts them",
    "xb": "rows are encrypted; reconstruct_n decrypts them",
    "sa_encode": "rows are encrypted under keys of their owner; write_index keeps them",
    "sa_decode": "rows are encrypted under keys of their owner; reconstruct_n decrypts them",
    "get_distance_computer": "servers compute distances; search and range_search give them",
    "compute_distance_subset": "servers compute distances; search takes a selector of rows",
}
#: an encoding that loses more of the nearest rows is refused
_MOST_MISSES = 0.05
#: new rows that are looked at by themselves; how much shorter than all before they are to have all looked at
_LEAST_JUDGED, _JUDGED, _SHORTER = 20, 2000, 8
#: steps of the longest row, of the query's fineness, below which fractional queries between whole rows lose neighbours
_STEPS = 1 << 18

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Index:
    """What all indexes have: see :class:`~mipp.compat.faiss.IndexFlat`."""

    _home: Home
    #: whether rows get their ids here though the home's are fixed
    _maps = False

    @property
    def _mapped(self) -> bool:
        """Whether ids are the caller's in all that this object gives."""
        return self._maps or (self._home.ids == "map" and not self._home.settings.fixed_ids)

    #: taken and not looked at, as programs set it
    verbose = False
    #: of the metrics that are here, none has one
    metric_arg = 0.0

    def __getattr__(self, name: str) -> Any:
        reason = f": {_NOT_HERE[name]}" if name in _NOT_HERE else ""
        raise AttributeError(f"{type(self).__name__} has no {name}{reason}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(d={self.d}, ntotal={self.ntotal})"

    def __reduce__(self) -> str:
        raise TypeError("an index holds secret keys and does not pickle; use write_index")

    def close(self) -> None:
        """Close all files; a temporary folder is deleted. Happens by itself when the index is collected."""
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def d(self) -> int:
        """Numbers per vector."""
        return self._home.settings.d

    @property
    def ntotal(self) -> int:
        """Rows of all owners."""
        return self._home.live

    @property
    def metric_type(self) -> int:
        """METRIC_INNER_PRODUCT or METRIC_L2."""
        return self._home.settings.metric

    @property
    def is_trained(self) -> bool:
        """True: as with faiss's flat indexes, ``add`` works at once (and then fits the encoding to what it adds)."""
        return True

    @property
    def encoding(self) -> Encoding | None:
        """How numbers become integers, public; None until ``train`` or ``add``."""
        return self._home.settings.encoding

    @property
    def home(self) -> Home:
        """The folder, deployment, user and owners behind the index."""
        return self._home

    # --- rows ---------------------------------------------------------------------------------------------------

    def train(self, x: npt.ArrayLike) -> None:
        """Fit the encoding to a **public** sample (n, d); see :func:`mipp.encoding.finest` for what it gives away.

        Raises
        ------
        ParameterError
            There are rows already, encoded as the index was trained before.
        """
        x = self._vectors(x)
        with self._home.lock:
            if self.ntotal:
                raise ParameterError("rows are encoded already; reset the index to train it anew")
            self._home.reset()  # what an earlier training made
            self._fit(x)

    def _fit(self, x: Floats) -> None:
        s = self._home.settings
        s.encoding, s.declared = self._fitted(x), False
        self._home.save()

    def _fitted(self, x: np.ndarray, queries: Floats | None = None) -> Encoding:
        """The encoding of rows (n, d) that reaches queries (m, d) too. EncodingError if it would lose neighbours."""
        s = self._home.settings
        found, lost = judged(
            METRICS[s.metric], x, ring_bits=s.ring_bits, server_ranking=s.ranking == "server", reach=queries
        )  # fmt: skip
        if s.ring_bits != 16 and (misses(found, x) if lost is None else lost) > _MOST_MISSES:
            more = "" if s.ring_bits in (0, 64) else ", or take ring_bits=64"
            server = ', or rank as the user (ranking="user")' if s.ranking == "server" else ""
            raise EncodingError(
                f"an encoding of {found.ring_bits} bits would lose the nearest rows: differences between them are too "
                "small beside the longest row; leave the longest out, or take off what all rows have in common"
                f"{more}{server}"
            )
        return found

    def _encode_anew(self, x: Floats, *, rows: bool) -> bool:
        """Fit the encoding again, so that rows or queries (n, d) fit it too; False where it may not change."""
        s = self._home.settings
        if s.declared or s.ring_bits == 16:
            return False
        kept = self._home.all_rows()
        found = self._fitted(np.concatenate([kept, x]) if rows else kept, None if rows else x)
        if found == s.encoding:
            return False
        self._home.encode_anew(found)
        return True

    def _judge(self, x: Floats) -> None:
        """Fit the encoding again if rows (n, d) that are about to be added show that it loses the nearest.

        All rows are looked at when there are twice as many as last time, when some new ones are much shorter than all
        before, or when the new ones by themselves lose neighbours. ScoreRangeError for rows that it does not hold.
        """
        home, s = self._home, self._home.settings
        if s.declared or s.ring_bits == 16 or s.encoding is None:
            return
        shortest = self._shortest(x)
        some = x[np.arange(min(len(x), _JUDGED)) * len(x) // min(len(x), _JUDGED)]
        total = home.live + len(x)
        lost = len(some) >= _LEAST_JUDGED and misses(s.encoding, some) > MISSES
        if total < 2 * home.judged and shortest * _SHORTER >= home.shortest and not lost:
            return
        every = np.concatenate([home.all_rows(), x])
        if misses(s.encoding, every) > MISSES:
            found = self._fitted(every)
            if found.ring_bits > s.encoding.ring_bits or found.scale[0] < s.encoding.scale[0]:
                home.encode_anew(found)
        home.judged, home.shortest = total, min(shortest, home.shortest)

    def _shortest(self, x: Floats) -> float:
        """The least length of rows (n, d) from the encoding's offset, but for rows that lie there."""
        assert self.encoding is not None
        offset = np.array(self.encoding.offset) if self.encoding.offset else 0.0
        lengths = np.linalg.norm(x.astype(np.float64) - offset, axis=1)
        return float(lengths[lengths > 0].min(initial=np.inf))

    def add(self, x: npt.ArrayLike, *, owner: str = _OWNER) -> None:
        """Encrypt and upload rows (n, d) under an owner's keys: all, or none if there is an error.

        Their ids are ``ntotal``, ``ntotal + 1``, ... An index without encoding fits it to these rows first. Rows that
        do not fit it (longer than its bound, or not whole where it is exact) have it fitted again: then all rows are
        decrypted, encoded and encrypted anew, under new keys. Both ways, what :func:`mipp.encoding.finest` gives away
        of its sample is given away of **private** rows. An ``encoding`` that the caller declared stays.

        Raises
        ------
        EncodingError
            NaN or infinity; rows of which no encoding keeps the nearest, as a few are longer by far.
        EncodingError, ScoreRangeError
            Rows that do not fit a declared encoding, or one of 16 bits.
        ParameterError
            The index has ids of the caller's.
        """
        self._add(self._vectors(x), None, owner)

    def add_with_ids(self, x: npt.ArrayLike, ids: npt.ArrayLike, *, owner: str = _OWNER) -> None:
        """As ``add``, with ids (n,) of the caller's that stay as they are; -1 is refused."""
        x, found = self._vectors(x), as_ids(ids)
        if len(found) != len(x):
            raise ShapeError(f"{len(x)} vectors need as many ids, not {len(found)}")
        if (found == -1).any():
            raise ParameterError("-1 stands for no neighbour and is no id")
        self._add(x, found, owner)

    def _add(self, x: Floats, ids: Ints | None, owner: str) -> None:
        home, kind = self._home, "flat" if ids is None else "map"
        with home.lock:
            s = home.settings
            if s.fixed_ids and not self._maps:
                raise ParameterError("this index has a map of ids: add to the IndexIDMap")
            if home.ids not in ("", kind):
                other = "add_with_ids" if home.ids == "map" else "add"
                raise ParameterError(f"rows of this index get their ids one way only: use {other}")
            if not len(x):
                return
            if s.encoding is None:
                self._fit(x)
                home.judged, home.shortest = len(x), self._shortest(x)
            assert s.encoding is not None
            try:
                check_whole(s.encoding, x)
                self._judge(x)
                home.add(x, ids, owner)
            except (EncodingError, ScoreRangeError) as error:
                if not self._encode_anew(x, rows=True):
                    more = ": declare an encoding of longer rows" if isinstance(error, ScoreRangeError) else ""
                    raise type(error)(f"{error}{more}") from None
                home.add(x, ids, owner)

    def remove_ids(self, x: Any) -> int:
        """Delete rows by an array of ids (n,) or a selector; returns how many there were.

        Ids that ``add`` gave move up, as in faiss's IndexFlat; ids of the caller's stay, as in its IndexIDMap.
        """
        with self._home.lock:
            if not self.ntotal:
                selected(x, np.empty(0, np.int64))
                return 0
            index = self._home.user.index()
            positions = np.flatnonzero(selected(x, self._home.labels(index, self._mapped)))
            if len(positions):
                self._home.remove(index, positions)
            return len(positions)

    def reset(self) -> None:
        """Delete all rows, owners and keys; the encoding stays."""
        with self._home.lock:
            self._home.reset()

    def reconstruct(self, key: int) -> Floats:
        """The row (d,) with one id as it was quantised, decrypted by its owner; fetches its whole batch."""
        return np.asarray(self.reconstruct_batch(np.array([key]))[0])

    def reconstruct_n(self, n0: int = 0, ni: int = -1) -> Floats:
        """Rows (ni, d) with the ids n0, n0 + 1, ...; -1: to the last."""
        n0, ni = int(n0), int(ni)
        return self.reconstruct_batch(np.arange(n0, n0 + (self.ntotal - n0 if ni == -1 else ni)))

    def reconstruct_batch(self, key: npt.ArrayLike) -> Floats:
        """Rows (n, d) with these ids (n,), the last added where an id is there twice. NotFoundError for others."""
        keys = as_ids(key)
        with self._home.lock:
            if not len(keys):
                return np.empty((0, self.d), np.float32)
            if not self.ntotal:
                raise NotFoundError("the index is empty")
            index = self._home.user.index()
            labels = self._home.labels(index, self._mapped)
            order = np.argsort(labels, kind="stable")
            at = np.searchsorted(labels[order], keys, side="right") - 1
            if (at < 0).any() or (labels[order[at]] != keys).any():
                raise NotFoundError("no row has this id")
            return self._home.rows(index, order[at]).astype(np.float32)

    # --- search -------------------------------------------------------------------------------------------------

    def search(
        self, x: npt.ArrayLike, k: int, *, params: Any = None, D: Floats | None = None, I: Ints | None = None
    ) -> tuple[Floats, Ints]:
        """The k nearest rows of queries (n, d), best first.

        Parameters
        ----------
        x : secret; no server learns it
        k : at least 1; missing neighbours have id -1 and the largest float32 as distance (negative for inner product)
        params : an object with a selector ``sel`` of the ids to search among; needs ``ranking="user"``
        D, I : float32 and int64 arrays (n, k) to fill

        Returns
        -------
        D : (n, k) float32 inner products or squared distances
        I : (n, k) int64 ids

        Raises
        ------
        ScoreRangeError, EncodingError
            An L2 query longer than the bound of a declared encoding, or of one of 16 bits; NaN or infinity.

        An L2 query longer than the bound of another encoding has all rows encoded anew, as :meth:`add` does; servers
        then see that one was so long.
        """
        x = self._vectors(x)
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
            raise DTypeError(f"k must be an integer, not {type(k).__name__}")
        if k < 1:
            raise ParameterError(f"k must be at least 1, not {k}")
        D, I = _result(D, (len(x), k), np.float32, "D"), _result(I, (len(x), k), np.int64, "I")
        sel = getattr(params, "sel", None)
        if params is not None and not hasattr(params, "sel"):
            raise DTypeError(f"params must have a selector sel, {type(params).__name__} has none")
        D[...], I[...] = self._sign * _FAR, -1
        with self._home.lock:
            if not len(x) or not self.ntotal:
                return D, I
            if sel is None:
                k = min(int(k), self.ntotal)
                asked, factors = self._queries(x)
                found = self._home.user.nearest(asked, k, ranking=self._home.settings.ranking)
                assert found.values is not None  # our own grants give scores
                there = found.rows >= 0  # all, unless someone else stored rows longer than the encoding allows
                D[:, :k] = np.where(there, found.values / factors, self._sign * _FAR)
                I[:, :k] = np.where(there, self._home.labels(found.index, self._mapped)[found.rows], -1)
                return D, I
            for start, values, labels in self._all_values(x, sel):
                k = min(int(k), len(labels))
                best = np.argsort(self._sign * values, axis=1, kind="stable")[:, :k]
                near = np.take_along_axis(values, best, axis=1)
                there = np.isfinite(near)
                D[start : start + len(values), :k] = np.where(there, near, self._sign * _FAR)
                I[start : start + len(values), :k] = np.where(there, labels[best], -1)
        return D, I

    def search_and_reconstruct(self, x: npt.ArrayLike, k: int, *, params: Any = None) -> tuple[Floats, Ints, Floats]:
        """As :meth:`search`, and the rows (n, k, d) that were found, as quantised; NaN where none is."""
        with self._home.lock:
            D, I = self.search(x, k, params=params)
            R = np.full((*I.shape, self.d), np.nan, np.float32)
            there = I != -1
            wanted, back = np.unique(I[there], return_inverse=True)
            if len(wanted):
                R[there] = self.reconstruct_batch(wanted)[back]
            return D, I, R

    @property
    def code_size(self) -> int:
        """Bytes of a row in the clear."""
        return 4 * self.d

    def sa_code_size(self) -> int:
        """Bytes of a row in the clear."""
        return self.code_size

    def check_compatible_for_merge(self, other: Index) -> None:
        """ParameterError if :meth:`merge_from` cannot take the rows of another index."""
        if not isinstance(other, Index) or other._home is self._home:
            raise ParameterError("rows are merged from another index of mipp")
        if (other.d, other.metric_type) != (self.d, self.metric_type):
            raise ParameterError("the other index must be of the same d and metric")
        if other.ntotal and other._mapped is not self._mapped:
            raise ParameterError("one of the indexes has ids of the caller's, the other numbers rows by their places")

    def merge_from(self, other: Index, add_id: int = 0) -> None:
        """Move all rows of another index here: its owners decrypt them, owners of the same names add them here.

        ``add_id`` is added to ids of the caller's. The other index is empty then; if this fails, it still has all, and
        this one perhaps some of them.
        """
        self.check_compatible_for_merge(other)
        first, second = sorted((self._home, other._home), key=id)  # so that two that merge each other do not wait
        with first.lock, second.lock:
            for batch, x in other._home.parts():
                self._add(x.astype(np.float32), None if batch.ids is None else batch.ids + int(add_id), batch.owner)
            other.reset()

    def assign(self, x: npt.ArrayLike, k: int = 1) -> Ints:
        """Ids (n, k) of :meth:`search`."""
        return self.search(x, k)[1]

    def range_search(
        self, x: npt.ArrayLike, thresh: float, *, params: Any = None
    ) -> tuple[npt.NDArray[np.uint64], Floats, Ints]:
        """All rows nearer than ``thresh``: inner product above it, squared distance below it. Needs ranking="user".

        Returns
        -------
        lims : (n + 1,) uint64; the rows of query i are at lims[i] to lims[i + 1] of D and I, in the order of ids
        D, I : float32 and int64
        """
        x, thresh = self._vectors(x), float(thresh)
        lims: list[int] = [0]
        distances: list[Floats] = []
        ids: list[Ints] = []
        with self._home.lock:
            for _, values, labels in self._all_values(x, getattr(params, "sel", None)) if self.ntotal else ():
                order = np.argsort(labels, kind="stable")
                near = self._sign * values[:, order] < self._sign * np.float32(thresh)
                lims += (lims[-1] + np.cumsum(near.sum(axis=1))).tolist()
                distances.append(values[:, order][near])
                ids.append(np.broadcast_to(labels[order], near.shape)[near])
        lims += [0] * (len(x) + 1 - len(lims))
        none = np.empty(0, np.float32), np.empty(0, np.int64)
        return np.array(lims, np.uint64), np.concatenate([*distances, none[0]]), np.concatenate([*ids, none[1]])

    @property
    def _sign(self) -> int:
        """Times a value: smaller is nearer."""
        return 1 if self.metric_type == METRIC_L2 else -1

    def _queries(self, x: Floats) -> tuple[np.ndarray, np.ndarray]:
        """Queries as they are asked, and by what their values are to be divided: (n, 1)."""
        assert self.encoding is not None
        if self.metric_type == METRIC_L2:
            try:
                check_queries(self.encoding, x)
                self.encoding.encode_queries(x)
                if self._too_coarse(x):
                    self._encode_anew(x, rows=False)
            except ScoreRangeError:
                if not self._encode_anew(x, rows=False):
                    raise
            return x, np.ones((len(x), 1))
        factors = query_factors(self.encoding, x)[:, None]
        return x * factors, factors

    def _too_coarse(self, x: Floats) -> bool:
        """Whether queries between whole rows have fractions that the encoding rounds, and that may decide."""
        e, s = self._home.deployment.config.encoding, self._home.settings
        if s.ring_bits or s.declared or e.ring_bits == 64 or e.scale != (1.0,):
            return False
        finer = 1 << (e.query_bits - e.bits)
        fine = x.astype(np.float64) * finer
        return e.row_norm2**0.5 * finer < _STEPS and bool((fine != np.rint(fine)).any())

    def _all_values(self, x: Floats, sel: Any) -> Any:
        """(first query, float32 values (b, n), ids (n,)) of all rows that ``sel`` names, some queries at a time.

        A value is infinitely far where the score is out of the encoding's range.
        """
        if self._home.settings.ranking != "user":
            raise ParameterError('this needs all scores, which ranking="server" gives nobody')
        asked, factors = self._queries(x)
        encoding, user = self._home.deployment.config.encoding, self._home.user
        at_once = max(1, _SCORE_BYTES // (8 * self.ntotal))
        for start in range(0, len(x), at_once):
            part = asked[start : start + at_once]
            index, scores = user.scores(part)
            labels = self._home.labels(index, self._mapped)
            values = (encoding.values(scores, part) / factors[start : start + at_once]).astype(np.float32)
            values[scores < encoding.score_range[0]] = self._sign * np.inf
            if sel is not None:
                kept = selected(sel, labels)
                values, labels = values[:, kept], labels[kept]
            yield start, values, labels

    def _vectors(self, x: npt.ArrayLike) -> Floats:
        """(n, d) float32, C-contiguous, finite."""
        x = np.asarray(x)
        if x.dtype.kind not in "biuf":
            raise DTypeError(f"vectors must be real numbers, not {x.dtype}")
        if x.ndim != 2 or x.shape[1] != self.d:
            raise ShapeError(f"vectors must have shape (n, {self.d}), not {x.shape}")
        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(x, np.float32)
        if not np.isfinite(x).all():
            raise EncodingError("vectors hold NaN or infinite values")
        return x


def _result(given: Any, shape: tuple[int, int], dtype: type[np.generic], name: str) -> Any:
    if given is None:
        return np.empty(shape, dtype)
    if not isinstance(given, np.ndarray) or given.dtype != dtype:
        raise DTypeError(f"{name} must be an array of {np.dtype(dtype)}")
    if given.shape != shape or not given.flags.c_contiguous or not given.flags.writeable:
        raise ShapeError(f"{name} must be C-contiguous, writeable and of shape {shape}, not {given.shape}")
    return given
