"""HDF5 files: one dataset of a file that may be hostile, read only if its numbers lie in this very file.

HDF5 can keep a dataset's numbers elsewhere: in any other file of the user (external storage, external links, virtual
datasets) or nowhere (parts that were never written read as a fill value). All of these are refused, and before memory
is taken the declared size is compared with the bytes that the file really holds.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTypeError, ParameterError, ShapeError, missing_extra
from .files import open_regular, reading, shown
from .layouts import MAX_DIM
from .memory import memory_bytes

__all__ = [
    "SUFFIXES",
    "find_dataset",
    "has_dataset",
    "open_hdf5",
    "open_once",
    "read_dataset",
    "read_slices",
    "read_text",
]

SUFFIXES = (".hdf5", ".h5")
#: more than any of HDF5's own filters compresses numbers that differ; deflate's limit is 1032
_MOST_COMPRESSED = 1100
#: bytes of a chunk that is read alone
_MOST_CHUNK = 1 << 28
_MOST_LINKS = 16
_MOST_NAMED = 20
_MOST_TEXT = 1024


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The open file; MissingExtraError without h5py, ParameterError for a damaged file or none of HDF5.

    Errors of a missing or unreadable file are those of :func:`mipp.io.files.open_regular`. Any error of the block that
    is not of mipp counts as damage.
    """
    with reading(path, "HDF5 file"), open_once(path) as file:
        yield file


@contextlib.contextmanager
def open_once(path: Path) -> Iterator[Any]:
    """As :func:`open_hdf5`, and errors of the block stay as they are (:func:`mipp.io.files.reading` turns them)."""
    try:
        import h5py
    except ImportError:
        raise missing_extra(f"{shown(path)}: .hdf5 files need h5py", "hdf5") from None
    with open_regular(path):
        pass
    with reading(path, "HDF5 file"):
        file = h5py.File(path, "r")
    with file:
        yield file


def read_dataset(file: Any, path: Path, name: str) -> npt.NDArray[Any]:
    """One dataset of an open HDF5 file as (N, dim) real numbers; bool becomes uint8.

    Errors are those of :func:`find_dataset`; ParameterError, too, for more numbers than the memory holds.
    """
    found = find_dataset(file, path, name)
    declared = _declared(found)
    if declared > memory_bytes():
        raise ParameterError(f"{shown(path)}: {name} takes {declared} bytes, more than the memory of this machine")
    size = _size(found)
    data = _numbers(found[:])
    _check_whole(found, path, size)
    return data


def read_slices(found: Any, path: Path, rows: int) -> Iterator[npt.NDArray[Any]]:
    """The rows of a dataset of :func:`find_dataset` in order, about ``rows`` at a time: whole chunks where it has some.

    A chunk is decompressed whole: ParameterError for one of more than 256 MiB.
    """
    step, chunk = rows, found.chunks
    if chunk is not None:
        size = math.prod(chunk) * found.dtype.itemsize
        if size > _MOST_CHUNK:
            raise ParameterError(f"{shown(path)}: parts of {size} bytes are too large; rewrite it with smaller chunks")
        if chunk[0] * found.shape[1] * found.dtype.itemsize <= _MOST_CHUNK:  # else chunks are read more than once
            step = -(-rows // chunk[0]) * chunk[0]
    whole = _size(found)
    for first in range(0, len(found), step):
        with reading(path, "HDF5 file"):
            data = _numbers(found[first : first + step])
        _check_whole(found, path, whole)
        yield data


def _size(found: Any) -> int:
    """Bytes of a dataset's file now."""
    return os.fstat(found.file.id.get_vfd_handle()).st_size


def _check_whole(found: Any, path: Path, size: int) -> None:
    """ParameterError if the file became shorter: HDF5 gives zeros for what is behind its end."""
    if _size(found) < size:
        raise ParameterError(f"{shown(path)}: became shorter while it was read")


def _numbers(data: Any) -> npt.NDArray[Any]:
    data = np.asarray(data)
    return data.astype(np.uint8) if data.dtype.kind == "b" else data


def find_dataset(file: Any, path: Path, name: str) -> Any:
    """One dataset of an open HDF5 file, whose rows are (N, dim) real numbers that lie in this file.

    Raises
    ------
    ParameterError
        No such dataset; numbers that lie in another file or were never written, or more of them than the file can hold.
    DTypeError, ShapeError
        No real numbers; not (N, dim) with both at least 1.
    """
    found = _find(file, path, name)
    if found is None:
        there = ", ".join(_datasets(file)) or "none"
        raise ParameterError(f"{shown(path)}: no dataset {name!r}; datasets there: {there}")
    plan = found.id.get_create_plist()
    # first of all: asking a virtual dataset for its shape opens the files that it names
    if plan.get_layout() == _layouts().VIRTUAL or plan.get_external_count():
        raise ParameterError(f"{shown(path)}: {name} is kept in other files, which are not read")
    kind = np.dtype(found.dtype)
    if kind.kind not in "biuf":
        raise DTypeError(f"{shown(path)}: {name} must hold real numbers, not {str(kind)[:100]}")
    shape = found.shape
    if shape is None or len(shape) != 2 or 0 in shape or shape[1] > MAX_DIM:
        raise ShapeError(f"{shown(path)}: {name} must have shape (N, dim), both from 1, dim to {MAX_DIM}, not {shape}")
    _check_stored(found, plan, path, name)
    return found


def read_text(file: Any, name: str) -> str | None:
    """A short attribute of an open HDF5 file, or None if there is none or it is no text."""
    if name not in file.attrs:
        return None
    attribute = file.attrs.get_id(name)
    if attribute.shape not in ((), (1,)) or attribute.get_storage_size() > _MOST_TEXT:
        return None
    value = np.asarray(file.attrs[name]).ravel()[:1].tolist()
    value = value[0] if value else None
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str) else None


