"""Vector files: .npy, the .fvecs, .bvecs and .ivecs of the TEXMEX collections, and .hdf5 as ann-benchmarks has it.

A vecs file is a sequence of records: the dimension as little-endian int32, then that many float32, uint8 or int32. All
records have the same dimension. Files are memory-mapped, but for .hdf5: rows are read when they are used.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import DTypeError, EncodingError, ParameterError, ShapeError
from . import hdf5
from .files import as_path, open_regular, replace_whole, shown, system_text
from .hdf5 import MAX_DIM

__all__ = ["MAX_DIM", "check_finite", "load_queries", "load_vector", "load_vectors", "save_fvecs"]

_VECS: dict[str, np.dtype[Any]] = {".fvecs": np.dtype("<f4"), ".bvecs": np.dtype("u1"), ".ivecs": np.dtype("<i4")}
_CHECK_ROWS = 1 << 16
#: as numpy itself has it
_MOST_HEADER = 10_000


def load_vectors(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read the vectors of a file, memory-mapped read-only where the format allows, checked whole.

    Parameters
    ----------
    path : str or path
        ``.npy`` with a 2-d array of real numbers (float64 and the like stay as they are), ``.fvecs``, ``.bvecs``,
        ``.ivecs``, or ``.hdf5`` (``.h5``), whose dataset ``train`` is read.

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
        An .hdf5 file, and h5py is not installed.

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
    return _load(as_path(path), one=False)


def load_queries(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read the query vectors of a file: as :func:`load_vectors`, but in .hdf5 the dataset ``test`` if there is one.

    Parameters
    ----------
    path : str or path
        As for :func:`load_vectors`.

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
    return _load(as_path(path), one=False, queries=True)


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


def _load(path: Path, *, one: bool, queries: bool = False) -> npt.NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix in hdf5.SUFFIXES:
        with hdf5.open_hdf5(path) as file:
            data = hdf5.read_dataset(file, path, "test" if queries and hdf5.has_dataset(file, "test") else "train")
    else:
        with open_regular(path) as (file, size):
            if suffix == ".npy":
                data = _load_npy(path, file, size, one)
            elif suffix in _VECS:
                data = _load_vecs(path, file, size, _VECS[suffix])
            else:
                kinds = ", ".join((*_VECS, *hdf5.SUFFIXES))
                raise ParameterError(
                    f"{shown(path)}: vectors come as .npy, {kinds}, not as {suffix[:20] or 'no suffix'}"
                )
    check_finite(data, path)
    return data


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


def _load_npy(path: Path, file: BinaryIO, size: int, one: bool) -> npt.NDArray[Any]:
    if file.read(4) == b"PK\3\4":
        raise ParameterError(f"{shown(path)}: an archive of arrays, not one .npy array")
    file.seek(0)
    shape, by_columns, dtype = _npy_header(path, file)
    if dtype.hasobject:
        raise DTypeError(f"{shown(path)}: an array of Python objects is refused")
    if dtype.kind not in "iuf":
        raise DTypeError(f"{shown(path)}: vectors must be real numbers, not {str(dtype)[:100]}")
    if one and len(shape) == 1:
        shape = (1, *shape)
    if len(shape) != 2 or min(shape) < 1 or shape[1] > MAX_DIM:
        shape_text = str(shape) if len(shape) < 10 else f"{len(shape)} dimensions"
        raise ShapeError(
            f"{shown(path)}: vectors must have shape (N, dim), both from 1, dim to {MAX_DIM}, not {shape_text}"
        )
    if any(type(n) is not int for n in shape):  # True is one, too
        raise ShapeError(f"{shown(path)}: the shape holds what is no integer")
    start = file.tell()
    if start + math.prod(shape) * dtype.itemsize != size:
        raise ParameterError(
            f"{shown(path)}: the header declares {shape[0]} x {shape[1]} numbers of {dtype.itemsize} bytes, and "
            f"{size - start} bytes follow"
        )
    try:
        return np.memmap(file, dtype, "r", start, shape, "F" if by_columns else "C")
    except (OSError, ValueError) as error:
        raise ParameterError(f"{shown(path)}: cannot be read ({system_text(error)})") from None


def _npy_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and dtype; the file is left where the numbers begin."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(file)
        if version == (1, 0):
            shape, by_columns, dtype = npy.read_array_header_1_0(file)
        elif version == (2, 0):
            length = int.from_bytes(file.read(4), "little")
            file.seek(-4, os.SEEK_CUR)
            if length > _MOST_HEADER:  # numpy takes the memory first
                raise ParameterError(f"{shown(path)}: not a complete .npy file (a header of {length} bytes)")
            shape, by_columns, dtype = npy.read_array_header_2_0(file)
        else:
            # 3.0 differs in names of fields only, which vectors have not
            raise ParameterError(f"{shown(path)}: .npy format {version[0]}.{version[1]} is not read; 1.0 and 2.0 are")
    except (ParameterError, MemoryError):
        raise
    except Exception as error:
        # numpy parses the header as Python text, and raises almost any type on a damaged one
        text = str(error).split("\n")[0][:100] or type(error).__name__
        raise ParameterError(f"{shown(path)}: not a complete .npy file ({text})") from None
    return shape, by_columns, dtype


def _load_vecs(path: Path, file: BinaryIO, size: int, item: np.dtype[Any]) -> npt.NDArray[Any]:
    if size < 4:
        raise ShapeError(f"{shown(path)}: no vectors in it")
    dim = int.from_bytes(file.read(4), "little", signed=True)
    if not 1 <= dim <= MAX_DIM:
        raise ShapeError(f"{shown(path)}: dimension {dim} of the first vector is not in 1..{MAX_DIM}")
    record = np.dtype([("dim", "<i4"), ("values", item, (dim,))])
    if size % record.itemsize:
        raise ShapeError(f"{shown(path)}: {size} bytes are no whole number of vectors of dimension {dim}; truncated?")
    try:
        data = np.memmap(file, record, "r")
    except (OSError, ValueError) as error:
        raise ParameterError(f"{shown(path)}: cannot be read ({system_text(error)})") from None
    wrong = data["dim"] != dim
    if wrong.any():
        raise ShapeError(f"{shown(path)}: vector {int(np.argmax(wrong))} has not dimension {dim} as the first")
    return np.asarray(data["values"])


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
