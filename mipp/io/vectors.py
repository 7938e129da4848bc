"""Vector files: .npy, the .fvecs, .bvecs and .ivecs of the TEXMEX collections, and .hdf5 as ann-benchmarks has it.

A vecs file is a sequence of records: the dimension as little-endian int32, then that many float32, uint8 or int32. All
records have the same dimension. Files are memory-mapped, but for .hdf5: rows are read when they are used.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import (
    DTypeError,
    EncodingError,
    MippError,
    NotFoundError,
    ParameterError,
    ShapeError,
    missing_extra,
)  # fmt: skip

__all__ = ["HDF5", "MAX_DIM", "check_finite", "load_vector", "load_vectors", "open_hdf5", "read_dataset", "save_fvecs"]

MAX_DIM = 1 << 20
_VECS: dict[str, np.dtype[Any]] = {".fvecs": np.dtype("<f4"), ".bvecs": np.dtype("u1"), ".ivecs": np.dtype("<i4")}
HDF5 = (".hdf5", ".h5")
_CHECK_ROWS = 1 << 16


def load_vectors(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Vectors of a file, memory-mapped read-only where the format allows, checked whole.

    Parameters
    ----------
    path : ``.npy`` with a 2-d array of real numbers (float64 and the like stay as they are), ``.fvecs``, ``.bvecs``,
        ``.ivecs``, or ``.hdf5`` (``.h5``), whose dataset ``train`` is read

    Returns
    -------
    ndarray
        (N, dim), N and dim at least 1; float, or integer as in the file.

    Raises
    ------
    NotFoundError
        No such file.
    ParameterError
        Another suffix, no readable file, or one that is not in its format.
    ShapeError
        A truncated file, records of different dimensions, an array that is not 2-d, no vectors.
    DTypeError
        An array of something else than real numbers.
    EncodingError
        NaN or infinity.
    MissingExtraError
        An .hdf5 file, and h5py is not installed.
    """
    return _load(Path(path), one=False)


def load_vector(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """The one vector (dim,) of a file: a .npy with shape (dim,) or (1, dim), or a vecs file with one record.

    Errors as :func:`load_vectors`; ShapeError for more than one vector.
    """
    data = _load(Path(path), one=True)
    if len(data) != 1:
        raise ShapeError(f"{path}: holds {len(data)} vectors where one is wanted")
    return np.asarray(data[0])


def _load(path: Path, *, one: bool) -> npt.NDArray[Any]:
    if not path.exists():
        raise NotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ParameterError(f"{path}: not a file")
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            data = _load_npy(path, one)
        elif suffix in _VECS:
            data = _load_vecs(path, _VECS[suffix])
        elif suffix in HDF5:
            with open_hdf5(path) as file:
                data = read_dataset(file, path, "train")
        else:
            kinds = ", ".join((*_VECS, *HDF5))
            raise ParameterError(f"{path}: vectors come as .npy, {kinds}, not as {suffix or 'no suffix'}")
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read ({error.strerror or error})") from None
    check_finite(data, path)
    return data


def check_finite(data: npt.NDArray[Any], path: Path) -> None:
    """EncodingError that names the first vector of ``data`` (N, dim) with NaN or infinity."""
    if data.dtype.kind == "f":
        for start in range(0, len(data), _CHECK_ROWS):
            good = np.isfinite(data[start : start + _CHECK_ROWS]).all(axis=1)
            if not good.all():
                raise EncodingError(f"{path}: vector {start + int(np.argmin(good))} holds NaN or infinity")


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The open file; MissingExtraError without h5py, ParameterError for what is no HDF5 file or damaged."""
    try:
        import h5py
    except ImportError:
        raise missing_extra(f"{path}: .hdf5 files need h5py", "hdf5") from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except MippError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        # h5py raises any of these on damaged files
        raise ParameterError(f"{path}: not a readable HDF5 file ({error})") from None


def read_dataset(file: Any, path: Path, name: str) -> npt.NDArray[Any]:
    """One dataset of an open HDF5 file as (N, dim) real numbers; the errors of :func:`load_vectors` but for NaN."""
    found = file.get(name)
    if found is None or not hasattr(found, "dtype"):
        there = ", ".join(sorted(key for key in file if hasattr(file[key], "dtype"))) or "none"
        raise ParameterError(f"{path}: no dataset {name!r}; datasets there: {there}")
    kind = np.dtype(found.dtype)
    if kind.kind not in "biuf":
        raise DTypeError(f"{path}: {name} must hold real numbers, not {kind}")
    if len(found.shape) != 2 or 0 in found.shape or found.shape[1] > MAX_DIM:
        raise ShapeError(f"{path}: {name} must have shape (N, dim), both from 1, dim to {MAX_DIM}, not {found.shape}")
    data = np.asarray(found[:])
    return data.astype(np.uint8) if kind.kind == "b" else data


def _load_npy(path: Path, one: bool) -> npt.NDArray[Any]:
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        if "Object arrays" in str(error) or "Python objects" in str(error):
            raise DTypeError(f"{path}: an array of Python objects is refused") from None
        raise ParameterError(f"{path}: not a complete .npy file ({error})") from None
    if not isinstance(data, np.ndarray):
        data.close()
        raise ParameterError(f"{path}: an archive of arrays, not one .npy array")
    if data.dtype.kind not in "iuf":
        raise DTypeError(f"{path}: vectors must be real numbers, not {data.dtype}")
    if one and data.ndim == 1:
        data = data[None]
    if data.ndim != 2 or 0 in data.shape:
        raise ShapeError(f"{path}: vectors must have shape (N, dim) with N, dim >= 1, not {data.shape}")
    return data


def _load_vecs(path: Path, item: np.dtype[Any]) -> npt.NDArray[Any]:
    size = path.stat().st_size
    if size < 4:
        raise ShapeError(f"{path}: no vectors in it")
    with path.open("rb") as file:
        dim = int.from_bytes(file.read(4), "little", signed=True)
    if not 1 <= dim <= MAX_DIM:
        raise ShapeError(f"{path}: dimension {dim} of the first vector is not in 1..{MAX_DIM}")
    record = np.dtype([("dim", "<i4"), ("values", item, (dim,))])
    if size % record.itemsize:
        raise ShapeError(f"{path}: {size} bytes are no whole number of vectors of dimension {dim}; truncated?")
    data = np.memmap(path, record, mode="r")
    wrong = data["dim"] != dim
    if wrong.any():
        raise ShapeError(f"{path}: vector {int(np.argmax(wrong))} has not dimension {dim} as the first")
    return np.asarray(data["values"])


def save_fvecs(path: str | os.PathLike[str], vectors: npt.ArrayLike) -> None:
    """Write vectors (N, dim) as a .fvecs file, in float32.

    Raises
    ------
    DTypeError, ShapeError
        Not real numbers; not 2-d, or a dimension outside 1..2^20.
    """
    array = np.asarray(vectors)
    if array.dtype.kind not in "iuf":
        raise DTypeError(f"vectors must be real numbers, not {array.dtype}")
    if array.ndim != 2 or not 1 <= array.shape[1] <= MAX_DIM:
        raise ShapeError(f"vectors must have shape (N, dim) with dim in 1..{MAX_DIM}, not {array.shape}")
    out = np.empty(len(array), np.dtype([("dim", "<i4"), ("values", "<f4", (array.shape[1],))]))
    out["dim"], out["values"] = array.shape[1], array
    out.tofile(path)
