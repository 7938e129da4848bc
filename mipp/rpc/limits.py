"""Limits that servers and clients enforce, in one place. Everything beyond is refused with a typed error.

A request's limits are checked before memory is taken for it; a party's are on its :class:`Card`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import LimitError

__all__ = [
    "ALBUM_OWNERS",
    "FETCH_BYTES",
    "FETCH_IMAGES",
    "FETCH_RECORDS",
    "HEAD_BYTES",
    "IMAGE_BYTES",
    "MAX_ALBUMS",
    "MAX_ANSWER_BYTES",
    "MAX_AUDIT_BATCHES",
    "MAX_AUDIT_BYTES",
    "MAX_AUDIT_DRAWS",
    "MAX_AUDIT_ROWS",
    "MAX_COUNT",
    "MAX_ENVELOPE_BYTES",
    "MAX_EVALUATION_KEYS_BYTES",
    "MAX_EXPIRY",
    "MAX_HEADER_BYTES",
    "MAX_HEAD_BYTES",
    "MAX_KEPT_BYTES",
    "MAX_PROOF_BYTES",
    "MAX_QUERIES",
    "MAX_QUERY_BYTES",
    "MAX_QUOTA",
    "MAX_RANKED_BYTES",
    "MAX_RANKED_COMPARISONS",
    "MAX_RANKED_HITS",
    "MAX_ROW",
    "MAX_VERSION",
    "ORIGINAL_BLOCK",
    "ORIGINAL_BLOCKS",
    "ORIGINAL_CLASS",
    "Card",
    "fetch_limit",
    "size_class",
    "within_size",
]

# --- grants ---------------------------------------------------------------------------------------------------------
#: exclusive limit of an expiry in Unix seconds: SQLite and msgpack hold signed 64-bit integers
MAX_EXPIRY = 1 << 63
#: exclusive limit of a quota: ``used + queries`` must stay below 2^63 in SQLite
MAX_QUOTA = 1 << 62
#: exclusive limit of a grant's version: a later grant always has room above it
MAX_VERSION = 1 << 62
#: largest ``max_k`` and ``min_rows`` of a grant
MAX_COUNT = 1 << 31

# --- images ---------------------------------------------------------------------------------------------------------
#: exclusive limit of a row number within a batch
MAX_ROW = 1 << 48
#: most images that one fetch request names
FETCH_IMAGES = 1024
#: most records that one private fetch asks for, most albums of an owner, and owners whose albums one request names
FETCH_RECORDS, MAX_ALBUMS, ALBUM_OWNERS = 64, 1 << 9, 16
#: bytes of a block of an image file that is fetched privately, blocks that one request asks for, and the largest class
#: of sizes: files of at most 2^16 blocks
ORIGINAL_BLOCK, ORIGINAL_BLOCKS, ORIGINAL_CLASS = 1 << 14, 1 << 8, 16
#: most bytes of encrypted files in one reply, unless it holds a single image
FETCH_BYTES = 64 << 20
#: most bytes of a single image
IMAGE_BYTES = 1 << 30
#: most bytes of the encrypted JSON header in front of an image's content
HEAD_BYTES = 64 << 10

# --- requests -------------------------------------------------------------------------------------------------------
#: bytes of the first frame (all but arrays) of an envelope and of a registration, which are read before a signature is
#: checked, and of other requests
MAX_ENVELOPE_BYTES, MAX_HEAD_BYTES = 64 << 10, 8 << 20

# --- queries --------------------------------------------------------------------------------------------------------
#: queries under one header
MAX_QUERIES = 1 << 16
#: encrypted queries under one header, one alone may have more: they are in memory at the user and at each server
MAX_QUERY_BYTES = 1 << 26
#: what a query has beside its query share, thresholds and proof: most of it the ids of its batches
MAX_HEADER_BYTES = 1 << 26
#: evaluation keys of all users that a server keeps
MAX_EVALUATION_KEYS_BYTES = 1 << 32
#: score shares that one request is answered with; a user that wants more asks for some rows at a time
MAX_ANSWER_BYTES = 1 << 27
#: check columns of one user that a server keeps until they are folded
MAX_KEPT_BYTES = 1 << 28
#: score shares of a batch of queries that the servers rank together (one query alone may have more rows); comparing
#: needs some eight times as much
MAX_RANKED_BYTES = 1 << 26
#: words of the proofs of a batch of queries
MAX_PROOF_BYTES = 1 << 23
#: comparisons of one query that the servers rank, beside two a row: a k of millions sorts as many rows
MAX_RANKED_COMPARISONS = 1 << 28
#: hits (queries times k) of one ranking
MAX_RANKED_HITS = 1 << 22


# --- audits ---------------------------------------------------------------------------------------------------------
#: batches, rows as uploaded and bytes of words of one request, unless it names one batch alone; rows that it draws
MAX_AUDIT_BATCHES, MAX_AUDIT_ROWS, MAX_AUDIT_BYTES, MAX_AUDIT_DRAWS = 1 << 14, 1 << 24, 1 << 32, 1 << 22


def within_size(frames: Sequence[bytes | memoryview], most: int) -> None:
    """LimitError if a message's first frame has more than ``most`` bytes: what it unpacks to can be much larger."""
    if memoryview(frames[0]).nbytes > most:
        raise LimitError(f"a request's first frame has at most {most} bytes")


@dataclass(frozen=True)
class Card:
    """Limits of one party at a server.

    Parameters
    ----------
    rows, bytes : that an owner may store, shares and images together; None without limit
    concurrent : requests under way at once
    requests : a minute, on average, with bursts of as many; None without limit
    reply_bytes : of replies, over a network, that are made or were not read; a single one may have more
    """

    rows: int | None = None
    bytes: int | None = None
    concurrent: int = 256
    requests: int | None = None
    reply_bytes: int = 512 << 20


def fetch_limit(quota: int, max_k: int) -> int:
    """Records that a grant of so many queries of so many images each lets a user fetch privately; 0 for any number.

    For each query its images, rounded up to tens as clients fetch them, three times: their names and captions, the same
    again when the images are fetched, and the images.
    """
    return min(3 * quota * (-(-max_k // 10) * 10), MAX_QUOTA - 1)


def size_class(size: int) -> int:
    """Class of the size of an encrypted image file: the least c such that 2^c blocks hold it."""
    return max(0, -(-size // ORIGINAL_BLOCK) - 1).bit_length()
