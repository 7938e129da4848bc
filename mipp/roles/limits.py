"""Limits that servers and clients enforce. One place, so that both sides agree."""

from __future__ import annotations

__all__ = [
    "FETCH_BYTES",
    "FETCH_IMAGES",
    "HEAD_BYTES",
    "IMAGE_BYTES",
    "MAX_COUNT",
    "MAX_EXPIRY",
    "MAX_QUOTA",
    "MAX_ROW",
    "MAX_VERSION",
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
#: most bytes of encrypted files in one reply, unless it holds a single image
FETCH_BYTES = 64 << 20
#: most bytes of a single image
IMAGE_BYTES = 1 << 30
#: most bytes of the encrypted JSON header in front of an image's content
HEAD_BYTES = 64 << 10
