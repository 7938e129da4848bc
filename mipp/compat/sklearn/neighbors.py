"""A nearest-neighbour estimator of scikit-learn whose rows are encrypted."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ...errors import DTypeError, ParameterError
from ..faiss import IndexFlat, IndexFlatIP, IndexFlatL2
from ..faiss.within import within

__all__ = ["METRICS", "EncryptedNeighbors"]

METRICS = ("cosine", "euclidean", "inner_product", "sqeuclidean")


class EncryptedNeighbors(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Nearest neighbours among encrypted rows, with the methods of ``sklearn.neighbors.NearestNeighbors``.

    In a pipeline it is a transformer, as ``KNeighborsTransformer(mode="distance")``: before an estimator that takes
    ``metric="precomputed"``. It takes no sparse matrices, and takes rows as float32.

    Parameters
    ----------
    n_neighbors : int
        Neighbours when a search does not give a number.
    metric : str
        ``"euclidean"``, ``"sqeuclidean"``, ``"cosine"`` (1 - cosine) or ``"inner_product"`` (the product itself,
        largest first).
    ranking : str
        ``"user"``: the user gets all scores and ranks. ``"server"``: the servers find the nearest, and none of them
        learns a score or an order.
    ring_bits : int
        16, 32, 64, or 0: as the data need.
    threads : int, optional
        Native threads, default all cores.
    radius : float, optional
        Radius when a search by radius does not give one: largest distance, or least product for ``inner_product``.

    Attributes
    ----------
    index_ : IndexFlat
        A :class:`mipp.compat.faiss.IndexFlat`, with the deployment and **all keys**.
    n_features_in_, n_samples_fit_ : int
        Shape of the rows.

    Notes
    -----
    The encoding is fitted to the rows, and public: :func:`mipp.encoding.finest` tells what it reveals. Rows are not
    kept in the clear. All parties are in this process and a temporary folder: this protects nothing from whoever reads
    them. A fitted estimator holds secret keys and does not pickle; :func:`mipp.compat.faiss.write_index` keeps
    ``index_``.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.compat.sklearn import EncryptedNeighbors
    >>> neighbours = EncryptedNeighbors(n_neighbors=1).fit(np.arange(12).reshape(4, 3))
    >>> distances, rows = neighbours.kneighbors([[3, 4, 7]])
    >>> distances.tolist(), rows.tolist()
    ([[2.0]], [[1]])
    """

    def __init__(
        self, n_neighbors: int = 5, *, metric: str = "euclidean", ranking: str = "user", ring_bits: int = 0,
        threads: int | None = None, radius: float | None = 1.0,
    ) -> None:  # fmt: skip
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.ranking = ranking
        self.ring_bits = ring_bits
        self.threads = threads
        self.radius = radius

    def __getstate__(self) -> Any:
        if hasattr(self, "index_"):
            raise TypeError("a fitted estimator holds secret keys and does not pickle; keep index_ with write_index")
        return super().__getstate__()

    def fit(self, X: npt.ArrayLike, y: Any = None) -> EncryptedNeighbors:
        """Encrypt rows and store them with the servers.

        Parameters
        ----------
        X : array_like
            (n, d) rows, secret.
        y : object
            Ignored.

        Returns
        -------
        EncryptedNeighbors
            This object.

        Raises
        ------
        ParameterError, ValueError
            A parameter out of range; X that is not a matrix of finite numbers.
        """
        if self.metric not in METRICS:
            raise ParameterError(f"metric must be one of {', '.join(METRICS)}, not {self.metric!r}")
        _positive(self.n_neighbors, "n_neighbors")
        if self.radius is not None:
            self._checked_radius(self.radius)
        rows = np.asarray(validate_data(self, X, dtype=np.float32))
        kind = IndexFlatL2 if self.metric in ("euclidean", "sqeuclidean") else IndexFlatIP
        index = kind(
            rows.shape[1], ranking=self.ranking, ring_bits=self.ring_bits, threads=self.threads,
            unit=self.metric == "cosine",
        )  # fmt: skip
        index.add(self._prepared(rows))
        self.index_: IndexFlat = index
        self.n_samples_fit_ = len(rows)
        return self

    def kneighbors(
        self, X: npt.ArrayLike | None = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> Any:
        """Find the nearest rows of queries, nearest first.

        Parameters
        ----------
        X : array_like, optional
            (m, d) queries, secret. None: the rows themselves (decrypted by their owner), each without itself.
        n_neighbors : int, optional
            Default the estimator's; at most the number of rows (one less without X).
        return_distance : bool
            Whether distances are returned.

        Returns
        -------
        distances : ndarray
            float64 (m, n_neighbors) in the metric's unit, if ``return_distance``. Secret.
        rows : ndarray
            int64 (m, n_neighbors); -1, infinitely far, for a neighbour whose score the encoding does not allow. Secret.

        Raises
        ------
        ParameterError, ValueError
            Too many neighbours; X that is not a matrix of finite numbers with d columns.
        """
        check_is_fitted(self)
        k = _positive(self.n_neighbors if n_neighbors is None else n_neighbors, "n_neighbors")
        most = self.n_samples_fit_ - (X is None)
        if k > most:
            raise ParameterError(f"Expected n_neighbors <= n_samples_fit: n_neighbors = {k}, n_samples_fit = {most}")
        if X is None:
            # one more, and the row itself goes, wherever it is among its equals
            values, rows = self.index_.search(self.index_.reconstruct_n(), k + 1)
            other = rows != np.arange(len(rows))[:, None]
            # a row with many equals may not be among them: then the last one goes
            other[other.all(axis=1), -1] = False
            values, rows = values[other].reshape(-1, k), rows[other].reshape(-1, k)
        else:
            queries = np.asarray(validate_data(self, X, dtype=np.float32, reset=False))
            values, rows = self.index_.search(self._prepared(queries), k)
        if not return_distance:
            return rows
        distances = self._distances(values)
        distances[rows < 0] = -np.inf if self.metric == "inner_product" else np.inf
        return distances, rows

    def kneighbors_graph(
        self, X: npt.ArrayLike | None = None, n_neighbors: int | None = None, mode: str = "connectivity"
    ) -> Any:
        """Find the neighbours of queries as a sparse matrix.

        Parameters
        ----------
        X : array_like, optional
            (m, d) queries, as for :meth:`kneighbors`.
        n_neighbors : int, optional
            As for :meth:`kneighbors`.
        mode : str
            ``"connectivity"`` for ones, ``"distance"`` for distances.

        Returns
        -------
        scipy.sparse.csr_matrix
            (m, n). Secret.

        Raises
        ------
        ParameterError
            Another mode; else as :meth:`kneighbors`.
        """
        check_is_fitted(self)
        _check_mode(mode)
        distances, rows = self.kneighbors(X, n_neighbors)
        values = distances if mode == "distance" else np.ones(rows.shape)
        there = rows >= 0
        starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        return csr_matrix((values[there], rows[there], starts), shape=(len(rows), self.n_samples_fit_))

    def radius_neighbors(
        self, X: npt.ArrayLike | None = None, radius: float | None = None, return_distance: bool = True,
        sort_results: bool = False,
    ) -> Any:  # fmt: skip
        """Find all rows within a radius of queries; rows at the radius are within.

        With ``ranking="server"`` the servers compare distances with the radius and learn neither. They give no
        distances: with ``return_distance`` the nearest rows are then asked for, as many as were found, so **the servers
        learn how many rows each query found**. Each query is a search of its own there.

        Parameters
        ----------
        X : array_like, optional
            (m, d) queries, secret. None: the rows themselves (decrypted by their owner), each without itself.
        radius : float, optional
            Largest distance in the metric's unit (least product for ``inner_product``); default the estimator's.
            Secret.
        return_distance : bool
            Whether distances are returned.
        sort_results : bool
            Nearest first; otherwise rows come in their order. Needs ``return_distance``.

        Returns
        -------
        distances : ndarray
            (m,) objects, each float64 (found,), if ``return_distance``. Secret.
        rows : ndarray
            (m,) objects, each int64 (found,). Secret.

        Raises
        ------
        ParameterError, ValueError
            A negative radius of distances; ``sort_results`` without ``return_distance``; X that is not a matrix of
            finite numbers with d columns.
        DTypeError
            No radius, or one that is no number.
        """
        check_is_fitted(self)
        if sort_results and not return_distance:
            raise ParameterError("return_distance must be True if sort_results is True.")
        queries = (
            self.index_.reconstruct_n() if X is None
            else self._prepared(np.asarray(validate_data(self, X, dtype=np.float32, reset=False)))
        )  # fmt: skip
        threshold = self._threshold(self._checked_radius(self.radius if radius is None else radius))
        rows, distances = np.empty(len(queries), object), np.empty(len(queries), object)
        for n, (found, values) in enumerate(within(self.index_, queries, threshold, values=return_distance)):
            others = found != n if X is None else slice(None)
            rows[n], distances[n] = found[others], None
            if return_distance:
                distances[n] = self._distances(values[others])
            if sort_results:
                order = np.argsort(-distances[n] if self.metric == "inner_product" else distances[n], kind="stable")
                rows[n], distances[n] = rows[n][order], distances[n][order]
        return (distances, rows) if return_distance else rows

    def radius_neighbors_graph(
        self, X: npt.ArrayLike | None = None, radius: float | None = None, mode: str = "connectivity",
        sort_results: bool = False,
    ) -> Any:  # fmt: skip
        """Find the neighbours of queries within a radius as a sparse matrix.

        Parameters
        ----------
        X : array_like, optional
            (m, d) queries, as for :meth:`radius_neighbors`.
        radius : float, optional
            As for :meth:`radius_neighbors`.
        mode : str
            ``"connectivity"`` for ones, ``"distance"`` for distances.
        sort_results : bool
            With ``mode="distance"``: entries of a row of the matrix come nearest first.

        Returns
        -------
        scipy.sparse.csr_matrix
            (m, n). Secret.

        Raises
        ------
        ParameterError
            Another mode; else as :meth:`radius_neighbors`.
        """
        check_is_fitted(self)
        _check_mode(mode)
        if mode == "distance":
            distances, rows = self.radius_neighbors(X, radius, sort_results=sort_results)
            values = np.concatenate(list(distances))
        else:
            rows = self.radius_neighbors(X, radius, return_distance=False)
            values = np.ones(sum(map(len, rows)))
        starts = np.concatenate([[0], np.cumsum([len(found) for found in rows])])
        return csr_matrix((values, np.concatenate(list(rows)), starts), shape=(len(rows), self.n_samples_fit_))

    def transform(self, X: npt.ArrayLike) -> Any:
        """Compute distances of queries to their n_neighbors + 1 nearest rows.

        One more, as a row that was fitted is its own nearest.

        Parameters
        ----------
        X : array_like
            (m, d) queries, secret.

        Returns
        -------
        scipy.sparse.csr_matrix
            (m, n); in each row of the matrix the nearest come first. Secret.

        Raises
        ------
        ParameterError
            ``metric="inner_product"``, which is no distance; too few rows.
        """
        check_is_fitted(self)
        if self.metric == "inner_product":
            raise ParameterError("inner products are no distances: transform with another metric")
        return self.kneighbors_graph(X, _positive(self.n_neighbors, "n_neighbors") + 1, mode="distance")

    @property
    def _n_features_out(self) -> int:
        """Columns of the matrix that ``transform`` gives."""
        return int(self.n_samples_fit_)

    def _prepared(self, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Unit vectors for cosine; zeros stay zeros, at distance 1 from all, as in scikit-learn."""
        if self.metric != "cosine":
            return X
        wide = X.astype(np.float64)
        length = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        return np.asarray((wide / np.where(length > 0, length, 1.0)[:, None]).astype(np.float32))

    def _checked_radius(self, radius: Any) -> float:
        if isinstance(radius, bool) or not isinstance(radius, Real):
            raise DTypeError(f"radius must be a number, not {type(radius).__name__}")
        try:
            found = float(radius)
        except OverflowError:
            raise ParameterError("radius is too large for a floating-point number") from None
        if np.isnan(found) or (found < 0 and self.metric != "inner_product"):
            raise ParameterError(f"radius == {found}, must be >= 0.")
        return found

    def _threshold(self, radius: float) -> float:
        """The radius in the unit of the index: squared distance, or least inner product."""
        return {
            "cosine": 1.0 - radius, "euclidean": radius * radius, "inner_product": radius, "sqeuclidean": radius,
        }[self.metric]  # fmt: skip

    def _distances(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        found = values.astype(np.float64)
        if self.metric == "cosine":
            return np.clip(1.0 - found, 0.0, 2.0)
        if self.metric == "inner_product":
            return found
        found = np.maximum(found, 0.0)
        return np.sqrt(found) if self.metric == "euclidean" else found


def _check_mode(mode: Any) -> None:
    if mode not in ("connectivity", "distance"):
        raise ParameterError(f'mode must be "connectivity" or "distance", not {mode!r}')


def _positive(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise DTypeError(f"{name} must be an integer, not {type(value).__name__}")
    if value < 1:
        raise ParameterError(f"{name} must be at least 1, not {value}")
    return int(value)
