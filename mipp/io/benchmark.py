"""Benchmark files of ann-benchmarks: rows, queries and their true neighbours in one .hdf5 file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTypeError, ParameterError, ShapeError
from .files import as_path, shown
from .hdf5 import has_dataset, open_hdf5, read_dataset, read_text
from .vectors import check_finite

__all__ = ["Benchmark", "load_benchmark"]

#: values of the attribute ``distance``, and the metric of encodings that each stands for
METRICS = {"euclidean": "l2", "angular": "cosine", "hamming": "hamming", "ip": "ip", "dot": "ip"}


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
