"""The way of big-ann-benchmarks without it: files of rows, queries and true neighbours to recall and throughput."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ParameterError
from ...io.benchmark import Truth
from ..ann_benchmarks.common import grown_kib
from .dataset import FileDataset
from .module import MippFlat

__all__ = ["measure_files", "recall_with_ties"]


def measure_files(
    dataset: FileDataset, *, k: int = 10, ring_bits: int = 32, rankings: Sequence[str] = ("user",),
    batches: Sequence[int] = (0,), folder: str = "data/indices/mipp", threads: int | None = None, runs: int = 1,
    notice: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Build an index, or open it, and measure each ranking and number of queries at once.

    Parameters
    ----------
    dataset : FileDataset
        Files, with true neighbours.
    k : int
        Neighbours.
    ring_bits : int
        As of :class:`MippFlat`.
    rankings : sequence of str
        As of :class:`MippFlat`.
    batches : sequence of int
        Numbers of queries that are sent at once; 0 for all.
    folder : str
        Folder of all indexes; holds **all secret keys**, and stays.
    threads : int, optional
        As of :class:`MippFlat`.
    runs : int
        Times that all queries are searched; the fastest counts, as in the project.
    notice : callable, optional
        Gets a sentence before what may take many seconds.

    Returns
    -------
    list of dict
        For each ranking and batch: facts (``dataset``, ``algorithm``, ``metric``, ``dtype``, ``rows``, ``dim``,
        ``queries``, ``k``, ``ranking``, ``batch``) and figures (``recall``, ``queries_per_second``, ``build_seconds``,
        0 for an index that was there, ``memory_kib``, ``ring_bits``, ``bytes_sent``), JSON-ready.

    Raises
    ------
    ParameterError
        No true neighbours, too few of them; k or runs out of range.
    MippError
        As of :meth:`MippFlat.fit`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from mipp.compat.big_ann_benchmarks import FileDataset, measure_files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     base, truth = pathlib.Path(folder, "base.u8bin"), pathlib.Path(folder, "gt.ibin")
    ...     _ = base.write_bytes(np.array([3, 2], "<u4").tobytes() + bytes([0, 0, 9, 9, 200, 9]))
    ...     _ = truth.write_bytes(np.array([3, 1, 0, 1, 2], "<u4").tobytes())
    ...     (found,) = measure_files(FileDataset(base, base, truth), k=1, folder=folder)
    >>> found["rows"], found["recall"]
    (3, 1.0)
    """
    if not 1 <= k <= dataset.nb:
        raise ParameterError(f"k must be from 1 to {dataset.nb}, not {k}")
    if runs < 1:
        raise ParameterError("runs must be at least 1")
    truth = dataset.get_groundtruth(k)
    if truth is None:
        raise ParameterError("recall needs a file of true neighbours")
    params = {"ring_bits": ring_bits, "rankings": list(rankings), "folder": folder, "threads": threads}
    algorithm = MippFlat(dataset.distance(), params)
    groups = [{"ranking": ranking, "batch": batch} for ranking in rankings for batch in batches]
    for group in groups:
        algorithm.set_query_arguments(group)
    queries, found = np.ascontiguousarray(dataset.get_queries()), []
    before, began = algorithm.get_memory_usage(), time.perf_counter()
    try:
        built = not algorithm.load_index(dataset)
        if built:
            if notice is not None:
                notice(f"searching an encoding and building an index of {dataset.nb} rows, {ring_bits or 'any'} bits")
            algorithm.fit(dataset)
        build = time.perf_counter() - began if built else 0.0
        memory = grown_kib(algorithm.get_memory_usage(), before)
        algorithm.query(queries[:1], k)  # the first one reads and checks the stored rows
        for group in groups:
            algorithm.set_query_arguments(group)
            best = np.inf
            for _ in range(runs):
                began = time.perf_counter()
                algorithm.query(queries, k)
                best = min(best, time.perf_counter() - began)
            found.append({
                "dataset": dataset.short_name(), "algorithm": str(algorithm), "metric": dataset.distance(),
                "dtype": dataset.dtype, "rows": dataset.nb, "dim": dataset.d, "queries": len(queries), "k": k, **group,
                "recall": recall_with_ties(algorithm.get_results(), truth, k),
                "queries_per_second": len(queries) / best, "build_seconds": build, "memory_kib": memory,
                **algorithm.get_additional(),
            })  # fmt: skip
    finally:
        algorithm.done()
    return found


def recall_with_ties(found: npt.NDArray[np.int64], truth: Truth, k: int) -> float:
    """Compute the mean share of found rows among the true k nearest; rows as far as the k-th count, if they are listed.

    Parameters
    ----------
    found : ndarray
        int64 (nq, k) row numbers; -1 counts as wrong.
    truth : Truth
        True neighbours, k a query or more. Without distances only the first k count.
    k : int
        Neighbours.

    Returns
    -------
    float
        0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.compat.big_ann_benchmarks.measure import recall_with_ties
    >>> from mipp.io.benchmark import Truth
    >>> truth = Truth(np.array([[4, 7, 9]]), np.array([[0.0, 2.0, 2.0]], np.float32))
    >>> recall_with_ties(np.array([[9, 4]]), truth, 2), recall_with_ties(np.array([[8, 4]]), truth, 2)
    (1.0, 0.5)
    """
    hits = 0
    for number, row in enumerate(np.asarray(found)[:, :k]):
        near = truth.neighbours[number]
        if truth.distances is None:
            near = near[:k]
        else:
            far = truth.distances[number]
            # nearest first: distances grow, and products fall or come negated
            tied = far <= far[k - 1] if far[0] <= far[-1] else far >= far[k - 1]
            near = near[tied]
        hits += min(k, len(np.intersect1d(row, near)))
    return hits / (len(found) * k) if len(found) else 0.0
