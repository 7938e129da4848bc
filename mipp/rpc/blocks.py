"""How a user that ranks by itself cuts a batch of queries: one header, answered some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["query_blocks", "row_blocks"]

#: queries under one header: with more, columns would be larger than the answers to a block
HEADER_QUERIES = 1 << 12
#: bytes of one server's answers in a block: with many queries some caches hold them, and sending and hashing the
#: columns anew costs little; with few queries fewer blocks are fewer rounds
BLOCK_BYTES, FEW_QUERIES, FEW_BYTES = 16 << 20, 64, 32 << 20
#: fewer rows cost more in sending and hashing the columns again than smaller answers save
LEAST_ROWS = 1 << 11
#: rows of a block are a multiple: whole cache lines of answers
LINE = 64


def query_blocks(queries: int) -> Iterator[slice]:
    """The queries under each header."""
    for first in range(0, queries, HEADER_QUERIES):
        yield slice(first, min(first + HEADER_QUERIES, queries))


def row_blocks(rows: int, queries: int, word_bytes: int) -> Iterator[range]:
    """The blocks of ``rows`` rows for ``queries`` under one header; 64 MiB of answers at most (32 of 32-bit words)."""
    size = FEW_BYTES if queries <= FEW_QUERIES else BLOCK_BYTES
    step = max(LEAST_ROWS, size // (queries * word_bytes) // LINE * LINE)
    for first in range(0, rows, step):
        yield range(first, min(first + step, rows))
