"""Records of rows as all parties name them: their sizes, hashes of packs, and what servers agree on about a change.

A *record* belongs to a row and has one fixed size in a deployment. A *record pack* holds the records that one change
wrote; its id is that change's. A row's record has an *origin*: a pack, and a place in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgpack
import numpy as np

from ..errors import MessageError, ParameterError

__all__ = [
    "ALBUM_BYTES",
    "HASH_BYTES",
    "LARGEST_RECORD",
    "ORIGIN",
    "PREFIX_BYTES",
    "SMALLEST_RECORD",
    "check_record_bytes",
    "count_places",
    "image_files_hash",
    "moved_hash",
    "pack_places",
    "record_hashes",
    "record_pack_hash",
    "record_prefix",
    "records_facts",
    "unpack_places",
]

#: bytes of a record, and what they are a multiple of, so that records lie on cache lines
SMALLEST_RECORD, LARGEST_RECORD, _STEP = 256, 1 << 16, 64
#: an album: its id and a check of its key, 16 bytes each
ALBUM_BYTES = 32
#: a record begins with its album, the id of its pack and its place there, 32, 16 and 8 bytes, in the clear
PREFIX_BYTES = 56
HASH_BYTES = 32
#: origin of a row's record: its pack (zeros without one) and the place there
ORIGIN = np.dtype([("pack", "u1", 16), ("place", "<i8")])


def check_record_bytes(value: int) -> int:
    """The size of records of a deployment, 0 for none; ParameterError for one that cannot be."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ParameterError(f"the size of records is an integer, not {type(value).__name__}")
    value = int(value)
    if value and (not SMALLEST_RECORD <= value <= LARGEST_RECORD or value % _STEP):
        raise ParameterError(
            f"records have 0 bytes (none), or {SMALLEST_RECORD} to {LARGEST_RECORD} in steps of {_STEP}, not {value}"
        )
    return value


def record_prefix(album: bytes, pack: bytes, place: int) -> bytes:
    """First bytes of a record, in the clear."""
    return album + pack + place.to_bytes(8, "big")


def record_hashes(records: np.ndarray) -> np.ndarray:
    """SHA-256 of each of (n, record_bytes) records; (n, 32)."""
    joined = b"".join(hashlib.sha256(np.ascontiguousarray(record).data).digest() for record in records)
    return np.frombuffer(joined, np.uint8).reshape(-1, HASH_BYTES)


def moved_hash(origins: Iterable[tuple[bytes, int, Iterable[bytes]]]) -> bytes:
    """Hash of where records of an owner's rows are: of each batch that did not come with its own records, in row order,
    its id, the size of the origins of its rows, and these, in pieces. 32 bytes; empty without any."""
    digest, some = hashlib.sha256(b"mipp v1 moved records"), False
    for batch, size, pieces in origins:
        digest.update(batch + size.to_bytes(8, "big"))
        for piece in pieces:
            digest.update(piece)
        some = True
    return digest.digest() if some else b""


def record_pack_hash(hashes: np.ndarray, record_bytes: int) -> bytes:
    """Hash of a pack, 32 bytes, from those of its records: rows that are gone keep theirs."""
    numbers = len(hashes).to_bytes(8, "big") + record_bytes.to_bytes(8, "big")
    return hashlib.sha256(b"mipp v1 record pack" + numbers + hashes.tobytes()).digest()


def image_files_hash(files: bytes, offsets: bytes) -> bytes:
    """Hash of the encrypted image files of a change, 32 bytes, from SHA-256 of the files and of their offsets."""
    return hashlib.sha256(b"mipp v1 image files" + files + offsets).digest()


def records_facts(album: bytes, pack_hash: bytes, places: bytes, image_hash: bytes = b"") -> bytes:
    """What servers must agree on about the records of a change, 32 bytes; empty if it has none.

    ``album`` (32 bytes) and ``pack_hash``: of the pack that it writes. ``places``: the rows of an annotation
    (:func:`pack_places`), or where the rows of a merge come from. ``image_hash``: of its image files, or empty.
    """
    if not (pack_hash or places):
        return b""
    return hashlib.sha256(
        b"mipp v1 records"
        + album.ljust(ALBUM_BYTES, b"\0")
        + pack_hash.ljust(32, b"\0")
        + image_hash.ljust(32, b"\0")
        + places
    ).digest()


def pack_places(places: Mapping[bytes, Iterable[int]]) -> bytes:
    """Rows that an annotation gives new records, by batch, in the order of its pack, in one form."""
    return bytes(msgpack.packb([[batch, np.array(list(rows), "<i8").tobytes()] for batch, rows in places.items()]))


def unpack_places(data: bytes) -> dict[bytes, np.ndarray]:
    """Inverse of :func:`pack_places`; MessageError for a batch that is named twice."""
    pairs = msgpack.unpackb(data) if data else []
    found = {batch: np.frombuffer(rows, "<i8") for batch, rows in pairs}
    if len(found) != len(pairs):
        raise MessageError("an annotation names each batch once")
    return found


def count_places(data: bytes) -> int:
    """Number of rows that an annotation gives new records, of :func:`pack_places`."""
    return sum(map(len, unpack_places(data).values()))
