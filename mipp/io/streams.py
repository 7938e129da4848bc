"""Rows of vector files in blocks: memory for a block, whatever the file's size.

Files of fixed rows are read, not mapped: a mapped file that another process cuts short kills the reader, and its pages
count as memory of the process until they are given back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import ParameterError, ShapeError
from . import arrow, hdf5, layouts
from .files import as_path, open_regular, reading, shown, system_text
from .layouts import Layout, suffix_of
from .memory import SpareArrays
from .vectors import unknown_format

__all__ = ["RowStream", "in_blocks", "open_rows"]


@dataclass(frozen=True)
class RowStream:
    """The rows of an open file.

    Parameters
    ----------
    path : Path
        The file.
    rows : int
        Number of its rows.
    dim : int
        Numbers in a row.
    size : int
        Bytes of the file.
    reader : callable
        Gives the rows in order, from the first, in arrays of about as many rows as it is asked for.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from mipp.io.streams import open_rows
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.npy")
    ...     np.save(path, np.eye(5))
    ...     with open_rows(path) as stream:
    ...         [len(block) for block in stream.blocks(2)]
    [2, 2, 1]
    """

    path: Path
    rows: int
    dim: int
    size: int
    reader: Callable[[int], Iterable[npt.NDArray[Any]]]

    def blocks(self, rows: int) -> Iterator[npt.NDArray[Any]]:
        """Read all rows, from the first.

        Parameters
        ----------
        rows : int
            Rows of a block; the last one may have fewer.

        Yields
        ------
        ndarray
            (rows, dim), C-contiguous: float, or integer as in the file. Not checked for NaN or infinity. Secret where
            the file is.

        Raises
        ------
        ShapeError
            A record of another dimension.
        ParameterError
            The file cannot be read, or became shorter.
        """
        return in_blocks(self.reader(rows), rows, copy=False)


@contextlib.contextmanager
def open_rows(path: str | os.PathLike[str], columns: Sequence[str] = ()) -> Iterator[RowStream]:
    """Open a file of vectors; its header is checked, as :func:`mipp.io.vectors.load_vectors` does.

    Parameters
    ----------
    path : str or path
        As for :func:`mipp.io.vectors.load_vectors`.
    columns : sequence of str
        As for :func:`mipp.io.vectors.load_vectors`.

    Yields
    ------
    RowStream
        Open until the block ends.

    Raises
    ------
    MippError
        As :func:`mipp.io.vectors.load_vectors`, but for what only the rows show.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.fbin")
    ...     _ = path.write_bytes(np.array([2, 3], "<u4").tobytes() + np.arange(6, dtype="<f4").tobytes())
    ...     with open_rows(path) as stream:
    ...         stream.rows, stream.dim, next(stream.blocks(10))[1].tolist()
    (2, 3, [3.0, 4.0, 5.0])
    """
    source = as_path(path)
    suffix = suffix_of(source)
    if suffix in arrow.SUFFIXES:
        with arrow.open_arrow(source, columns) as table:
            yield RowStream(source, table.rows, table.dim, os.path.getsize(source), table.read)
    elif columns:
        raise ParameterError(f"{shown(source)}: has no columns to choose; Parquet and Arrow files have")
    elif suffix in hdf5.SUFFIXES:
        with hdf5.open_once(source) as file:
            with reading(source, "HDF5 file"):
                found = hdf5.find_dataset(file, source, "train")
            (count, dim), size = found.shape, os.path.getsize(source)
            yield RowStream(source, count, dim, size, lambda rows: hdf5.read_slices(found, source, rows))
    elif suffix in layouts.SUFFIXES:
        with open_regular(source) as (opened, size):
            layout = layouts.layout_of(source, opened, size)
            yield RowStream(source, layout.rows, layout.dim, size, lambda rows: _read(source, opened, layout, rows))
    else:
        with open_regular(source):  # a file that is not there, first
            raise unknown_format(source)


def in_blocks(arrays: Iterable[npt.NDArray[Any]], rows: int, *, copy: bool = True) -> Iterator[npt.NDArray[Any]]:
    """Cut arrays of rows into blocks of one size.

    Parameters
    ----------
    arrays : iterable of ndarray, (n, dim)
        Of one dimension. Read when a block needs them.
    rows : int
        Rows of a block.
    copy : bool
        Whether blocks are copies, so that who makes the arrays may use their memory again.

    Yields
    ------
    ndarray
        (rows, dim), C-contiguous; the last one may have fewer rows. Arrays of different dtypes become the larger one.

    Raises
    ------
    ShapeError
        An array that is not two-dimensional, or of another dimension than the first.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.io.streams import in_blocks
    >>> [len(block) for block in in_blocks([np.ones((5, 2)), np.ones((1, 2))], 4)]
    [4, 2]
    """
    waiting: list[npt.NDArray[Any]] = []
    count, dim = 0, -1
    for number, array in enumerate(arrays):
        dim = array.shape[-1] if dim < 0 and array.ndim == 2 else dim
        if array.ndim != 2 or array.shape[1] != dim:
            expected = f"(rows, {dim})" if dim >= 0 else "(rows, dim)"
            raise ShapeError(f"array {number} of the vectors must be {expected}, not {array.shape}")
        at = 0
        while at < len(array):
            part = array[at : at + rows - count]
            at, count = at + len(part), count + len(part)
            waiting.append(part.copy() if copy else part)
            if count == rows:
                yield _joined(waiting)
                waiting, count = [], 0
    if count:
        yield _joined(waiting)


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)


def _read(path: Path, file: BinaryIO, layout: Layout, rows: int) -> Iterator[npt.NDArray[Any]]:
    spare = SpareArrays()
    for first in range(0, layout.rows, rows):
        count = min(rows, layout.rows - first)
        if layout.by_columns:
            block = np.empty((layout.dim, count), layout.item)
            for column in range(layout.dim):
                place = layout.start + (column * layout.rows + first) * layout.item.itemsize
                _fill(path, file, block[column], place)
            yield block.T
        elif layout.head:
            records = np.empty(count, layout.record)
            _fill(path, file, records, first * layout.row_bytes)
            yield layout.values(path, records, first)
        else:
            block = spare.take((count, layout.dim), layout.item)
            _fill(path, file, block, layout.start + first * layout.row_bytes)
            yield block
            del block


def _fill(path: Path, file: BinaryIO, array: npt.NDArray[Any], place: int) -> None:
    """Read an array from a place of a file."""
    left = array.view(np.uint8).reshape(-1).data
    while left:
        try:
            got = os.preadv(file.fileno(), [left], place)
        except OSError as error:
            raise ParameterError(f"{shown(path)}: cannot be read ({system_text(error)})") from None
        if not got:
            raise ParameterError(f"{shown(path)}: became shorter while it was read")
        left, place = left[got:], place + got
