"""Where the rows of a vector file lie: .npy, the vecs files of TEXMEX, and the bin files of billion-scale benchmarks.

A vecs file is a sequence of records: the dimension as little-endian int32, then that many float32, uint8 or int32. A
bin file (big-ann-benchmarks) begins with the number of rows and the dimension, little-endian uint32 both; the rows
follow. A header is compared with the size of the file before memory is taken.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import DTypeError, ParameterError, ShapeError
from .files import shown, system_text

__all__ = ["MAX_DIM", "SUFFIXES", "Layout", "bin_header", "layout_of", "suffix_of"]

MAX_DIM = 1 << 20
_VECS: dict[str, np.dtype[Any]] = {".fvecs": np.dtype("<f4"), ".bvecs": np.dtype("u1"), ".ivecs": np.dtype("<i4")}
_BINS: dict[str, np.dtype[Any]] = {".fbin": np.dtype("<f4"), ".u8bin": np.dtype("u1"), ".i8bin": np.dtype("i1")}
SUFFIXES = (".npy", *_VECS, *_BINS)
#: as numpy itself has it
_MOST_HEADER = 10_000
_BIN_HEADER = 8
#: what big-ann-benchmarks appends to the name of the first rows of a larger file
_CROP = re.compile(r"\.crop_nb_[0-9]{1,20}$")


@dataclass(frozen=True)
class Layout:
    """Rows of one size, one after the other; or, ``by_columns``, columns.

    ``start`` : bytes before the first row. ``item`` : dtype of a number. ``head`` : bytes before the numbers of each
    row, which hold the dimension as int32.
    """

    rows: int
    dim: int
    item: np.dtype[Any]
    start: int = 0
    head: int = 0
    by_columns: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in the file."""
        return self.head + self.dim * self.item.itemsize

    @property
    def record(self) -> np.dtype[Any]:
        """A row with its dimension before it."""
        return np.dtype([("dim", "<i4"), ("values", self.item, (self.dim,))])

    def mapped(self, path: Path, file: BinaryIO) -> npt.NDArray[Any]:
        """All rows, memory-mapped; ShapeError if a row's own dimension is another."""
        shape = (self.rows, self.dim)
        try:
            if not self.head:
                return np.memmap(file, self.item, "r", self.start, shape, "F" if self.by_columns else "C")
            data = np.memmap(file, self.record, "r", self.start, self.rows)
        except (OSError, ValueError) as error:
            raise ParameterError(f"{shown(path)}: cannot be read ({system_text(error)})") from None
        return self.values(path, data)

    def values(self, path: Path, records: npt.NDArray[Any], first: int = 0) -> npt.NDArray[Any]:
        """The numbers of records, the first of which is row ``first``."""
        wrong = records["dim"] != self.dim
        if wrong.any():
            row = first + int(np.argmax(wrong))
            raise ShapeError(f"{shown(path)}: vector {row} has not dimension {self.dim} as the first")
        return np.asarray(records["values"])


def suffix_of(path: Path) -> str:
    """The suffix of a file that says its format, in lower case; ``a.fbin.crop_nb_100`` is a .fbin file."""
    return os.path.splitext(_CROP.sub("", path.name))[1].lower()


def layout_of(path: Path, file: BinaryIO, size: int, *, one: bool = False) -> Layout:
    """Read the header of a file whose suffix is among :data:`SUFFIXES`.

    ``one`` : a .npy array of shape (dim,) is one row.
    """
    suffix = suffix_of(path)
    if suffix == ".npy":
        return _npy(path, file, size, one)
    return _vecs(path, file, size, _VECS[suffix]) if suffix in _VECS else _bin(path, file, size, _BINS[suffix])


def _npy(path: Path, file: BinaryIO, size: int, one: bool) -> Layout:
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
    return Layout(*shape, dtype, start, by_columns=by_columns)


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
    except ParameterError:
        raise
    except Exception as error:
        # numpy parses the header as Python text, and raises almost any type on a damaged one: MemoryError if it is deep
        text = str(error).split("\n")[0][:100] or type(error).__name__
        raise ParameterError(f"{shown(path)}: not a complete .npy file ({text})") from None
    return shape, by_columns, dtype


def _vecs(path: Path, file: BinaryIO, size: int, item: np.dtype[Any]) -> Layout:
    if size < 4:
        raise ShapeError(f"{shown(path)}: no vectors in it")
    dim = int.from_bytes(file.read(4), "little", signed=True)
    if not 1 <= dim <= MAX_DIM:
        raise ShapeError(f"{shown(path)}: dimension {dim} of the first vector is not in 1..{MAX_DIM}")
    record_bytes = 4 + dim * item.itemsize
    if size % record_bytes:
        raise ShapeError(f"{shown(path)}: {size} bytes are no whole number of vectors of dimension {dim}; truncated?")
    return Layout(size // record_bytes, dim, item, head=4)


def bin_header(path: Path, file: BinaryIO, size: int, names: tuple[str, str]) -> tuple[int, int]:
    """Both numbers that a bin file begins with, each at least 1; ``names`` : what they count, for errors."""
    if size < _BIN_HEADER:
        raise ShapeError(f"{shown(path)}: no vectors in it")
    raw = file.read(_BIN_HEADER)
    first, second = int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:], "little")
    if not first or not 1 <= second <= MAX_DIM:
        raise ShapeError(
            f"{shown(path)}: the header declares {first} {names[0]} of {second} {names[1]}, "
            f"and there must be one or more, of 1 to {MAX_DIM}"
        )
    return first, second


def _bin(path: Path, file: BinaryIO, size: int, item: np.dtype[Any]) -> Layout:
    rows, dim = bin_header(path, file, size, ("vectors", "numbers"))
    declared = rows * dim * item.itemsize
    if _BIN_HEADER + declared != size:
        raise ShapeError(
            f"{shown(path)}: the header declares {rows} vectors of {dim} numbers, {declared} bytes, and "
            f"{size - _BIN_HEADER} bytes follow; truncated, or a crop whose header was not changed?"
        )
    return Layout(rows, dim, item, _BIN_HEADER)
