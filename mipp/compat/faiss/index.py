"""Flat indexes with faiss's argument conventions over an encrypted deployment."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ...encoding import Encoding
from ...encoding.finest import check_queries, check_whole, finest, finest_unit, query_factors
from ...errors import DTypeError, EncodingError, NotFoundError, ParameterError, ScoreRangeError, ShapeError
from .home import Home, Settings, temporary_folder
from .selectors import as_ids, selected

__all__ = ["METRIC_INNER_PRODUCT", "METRIC_L2", "IndexFlat", "IndexFlatIP", "IndexFlatL2", "IndexIDMap", "open_index"]

METRIC_INNER_PRODUCT, METRIC_L2 = 0, 1
_METRICS = ("ip", "l2")
_OWNER = "owner"
#: what faiss gives for a neighbour that there is not
_FAR = np.float32(np.finfo(np.float32).max)
_SCORE_BYTES = 1 << 28

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class IndexFlat:
    """Exact search over encrypted rows, by inner product or squared L2.

    Parameters
    ----------
    d : numbers per vector
    metric : METRIC_INNER_PRODUCT or METRIC_L2
    ring_bits : 16, 32 or 64; 0 lets the data choose between 32 and 64 (:func:`mipp.encoding.finest`)
    ranking : ``"user"``: the user gets all scores and ranks; ``"server"``: the servers find the k nearest, none learns
        a score or an order, and the user learns those only
    encoding : fixes how numbers become integers, so that nothing is fitted; metric and dim must fit
    unit : vectors have length one at most, as for cosines: nothing is fitted either (but with 16 bits)
    folder : where all parties keep their files (made if missing; must hold no index); default a temporary folder that
        goes with the index
    threads : native threads, default all cores

    One process and one folder hold all parties and **all keys**: this shows what encrypted search costs and how exact
    it is, and protects nothing from whoever reads the process or folder. Calls from several threads take turns.
    """

    def __init__(
        self, d: int, metric: int = METRIC_L2, *, ring_bits: int = 0, ranking: str = "user",
        encoding: Encoding | None = None, unit: bool = False, folder: str | os.PathLike[str] | None = None,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        if isinstance(d, bool) or not isinstance(d, (int, np.integer)):
            raise DTypeError(f"d must be an integer, not {type(d).__name__}")
        if not 1 <= d <= 1 << 20:
            raise ParameterError(f"d must be from 1 to {1 << 20}, not {d}")
        if metric not in (METRIC_INNER_PRODUCT, METRIC_L2):
            raise ParameterError(f"metric must be METRIC_INNER_PRODUCT or METRIC_L2, not {metric!r}")
        if ranking not in ("user", "server"):
            raise ParameterError(f'ranking must be "user" or "server", not {ranking!r}')
        if ring_bits not in (0, 16, 32, 64):
            raise ParameterError(f"ring_bits must be 16, 32, 64 or 0, not {ring_bits!r}")
        settings = Settings(int(metric), int(d), int(ring_bits), ranking)
        server = ranking == "server"
        if unit and encoding is None and ring_bits != 16:
            encoding = finest_unit(_METRICS[metric], int(d), ring_bits=ring_bits or 32, server_ranking=server)
        if encoding is not None:
            if (encoding.metric, encoding.dim) != (_METRICS[metric], d):
                raise ParameterError(f"the encoding must be of {_METRICS[metric]} and {d} dimensions")
            if server and not encoding.allows_server_ranking:
                raise ParameterError('the encoding leaves no room for ranking="server"')
            settings.encoding = encoding
        place = temporary_folder() if folder is None else Path(folder)
        self._home = Home(place, settings, temporary=folder is None, threads=threads)

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
        s.encoding = finest(
            _METRICS[s.metric], x, ring_bits=s.ring_bits, server_ranking=s.ranking == "server"
        )  # fmt: skip
        self._home.save()

    def add(self, x: npt.ArrayLike, *, owner: str = _OWNER) -> None:
        """Encrypt and upload rows (n, d) under an owner's keys: all, or none if there is an error.

        Their ids are ``ntotal``, ``ntotal + 1``, ... An index without encoding fits it to these rows first: then what
        :func:`mipp.encoding.finest` gives away of its sample is given away of **private** rows.

        Raises
        ------
        EncodingError, ScoreRangeError
            NaN or infinity; rows that do not fit the encoding: longer than its bound, or not whole where it is exact.
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
            if home.ids not in ("", kind):
                other = "add_with_ids" if home.ids == "map" else "add"
                raise ParameterError(f"rows of this index get their ids one way only: use {other}")
            if not len(x):
                return
            if s.encoding is None:
                self._fit(x)
            assert s.encoding is not None
            check_whole(s.encoding, x)
            try:
                home.add(x, ids, owner)
            except ScoreRangeError as error:
                raise ScoreRangeError(
                    f"{error}: train on a sample with vectors as long, or declare an encoding"
                ) from None

    def remove_ids(self, x: Any) -> int:
        """Delete rows by an array of ids (n,) or a selector; returns how many there were.

        Ids that ``add`` gave move up, as in faiss's IndexFlat; ids of the caller's stay, as in its IndexIDMap.
        """
        with self._home.lock:
            if not self.ntotal:
                selected(x, np.empty(0, np.int64))
                return 0
            index = self._home.user.index()
            positions = np.flatnonzero(selected(x, self._home.labels(index)))
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
            labels = self._home.labels(index)
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
            An L2 query longer than the encoding's bound; NaN or infinity.
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
                I[:, :k] = np.where(there, self._home.labels(found.index)[found.rows], -1)
                return D, I
            for start, values, labels in self._all_values(x, sel):
                k = min(int(k), len(labels))
                best = np.argsort(self._sign * values, axis=1, kind="stable")[:, :k]
                near = np.take_along_axis(values, best, axis=1)
                there = np.isfinite(near)
                D[start : start + len(values), :k] = np.where(there, near, self._sign * _FAR)
                I[start : start + len(values), :k] = np.where(there, labels[best], -1)
        return D, I

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
            check_queries(self.encoding, x)
            return x, np.ones((len(x), 1))
        factors = query_factors(self.encoding, x)[:, None]
        return x * factors, factors

    def _all_values(self, x: Floats, sel: Any) -> Any:
        """(first query, float32 values (b, n), ids (n,)) of all rows that ``sel`` names, some queries at a time.

        A value is infinitely far where the score is out of the encoding's range.
        """
        if self._home.settings.ranking != "user":
            raise ParameterError('this needs all scores, which ranking="server" gives nobody')
        encoding, user = self._home.deployment.config.encoding, self._home.user
        asked, factors = self._queries(x)
        at_once = max(1, _SCORE_BYTES // (8 * self.ntotal))
        for start in range(0, len(x), at_once):
            part = asked[start : start + at_once]
            index, scores = user.scores(part)
            labels = self._home.labels(index)
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


class IndexFlatIP(IndexFlat):
    """:class:`IndexFlat` by inner product: larger is nearer."""

    METRIC: ClassVar[int] = METRIC_INNER_PRODUCT

    def __init__(self, d: int, **options: Any) -> None:
        super().__init__(d, self.METRIC, **options)


class IndexFlatL2(IndexFlatIP):
    """:class:`IndexFlat` by squared L2 distance: smaller is nearer."""

    METRIC: ClassVar[int] = METRIC_L2


def IndexIDMap(index: IndexFlat) -> IndexFlat:
    """The same empty index, which from now on takes rows by ``add_with_ids`` only."""
    if index.ntotal:
        raise ParameterError("the index must be empty")
    index.home.settings.fixed_ids = True
    index.home.save()
    return index


def open_index(folder: str | os.PathLike[str], *, threads: int | None = None) -> IndexFlat:
    """Open the index of a folder that was given as ``folder=`` before.

    Raises
    ------
    DeploymentError
        No index, one of another format, open elsewhere, or with rows that were added past it.
    """
    return _of_home(Home(Path(folder), None, threads=threads))


def _of_home(home: Home) -> IndexFlat:
    kind = IndexFlatL2 if home.settings.metric == METRIC_L2 else IndexFlatIP
    index = kind.__new__(kind)
    index._home = home
    return index


def _result(given: Any, shape: tuple[int, int], dtype: type[np.generic], name: str) -> Any:
    if given is None:
        return np.empty(shape, dtype)
    if not isinstance(given, np.ndarray) or given.dtype != dtype:
        raise DTypeError(f"{name} must be an array of {np.dtype(dtype)}")
    if given.shape != shape or not given.flags.c_contiguous or not given.flags.writeable:
        raise ShapeError(f"{name} must be C-contiguous, writeable and of shape {shape}, not {given.shape}")
    return given
