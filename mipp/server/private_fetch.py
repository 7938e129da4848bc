"""Private fetch: records of rows that no server learns, by the private retrieval of :mod:`mipp.pir`.

Each of two clouds gets a key for every record that is fetched, over all rows of the snapshot, and XORs the records that
the key selects. Both XOR the same pseudorandom mask onto their replies, which depends on the header that commits to all
keys: so only both replies to one header mean anything, one record a key, whatever the keys are. The clouds answer for
the exact state that the header names, so that a header is always answered alike.
"""

from __future__ import annotations

import threading
import weakref
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .. import pir
from ..backends import RecordScan, StoredFile
from ..crypto import box, schedule
from ..crypto.records import album_part
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    IntegrityError,
    NotFoundError,
    ParameterError,
    ShapeError,
    StaleSnapshotError,
    StoreError,
)
from ..rpc import messages as m
from ..rpc.associated_data import album_seal_info, fetch_commitment
from ..rpc.limits import (
    ALBUM_OWNERS,
    FETCH_RECORDS,
    ORIGINAL_BLOCK,
    ORIGINAL_BLOCKS,
    ORIGINAL_CLASS,
    fetch_limit,
    size_class,
)
from ..rpc.records import ALBUM_BYTES
from ..rpc.wire import Frames, decode, frames_hash
from ..store.files import HEADER_BYTES
from ..store.views import BatchView
from .base import Handlers, Request, ServerBase
from .plan import Plan
from .queries import OpenHeaders
from .rates import ReadTurns

__all__ = ["HANDLERS", "PrivateFetch"]

#: seconds that a fetch waits for its turn: one reads records or images at a time, with all threads
_PATIENCE = 20.0
#: bytes of bits of selections that are in memory at once, where records lie in another order than rows
_BIT_BYTES = 1 << 26
T = TypeVar("T")
Authorise = Callable[[m.FetchHeader, bytes], tuple[Plan, list[m.Grant]]]


@dataclass(frozen=True)
class _Scan:
    """Records of one pack, and the row of the plan that each belongs to.

    ``first``: records are consecutive rows of the plan from this one on. Else ``rows`` names the row of each, the
    plan's number of rows for those that belong to no live row.
    """

    records: np.ndarray
    first: int
    rows: np.ndarray | None
    file: StoredFile | None = None


@dataclass(frozen=True)
class _Map:
    """Where the records of a plan's rows are: packs to scan, and 64 bits a word which rows have one."""

    scans: list[_Scan]
    live: np.ndarray


@dataclass(frozen=True)
class _Files:
    """Image files of one class of size, and the row of the plan that each belongs to."""

    rows: np.ndarray
    contents: list[np.ndarray]


_NO_FILES = _Files(np.empty(0, np.int64), [])
_NO_MAP = _Map([], np.empty(0, np.uint64))


