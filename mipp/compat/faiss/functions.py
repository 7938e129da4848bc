"""What programs call beside an index: factory, copies, bytes, norms, threads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ... import cpu
from ...errors import DTypeError, ParameterError, ShapeError, StoreError
from .files import read_index, write_index
from .home import Defaults
from .index import METRIC_L2, Floats, Index, Ints
from .kinds import IndexFlat, IndexFlatIP, IndexFlatL2, IndexIDMap, IndexIDMap2

__all__ = [
    "IO_FLAG_MMAP",
    "IO_FLAG_READ_ONLY",
    "IO_FLAG_SKIP_STORAGE",
    "BufferedIOReader",
    "BufferedIOWriter",
    "clone_index",
    "deserialize_index",
    "downcast_index",
    "get_num_gpus",
    "index_factory",
    "knn",
    "normalize_L2",
    "omp_get_max_threads",
    "omp_set_num_threads",
    "serialize_index",
    "vector_to_array",
]

IO_FLAG_SKIP_STORAGE, IO_FLAG_READ_ONLY, IO_FLAG_MMAP = 1, 2, 0x646F0008
_MAPS = {"": None, "IDMap": IndexIDMap, "IDMap2": IndexIDMap2}


def index_factory(d: int, description: str, metric: int = METRIC_L2) -> Index:
    """An empty index by faiss's description: ``"Flat"``, ``"IDMap,Flat"`` or ``"IDMap2,Flat"``.

    Raises
    ------
    ParameterError
        Another description: only flat indexes search encrypted rows here.

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> faiss.index_factory(8, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
    IndexIDMap(d=8, ntotal=0)
    """
    if not isinstance(description, str):
        raise DTypeError(f"a description must be a str, not {type(description).__name__}")
    before, _, last = description.replace(" ", "").rpartition(",")
    if last != "Flat" or before not in _MAPS:
        raise ParameterError(
            f"{description!r} is no flat index: only Flat, IDMap,Flat and IDMap2,Flat search encrypted rows"
        )
    kind = {0: IndexFlatIP, 1: IndexFlatL2}.get(metric)
    flat = IndexFlat(d, metric) if kind is None else kind(d)  # IndexFlat refuses other metrics
    mapped = _MAPS[before]
    return flat if mapped is None else mapped(flat)


def normalize_L2(x: npt.NDArray[np.float32]) -> None:
    """Divide rows of x (n, d) float32, C-contiguous, by their lengths, in place; rows of zeros stay.

    Raises
    ------
    DTypeError, ShapeError
        Another dtype, rank or layout: nothing can be written into a copy.
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        raise DTypeError("x must be an array of float32, which is changed in place")
    if x.ndim != 2 or not x.flags.c_contiguous or not x.flags.writeable:
        raise ShapeError(f"x must have shape (n, d), C-contiguous and writeable, not {x.shape}")
    wide = x.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    x[...] = wide / np.where(lengths > 0, lengths, 1.0)[:, None]


def knn(
    xq: npt.ArrayLike, xb: npt.ArrayLike, k: int, metric: int = METRIC_L2, metric_arg: float = 0.0
) -> tuple[Floats, Ints]:
    """The k nearest rows of xb (n, d) to queries xq (m, d): distances and places (m, k), by an index made for this."""
    rows = np.asarray(xb)
    if rows.ndim != 2:
        raise ShapeError(f"xb must have shape (n, d), not {rows.shape}")
    with IndexFlat(rows.shape[1], metric) as index:
        index.add(rows)
        return index.search(xq, k)


def clone_index(index: Index) -> Index:
    """A copy of an index, **secret keys included**, in a temporary folder of its own."""
    with tempfile.TemporaryDirectory(prefix="mipp-clone-") as folder:
        path = Path(folder) / "index"
        write_index(index, path)
        copy = read_index(path, threads=index.home.threads)
    # read_index gives the class of the wider interface
    if isinstance(index, IndexIDMap) and type(copy) is not type(index):
        copy.__class__ = type(index)
    return copy


def serialize_index(index: Index) -> npt.NDArray[np.uint8]:
    """What :func:`write_index` would write, (n,) uint8: **secret keys of all parties included**, unprotected."""
    with tempfile.TemporaryDirectory(prefix="mipp-bytes-") as folder:
        path = Path(folder) / "index"
        write_index(index, path)
        return np.fromfile(path, np.uint8)


def deserialize_index(data: npt.NDArray[np.uint8], io_flags: int = 0) -> Index:
    """Inverse of :func:`serialize_index`; errors as :func:`read_index`."""
    found = np.asarray(data)
    if found.dtype != np.uint8 or found.ndim != 1:
        raise DTypeError("an index is deserialised from an array (n,) of uint8")
    with tempfile.TemporaryDirectory(prefix="mipp-bytes-") as folder:
        path = Path(folder) / "index"
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(np.ascontiguousarray(found).data)
        except OSError as error:
            raise StoreError(f"cannot unpack the index: {error.strerror}") from None
        return read_index(path, io_flags)


def downcast_index(index: Index) -> Index:
    """The same index: it has its own class already."""
    return index


def vector_to_array(v: npt.ArrayLike) -> npt.NDArray[Any]:
    """A copy of an array, such as ``id_map``, which faiss gives as a vector of C++."""
    return np.array(v)


def omp_set_num_threads(num_threads: int) -> None:
    """Native threads of the indexes that are made from now on without ``threads=``."""
    if isinstance(num_threads, bool) or not isinstance(num_threads, (int, np.integer)):
        raise DTypeError(f"num_threads must be an integer, not {type(num_threads).__name__}")
    if num_threads < 1:
        raise ParameterError(f"num_threads must be at least 1, not {num_threads}")
    Defaults.threads = int(num_threads)


def omp_get_max_threads() -> int:
    """What :func:`omp_set_num_threads` set, or :func:`mipp.cpu.threads`."""
    return Defaults.threads or cpu.threads()


def get_num_gpus() -> int:
    """0: no index of mipp uses a GPU."""
    return 0


class _Refused:
    """A class that programs of faiss make and that has no meaning here."""

    def __init__(self, *_: Any, **__: Any) -> NoReturn:
        raise ParameterError(
            f"no {type(self).__name__} here: a written index holds secret keys, so it goes to a file of mode 0600 "
            "(write_index, read_index), or to bytes (serialize_index, deserialize_index)"
        )


class BufferedIOWriter(_Refused):
    """Refused: see :func:`write_index`."""


class BufferedIOReader(_Refused):
    """Refused: see :func:`read_index`."""
