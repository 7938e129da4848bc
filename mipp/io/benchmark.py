"""Benchmark files: rows, queries and true neighbours in one .hdf5 file of ann-benchmarks, and files of true neighbours.

A .ibin file of big-ann-benchmarks begins with the number of queries and that of neighbours, little-endian uint32 both;
then come the ids of the neighbours, queries x k uint32, and, in most files, their distances, queries x k float32.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTypeError, ParameterError, ShapeError
from .files import as_path, open_regular, shown, system_text
from .hdf5 import has_dataset, open_hdf5, read_dataset, read_text
from .layouts import bin_header, suffix_of
from .vectors import check_finite, load_vectors

__all__ = ["Benchmark", "Truth", "load_benchmark", "load_truth"]

#: values of the attribute ``distance``, and the metric of encodings that each stands for
METRICS = {"euclidean": "l2", "angular": "cosine", "hamming": "hamming", "ip": "ip", "dot": "ip"}

#: formats of vectors whose numbers are no row numbers
_VECTORS_ONLY = (".fbin", ".u8bin", ".i8bin", ".fvecs", ".bvecs")


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Vectors with known neighbours. Public data.

    Parameters
    ----------
    train : ndarray
        (N, dim) rows.
    test : ndarray
        (B, dim) queries.
    neighbours : ndarray or None
        int64 (B, k), rows of ``train``, nearest first; None if the file has none.
    metric : str
        ``l2``, ``cosine``, ``hamming`` or ``ip``.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.io.benchmark import Benchmark
    >>> Benchmark(np.eye(3), np.eye(3)[:1], np.array([[0]]), "l2").train.shape
    (3, 3)
    """

    train: npt.NDArray[Any]
    test: npt.NDArray[Any]
    neighbours: npt.NDArray[np.int64] | None
    metric: str


def load_benchmark(path: str | os.PathLike[str]) -> Benchmark:
    """Read a benchmark file of ann-benchmarks into memory, checked.

    Read are the datasets ``train``, ``test`` and, if it is there, ``neighbors``, and the attribute ``distance``.

    Parameters
    ----------
    path : str or path
        An .hdf5 file.

    Returns
    -------
    Benchmark

    Raises
    ------
    NotFoundError
        No such file.
    ParameterError
        Not an HDF5 file, or a damaged one; a dataset or the attribute is missing; an unknown distance; neighbours that
        are not row numbers.
    ShapeError, DTypeError, EncodingError
        Datasets that are not 2-d, do not fit each other, do not hold real numbers, or hold NaN or infinity.
    MissingExtraError
        h5py is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import h5py, numpy as np
    >>> from mipp.io.benchmark import load_benchmark
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "tiny.hdf5")
    ...     with h5py.File(path, "w") as file:
    ...         file["train"], file["test"], file["neighbors"] = np.eye(3), np.eye(3)[:2], [[0], [1]]
    ...         file.attrs["distance"] = "euclidean"
    ...     data = load_benchmark(path)
    >>> data.metric, data.train.shape, data.neighbours.tolist()
    ('l2', (3, 3), [[0], [1]])
    """
    source = as_path(path)
    with open_hdf5(source) as file:
        distance = read_text(file, "distance")
        if distance not in METRICS:
            said = "missing or no text" if distance is None else repr(distance[:50])
            raise ParameterError(f"{shown(source)}: its distance is {said}, not one of {', '.join(METRICS)}")
        train, test = read_dataset(file, source, "train"), read_dataset(file, source, "test")
        near = read_dataset(file, source, "neighbors") if has_dataset(file, "neighbors") else None
    if train.shape[1] != test.shape[1]:
        raise ShapeError(f"{shown(source)}: rows of {train.shape[1]} numbers and queries of {test.shape[1]}")
    check_finite(train, source)
    check_finite(test, source)
    if near is not None:
        if near.dtype.kind not in "iu":
            raise DTypeError(f"{shown(source)}: neighbors must hold row numbers, not {near.dtype}")
        if len(near) != len(test):
            raise ShapeError(f"{shown(source)}: {len(test)} queries and {len(near)} lists of neighbours")
        if near.min() < 0 or near.max() >= len(train):
            raise ParameterError(f"{shown(source)}: neighbours must be row numbers below {len(train)}")
        near = near.astype(np.int64)
    return Benchmark(train, test, near, METRICS[distance])


@dataclass(frozen=True, eq=False)
class Truth:
    """True neighbours of queries. Public data.

    Parameters
    ----------
    neighbours : ndarray
        (B, k) integers, numbers of rows, nearest first.
    distances : ndarray or None
        float32 (B, k), in the measure of the benchmark; None if the file has none.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.io.benchmark import Truth
    >>> Truth(np.array([[3, 1]]), None).neighbours.shape
    (1, 2)
    """

    neighbours: npt.NDArray[Any]
    distances: npt.NDArray[np.float32] | None


def load_truth(path: str | os.PathLike[str]) -> Truth:
    """Read true neighbours, memory-mapped read-only.

    Parameters
    ----------
    path : str or path
        A .ibin file of big-ann-benchmarks, with distances or without; or any file of
        :func:`mipp.io.vectors.load_vectors` whose rows are row numbers, such as .ivecs and .npy.

    Returns
    -------
    Truth
        Row numbers are not checked against an index.

    Raises
    ------
    ShapeError
        A .ibin file whose header declares more or fewer bytes than it has.
    ParameterError
        A file whose format holds vectors, and no row numbers: .fbin, .u8bin, .i8bin, .fvecs or .bvecs.
    MippError
        Otherwise as :func:`mipp.io.vectors.load_vectors`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from mipp.io.benchmark import load_truth
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "gt.ibin")
    ...     _ = path.write_bytes(np.array([1, 2, 40, 7], "<u4").tobytes() + np.array([0.5, 0.75], "<f4").tobytes())
    ...     truth = load_truth(path)
    ...     truth.neighbours.tolist(), truth.distances.tolist()
    ([[40, 7]], [[0.5, 0.75]])
    """
    source = as_path(path)
    if suffix_of(source) in _VECTORS_ONLY:  # bytes would pass for numbers of rows
        raise ParameterError(f"{shown(source)}: a {suffix_of(source)} file holds vectors, not true neighbours (.ibin)")
    if suffix_of(source) != ".ibin":
        return Truth(load_vectors(source), None)
    with open_regular(source) as (file, size):
        queries, k = bin_header(source, file, size, ("queries", "neighbours"))
        start, ids = file.tell(), 4 * queries * k
        if size - start not in (ids, 2 * ids):
            raise ShapeError(
                f"{shown(source)}: the header declares {queries} queries of {k} neighbours, {ids} bytes of ids and as "
                f"many of distances or none, and {size - start} bytes follow"
            )
        try:
            near = np.memmap(file, "<u4", "r", start, (queries, k))
            far = np.memmap(file, "<f4", "r", start + ids, (queries, k)) if size - start > ids else None
        except (OSError, ValueError) as error:
            raise ParameterError(f"{shown(source)}: cannot be read ({system_text(error)})") from None
    return Truth(near, far)
