"""Search with faiss's argument conventions over an encrypted deployment."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DTypeError, ParameterError, ShapeError
from .fitting import Floats, prepare_queries
from .home import METRIC_INNER_PRODUCT, METRIC_L2
from .rows import Ints, Rows
from .selectors import selected

__all__ = ["METRIC_INNER_PRODUCT", "METRIC_L2", "Index"]

#: faiss's distance of a missing neighbour
_FAR = np.float32(np.finfo(np.float32).max)
_SCORE_BYTES = 1 << 28


class Index(Rows):
    """The base of all indexes; programs make an :class:`~mipp.compat.faiss.IndexFlat`.

    Methods behave as faiss's of the same names, with typed errors where faiss asserts or raises RuntimeError.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> with faiss.IndexFlatL2(4) as index:
    ...     index.add(np.eye(4))
    ...     isinstance(index, faiss.Index), index.ntotal
    (True, 4)
    """

    # --- search -------------------------------------------------------------------------------------------------

    def search(
        self, x: npt.ArrayLike, k: int, *, params: Any = None, D: Floats | None = None, I: Ints | None = None
    ) -> tuple[Floats, Ints]:
        """Find the k nearest rows of queries, best first.

        An L2 query longer than the encoding's bound has all rows encoded again, as :meth:`add` does; servers then see
        that a query was so long. An encoding that was declared, or of 16 bits, stays.

        Parameters
        ----------
        x : array_like
            (n, d) queries, secret; no server learns them.
        k : int
            At least 1. Missing neighbours have id -1 and the largest float32 as distance (negative for inner product).
        params : SearchParameters, optional
            An object with a selector ``sel`` of the ids to search among; needs ``ranking="user"``.
        D, I : ndarray, optional
            float32 and int64 arrays (n, k) to fill.

        Returns
        -------
        D : ndarray
            float32 (n, k), inner products or squared distances. Secret.
        I : ndarray
            int64 (n, k), ids. Secret.

        Raises
        ------
        ScoreRangeError, EncodingError
            An L2 query longer than the bound of a declared encoding, or of one of 16 bits; NaN or infinity.
        DTypeError, ShapeError, ParameterError
            Other arguments; ``params`` with ``ranking="server"``.
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
                asked, factors = prepare_queries(self._home, x)
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
        """Find the k nearest rows as :meth:`search`, and decrypt them.

        Parameters
        ----------
        x : array_like
            (n, d) queries, secret.
        k : int
            At least 1.
        params : SearchParameters, optional
            As for :meth:`search`.

        Returns
        -------
        D, I : ndarray
            As of :meth:`search`.
        R : ndarray
            float32 (n, k, d), the rows as quantised; NaN for missing neighbours. Secret.

        Raises
        ------
        MippError
            As :meth:`search`.
        """
        with self._home.lock:
            D, I = self.search(x, k, params=params)
            R = np.full((*I.shape, self.d), np.nan, np.float32)
            there = I != -1
            wanted, back = np.unique(I[there], return_inverse=True)
            if len(wanted):
                R[there] = self.reconstruct_batch(wanted)[back]
            return D, I, R

    def assign(self, x: npt.ArrayLike, k: int = 1) -> Ints:
        """Find the ids of the k nearest rows.

        Parameters
        ----------
        x : array_like
            (n, d) queries, secret.
        k : int
            At least 1.

        Returns
        -------
        ndarray
            int64 (n, k), as ``I`` of :meth:`search`.
        """
        return self.search(x, k)[1]

    def range_search(
        self, x: npt.ArrayLike, thresh: float, *, params: Any = None
    ) -> tuple[npt.NDArray[np.uint64], Floats, Ints]:
        """Find all rows with an inner product above a threshold, or a squared distance below it.

        Needs ``ranking="user"``, as the user compares all scores.

        Parameters
        ----------
        x : array_like
            (n, d) queries, secret.
        thresh : float
            Threshold; stays with the user.
        params : SearchParameters, optional
            As for :meth:`search`.

        Returns
        -------
        lims : ndarray
            uint64 (n + 1,); the rows of query i are at lims[i] to lims[i + 1] of D and I, in the order of ids.
        D, I : ndarray
            float32 and int64, one entry for each row found. Secret.

        Raises
        ------
        ParameterError
            ``ranking="server"``.
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
        """Factor that makes smaller values nearer."""
        return 1 if self.metric_type == METRIC_L2 else -1

    def _all_values(self, x: Floats, sel: Any) -> Any:
        """(first query, float32 values (b, n), ids (n,)) of all rows that ``sel`` names, for some queries at a time.

        A value is infinitely far where the score is out of the encoding's range.
        """
        if self._home.settings.ranking != "user":
            raise ParameterError('this needs all scores, and with ranking="server" nobody gets them')
        asked, factors = prepare_queries(self._home, x)
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


def _result(given: Any, shape: tuple[int, int], dtype: type[np.generic], name: str) -> Any:
    if given is None:
        return np.empty(shape, dtype)
    if not isinstance(given, np.ndarray) or given.dtype != dtype:
        raise DTypeError(f"{name} must be an array of {np.dtype(dtype)}")
    if given.shape != shape or not given.flags.c_contiguous or not given.flags.writeable:
        raise ShapeError(f"{name} must be C-contiguous, writeable and of shape {shape}, not {given.shape}")
    return given