def has_dataset(file: Any, name: str) -> bool:
    """Whether a name is there at all; links are not followed."""
    return bool(file.id.links.exists(name.encode()))


def _layouts() -> Any:
    from h5py import h5d

    return h5d


def _find(file: Any, path: Path, name: str) -> Any | None:
    """The dataset of a name, or None. Links are followed one by one: HDF5 itself would open other files."""
    import h5py
    from h5py import h5l

    found, parts, links = file, name.encode().split(b"/"), 0
    while parts:
        part = parts.pop(0)
        if part in (b"", b"."):
            continue
        if not isinstance(found, h5py.Group) or not found.id.links.exists(part):
            return None
        kind = found.id.links.get_info(part).type
        if kind == h5l.TYPE_HARD:
            found = found[part]
        elif kind == h5l.TYPE_SOFT:
            links += 1
            if links > _MOST_LINKS:
                raise ParameterError(f"{shown(path)}: {name} is a chain of more than {_MOST_LINKS} links")
            target = found.id.links.get_val(part)
            found = file if target.startswith(b"/") else found
            parts = [*target.split(b"/"), *parts]
        else:
            raise ParameterError(f"{shown(path)}: {name} is a link to another file, which is not read")
    return found if isinstance(found, h5py.Dataset) else None


def _datasets(file: Any) -> list[str]:
    """Names of datasets in the root group, some of them if there are many; no link is followed."""
    import h5py
    from h5py import h5l

    found: list[str] = []
    for part in file.id:
        if file.id.links.get_info(part).type == h5l.TYPE_HARD and isinstance(file[part], h5py.Dataset):
            found.append(part.decode("utf-8", "replace")[:50])
        if len(found) == _MOST_NAMED:
            return [*sorted(found), "..."]
    return sorted(found)


def _check_stored(found: Any, plan: Any, path: Path, name: str) -> None:
    """ParameterError unless the file holds all numbers of a dataset."""
    layouts = _layouts()
    declared = _declared(found)
    stored, compressed = found.id.get_storage_size(), False
    if stored > os.path.getsize(path):
        raise ParameterError(f"{shown(path)}: {name} has {stored} bytes, more than the file")
    if plan.get_layout() == layouts.CHUNKED:
        chunk = plan.get_chunk()
        wanted = math.prod(-(-side // step) for side, step in zip(found.shape, chunk, strict=True))
        compressed = plan.get_nfilters() > 0
        there = found.id.get_num_chunks()
        if there < wanted:
            raise ParameterError(f"{shown(path)}: {name} has {wanted} parts and {there} of them were written")
    if declared > stored * (_MOST_COMPRESSED if compressed else 1):
        raise ParameterError(f"{shown(path)}: {name} declares {declared} bytes, and the file holds {stored} of it")


def _declared(found: Any) -> int:
    """Bytes of a dataset's numbers in memory: of all its chunks, where it has some."""
    shape = found.shape
    if found.chunks is not None:
        shape = [-(-side // step) * step for side, step in zip(found.shape, found.chunks, strict=True)]
    return math.prod(shape) * int(found.id.get_type().get_size())
