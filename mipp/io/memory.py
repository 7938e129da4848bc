"""Memory for rows and answers, and reading mapped rows ahead of their use."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import threading
from collections.abc import Generator, Sequence

import numpy as np

__all__ = ["WINDOW_BYTES", "SpareArrays", "ahead", "aligned_words", "memory_bytes", "read_in"]

_LINE = 64
#: mapped rows are used and read ahead in pieces of this size: some milliseconds of a product
WINDOW_BYTES = 32 << 20
_DEPTH = 2  # pieces
_POPULATE_READ = 22  # of Linux 5.14; Python's mmap does not name it


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


def memory_bytes() -> float:
    """Memory of this machine; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf


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
        for number in range(len(self._all)):
            # the list and this call refer to it: a view, a buffer or a task elsewhere would be one more
            if self._all[number].nbytes >= size + _LINE and sys.getrefcount(self._all[number]) <= _UNUSED:
                raw = self._all[number]
                break
        else:
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


def ahead(pieces: Sequence[np.ndarray]) -> Generator[np.ndarray, None, None]:
    """The pieces in turn, while a thread reads in those that come next, so that disk and processor work at once.

    Less than a window in all is not worth a thread. Close it (``contextlib.closing``) when not all pieces are taken.
    """
    if _ADVISE is None or sum(p.nbytes for p in pieces) <= WINDOW_BYTES:
        yield from pieces
        return
    permits, stopped = threading.Semaphore(_DEPTH), threading.Event()

    def work() -> None:
        for piece in pieces:
            permits.acquire()
            if stopped.is_set():
                return
            read_in(piece)

    reader = threading.Thread(target=work, daemon=True)
    reader.start()
    try:
        for piece in pieces:
            yield piece
            permits.release()
    finally:
        stopped.set()
        permits.release()
        reader.join()
