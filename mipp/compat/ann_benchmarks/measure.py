"""Recall, queries per second, build time and memory of :class:`MippFlat` on one file of ann-benchmarks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ParameterError
from ...io.benchmark import Benchmark, load_benchmark
from .common import grown_kib
from .module import MippFlat

__all__ = ["measure", "recall_at_k"]

#: metrics of mipp.io, and their names in ann-benchmarks
_NAMES = {"l2": "euclidean", "cosine": "angular", "hamming": "hamming", "ip": "ip"}
#: by how much a distance may exceed the true k-th one and still count, as in ann-benchmarks
_SLACK = 1e-3
_CHUNK = 1 << 26


def measure(
    path: str | os.PathLike[str], *, k: int = 10, queries: int = 0, ring_bits: int = 32, ranking: str = "user",
    threads: int | None = None, notice: Callable[[str], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure encrypted search on one file of ann-benchmarks: query by query and in one batch.

    Parameters
    ----------
    path : str or path
        .hdf5 file with ``train``, ``test`` and the attribute ``distance``.
    k : int
        Neighbours.
    queries : int
        Only the first so many; 0 for all.
    ring_bits : int
        As of :class:`MippFlat`.
    ranking : str
        As of :class:`MippFlat`.
    threads : int, optional
        As of :class:`MippFlat`.
    notice : callable, optional
        Gets a sentence before what may take many seconds.

    Returns
    -------
    dict
        Facts (``file``, ``algorithm``, ``distance``, ``rows``, ``dim``, ``queries``, ``k``, ``ring_bits``) and figures
        (``recall``, ``recall_batch``, ``queries_per_second``, ``queries_per_second_batch``, ``build_seconds``,
        ``memory_kib``, ``bytes_sent``), JSON-ready.

    Raises
    ------
    ParameterError
        k or queries out of range; the file lists fewer than k true neighbours of each query.
    MippError
        As :func:`mipp.io.benchmark.load_benchmark`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import h5py, numpy as np
    >>> from mipp.compat.ann_benchmarks import measure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "tiny.hdf5")
    ...     with h5py.File(path, "w") as file:
    ...         file["train"], file["test"] = np.eye(8), np.eye(8)[:2]
    ...         file.attrs["distance"] = "euclidean"
    ...     figures = measure(path, k=1)
    >>> figures["rows"], figures["recall"]
    (8, 1.0)
    """
    data = load_benchmark(path)
    if not 1 <= k <= len(data.train):
        raise ParameterError(f"k must be from 1 to {len(data.train)}, not {k}")
    if data.neighbours is not None and data.neighbours.shape[1] < k:
        raise ParameterError(f"the true neighbours are {data.neighbours.shape[1]} a query, fewer than {k}")
    if queries < 0:
        raise ParameterError("the number of queries is not negative; 0 means all")
    test = data.test[:queries] if queries else data.test
    algorithm = MippFlat(_NAMES[data.metric], ring_bits, ranking, threads)
    try:
        before = algorithm.get_memory_usage()
        if notice is not None:  # with narrow rings the first part alone takes many seconds
            notice(f"searching an encoding and building an index of {len(data.train)} rows, {ring_bits or 'any'} bits")
        began = time.perf_counter()
        algorithm.fit(data.train)
        build = time.perf_counter() - began
        memory = grown_kib(algorithm.get_memory_usage(), before)
        algorithm.query(test[0], k)  # the first one reads and checks the stored rows
        began = time.perf_counter()
        single = np.array([algorithm.query(q, k) for q in test])
        one_by_one = time.perf_counter() - began
        began = time.perf_counter()
        algorithm.batch_query(test, k)
        at_once = time.perf_counter() - began
        batch = algorithm.get_batch_results()
        more = algorithm.get_additional()
    finally:
        algorithm.done()
    truth = _kth_distances(data, test, k)
    return {
        "file": str(path), "algorithm": str(algorithm), "distance": _NAMES[data.metric], "rows": len(data.train),
        "dim": data.train.shape[1], "queries": len(test), "k": k,
        "recall": recall_at_k(_distances(data, test, single), truth),
        "recall_batch": recall_at_k(_distances(data, test, batch), truth),
        "queries_per_second": len(test) / one_by_one, "queries_per_second_batch": len(test) / at_once,
        "build_seconds": build, "memory_kib": memory, **more,
    }  # fmt: skip


def recall_at_k(found: npt.NDArray[np.float64], kth: npt.NDArray[np.float64]) -> float:
    """Compute the mean share of found rows that are as near as the true k-th, as ann-benchmarks counts it.

    Parameters
    ----------
    found : ndarray
        float64 (m, k), distances of found rows.
    kth : ndarray
        float64 (m,), true distance of each query's k-th neighbour. Distances up to 0.001 beyond it count.

    Returns
    -------
    float
        0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.compat.ann_benchmarks import recall_at_k
    >>> recall_at_k(np.array([[0.1, 0.3], [0.2, 0.9]]), np.array([0.3, 0.5]))
    0.75
    """
    return float((found <= (kth + _SLACK)[:, None]).mean())


def _kth_distances(data: Benchmark, test: npt.NDArray[Any], k: int) -> npt.NDArray[np.float64]:
    """True distance of each query's k-th neighbour, from the file if it has neighbours, else measured."""
    if data.neighbours is not None:
        near = data.neighbours[: len(test), :k]
        return np.asarray(_distances(data, test, near).max(axis=1))
    out = np.empty(len(test))
    every = np.arange(len(data.train))[None]
    for i, query in enumerate(test):
        out[i] = np.partition(_distances(data, query[None], every)[0], k - 1)[k - 1]
    return out


def _distances(data: Benchmark, test: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(m, k) distances of queries to their rows; smaller is nearer, and row -1 is infinitely far."""
    out = np.empty(rows.shape)
    step = max(1, _CHUNK // (8 * rows.shape[1] * data.train.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        x, q = data.train[rows[part]].astype(np.float64), test[part].astype(np.float64)[:, None]
        if data.metric == "ip":
            out[part] = -(x * q).sum(axis=2)
        elif data.metric == "hamming":
            out[part] = (x != q).mean(axis=2)
        elif data.metric == "cosine":
            lengths = np.sqrt((x * x).sum(axis=2) * (q * q).sum(axis=2))
            out[part] = 1.0 - (x * q).sum(axis=2) / np.where(lengths > 0, lengths, 1.0)
        else:
            out[part] = np.sqrt(((x - q) ** 2).sum(axis=2))
    out[rows < 0] = np.inf
    return out
