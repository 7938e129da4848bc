"""Wrapping matrix products over Z mod 2^k: what every server computes for a query."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._native import _core

__all__ = ["matmul"]


def matmul(
    rows: npt.NDArray[np.unsignedinteger],
    columns: npt.NDArray[np.unsignedinteger],
    *,
    out: npt.NDArray[np.unsignedinteger] | None = None,
    threads: int | None = None,
) -> npt.NDArray[np.unsignedinteger]:
    """``out[b, r] = sum_d rows[r, d] * columns[b, d]`` modulo 2^k, k being the bits of a word.

    Parameters
    ----------
    rows : ndarray of uint16, uint32 or uint64, shape (N, D)
        Stored words, C-contiguous, native byte order; may be read-only (memory-mapped). D >= 1, N may be 0. Fastest
        when a row is a multiple of 64 bytes. May be secret: time and memory access depend on shapes only.
    columns : ndarray, shape (B, D)
        One query column per row, of the dtype of ``rows``, C-contiguous. May be secret. In a batch,
        each column costs less: rows are read once for all.
    out : ndarray, shape (B, N), optional
        Where to write; its rows must be contiguous, but may lie apart (a slice of columns of a larger array). Must
        not overlap the inputs. Large answers are written past the caches, which is faster, if N words are
        a multiple of 64 bytes.
    threads : int, optional
        Most threads to use, 1 to 1024. None and 0 mean the default, :func:`mipp.cpu.threads`. Threads share the rows.

    Returns
    -------
    ndarray, shape (B, N)
        ``out``, or a new array of the dtype of ``rows`` that begins at a cache line.

    Raises
    ------
    DTypeError
        No array, another dtype or byte order, or dtypes that differ.
    ShapeError
        Another rank, D = 0, different D, an ``out`` of another shape, or a memory layout other than asked for.
    ParameterError
        ``threads`` out of range, a bad ``MIPP_NUM_THREADS``, or an ``out`` that overlaps an input.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import ring
    >>> rows = np.array([[1, 2], [65535, 1]], np.uint16)
    >>> ring.matmul(rows, np.array([[3, 4]], np.uint16))
    array([[11,  1]], dtype=uint16)
    """
    return _core.ring_matmul(rows, columns, out, threads)
