"""Vector files: .npy, the .fvecs, .bvecs and .ivecs of the TEXMEX collections, the .fbin, .u8bin and .i8bin of
billion-scale benchmarks, .hdf5 as ann-benchmarks has it, and Parquet and Arrow.

Files are memory-mapped, but for .hdf5, Parquet and Arrow, which are read into memory. :mod:`mipp.io.streams` reads rows
in blocks, whatever the file's size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTypeError, EncodingError, ParameterError, ShapeError
from . import arrow, hdf5, layouts
from .files import as_path, open_regular, replace_whole, shown
from .layouts import MAX_DIM, suffix_of
from .memory import memory_bytes

__all__ = [
    "MAX_DIM",
    "SUFFIXES",
    "check_finite",
    "load_queries",
    "load_vector",
    "load_vectors",
    "save_fvecs",
    "unknown_format",
]

#: of files of vectors
SUFFIXES = (*layouts.SUFFIXES, *hdf5.SUFFIXES, *arrow.SUFFIXES)

_CHECK_ROWS = 1 << 16


def load_vectors(path: str | os.PathLike[str], columns: Sequence[str] = ()) -> npt.NDArray[Any]:
    """Read the vectors of a file, memory-mapped read-only where the format allows, checked whole.

    Parameters
    ----------
    path : str or path
        ``.npy`` with a 2-d array of real numbers (float64 and the like stay as they are), ``.fvecs``, ``.bvecs``,
        ``.ivecs``, ``.fbin``, ``.u8bin``, ``.i8bin``, or ``.hdf5`` (``.h5``), whose dataset ``train`` is read. A name
        may end in ``.crop_nb_N`` as crops of big-ann-benchmarks do. Of ``.parquet``, ``.arrow`` and ``.feather`` the
        one column of lists of numbers is read, or all columns if they are numbers.
    columns : sequence of str
        Of a Parquet or Arrow file, the column of lists, or the columns of numbers, to read.

    Returns
    -------
    ndarray
        (N, dim), N and dim at least 1; float, or integer as in the file.

    Raises
    ------
    NotFoundError
        No such file.
    ParameterError
        Another suffix, no readable file (a folder, a pipe, a device), or one that is not in its format; a header that
        declares more or fewer bytes than the file has; an HDF5 dataset whose numbers lie in another file or nowhere.
    ShapeError
        A truncated file, records of different dimensions, an array that is not 2-d, no vectors.
    DTypeError
        An array that is not of real numbers; an argument that is not a path.
    EncodingError
        NaN or infinity.
    MissingExtraError
        An .hdf5 file, and h5py is not installed; a Parquet or Arrow file, and pyarrow is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from mipp.io.vectors import load_vectors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(pathlib.Path(folder, "a.npy"), np.eye(3))
    ...     load_vectors(pathlib.Path(folder, "a.npy")).shape
    (3, 3)
    """
    return _load(as_path(path), one=False, columns=columns)


def load_queries(path: str | os.PathLike[str], *, finite: bool = True) -> npt.NDArray[Any]:
    """Read the query vectors of a file: as :func:`load_vectors`, but in .hdf5 the dataset ``test`` if there is one.

    Parameters
    ----------
    path : str or path
        As for :func:`load_vectors`.
    finite : bool
        Whether NaN and infinity are refused; else the caller leaves out such vectors by itself.

    Returns
    -------
    ndarray
        (N, dim), N and dim at least 1.

    Raises
    ------
    MippError
        As :func:`load_vectors`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from mipp.io.vectors import load_queries
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(pathlib.Path(folder, "q.npy"), np.eye(3))
    ...     load_queries(pathlib.Path(folder, "q.npy")).shape
    (3, 3)
    """
    return _load(as_path(path), one=False, queries=True, finite=finite)


def load_vector(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read the one vector of a file.

    Parameters
    ----------
    path : str or path
        A .npy file with shape (dim,) or (1, dim), or a vecs file with one record.

    Returns
    -------
    ndarray
        (dim,).

    Raises
    ------
    ShapeError
        More than one vector.
    MippError
        Otherwise as :func:`load_vectors`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from mipp.io.vectors import load_vector
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(pathlib.Path(folder, "q.npy"), np.arange(4))
    ...     load_vector(pathlib.Path(folder, "q.npy")).tolist()
    [0, 1, 2, 3]
    """
    data = _load(as_path(path), one=True)
    if len(data) != 1:
        raise ShapeError(f"{shown(as_path(path))}: holds {len(data)} vectors where one is wanted")
    return np.asarray(data[0])