class PrivateFetch:
    """Answers private fetches at one cloud.

    Parameters
    ----------
    server : ServerBase
        Whose.
    authorise : callable
        Checks grants and snapshot of a header: the rows that it covers, and the grants.
    in_force : callable
        Checks that the grants of a header are in force: these grants.
    """

    def __init__(
        self, server: ServerBase, authorise: Authorise, in_force: Callable[[m.FetchHeader], list[m.Grant]]
    ) -> None:  # fmt: skip
        self._server, self._authorise, self._in_force = server, authorise, in_force
        self._headers = OpenHeaders(size=64, per_user=4)
        # as long as plans: those of an older state would keep its files open
        self._maps: weakref.WeakKeyDictionary[Plan, _Map] = weakref.WeakKeyDictionary()
        self._files: weakref.WeakKeyDictionary[Plan, dict[int, _Files]] = weakref.WeakKeyDictionary()
        self._lock, self._turns = threading.Lock(), ReadTurns(_PATIENCE, "private fetch")

    def drop(self, owners: set[bytes]) -> None:
        """Drop what is kept of rows of these owners."""
        self._headers.drop(owners)
        self.close()

    def close(self) -> None:
        """Drop what is kept in memory."""
        with self._lock:
            self._maps.clear()
            self._files.clear()

    def answer(self, request: Request[m.FetchRecords]) -> m.MaskedRecords:
        """Answer the keys of one header: check, count, scan, mask."""
        server, msg = self._server, request.content
        frames: Frames = [f.data for f in msg.header]
        header, hash_ = decode(frames, m.FetchHeader), frames_hash(frames)
        other = self._check(request.signer, header, msg)
        # parts of files under a header that was counted before: of the same state, whatever changed since
        known = self._headers.find(hash_) if header.size_class >= 0 else None
        if known is None:
            plan, grants = self._authorise(header, msg.newest)
        else:
            plan, grants = known, self._in_force(header)
        for key in msg.keys:
            pir.check_key(key, plan.total)
        size = server.config.record_bytes if header.size_class < 0 else msg.blocks * ORIGINAL_BLOCK
        server.room_for(request.signer, len(msg.keys) * size)
        with self._turns.of(request.signer):
            try:
                plan, grants, found, files = self._found(header, msg.newest, plan, grants, again=known is None)
            except NotFoundError:  # merged and dropped at this moment
                raise StaleSnapshotError("the index changed since the fetch's snapshot") from None
            except (IntegrityError, StoreError):  # files are named to the operator alone
                what = "records" if header.size_class < 0 else "image files"
                raise IntegrityError(f"{what} of some rows are damaged or missing at server {server.index}") from None
            used = [
                (g.owner, name, fetch_limit(g.quota, g.max_k)) for name, g in zip(header.grants, grants, strict=True)
            ]
            server.store.count_fetched(header.user, used, len(msg.keys))
            if header.size_class >= 0 and known is None:
                self._headers.remember(hash_, header.user, plan)
            if files is None:
                records = self._selected(found, plan.total, msg.keys)
            else:
                span = slice(msg.first * ORIGINAL_BLOCK, (msg.first + msg.blocks) * ORIGINAL_BLOCK)
                records = self._selected_parts(files, plan.total, msg.keys, span)
        pair_key = server.keys.pair_keys(header.keys)[other]
        return m.MaskedRecords(records ^ _mask(pair_key, hash_, msg.first, records.shape))

    def _found(
        self, header: m.FetchHeader, newest: bytes, plan: Plan, grants: list[m.Grant], *, again: bool
    ) -> tuple[Plan, list[m.Grant], _Map, _Files | None]:
        """Records of a plan, or its image files of the header's class of size.

        What is not here may have moved since the plan was made: then ``again`` it is made anew, of the same snapshot.
        """
        try:
            if header.size_class < 0:
                return plan, grants, self._kept(self._maps, plan, self._new_map), None
            files = self._kept(self._files, plan, self._originals)
            return plan, grants, _NO_MAP, files.get(header.size_class, _NO_FILES)
        except (IntegrityError, StoreError):
            newer, grants = self._authorise(header, newest) if again else (plan, grants)
            if newer is plan:
                raise
            return self._found(header, newest, newer, grants, again=False)

    def _check(self, signer: bytes, header: m.FetchHeader, msg: m.FetchRecords) -> int:
        """Whose fetch it is, for which two clouds, and whether the keys are those committed to; the other cloud."""
        server, params = self._server, self._server.config.params
        if not server.config.record_bytes or not server.has_shares:
            raise ParameterError("this server keeps no records of rows")
        if params.t != 1 or len(params.clouds) < 2:
            raise ParameterError("records are fetched privately from two clouds that do not collude")
        if header.deployment != server.config.id or header.user != signer or len(header.nonce) != 16:
            raise AuthenticationError("the header of the fetch is another deployment's or another user's")
        pair = header.clouds
        if (
            len(pair) != 2
            or pair != sorted(set(pair))
            or not set(pair) <= set(params.clouds)
            or server.index not in pair
        ):
            raise ParameterError("a fetch goes to two clouds, sorted, and this one among them")
        if not 1 <= len(msg.keys) <= FETCH_RECORDS or header.count != len(msg.keys):
            raise ShapeError(f"a fetch is of 1 to {FETCH_RECORDS} records, with a key for each")
        if header.size_class < 0:
            fits = header.size_class == -1 and msg.first == msg.blocks == 0
        else:
            known = header.size_class <= ORIGINAL_CLASS
            inside = known and 0 <= msg.first < msg.first + msg.blocks <= 1 << header.size_class
            fits = inside and msg.blocks * len(msg.keys) <= ORIGINAL_BLOCKS
        if not fits:
            raise ShapeError(
                f"a fetch is of records, or of up to {ORIGINAL_BLOCKS} blocks of files of one class of size"
            )
        server.keys.pair_keys(header.keys)  # refuses keys that are not valid here, before anything is counted
        committed = len(header.commitments) == 2 and header.commitments[pair.index(server.index)]
        if len(msg.salt) != 32 or committed != fetch_commitment(msg.salt, msg.keys):
            raise AuthenticationError("the keys are not those that the header commits to")
        return pair[1 - pair.index(server.index)]

    def _selected(self, found: _Map, total: int, keys: Sequence[bytes]) -> np.ndarray:
        """The XOR of the records that each key selects, (n, record_bytes)."""
        threads = self._server.threads
        out = np.zeros((len(keys), self._server.config.record_bytes), np.uint8)
        in_order = [RecordScan(scan.records, scan.first, scan.file) for scan in found.scans if scan.rows is None]
        self._server.backend.select(in_order, keys, total, found.live, out)
        scattered = [(scan.records, scan.rows) for scan in found.scans if scan.rows is not None]
        if not scattered:
            return out
        selections = np.stack([pir.expand(key, rows=total, threads=threads) for key in keys])
        selections &= found.live
        step = max(1, _BIT_BYTES // (total + 1))
        for first in range(0, len(keys), step):
            some = slice(first, first + step)
            # a byte a row, and a zero for records without one
            raw = np.unpackbits(selections[some].view(np.uint8), axis=1, count=total, bitorder="little")
            bits = np.concatenate([raw, np.zeros((len(raw), 1), np.uint8)], axis=1)
            for records, rows in scattered:
                packed = np.packbits(bits[:, rows], axis=1, bitorder="little")
                words = np.zeros((len(raw), -(-packed.shape[1] // 8) * 8), np.uint8)
                words[:, : packed.shape[1]] = packed
                pir.scan(records, words.view(np.uint64), out=out[some], threads=threads)
        return out

    def _selected_parts(self, files: _Files, total: int, keys: Sequence[bytes], span: slice) -> np.ndarray:
        """The XOR of the same part of the image files that each key selects, zeros behind a file's end."""
        threads = self._server.threads
        out = np.zeros((len(keys), span.stop - span.start), np.uint8)
        for key, into in zip(keys, out, strict=True):
            selection = pir.expand(key, rows=total, threads=threads)
            bits = np.unpackbits(selection.view(np.uint8), count=total, bitorder="little")[files.rows].astype(np.uint64)
            for bit, file in zip(bits.reshape(-1, 1), files.contents, strict=True):
                piece = file[span]
                whole = len(piece) // 8 * 8
                if whole:
                    pir.scan(piece[None, :whole], bit, out=into[:whole], threads=threads)
                if whole < len(piece):  # masks, not branches: bits are secret
                    into[whole : len(piece)] ^= piece[whole:] & (np.zeros(1, np.uint8) - bit.astype(np.uint8))
        return out

    # --- where the records are ----------------------------------------------------------------------------------

    def _kept(self, kept: weakref.WeakKeyDictionary[Plan, T], plan: Plan, make: Callable[[Plan], T]) -> T:
        """What was made of a plan before, or is made now."""
        with self._lock:
            known = kept.get(plan)
        if known is None:
            known = make(plan)
            with self._lock:
                kept[plan] = known
        return known

    def _originals(self, plan: Plan) -> dict[int, _Files]:
        """Image files of the live rows of a plan, by class of size; IntegrityError if one is not here."""
        packs = self._server.store.packs
        rows: dict[int, list[int]] = {}
        contents: dict[int, list[np.ndarray]] = {}
        for part in plan.parts:
            for batch, start in zip(part.batches, part.starts[:-1].tolist(), strict=True):
                live, of, at = packs.images_of(part.view.owner, batch.id, batch.tombstones)
                for row in live.tolist():
                    try:
                        file = packs.image(part.view.owner, of[row].tobytes(), int(at[row]))
                    except NotFoundError:
                        raise IntegrityError(f"images of batch {batch.id.hex()} are not here") from None
                    rows.setdefault(size_class(len(file)), []).append(start + row)
                    contents.setdefault(size_class(len(file)), []).append(file)
        return {c: _Files(np.array(some, np.int64), contents[c]) for c, some in rows.items()}

    def _new_map(self, plan: Plan) -> _Map:
        live = np.zeros(2 * -(-plan.total // 128) * 64, bool)
        live[: plan.total] = True
        scans: list[_Scan] = []
        for part in plan.parts:
            elsewhere: dict[bytes, list[tuple[np.ndarray, np.ndarray]]] = {}
            for batch, start in zip(part.batches, part.starts[:-1].tolist(), strict=True):
                live[start + batch.tombstones] = False
                if not batch.live:
                    continue
                origins = batch.origins
                if origins is None:
                    scans += self._own(part.view.owner, batch, start)
                    continue
                alive = np.setdiff1d(np.arange(batch.rows), batch.tombstones, assume_unique=True)
                names = np.ascontiguousarray(origins["pack"]).view("V16")[:, 0]
                for name in np.unique(names[alive]):
                    rows = alive[names[alive] == name]
                    elsewhere.setdefault(name.tobytes(), []).append((start + rows, origins["place"][rows]))
            for name, pieces in elsewhere.items():
                rows, places = (np.concatenate(some) for some in zip(*pieces, strict=True))
                scans.append(self._scattered(part.view.owner, name, rows, places, plan.total))
        return _Map(scans, np.packbits(live, bitorder="little").view(np.uint64))

    def _own(self, owner: bytes, batch: BatchView, start: int) -> list[_Scan]:
        """The records that a batch came with: in the order of its rows."""
        pack = self._server.store.records.pack(owner, batch.id)
        if pack.ordinals is None:
            return [_Scan(pack.records, start, None, StoredFile(pack.path, pack.size, pack.digest, HEADER_BYTES))]
        alive = np.setdiff1d(np.arange(batch.rows), batch.tombstones, assume_unique=True)
        if (pack.stored_at(alive) < 0).any():
            raise IntegrityError(f"records of change {batch.id.hex()} that live rows have are not here")
        return [self._scattered(owner, batch.id, start + pack.ordinals, pack.ordinals, -1)]

    def _scattered(self, owner: bytes, name: bytes, rows: np.ndarray, places: np.ndarray, none: int) -> _Scan:
        """Records of one pack that rows have in another order."""
        pack = self._server.store.records.pack(owner, name)
        at = pack.stored_at(places)
        if (at < 0).any():
            raise IntegrityError(f"records of change {name.hex()} that live rows have are not here")
        of = np.full(len(pack.records), none, np.int64)
        of[at] = rows
        return _Scan(pack.records, 0, of)


def _mask(pair_key: bytes, header: bytes, first: int, shape: tuple[int, ...]) -> np.ndarray:
    """Mask of the reply with blocks from ``first`` on: AES-256-CTR under a key of its own.

    The same at both clouds; secret. What is answered under one key is always the same: the header names the state, the
    keys and, with their number, how many blocks there are together.
    """
    info = b"mipp v1 record mask" + header + first.to_bytes(8, "big") + shape[1].to_bytes(8, "big")
    key = schedule.hkdf(pair_key, info)
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(shape[0] * shape[1]))
    return np.frombuffer(stream, np.uint8).reshape(shape)


def albums(server: ServerBase, request: Request[m.FetchAlbums]) -> m.Albums:
    """Parts of the keys of all albums of owners that grant the user something, sealed to it."""
    signer, msg = request.signer, request.content
    if not server.config.record_bytes:
        raise ParameterError("this deployment keeps no records of rows")
    granted = {g.owner for g in server.granted(signer).values()}
    if not 1 <= len(msg.owners) <= ALBUM_OWNERS:
        raise ShapeError(f"a request names 1 to {ALBUM_OWNERS} owners")
    if len(set(msg.owners)) != len(msg.owners) or not set(msg.owners) <= granted:
        raise AccessDeniedError(f"albums are given to users of owners that grant them something{server.ended(signer)}")
    found = [(owner, album) for owner in sorted(msg.owners) for album in server.store.records.albums(owner)]
    parts = {owner: server.image_part(owner) for owner in {owner for owner, _ in found}}
    keys = b"".join(album_part(parts[owner], album[:16]) for owner, album in found)
    ids = [owner + album for owner, album in found]
    sealed = box.seal(server.store.user(signer)[2], keys, album_seal_info(server.config.id, signer, server.index, ids))
    return m.Albums(sealed, np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16 + ALBUM_BYTES))


def origins(server: ServerBase, request: Request[m.FetchOrigins]) -> m.Origins:
    """Where the records of an owner's rows are, so that a user notices another row's or an earlier one."""
    signer, owner = request.signer, request.content.owner
    if owner not in {g.owner for g in server.granted(signer).values()}:
        raise AccessDeniedError(f"this owner grants the user nothing{server.ended(signer)}")
    moved = [b for b in server.store.view(owner).batches if b.records]
    packed = zlib.compress(b"".join(b.records for b in moved), 1)
    server.room_for(signer, len(packed))
    ids = np.frombuffer(b"".join(b.id for b in moved), np.uint8).reshape(-1, 16)
    return m.Origins(ids, np.array([b.rows for b in moved], "<i8"), np.frombuffer(packed, np.uint8))


HANDLERS: Handlers = {m.FetchAlbums: albums, m.FetchOrigins: origins}
