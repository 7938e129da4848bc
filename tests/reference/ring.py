"""Oracles of mipp.ring: the definition in plain integers, and the same in 64-bit numpy for larger shapes."""

import numpy as np


def matmul(rows, columns, bits):
    """Lists of lists: sums of products of plain integers, reduced once at the end."""
    return [
        [sum(int(x) * int(y) for x, y in zip(row, column, strict=True)) % 2**bits for row in rows] for column in columns
    ]


def matmul_wide(rows, columns):
    """Arrays: 2^k divides 2^64, so wrapping in 64 bits and cutting off the rest is exact."""
    wide = np.einsum("rd,bd->br", rows.astype(np.uint64), columns.astype(np.uint64))
    return wide.astype(rows.dtype)
