"""Functions beside an index: factory, copies, bytes, norms, threads."""

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
from .fitting import Floats
from .home import Defaults
from .index import METRIC_L2, Index
from .kinds import IndexFlat, IndexFlatIP, IndexFlatL2, IndexIDMap, IndexIDMap2
from .rows import Ints

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
    """Make an empty index by faiss's description.

    Parameters
    ----------
    d : int
        Numbers per vector.
    description : str
        ``"Flat"``, ``"IDMap,Flat"`` or ``"IDMap2,Flat"``. faiss has many more.
    metric : int
        METRIC_INNER_PRODUCT or METRIC_L2.

    Returns
    -------
    Index

    Raises
    ------
    ParameterError, DTypeError
        Another description (only flat indexes search encrypted rows here), or not a str.

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
    """Divide rows by their lengths, in place; rows of zeros stay. As ``faiss.normalize_L2``.

    Parameters
    ----------
    x : ndarray
        float32 (n, d), C-contiguous and writeable.

    Raises
    ------
    DTypeError, ShapeError
        Another dtype, rank or layout: nothing can be written into a copy.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> x = np.array([[3, 4]], np.float32)
    >>> faiss.normalize_L2(x)
    >>> x.round(3).tolist() == np.array([[0.6, 0.8]], np.float32).round(3).tolist()
    True
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
    """Find the k nearest rows by an index made for this call. As ``faiss.knn``.

    Parameters
    ----------
    xq : array_like
        (m, d) queries.
    xb : array_like
        (n, d) rows.
    k : int
        At least 1.
    metric : int
        METRIC_INNER_PRODUCT or METRIC_L2.
    metric_arg : float
        Ignored: these metrics have none.

    Returns
    -------
    D : ndarray
        float32 (m, k), distances.
    I : ndarray
        int64 (m, k), places of rows.

    Raises
    ------
    ShapeError, MippError
        ``xb`` is not 2-d; else as of :meth:`Index.search`.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> faiss.knn(np.eye(4)[2:], np.eye(4), 1)[1].tolist()
    [[2], [3]]
    """
    rows = np.asarray(xb)
    if rows.ndim != 2:
        raise ShapeError(f"xb must have shape (n, d), not {rows.shape}")
    with IndexFlat(rows.shape[1], metric) as index:
        index.add(rows)
        return index.search(xq, k)


def clone_index(index: Index) -> Index:
    """Copy an index, **secret keys included**, into a temporary folder of its own. As ``faiss.clone_index``.

    Parameters
    ----------
    index : Index
        An index of mipp.

    Returns
    -------
    Index
        Of the same class.

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> faiss.clone_index(faiss.IndexFlatL2(4))
    IndexFlatL2(d=4, ntotal=0)
    """
    with tempfile.TemporaryDirectory(prefix="mipp-clone-") as folder:
        path = Path(folder) / "index"
        write_index(index, path)
        copy = read_index(path, threads=index.home.threads)
    # read_index gives the class of the wider interface
    if isinstance(index, IndexIDMap) and type(copy) is not type(index):
        copy.__class__ = type(index)
    return copy


def serialize_index(index: Index) -> npt.NDArray[np.uint8]:
    """Return the bytes that :func:`write_index` would write: **secret keys of all parties included**, unprotected.

    Parameters
    ----------
    index : Index
        An index of mipp.

    Returns
    -------
    ndarray
        uint8 (n,). Secret.

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> data = faiss.serialize_index(faiss.IndexFlatL2(4))
    >>> data.dtype, data.ndim
    (dtype('uint8'), 1)
    """
    with tempfile.TemporaryDirectory(prefix="mipp-bytes-") as folder:
        path = Path(folder) / "index"
        write_index(index, path)
        return np.fromfile(path, np.uint8)


def deserialize_index(data: npt.NDArray[np.uint8], io_flags: int = 0) -> Index:
    """Open an index from bytes: the inverse of :func:`serialize_index`.

    Parameters
    ----------
    data : ndarray
        uint8 (n,). Secret.
    io_flags : int
        Flags of faiss; they change nothing.

    Returns
    -------
    Index

    Raises
    ------
    DTypeError
        Not an array (n,) of uint8.
    MippError
        As :func:`read_index`.

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> faiss.deserialize_index(faiss.serialize_index(faiss.IndexFlatL2(4)))
    IndexFlatL2(d=4, ntotal=0)
    """
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
    """Return the same index: it has its own class already.

    Parameters
    ----------
    index : Index
        An index of mipp.

    Returns
    -------
    Index

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> index = faiss.IndexFlatL2(4)
    >>> faiss.downcast_index(index) is index
    True
    """
    return index


def vector_to_array(v: npt.ArrayLike) -> npt.NDArray[Any]:
    """Copy an array, such as ``id_map``, which faiss gives as a vector of C++.

    Parameters
    ----------
    v : array_like
        The array.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> index = faiss.IndexIDMap(faiss.IndexFlatL2(4))
    >>> index.add_with_ids([[1, 0, 0, 0]], [7])
    >>> faiss.vector_to_array(index.id_map).tolist()
    [7]
    """
    return np.array(v)


def omp_set_num_threads(num_threads: int) -> None:
    """Set the native threads of indexes that are made from now on without ``threads=``.

    Parameters
    ----------
    num_threads : int
        At least 1.

    Raises
    ------
    DTypeError, ParameterError
        Not an integer; below 1.

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> before = faiss.omp_get_max_threads()
    >>> faiss.omp_set_num_threads(1)
    >>> faiss.omp_get_max_threads()
    1
    >>> faiss.omp_set_num_threads(before)
    """
    if isinstance(num_threads, bool) or not isinstance(num_threads, (int, np.integer)):
        raise DTypeError(f"num_threads must be an integer, not {type(num_threads).__name__}")
    if num_threads < 1:
        raise ParameterError(f"num_threads must be at least 1, not {num_threads}")
    Defaults.threads = int(num_threads)


def omp_get_max_threads() -> int:
    """Return the number of :func:`omp_set_num_threads`, or of :func:`mipp.cpu.threads` if none was set.

    Returns
    -------
    int

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> faiss.omp_get_max_threads() >= 1
    True
    """
    return Defaults.threads or cpu.threads()


def get_num_gpus() -> int:
    """Return 0: no index of mipp uses a GPU.

    Returns
    -------
    int

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> faiss.get_num_gpus()
    0
    """
    return 0


class _Refused:
    """Base of classes of faiss that have no meaning here."""

    def __init__(self, *_: Any, **__: Any) -> NoReturn:
        raise ParameterError(
            f"no {type(self).__name__} here: a written index holds secret keys, so it goes to a file of mode 0600 "
            "(write_index, read_index), or to bytes (serialize_index, deserialize_index)"
        )


class BufferedIOWriter(_Refused):
    """Refused: an index is written by :func:`write_index`, as its file must have mode 0600.

    Raises
    ------
    ParameterError
        Always.

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> faiss.BufferedIOWriter("index")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    mipp.errors.ParameterError: no BufferedIOWriter here: ...
    """


class BufferedIOReader(_Refused):
    """Refused: an index is read by :func:`read_index`, as its file must have mode 0600.

    Raises
    ------
    ParameterError
        Always.

    Examples
    --------
    >>> import mipp.compat.faiss as faiss
    >>> faiss.BufferedIOReader("index")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    mipp.errors.ParameterError: no BufferedIOReader here: ...
    """
