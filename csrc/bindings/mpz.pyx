# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""Between integers and arrays of limbs. The limbs of gmpy2's numbers are read where they lie; nothing of GMP is linked."""

from cpython.long cimport PyLong_Check
from gmpy2 cimport mpz
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

import gmpy2
import numpy as np

from mipp.errors import DTypeError, ParameterError, ShapeError


def to_limbs(values, Py_ssize_t limbs):
    """Numbers to rows of little-endian 64-bit limbs.

    values : sequence of int or gmpy2.mpz, not negative, below 2^(64 limbs)

    Returns (N, limbs) uint64.
    """
    if limbs < 1:
        raise ParameterError("limbs must be at least 1")
    cdef Py_ssize_t count = len(values), row = 0
    cdef object out = np.zeros((count, limbs), np.uint64)
    if count == 0:
        return out
    cdef uint64_t[:, ::1] view = out
    cdef mpz number
    cdef int size
    for value in values:
        if isinstance(value, mpz):
            number = value
        elif PyLong_Check(value) and not isinstance(value, bool):
            number = gmpy2.mpz(value)
        else:
            raise DTypeError(f"numbers must be int or gmpy2.mpz, not {type(value).__name__}")
        size = number.z[0]._mp_size
        if size < 0 or size > limbs:
            raise ParameterError(f"numbers must be from 0 to 2^{64 * limbs} - 1")
        memcpy(&view[row, 0], number.z[0]._mp_d, <size_t> size * 8)
        row += 1
    return out


def from_limbs(array):
    """Rows of limbs (N, limbs) uint64 to a list of gmpy2.mpz."""
    if not isinstance(array, np.ndarray) or array.dtype != np.uint64:
        raise DTypeError("limbs must be a uint64 array")
    if array.ndim != 2:
        raise ShapeError(f"limbs must be (N, limbs), not {array.shape}")
    # 1: an mpz, 1: not negative; then its bytes, least first
    cdef bytes head = b"\x01\x01"
    cdef object from_binary = gmpy2.from_binary
    cdef bytes data = np.ascontiguousarray(array).astype("<u8", copy=False).tobytes()
    cdef Py_ssize_t width = 8 * array.shape[1], i
    return [from_binary(head + data[i * width : (i + 1) * width]) for i in range(array.shape[0])]
