"""Data sets: those of big-ann-benchmarks by name, files with the same interface, and their rows in checked blocks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DTypeError, MippError, NotFoundError, ParameterError, ShapeError
from ...io.benchmark import Truth, load_truth
from ...io.files import as_path, shown
from ...io.layouts import SUFFIXES, suffix_of
from ...io.streams import open_rows
from ...io.vectors import load_vectors

__all__ = ["FileDataset", "blocks_of", "dataset_name", "find_dataset"]

#: bytes of a block as float32
_BLOCK = 1 << 24
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class FileDataset:
    """Files of vectors, queries and true neighbours with the interface of a data set of big-ann-benchmarks.

    Parameters
    ----------
    base : str or path
        The rows: .fbin, .u8bin, .i8bin or their crops, or another file of :func:`mipp.io.streams.open_rows`.
    queries : str or path
        The queries, a file of :func:`mipp.io.vectors.load_vectors`.
    truth : str or path, optional
        True neighbours, a file of :func:`mipp.io.benchmark.load_truth`.
    metric : str
        ``euclidean``, ``ip`` or ``angular``; files do not say it.
    name : str
        Name in the index folder; default that of the file of rows.

    Raises
    ------
    MippError
        A file is missing, damaged, or does not fit the others.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from mipp.compat.big_ann_benchmarks import FileDataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "base.u8bin")
    ...     _ = path.write_bytes(np.array([3, 2], "<u4").tobytes() + bytes(6))
    ...     data = FileDataset(path, path)
    ...     data.nb, data.d, data.distance(), [len(block) for block in data.get_dataset_iterator(2)]
    (3, 2, 'euclidean', [2, 1])
    """

    def __init__(
        self, base: str | os.PathLike[str], queries: str | os.PathLike[str],
        truth: str | os.PathLike[str] | None = None, *, metric: str = "euclidean", name: str = "",
    ) -> None:  # fmt: skip
        self._base, self._queries_path, self._metric = as_path(base), as_path(queries), metric
        self._name = name or re.sub(r"[^A-Za-z0-9._-]", "_", self._base.name).lstrip(".-")[:100] or "rows"
        with open_rows(self._base) as stream:
            self.nb, self.d = stream.rows, stream.dim
            self.dtype = str(next(stream.blocks(1)).dtype)
        self._queries = load_vectors(self._queries_path)
        self.nq = len(self._queries)
        if self._queries.shape[1] != self.d:
            raise ShapeError(
                f"{shown(self._queries_path)}: queries of {self._queries.shape[1]} numbers, and rows of {self.d}"
            )
        self._truth = None if truth is None else load_truth(truth)
        if self._truth is not None:
            near = self._truth.neighbours
            if len(near) != self.nq:
                raise ShapeError(f"{shown(as_path(truth or ''))}: neighbours of {len(near)} queries, not of {self.nq}")
            if near.dtype.kind not in "iu" or near.min() < 0 or near.max() >= self.nb:
                raise ParameterError(f"{shown(as_path(truth or ''))}: neighbours must be row numbers below {self.nb}")

    def distance(self) -> str:
        """Return the metric's name in big-ann-benchmarks.

        Returns
        -------
        str
            As given.
        """
        return self._metric

    def search_type(self) -> str:
        """Return the kind of search.

        Returns
        -------
        str
            ``knn``.
        """
        return "knn"

    def default_count(self) -> int:
        """Return the number of neighbours that the benchmark asks for.

        Returns
        -------
        int
            10.
        """
        return 10

    def short_name(self) -> str:
        """Return the name that the index folder has.

        Returns
        -------
        str
            The name given, or that of the file of rows.
        """
        return self._name

    def get_dataset_fn(self) -> str:
        """Return the file of rows.

        Returns
        -------
        str
            Its path.
        """
        return str(self._base)

    def get_dataset_iterator(self, bs: int = 512, split: tuple[int, int] = (1, 0)) -> Iterator[npt.NDArray[Any]]:
        """Read the rows in blocks; the file is read, not mapped.

        Parameters
        ----------
        bs : int
            Rows of a block.
        split : pair of int
            (1, 0), all rows; parts are not read.

        Yields
        ------
        ndarray
            (bs, d), the last one may have fewer rows.

        Raises
        ------
        ParameterError
            Another split, or a file that cannot be read.
        """
        if tuple(split) != (1, 0):
            raise ParameterError("rows are read in one part: split must be (1, 0)")
        with open_rows(self._base) as stream:
            yield from stream.blocks(bs)

    def get_queries(self) -> npt.NDArray[Any]:
        """Return the queries.

        Returns
        -------
        ndarray
            (nq, d).
        """
        return self._queries

    def get_groundtruth(self, k: int | None = None) -> Truth | None:
        """Return the true neighbours.

        Parameters
        ----------
        k : int, optional
            At least so many must be there.

        Returns
        -------
        Truth or None
            As in the file; None if there is none.

        Raises
        ------
        ParameterError
            The file has fewer neighbours of each query.
        """
        if self._truth is not None and k is not None and self._truth.neighbours.shape[1] < k:
            raise ParameterError(f"the true neighbours are {self._truth.neighbours.shape[1]} a query, fewer than {k}")
        return self._truth


def find_dataset(dataset: Any) -> Any:
    """Look up a data set.

    Parameters
    ----------
    dataset : str or object
        A name in ``benchmark.datasets.DATASETS`` of big-ann-benchmarks, or an object with the interface of its data
        sets.

    Returns
    -------
    object
        The data set.

    Raises
    ------
    NotFoundError
        big-ann-benchmarks cannot be imported, or knows no such name.
    DTypeError
        An object without that interface.
    """
    if not isinstance(dataset, str):
        for name in ("nb", "d", "distance", "get_dataset_iterator"):
            if not hasattr(dataset, name):
                raise DTypeError(f"a data set is a name, or an object with {name}; {type(dataset).__name__} has none")
        return dataset
    try:
        from benchmark.datasets import DATASETS
    except ImportError:
        raise NotFoundError(
            f"no data set {dataset[:100]!r}: benchmark.datasets of big-ann-benchmarks cannot be imported; run in its "
            "folder, or give a data set object"
        ) from None
    if dataset not in DATASETS:
        raise NotFoundError(f"big-ann-benchmarks has no data set {dataset[:100]!r}")
    return DATASETS[dataset]()


def dataset_name(dataset: Any) -> str:
    """Name a data set in a path.

    Parameters
    ----------
    dataset : str or object
        As for :func:`find_dataset`.

    Returns
    -------
    str
        Letters, digits, dots, dashes and underscores.

    Raises
    ------
    ParameterError
        A name with other characters.
    """
    if isinstance(dataset, str):
        name = dataset
    else:
        name = dataset.short_name() if hasattr(dataset, "short_name") else type(dataset).__name__
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ParameterError("the name of a data set has letters, digits, dots, dashes and underscores only")
    return name


def blocks_of(dataset: Any, name: str) -> Iterator[npt.NDArray[Any]]:
    """Read all rows of a data set in blocks of about 16 MiB, checked against its facts.

    Parameters
    ----------
    dataset : object
        Of :func:`find_dataset`.
    name : str
        Its name, for errors.

    Yields
    ------
    ndarray
        (rows, d). Used before the next one is asked for: the data set may reuse its memory.

    Raises
    ------
    NotFoundError
        Its file is missing.
    ShapeError, DTypeError
        Rows of another dimension, more or fewer rows than the data set has, no real numbers.
    ParameterError
        Its file cannot be read, or its header does not fit the data set.
    """
    rows, dim = int(dataset.nb), int(dataset.d)
    _check_file(dataset, name, rows, dim)
    seen = 0
    blocks = iter(dataset.get_dataset_iterator(bs=max(1, _BLOCK // (4 * dim))))
    while True:
        try:
            block = next(blocks, None)
        except MippError:
            raise
        except Exception as error:  # of big-ann-benchmarks: assertions, RuntimeError, and those of files
            raise _unreadable(name, error) from None
        if block is None:
            break
        block = np.asarray(block)
        if block.dtype.kind not in "iuf":
            raise DTypeError(f"data set {name}: rows must be real numbers, not {block.dtype}")
        if block.ndim != 2 or block.shape[1] != dim:
            raise ShapeError(f"data set {name}: a block of shape {block.shape}, and rows have {dim} numbers")
        seen += len(block)
        if seen > rows:
            break
        yield block
    if seen != rows:
        raise ShapeError(f"data set {name}: {rows} rows are declared, and {'more' if seen > rows else seen} come")


def _check_file(dataset: Any, name: str, rows: int, dim: int) -> None:
    """Compare the header of a data set's file with its size and with the data set, where it has a file."""
    if not hasattr(dataset, "get_dataset_fn"):
        return
    try:
        path = Path(dataset.get_dataset_fn())
    except MippError:
        raise
    except Exception as error:
        raise _unreadable(name, error) from None
    if suffix_of(path) in SUFFIXES or not path.exists():
        with open_rows(path) as stream:
            # the data set may be the first rows of a larger file
            if stream.dim != dim or stream.rows < rows:
                raise ShapeError(
                    f"{shown(path)}: {stream.rows} rows of {stream.dim} numbers, and data set {name} has {rows} of "
                    f"{dim}"
                )


def _unreadable(name: str, error: Exception) -> MippError:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    missing = isinstance(error, FileNotFoundError) or "not found" in text
    return (NotFoundError if missing else ParameterError)(f"data set {name} cannot be read ({text})")