def _load(
    path: Path, *, one: bool, queries: bool = False, columns: Sequence[str] = (), finite: bool = True
) -> npt.NDArray[Any]:
    suffix = suffix_of(path)
    if suffix in arrow.SUFFIXES:
        with arrow.open_arrow(path, columns) as opened:
            data = _whole(path, opened)
    elif columns:
        raise ParameterError(f"{shown(path)}: has no columns to choose; Parquet and Arrow files have")
    elif suffix in hdf5.SUFFIXES:
        with hdf5.open_hdf5(path) as file:
            data = hdf5.read_dataset(file, path, "test" if queries and hdf5.has_dataset(file, "test") else "train")
    else:
        with open_regular(path) as (file, size):
            if suffix not in layouts.SUFFIXES:
                raise unknown_format(path)
            data = layouts.layout_of(path, file, size, one=one).mapped(path, file)
    if finite:
        check_finite(data, path)
    return data


def _whole(path: Path, opened: arrow.ArrowRows) -> npt.NDArray[Any]:
    if opened.rows * opened.dim > memory_bytes():
        raise ParameterError(f"{shown(path)}: {opened.rows} x {opened.dim} numbers are more than the memory holds")
    data, first = None, 0
    for block in opened.read(_CHECK_ROWS):
        data = np.empty((opened.rows, opened.dim), block.dtype) if data is None else data
        data[first : first + len(block)] = block
        first += len(block)
    if data is None or first != opened.rows:
        raise ParameterError(f"{shown(path)}: has not the {opened.rows} rows that it declares")
    return data


def unknown_format(path: Path) -> ParameterError:
    """Make the error for a file whose suffix is of no vector file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ParameterError

    Examples
    --------
    >>> from pathlib import Path
    >>> from mipp.io.vectors import unknown_format
    >>> str(unknown_format(Path("a.csv")))[:24]
    'a.csv: vectors come as .'
    """
    return ParameterError(
        f"{shown(path)}: vectors come as {', '.join(SUFFIXES)}, not as {suffix_of(path)[:20] or 'no suffix'}"
    )


def check_finite(data: npt.NDArray[Any], path: Path) -> None:
    """Refuse vectors with NaN or infinity.

    Parameters
    ----------
    data : ndarray
        (N, dim).
    path : Path
        The file that they came from, for the message.

    Raises
    ------
    EncodingError
        Names the first such vector.

    Examples
    --------
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from mipp.io.vectors import check_finite
    >>> check_finite(np.eye(3), Path("a.npy"))
    """
    if data.dtype.kind == "f":
        for start in range(0, len(data), _CHECK_ROWS):
            good = np.isfinite(data[start : start + _CHECK_ROWS]).all(axis=1)
            if not good.all():
                raise EncodingError(f"{shown(path)}: vector {start + int(np.argmin(good))} holds NaN or infinity")


def save_fvecs(path: str | os.PathLike[str], vectors: npt.ArrayLike) -> None:
    """Write vectors as a .fvecs file, in float32.

    Parameters
    ----------
    path : str or path
        The file; replaced whole if it exists.
    vectors : array_like
        (N, dim) real numbers.

    Raises
    ------
    DTypeError, ShapeError
        Not real numbers; not 2-d, or a dimension outside 1..2^20.
    EncodingError
        A finite number beyond the range of float32, 3.4e38.
    ParameterError
        The file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from mipp.io.vectors import load_vectors, save_fvecs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_fvecs(pathlib.Path(folder, "a.fvecs"), np.eye(3))
    ...     load_vectors(pathlib.Path(folder, "a.fvecs")).dtype
    dtype('float32')
    """
    file = as_path(path)
    try:
        array = np.asarray(vectors)
    except ValueError:
        raise ShapeError("vectors must be an array, with rows of one length") from None
    if array.dtype.kind not in "iuf":
        raise DTypeError(f"vectors must be real numbers, not {array.dtype}")
    if array.ndim != 2 or not 1 <= array.shape[1] <= MAX_DIM:
        raise ShapeError(f"vectors must have shape (N, dim) with dim in 1..{MAX_DIM}, not {array.shape}")
    out = np.empty(len(array), np.dtype([("dim", "<i4"), ("values", "<f4", (array.shape[1],))]))
    with np.errstate(over="ignore"):
        out["dim"], out["values"] = array.shape[1], array
    lost = np.isfinite(array) & np.isinf(out["values"])
    if lost.any():
        row = int(np.argmax(lost.any(axis=1)))
        raise EncodingError(f"{shown(file)}: vector {row} holds a number beyond the range of float32, 3.4e38")
    replace_whole(file, out.view(np.uint8).data)
