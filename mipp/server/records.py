"""Records of rows at a server: checked when they come, and given back to their owner."""

from __future__ import annotations

import numpy as np

from ..errors import AuthenticationError, MessageError, ParameterError, ShapeError, StoreError
from ..rpc import messages as m
from ..rpc.limits import FETCH_IMAGES
from ..rpc.records import ALBUM_BYTES, HASH_BYTES, record_hashes, record_pack_hash
from ..store.store import NewRecords
from .base import Handlers, Request, ServerBase

__all__ = ["HANDLERS", "new_records", "require_moved"]


def new_records(
    server: ServerBase, rows: int, hash_: bytes, album: bytes, records: np.ndarray
) -> NewRecords | None:  # fmt: skip
    """Check the records of a change; None if it brings none.

    Parameters
    ----------
    server : ServerBase
        This server.
    rows : int
        Number of records.
    hash_ : bytes
        Of their pack, 32 bytes; empty without records.
    album : bytes
        Their album, 32 bytes; empty without records.
    records : ndarray of uint8, (rows, record_bytes)
        The records; empty at a key centre.

    Raises
    ------
    ParameterError
        Records where the deployment has none.
    ShapeError, MessageError
        Values of another size; records for a key centre.
    AuthenticationError
        Records of another hash than the change names.
    """
    size = server.config.record_bytes
    if not hash_:
        if album or records.size:
            raise MessageError("records come with the hash of their pack and an album")
        return None
    if not size:
        raise ParameterError("this deployment keeps no records of rows")
    if len(hash_) != HASH_BYTES or len(album) != ALBUM_BYTES:
        raise ShapeError(f"a record pack has a hash of {HASH_BYTES} bytes, and an album of {ALBUM_BYTES}")
    if not server.has_shares:
        if records.size:
            raise MessageError("a key centre takes no records")
        return NewRecords(album, hash_, 0, None, None)
    if records.shape != (rows, size):
        raise ShapeError(f"records must be ({rows}, {size}) bytes, not {records.shape}")
    hashes = record_hashes(records)
    if record_pack_hash(hashes, size) != hash_:
        raise AuthenticationError("the records are not those whose hash the change names")
    return NewRecords(album, hash_, records.nbytes + hashes.nbytes, records, hashes)


def require_moved(msg: m.UploadOp) -> None:
    """ShapeError unless a merge says of each row which batch it comes from, and which row of that."""
    if msg.moved.shape != (msg.rows, 2) or not msg.replaces:
        raise ShapeError("a merge names batch and row that each of its rows comes from")
    if int(msg.moved.min()) < 0 or int(msg.moved[:, 0].max()) >= len(msg.replaces):
        raise ShapeError("a merge's rows come from the batches that it replaces")
    if len(np.unique(msg.moved, axis=0)) != msg.rows:
        raise ShapeError("a merge takes each row once")


def record_places(server: ServerBase, request: Request[m.RecordPlacesRequest]) -> m.RecordPlaces:
    signer, msg = request.signer, request.content
    if len(msg.batch) != 16 or not 1 <= len(msg.rows) <= FETCH_IMAGES:
        raise ShapeError(f"a request names a batch by an id of 16 bytes and 1 to {FETCH_IMAGES} rows of it")
    return m.RecordPlaces(*server.store.records.places(signer, msg.batch, msg.rows))


def fetch_own_records(server: ServerBase, request: Request[m.FetchOwnRecords]) -> m.OwnRecords:
    signer, msg = request.signer, request.content
    if not server.has_shares:
        raise StoreError("a key centre stores no records")
    if not 1 <= len(msg.places) <= FETCH_IMAGES or msg.packs.shape != (len(msg.places), 16):
        raise ShapeError(f"a request names 1 to {FETCH_IMAGES} records by pack and place")
    server.room_for(signer, len(msg.places) * server.config.record_bytes)
    return m.OwnRecords(server.store.records.read(signer, msg.packs, msg.places))


HANDLERS: Handlers = {m.RecordPlacesRequest: record_places, m.FetchOwnRecords: fetch_own_records}
