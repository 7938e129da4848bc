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

#: what the attribute ``distance`` says, and the metric of encodings that is meant
METRICS = {"euclidean": "l2", "angular": "cosine", "hamming": "hamming", "ip": "ip", "dot": "ip"}


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Vectors with known neighbours.

    Parameters
    ----------
    train, test : (N, dim) rows and (B, dim) queries
    neighbours : int64 (B, k), rows of ``train``, nearest first, or None if the file has none
    metric : ``l2``, ``cosine``, ``hamming`` or ``ip``
    """

    train: npt.NDArray[Any]
    test: npt.NDArray[Any]
    neighbours: npt.NDArray[np.int64] | None
    metric: str


def load_benchmark(path: str | os.PathLike[str]) -> Benchmark:
    """Read datasets ``train``, ``test`` and, if there, ``neighbors``, and the attribute ``distance``; into memory,
    checked.

    Raises
    ------
    NotFoundError
        No such file.
    ParameterError
        No HDF5 file, damaged, a dataset or the attribute missing, another distance, neighbours that are no rows.
    ShapeError, DTypeError, EncodingError
        Datasets that are not 2-d, do not fit each other, hold no real numbers, or NaN or infinity.
    MissingExtraError
        h5py is not installed.
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
