"""The class that ann-benchmarks makes: ``module: mipp.compat.ann_benchmarks``, ``constructor: MippFlat``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ParameterError
from ..faiss import IndexFlat, IndexFlatIP, IndexFlatL2
from .common import prepared, resident_kib

try:
    from ann_benchmarks.algorithms.base.module import BaseANN
except ImportError:
    BaseANN = object

__all__ = ["METRICS", "MippFlat"]

#: distances of ann-benchmarks, and whether a larger product is nearer
METRICS = {"euclidean": False, "angular": True, "hamming": True, "ip": True, "dot": True}


class MippFlat(BaseANN):  # type: ignore[misc]
    """Exact encrypted search behind the interface of ann-benchmarks.

    A ``BaseANN`` of ann-benchmarks where that is installed. All parties are in this process, with all keys.

    Parameters
    ----------
    metric : str
        ``euclidean``, ``angular``, ``hamming``, ``ip`` or ``dot``.
    ring_bits : int
        16, 32, 64, or 0: as the data need.
    ranking : str
        ``"user"`` or ``"server"``, see :class:`mipp.compat.faiss.IndexFlat`.
    threads : int, optional
        Native threads, default all cores.

    Raises
    ------
    ParameterError
        Another metric.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.compat.ann_benchmarks import MippFlat
    >>> algorithm = MippFlat("euclidean")
    >>> algorithm.fit(np.eye(8))
    >>> algorithm.query(np.eye(8)[3], 1).tolist()
    [3]
    >>> algorithm.done()
    """

    def __init__(self, metric: str, ring_bits: int = 32, ranking: str = "user", threads: int | None = None) -> None:
        if metric not in METRICS:
            raise ParameterError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
        self._metric, self._ring_bits, self._ranking, self._threads = metric, ring_bits, ranking, threads
        self.name = f"MippFlat(ring_bits={ring_bits}, ranking={ranking})"
        self._index: IndexFlat | None = None
        self.res: npt.NDArray[np.int64] = np.empty((0, 0), np.int64)

    def __str__(self) -> str:
        return self.name

    @property
    def index(self) -> IndexFlat:
        """The index behind it (:class:`mipp.compat.faiss.IndexFlat`); ParameterError before :meth:`fit`."""
        if self._index is None:
            raise ParameterError("fit comes first")
        return self._index

    def fit(self, X: npt.ArrayLike) -> None:
        """Encrypt and store rows. The encoding is fitted to them: rows of benchmarks are public.

        Parameters
        ----------
        X : array_like
            (n, d) rows; bits for ``hamming``.

        Raises
        ------
        ParameterError
            ``hamming`` and numbers other than 0 and 1.
        MippError
            As :meth:`mipp.compat.faiss.IndexFlat.add`.
        """
        self.done()
        rows = prepared(self._metric, X)
        kind = IndexFlatIP if METRICS[self._metric] else IndexFlatL2
        index = kind(
            rows.shape[1], ring_bits=self._ring_bits, ranking=self._ranking, threads=self._threads,
            unit=self._metric == "angular",
        )  # fmt: skip
        try:
            index.add(rows)
        except BaseException:
            index.close()
            raise
        self._index = index

    def set_query_arguments(self) -> None:
        """Search is exact: there is nothing to set."""

    def query(self, v: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
        """Find the rows nearest to one query.

        Parameters
        ----------
        v : array_like
            (d,) query.
        n : int
            Neighbours.

        Returns
        -------
        ndarray
            int64 (n,) row numbers; -1 for a missing neighbour.
        """
        return np.asarray(self._search(np.asarray(v)[None], n)[0])

    def batch_query(self, X: npt.ArrayLike, n: int) -> None:
        """Search for queries at once; :meth:`get_batch_results` returns the rows.

        Parameters
        ----------
        X : array_like
            (m, d) queries.
        n : int
            Neighbours.
        """
        self.res = self._search(X, n)

    def get_batch_results(self) -> npt.NDArray[np.int64]:
        """Return the rows of the last batch.

        Returns
        -------
        ndarray
            int64 (m, n) row numbers.
        """
        return self.res

    get_results = get_batch_results

    def get_memory_usage(self) -> float:
        """Measure the memory of this process now; all parties are in it.

        Returns
        -------
        float
            KiB.
        """
        return resident_kib()

    def get_additional(self) -> dict[str, Any]:
        """Tell what else was measured.

        Returns
        -------
        dict
            ``ring_bits`` of the encoding, and ``bytes_sent`` by owners and users; empty before :meth:`fit`.
        """
        if self._index is None or self._index.encoding is None:
            return {}
        sent = sum(self._index.home.deployment.channel.bytes_sent.values())
        return {"ring_bits": self._index.encoding.ring_bits, "bytes_sent": sent}

    def done(self) -> None:
        """Close the index and delete its folder."""
        if self._index is not None:
            self._index.close()
            self._index = None

    def _search(self, x: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
        found = self.index.search(prepared(self._metric, x), n)[1]
        return found[:, : min(n, self.index.ntotal)]
