"""The class that big-ann-benchmarks makes: ``module: mipp.compat.big_ann_benchmarks``, ``constructor: MippFlat``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...deployment import Deployment
from ...encoding.finest import check_queries, query_factors
from ...errors import ParameterError
from ..ann_benchmarks.common import prepared, resident_kib
from .building import METRICS, USER, Facts, build, open_index, remove
from .dataset import dataset_name, find_dataset

try:
    from benchmark.algorithms.base import BaseANN
except ImportError:
    BaseANN = object

__all__ = ["METRICS", "MippFlat"]

_RANKINGS = ("user", "server")
_INDEX_PARAMS = {
    "ring_bits": 32,
    "rankings": ["user"],
    "folder": "data/indices/mipp",
    "sample": 20_000,
    "threads": None,
}
_QUERY_ARGS = {"ranking": None, "batch": 0}
_SCORE_BYTES = 1 << 28


class MippFlat(BaseANN):  # type: ignore[misc]
    """Exact encrypted search behind the interface of big-ann-benchmarks.

    A ``BaseANN`` of big-ann-benchmarks where that can be imported. All parties are in this process; the index folder
    holds **all secret keys**. Rows are read and encrypted in the memory of two batches.

    Parameters
    ----------
    metric : str
        ``euclidean``, ``ip`` or ``angular``.
    index_params : mapping or str, optional
        A mapping or its JSON: ``ring_bits`` (32; 16, 64, or 0: as the data need), ``rankings`` (``["user"]``; those of
        ``user`` and ``server`` that queries may ask for, the default first), ``folder`` (of all indexes), ``sample``
        (rows that the encoding of fractional numbers is fitted to, 20,000), ``threads`` (all cores).

    Raises
    ------
    ParameterError
        Another metric; other index parameters.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from mipp.compat.big_ann_benchmarks import FileDataset, MippFlat
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "base.u8bin")
    ...     _ = path.write_bytes(np.array([3, 2], "<u4").tobytes() + bytes([0, 0, 9, 9, 200, 9]))
    ...     algorithm = MippFlat("euclidean", {"folder": folder})
    ...     algorithm.fit(FileDataset(path, path))
    ...     algorithm.query(np.array([[10, 9]], np.uint8), 2)
    ...     algorithm.done()
    >>> algorithm.get_results().tolist()
    [[1, 0]]
    """

    def __init__(self, metric: str, index_params: Mapping[str, Any] | str | None = None) -> None:
        if not isinstance(metric, str) or metric not in METRICS:
            raise ParameterError(f"metric must be one of {', '.join(METRICS)}, not {str(metric)[:100]!r}")
        given = {**_INDEX_PARAMS, **_mapping(index_params, _INDEX_PARAMS, "index parameters")}
        self._metric = metric
        self._rankings = tuple(given["rankings"]) if isinstance(given["rankings"], (list, tuple)) else ()
        if not self._rankings or not all(r in _RANKINGS for r in self._rankings) or len(set(self._rankings)) != len(
            self._rankings
        ):  # fmt: skip
            raise ParameterError('rankings must be a list of "user", "server" or both')
        for name, allowed in (("ring_bits", (0, 16, 32, 64)), ("sample", None), ("threads", None)):
            value = given[name]
            if value is None and name == "threads":
                continue
            if type(value) is not int or (value not in allowed if allowed else value < 1):
                raise ParameterError(f"{name} must be {'16, 32, 64 or 0' if allowed else 'a positive integer'}")
        if not isinstance(given["folder"], (str, os.PathLike)):
            raise ParameterError("folder must be a path")
        self._ring_bits, self._sample, self._threads = given["ring_bits"], given["sample"], given["threads"]
        self._folder = Path(given["folder"])
        self._ranking, self._batch = self._rankings[0], 0
        self._deployment: Deployment | None = None
        self._lock = -1
        self._dataset: Any = None
        self._results: npt.NDArray[np.int64] = np.empty((0, 0), np.int64)
        self._range_results: tuple[npt.NDArray[Any], ...] = ()

    @property
    def name(self) -> str:
        """Index parameters and query arguments, for plots."""
        batch = f", batch={self._batch}" if self._batch else ""
        return f"MippFlat(ring_bits={self._ring_bits}, ranking={self._ranking}{batch})"

    def __str__(self) -> str:
        return self.name

    def track(self) -> str:
        """Return the track of the competition.

        Returns
        -------
        str
            ``T1``: rows are searched in main memory.
        """
        return "T1"

    def index_name(self, dataset: Any) -> str:
        """Return the name of a data set's index.

        Parameters
        ----------
        dataset : str or object
            As for :meth:`fit`.

        Returns
        -------
        str
            Name of its folder in the folder of all indexes.
        """
        return f"{dataset_name(dataset)}-{self._metric}-ring{self._ring_bits}-{'-'.join(self._rankings)}"

    def index_files_to_store(self, dataset: Any) -> None:
        """Refuse to name files for an upload: the index holds all secret keys.

        Parameters
        ----------
        dataset : str or object
            Not used.

        Raises
        ------
        ParameterError
            Always.
        """
        raise ParameterError("an index folder holds all secret keys, so its files are not uploaded")

    # --- the index ----------------------------------------------------------------------------------------------

    def fit(self, dataset: Any) -> None:
        """Encrypt and store all rows of a data set; goes on where an earlier call was interrupted.

        uint8 and int8 rows are kept exactly where the ring can (rings of 32 bits up to some 3000 dimensions), by an
        encoding that shows nothing of them. For other rows a first pass finds the longest and a sample, which the
        encoding shows (:func:`mipp.encoding.finest`): rows of benchmarks are public. No file is deleted, and an index
        that is complete gets no row twice: :meth:`cleanup` first to build it anew.

        Parameters
        ----------
        dataset : str or object
            A name in ``benchmark.datasets.DATASETS``, or an object with the interface of its data sets: ``nb``, ``d``,
            ``distance()``, ``get_dataset_iterator(bs)``, and ``get_dataset_fn()`` where there is a file.

        Raises
        ------
        NotFoundError
            No such data set, or its file is missing.
        ParameterError
            Its distance is not the metric of this object, or its file cannot be read.
        DeploymentError
            The folder holds other files, or an index of other facts or rows; or it is open elsewhere.
        MippError
            As of :meth:`mipp.client.owner.ImageOwner.add_stream`.
        """
        self.done()
        found, facts = self._facts(dataset)
        self._deployment, self._lock = build(self._place(dataset), facts, found, self._sample, self._threads)
        self._dataset = dataset

    def load_index(self, dataset: Any) -> bool:
        """Open the index that an earlier :meth:`fit` completed.

        Parameters
        ----------
        dataset : str or object
            As for :meth:`fit`.

        Returns
        -------
        bool
            Whether there is one; if not, :meth:`fit` builds it.

        Raises
        ------
        NotFoundError, ParameterError, DeploymentError
            As of :meth:`fit`.
        """
        self.done()
        _, facts = self._facts(dataset)
        opened = open_index(self._place(dataset), facts, self._threads)
        if opened is None:
            return False
        self._deployment, self._lock = opened
        self._dataset = dataset
        return True

    def done(self) -> None:
        """Close the index; its folder stays."""
        if self._deployment is not None:
            self._deployment.close()
            os.close(self._lock)
        self._deployment, self._lock = None, -1

    def cleanup(self) -> None:
        """Close the index of the last :meth:`fit` or :meth:`load_index`, and delete its folder."""
        self.done()
        if self._dataset is not None:
            remove(self._place(self._dataset))

    # --- search -------------------------------------------------------------------------------------------------

    def set_query_arguments(self, query_args: Mapping[str, Any] | str | None = None) -> None:
        """Set how the next queries are searched.

        Parameters
        ----------
        query_args : mapping or str, optional
            A mapping or its JSON: ``ranking`` (one of the index's rankings, default the first) and ``batch`` (queries
            that are sent at once; 0, the default: all of them). What is not named has its default again.

        Raises
        ------
        ParameterError
            Another argument or value.
        """
        given = {**_QUERY_ARGS, **_mapping(query_args, _QUERY_ARGS, "query arguments")}
        ranking = self._rankings[0] if given["ranking"] is None else given["ranking"]
        if ranking not in self._rankings:
            raise ParameterError(f"ranking must be one of the index's, {', '.join(self._rankings)}")
        if type(given["batch"]) is not int or given["batch"] < 0:
            raise ParameterError("batch must be a number of queries, or 0 for all")
        self._ranking, self._batch = ranking, given["batch"]

    def query(self, X: npt.ArrayLike, k: int) -> None:
        """Find the k nearest rows of queries; :meth:`get_results` returns them.

        Parameters
        ----------
        X : array_like
            (nq, d) queries.
        k : int
            Neighbours; no more than there are rows.

        Raises
        ------
        MippError
            As of :meth:`mipp.User.nearest`; ParameterError before :meth:`fit` or :meth:`load_index`.
        """
        asked, _ = self._asked(X)
        step, user = self._batch or max(1, len(asked)), self._opened.user(USER)
        parts = [
            user.nearest(asked[start : start + step], k, ranking=self._ranking).rows
            for start in range(0, len(asked), step)
        ]
        self._results = np.concatenate(parts).astype(np.int64) if parts else np.empty((0, k), np.int64)

    def get_results(self) -> npt.NDArray[np.int64]:
        """Return the rows of the last :meth:`query`.

        Returns
        -------
        ndarray
            int64 (nq, k), row numbers of the data set; -1 for a missing neighbour.
        """
        return self._results

    def range_query(self, X: npt.ArrayLike, radius: float) -> None:
        """Find all rows within a radius; :meth:`get_range_results` returns them.

        Parameters
        ----------
        X : array_like
            (nq, d) queries.
        radius : float
            As in the project's data sets and faiss: squared distances below it, or products (cosines for ``angular``)
            above it. Stays with the user.

        Raises
        ------
        ParameterError
            The servers rank: then nobody has the distances that the results need. No finite radius.
        MippError
            As of :meth:`mipp.User.scores`.
        """
        if self._ranking != "user":
            raise ParameterError('range queries need all scores, and with ranking="server" nobody gets them')
        if isinstance(radius, bool) or not isinstance(radius, (int, float, np.number)) or not np.isfinite(radius):
            raise ParameterError("radius must be a finite number")
        asked, factors = self._asked(X)
        deployment = self._opened
        encoding, user = deployment.config.encoding, deployment.user(USER)
        step = min(self._batch or len(asked), max(1, _SCORE_BYTES // (8 * user.index().total))) or 1
        lims, near, far = [0], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for start in range(0, len(asked), step):
            part = asked[start : start + step]
            _, scores = user.scores(part)
            values = encoding.values(scores, part) / factors[start : start + step]
            within = values < radius if self._metric == "euclidean" else values > radius
            within &= scores >= encoding.score_range[0]
            lims += (lims[-1] + np.cumsum(within.sum(axis=1))).tolist()
            near.append(np.nonzero(within)[1])
            far.append(values[within].astype(np.float32))
        self._range_results = np.array(lims, np.int64), np.concatenate(far), np.concatenate(near)

    def get_range_results(self) -> tuple[npt.NDArray[Any], ...]:
        """Return the rows of the last :meth:`range_query`, in the order that faiss has and the project stores.

        Returns
        -------
        lims : ndarray
            int64 (nq + 1,); the rows of query i are at lims[i] to lims[i + 1] of the others.
        D : ndarray
            float32, squared distances or products.
        I : ndarray
            int64, row numbers of the data set.
        """
        return self._range_results

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
            ``ring_bits`` of the encoding, ``bytes_sent`` by owner and user in this process; empty without an index.
        """
        if self._deployment is None:
            return {}
        sent = sum(self._deployment.channel.bytes_sent.values())
        return {"ring_bits": self._deployment.config.encoding.ring_bits, "bytes_sent": sent}

    @property
    def _opened(self) -> Deployment:
        if self._deployment is None:
            raise ParameterError("fit or load_index comes first")
        return self._deployment

    def _place(self, dataset: Any) -> Path:
        return self._folder / self.index_name(dataset)

    def _facts(self, dataset: Any) -> tuple[Any, Facts]:
        found, name = find_dataset(dataset), dataset_name(dataset)
        distance = found.distance()
        if distance != self._metric:
            raise ParameterError(f"data set {name} is for {str(distance)[:50]!r}, and this index for {self._metric!r}")
        rows, dim = int(found.nb), int(found.d)
        if rows < 1 or dim < 1:
            raise ParameterError(f"data set {name} has {rows} rows of {dim} numbers; there must be one or more")
        return found, Facts(name, rows, dim, self._metric, self._ring_bits, self._rankings)

    def _asked(self, X: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Queries as they are encoded, and the divisors (nq, 1) of their values."""
        encoding = self._opened.config.encoding
        asked = prepared(self._metric, X) if self._metric == "angular" else np.asarray(X)
        if encoding.metric != "ip":
            check_queries(encoding, asked)
            return asked, np.ones((len(asked), 1))
        factors = query_factors(encoding, asked)[:, None]
        return asked * factors, factors


def _mapping(given: Any, known: Mapping[str, Any], what: str) -> dict[str, Any]:
    if isinstance(given, str) and given:
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise ParameterError(f"{what} are no JSON") from None
    given = given or {}
    if not isinstance(given, Mapping):
        raise ParameterError(f"{what} are a mapping, not {type(given).__name__}")
    unknown = sorted(str(name)[:50] for name in given if name not in known)
    if unknown:
        raise ParameterError(f"{what} are {', '.join(known)}, not {', '.join(unknown)}")
    return dict(given)
