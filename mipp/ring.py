"""Matrix products over the integers modulo 2^16, 2^32 or 2^64: the product that every server computes for a query."""

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
    """Multiply stored rows with the query shares of a batch of queries, modulo 2^ring_bits.

    The result is ``out[b, r] = sum_d rows[r, d] * columns[b, d]`` modulo 2^ring_bits, the bits of a word.

    Parameters
    ----------
    rows : ndarray of uint16, uint32 or uint64, shape (N, D)
        Stored words, C-contiguous, native byte order; may be read-only (memory-mapped). D >= 1, N may be 0. Fastest
        if a row is a multiple of 64 bytes. May be secret: time and memory access depend on shapes only.
    columns : ndarray, shape (B, D), dtype of ``rows``
        One query share in each row, C-contiguous. May be secret. In a batch each query costs less, because rows are
        read once for all.
    out : ndarray, shape (B, N), dtype of ``rows``, optional
        Where to write. Its rows must be contiguous, but may lie apart (a slice of columns of a larger array). Must
        not overlap the inputs. Large results are written past the caches, which is faster, if N words are a multiple
        of 64 bytes.
    threads : int, optional
        Most threads to use, 1 to 1024. None and 0 mean the default, :func:`mipp.cpu.threads`. The rows are divided
        among threads.

    Returns
    -------
    ndarray, shape (B, N), dtype of ``rows``
        ``out``, or a new array that begins at a cache line. As secret as the inputs.

    Raises
    ------
    DTypeError
        An argument is not an array, or has another dtype or byte order; or the dtypes differ.
    ShapeError
        An array has another rank or memory layout, D is 0 or differs, or ``out`` has another shape.
    ParameterError
        ``threads`` is out of range, ``MIPP_NUM_THREADS`` is invalid, or ``out`` overlaps an input.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import ring
    >>> rows = np.array([[1, 2], [65535, 1]], np.uint16)
    >>> ring.matmul(rows, np.array([[3, 4]], np.uint16))
    array([[11,  1]], dtype=uint16)
    """
    return _core.ring_matmul(rows, columns, out, threads)
