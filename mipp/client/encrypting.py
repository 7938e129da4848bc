"""A batch of rows on its way to the servers: encrypted, with its tags, and hashed; all that needs no server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ..io.memory import SpareArrays
from ..sharing import OwnerKeys, SharedRows, share_rows
from .row_checks import OwnerTags

__all__ = ["EncryptedRows", "encrypt_rows"]


class EncryptedRows(NamedTuple):
    """One batch: its shares, their tags by cloud (none where the owner keeps none), SHA-256 of each share. Secret."""

    shared: SharedRows
    tags: Mapping[int, np.ndarray]
    hashes: Mapping[int, bytes]


def encrypt_rows(
    rows: np.ndarray,
    keys: OwnerKeys,
    encoding_hash: bytes,
    *,
    tags: OwnerTags | None = None,
    digest: bytes | None = None,
    threads: int | None = None,
    spare: SpareArrays | None = None,
) -> EncryptedRows:
    """Encrypt one batch under fresh keystream.

    Parameters
    ----------
    rows : ndarray of int, (N, encoded_dim)
        Encoded rows. Secret.
    keys : OwnerKeys
        The owner's.
    encoding_hash : bytes
        Hash of the index's encoding.
    tags : OwnerTags, optional
        Makes the tags.
    digest : bytes, optional
        SHA-256 of the rows' bytes, if it is known.
    threads : int, optional
        Native threads; default all cores.
    spare : SpareArrays, optional
        Memory for the shares.

    Returns
    -------
    EncryptedRows
        For one upload: a batch id is used once.
    """
    empty = np.empty if spare is None else spare.take
    shared = share_rows(rows, keys, encoding_hash, digest=digest, threads=threads, empty=empty)
    with ThreadPoolExecutor(len(shared.shares)) as pool:  # each hash takes one core
        hashed = pool.map(_sha256, shared.shares.values())
        made = {} if tags is None else tags.of_shares(shared.shares)
        return EncryptedRows(shared, made, dict(zip(shared.shares, hashed, strict=True)))


def _sha256(words: np.ndarray) -> bytes:
    return hashlib.sha256(words.reshape(-1).data.cast("B")).digest()
