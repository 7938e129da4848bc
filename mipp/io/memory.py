"""Memory for rows and answers; reading mapped files ahead of their use, and giving up what memory cannot hold.

Files that are mapped by :func:`map_file` are known here. As long as all that were used in the last minutes fit in the
memory that is available, their pages stay: the next query wants them. Where they do not fit, the kernel's rule (what
was used last stays) keeps nothing that a scan from beginning to end can use. So the first part of each file stays, as
much as fits, and pages of the rest are given up as soon as they were used.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import mmap
import os
import sys
import threading
import time
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .available import available_bytes, memory_bytes

__all__ = [
    "WINDOW_BYTES",
    "SpareArrays",
    "ahead",
    "aligned_words",
    "available_bytes",
    "map_file",
    "mapping_of",
    "memory_bytes",
    "read_in",
    "soon",
]

_LINE = 64
#: mapped rows are used and read ahead in pieces of this size: some milliseconds of a product
WINDOW_BYTES = 32 << 20
_DEPTH = 2  # pieces
_POPULATE_READ = 22  # of Linux 5.14; Python's mmap does not name it
_LARGE_PAGE = 2 << 20  # most that the system maps, and gives up, as one
#: seconds for which a file counts as in use after it was used
_RECENT = 600.0
#: seconds for which what is known of the available memory holds
_HOLDS = 2.0
#: part of the available memory that mapped files may fill; windows in flight have room of their own
_SHARE, _IN_FLIGHT = 0.9, 6


def _madvise() -> ctypes._NamedFuncPointer | None:
    """The C library's function: unlike mmap's method it lets other Python threads run while the disk works."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        found = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return found


_ADVISE = _madvise()


@dataclass(eq=False)
class _Mapping:
    """A file that is mapped: where it is, its first address, its size, and when it was used last."""

    path: Path
    start: int
    size: int
    used: float


#: files that are mapped in this process; they leave when their map does
_MAPPED: weakref.WeakKeyDictionary[mmap.mmap, _Mapping] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()
#: when the available memory was asked for, and what it was
_ASKED = [-_HOLDS, 0.0]


def map_file(fd: int, path: Path) -> np.ndarray:
    """Bytes of an open file that is not empty, mapped read-only; OSError as of the system.

    ``path``: its name, by which the system is told later which of its pages are not needed.
    """
    mapped = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    data = np.frombuffer(mapped, np.uint8)
    with _LOCK:
        _MAPPED[mapped] = _Mapping(path, data.ctypes.data, data.nbytes, -_RECENT)
    return data


def mapping_of(array: object) -> mmap.mmap | None:
    """The mapped file that an array lies in; None for other memory."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array


def _kept(used: Iterable[_Mapping]) -> float:
    """The part of each mapped file that stays in memory; 1 if all that are in use fit. Notes that ``used`` are."""
    now = time.monotonic()
    if now - _ASKED[0] >= _HOLDS:
        _ASKED[:] = now, available_bytes()
    with _LOCK:
        for mapping in used:
            mapping.used = now
        total = sum(m.size for m in _MAPPED.values() if now - m.used < _RECENT)
    room = _SHARE * _ASKED[1]
    return 1.0 if total <= room else max(0.0, room - _IN_FLIGHT * WINDOW_BYTES) / total


def _passing(pieces: Sequence[np.ndarray]) -> list[_Mapping | None]:
    """For each piece the file whose pages of it are given up after use; None if they stay."""
    mappings: list[_Mapping | None] = []
    for piece in pieces:
        mapped = mapping_of(piece)
        mappings.append(None if mapped is None else _MAPPED.get(mapped))
    there = {id(m): m for m in mappings if m is not None}
    kept = _kept(there.values()) if there else 1.0
    if kept == 1.0:
        return [None] * len(mappings)
    return [
        m if m is not None and piece.ctypes.data + piece.nbytes - m.start > kept * m.size else None
        for piece, m in zip(pieces, mappings, strict=True)
    ]


def _give_up(piece: np.ndarray, mapping: _Mapping) -> None:
    """Take pages of a mapped file out of this process and, unless others use them, out of memory.

    From the large page that the piece begins in to the one that it ends in, which the next piece may need: the system
    gives up large pages whole. Only of a file: other memory would lose what it holds.
    """
    if _ADVISE is None:
        return
    first = piece.ctypes.data - mapping.start
    start, stop = first // _LARGE_PAGE * _LARGE_PAGE, first + piece.nbytes
    at_end = mapping.size - stop < mmap.PAGESIZE
    length = (
        -(-mapping.size // mmap.PAGESIZE) * mmap.PAGESIZE if at_end else stop // _LARGE_PAGE * _LARGE_PAGE
    ) - start
    if length <= 0:
        return
    _ADVISE(mapping.start + start, length, mmap.MADV_DONTNEED)
    with contextlib.suppress(OSError):  # a file that was removed meanwhile
        # another thing may be in its place by now; one that is a pipe would wait for a writer
        fd = os.open(mapping.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def aligned_words(count: int, width: int, dtype: np.dtype) -> np.ndarray:
    """(count, width) words, C-contiguous, not set; the first at a cache line, so every row where rows are whole lines.

    Kernels write whole lines past the caches.
    """
    size = count * width * dtype.itemsize
    raw = np.empty(size + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + size].view(dtype).reshape(count, width)


class SpareArrays:
    """Arrays whose memory is used again once nobody refers to it: the system clears fresh memory before it is used.

    One thread takes them. Whoever holds an array, a view or a buffer of it keeps it from being used again.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.io.memory import SpareArrays
    >>> spare = SpareArrays()
    >>> first = spare.take((100, 8), np.dtype(np.uint32))
    >>> row, at = first[3], first.ctypes.data
    >>> spare.take((100, 8), np.dtype(np.uint32)).ctypes.data == at
    False
    >>> del first, row
    >>> spare.take((80, 8), np.dtype(np.uint32)).ctypes.data == at
    True
    """

    def __init__(self) -> None:
        self._all: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Give a C-contiguous array that begins at a cache line; its content is not set.

        Parameters
        ----------
        shape : tuple of int
            Its shape.
        dtype : dtype
            Its dtype.

        Returns
        -------
        ndarray
            The array.
        """
        size = math.prod(shape) * dtype.itemsize
        # the list and the call refer to it: a view, a buffer or a task elsewhere would be one more
        unused = [n for n in range(len(self._all)) if sys.getrefcount(self._all[n]) <= _UNUSED]
        fitting = [n for n in unused if self._all[n].nbytes >= size + _LINE]
        if fitting:
            raw = self._all[min(fitting, key=lambda n: self._all[n].nbytes)]
        else:
            # what is too small gives way: else memory would grow with every size that was asked for
            self._all = [array for n, array in enumerate(self._all) if n not in unused]
            raw = np.empty(size + _LINE, np.uint8)
            self._all.append(raw)
        start = -raw.ctypes.data % _LINE
        return raw[start : start + size].view(dtype).reshape(shape)


