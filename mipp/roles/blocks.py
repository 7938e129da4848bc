"""How a user that ranks by itself cuts a batch of queries: one header, answered some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["query_blocks", "row_blocks"]

#: queries under one header: with more, columns would be larger than the answers to a block
HEADER_QUERIES = 1 << 12
#: bytes of one server's answers in a block: few enough for the caches of processors that have large ones, and enough
#: rows that sending and hashing the columns again costs little beside the product
BLOCK_BYTES = 16 << 20
#: rows of a block are a multiple: whole cache lines of answers
LINE = 64


def query_blocks(queries: int) -> Iterator[slice]:
    """The queries under each header."""
    for first in range(0, queries, HEADER_QUERIES):
        yield slice(first, min(first + HEADER_QUERIES, queries))


def row_blocks(rows: int, queries: int, word_bytes: int) -> Iterator[range]:
    """The blocks of ``rows`` rows for a batch of ``queries``: at least 64 rows each but the last."""
    step = max(LINE, BLOCK_BYTES // (queries * word_bytes) // LINE * LINE)
    for first in range(0, rows, step):
        yield range(first, min(first + step, rows))