_PROBE = [np.empty(1)]
#: references to an array that only a list holds, as :func:`sys.getrefcount` counts them
_UNUSED = sys.getrefcount(_PROBE[0])


def read_in(array: np.ndarray) -> None:
    """Bring a mapped, C-contiguous array into memory and into this process's page tables; free if it is there."""
    if _ADVISE is None or not array.size:
        return
    start = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    length = array.ctypes.data + array.nbytes - start
    if _ADVISE(start, length, _POPULATE_READ) != 0:
        _ADVISE(start, length, mmap.MADV_WILLNEED)  # an older kernel; damage is met where the array is used


def soon(pieces: Iterator[np.ndarray]) -> None:
    """Have a thread read in the pieces that a next call will probably begin with: as much as is read ahead anyway.

    Only of files that memory cannot hold: other pieces are there already, or will be after the first time.
    """
    if _ADVISE is None:
        return
    first: list[np.ndarray] = []
    size = 0
    for piece in itertools.islice(pieces, 64):
        if size >= _DEPTH * WINDOW_BYTES:
            break
        first.append(piece)
        size += piece.nbytes
    mappings = _passing(first)
    passing = [(piece, m, m.used) for piece, m in zip(first, mappings, strict=True) if m is not None]

    def work() -> None:
        for piece, mapping, used in passing:
            if mapping.used == used:  # else the next call has begun, and reads by itself
                read_in(piece)

    if passing:
        threading.Thread(target=work, name="mipp read ahead", daemon=True).start()


def ahead(pieces: Sequence[np.ndarray]) -> Generator[np.ndarray, None, None]:
    """The pieces in turn, while a thread reads in those that come next, so that disk and processor work at once.

    Less than a window in all is not worth a thread. A piece of a mapped file that memory cannot hold is given up when
    the next one is asked for. Close it (``contextlib.closing``) when not all pieces are taken.
    """
    if _ADVISE is None:
        yield from pieces
        return
    passing = _passing(pieces)
    permits, stopped, used = threading.Semaphore(_DEPTH), threading.Event(), 0

    def give_up(place: int) -> None:
        if (mapping := passing[place]) is not None:
            _give_up(pieces[place], mapping)

    def work() -> None:
        for place, piece in enumerate(pieces):
            permits.acquire()
            if stopped.is_set():
                return
            if place >= used:
                read_in(piece)
                if place < used:  # it was given up meanwhile, and came back
                    give_up(place)

    reader = None
    if sum(p.nbytes for p in pieces) > WINDOW_BYTES:
        reader = threading.Thread(target=work, daemon=True)
        reader.start()
    try:
        for place, piece in enumerate(pieces):
            try:
                yield piece
            finally:  # also after the last one that is taken
                used = place + 1
                permits.release()
                give_up(place)
    finally:
        stopped.set()
        permits.release()
        if reader is not None:
            reader.join()
