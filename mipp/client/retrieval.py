"""Private retrieval at two clouds: keys over all rows of the index, the keys of albums, and where records are."""

from __future__ import annotations

import functools
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .. import pir
from ..crypto import box, schedule
from ..crypto.records import album_check, album_key, open_record
from ..errors import (
    AuthenticationError,
    IntegrityError,
    MessageError,
    MippError,
    NotFoundError,
    ParameterError,
    StaleSnapshotError,
)
from ..rpc import messages as m
from ..rpc.associated_data import album_seal_info, fetch_commitment, record_data
from ..rpc.limits import ALBUM_OWNERS, ORIGINAL_BLOCK, ORIGINAL_BLOCKS
from ..rpc.records import ALBUM_BYTES, ORIGIN, PREFIX_BYTES, moved_hash, record_prefix
from ..rpc.wire import encode
from .fetching import NOBODY, Place
from .index import Index
from .retry import retry_busy
from .searching import SearchClient

__all__ = ["RetrievalClient"]

#: seconds for which a fetch is retried while the index keeps changing
_PATIENCE = 10.0
#: bytes that are inflated at once
_PIECE = 1 << 20


class RetrievalClient(SearchClient):
    """The part of :class:`~mipp.client.user.User` that retrieves records and files without telling servers which."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: of each owner, the hash of where records are that are not in the order of their batch, and where they are
        self._moved: dict[bytes, tuple[bytes, dict[bytes, np.ndarray]]] = {}
        #: owners whose album keys do not fit: their rows are fetched in appearance
        self._keyless: set[bytes] = set()
        #: of each owner, the view that its albums were asked for at, and their keys; secret
        self._albums: dict[bytes, tuple[bytes, dict[bytes, bytes]]] = {}

    @property
    def fetches_privately(self) -> bool:
        """Whether this deployment keeps records, and has two clouds that need not be trusted together."""
        return bool(self.config.record_bytes) and len(self.config.params.clouds) > 1 and self.config.params.t == 1

    def _require_private(self) -> None:
        if not self.config.record_bytes:
            raise ParameterError("this deployment keeps no records of rows, so nothing can be fetched privately")
        if not self.fetches_privately:
            raise ParameterError(
                "records are fetched privately from two clouds that do not collude: not in a deployment that "
                "has one, nor where two servers may collude"
            )

    def _pair(self, servers: Sequence[int]) -> tuple[int, ...]:
        """The clouds of a set of servers."""
        return tuple(sorted(s for s in servers if s in self.config.params.clouds))

    def _missing(self, place: Place) -> MippError:
        """Why a row was fetched in appearance only."""
        if place[0] in self._keyless:
            return IntegrityError("a part of this owner's album keys is wrong: a server's, or the owner's own doing")
        return NotFoundError("this row is not in the index any more, or its owner grants this user nothing")

    def _at_clouds(
        self, servers: tuple[int, ...], places: Sequence[Place], count: int, size: int, told: Callable[[int], None]
    ) -> tuple[Index, list[int], list[bool], np.ndarray]:  # fmt: skip
        """Retrieve ``count`` records or files; retries on a newer state of the index when it changed.

        The index, the original numbers of all rows that were fetched, which of ``places`` are there, and the bytes.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            index = self._index((), servers)
            if not index.total:
                raise ParameterError("the index has 0 images for this user")
            if size < 0:  # before the fetch: it depends on nothing secret
                try:
                    self._album_keys(index, servers)
                    self._ask_origins(index, servers)
                except StaleSnapshotError:
                    if time.monotonic() > until:
                        raise
                    continue
            at = self._originals(index, places)
            # whatever is wrong with an owner, servers see the same requests
            at = [-1 if row >= 0 and index.place_of_original(row)[0] in self._keyless else row for row in at]
            wanted = _filled(at, count, functools.partial(_any_row, index))
            fetch = functools.partial(self._retrieved, index, self._pair(servers), wanted, size, told)
            try:
                return index, wanted, [row >= 0 for row in at], retry_busy(fetch, spare=self.spare)
            except StaleSnapshotError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _originals(self, index: Index, places: Sequence[Place]) -> list[int]:
        """Original numbers of rows, also by the batch and row that they had before a merge; -1 for one not here.

        A merge leaves records where they are, so a row whose record is still the one it came with is found by that. No
        server is asked.
        """
        at = index.originals(places)
        for n, place in enumerate(places):
            if at[n] < 0:
                there = [number for number in index.originals(self._merged(place)) if number >= 0]
                at[n] = there[0] if len(there) == 1 else -1
        return at

    def _merged(self, place: Place) -> list[Place]:
        """Rows of the owner, or of all if it is not known, whose records came with this batch and row."""
        owner, batch, row = place
        found = []
        for name in [owner] if owner != NOBODY else self._moved:
            for now, origins in self._moved.get(name, (b"", {}))[1].items():
                here = (origins["pack"] == np.frombuffer(batch, np.uint8)).all(axis=1) & (origins["place"] == row)
                found += [(name, now, int(number)) for number in np.flatnonzero(here)]
        return found

    def _owned(self, place: Place) -> Place:
        """A place with its owner, if that can be told from where records are."""
        owners = {owner for owner, _, _ in self._merged(place)} if place[0] == NOBODY else set()
        return (owners.pop(), *place[1:]) if len(owners) == 1 else place

    def _retrieved(
        self, index: Index, pair: tuple[int, ...], wanted: Sequence[int], size: int, told: Callable[[int], None]
    ) -> np.ndarray:  # fmt: skip
        """Records, or padded files of a class of size, of rows of the index by their original numbers."""
        made = [pir.generate_keys(row, index.original_total) for row in wanted]
        keys = {cloud: [one[side] for one in made] for side, cloud in enumerate(pair)}
        salts = {cloud: schedule.random_bytes(32) for cloud in pair}
        header = encode(
            m.FetchHeader(
                self.config.id, self.id, schedule.random_bytes(16), list(pair), len(wanted), index.snapshot,
                [o.grant for o in index.owners], [o.position for o in index.owners],
                [len(o.batches) for o in index.owners], [fetch_commitment(salts[c], keys[c]) for c in pair],
                index.batches, self.key_set().id, size,
            )
        )  # fmt: skip
        frames = [np.frombuffer(frame, np.uint8) for frame in header]
        blocks = 0 if size < 0 else 1 << size
        step = max(1, ORIGINAL_BLOCKS // len(wanted))
        parts = []
        for first in range(0, max(1, blocks), step):
            span = min(step, blocks - first) if blocks else 0
            replies = self.ask(
                {c: m.FetchRecords(frames, salts[c], keys[c], b"", first, span) for c in pair}, spare=self.spare
            )
            shape = len(wanted), span * ORIGINAL_BLOCK or self.config.record_bytes
            if any(replies[cloud].records.shape != shape for cloud in pair):
                raise MessageError("a cloud sent records of another number or size")
            a, b = (replies[cloud].records for cloud in pair)
            parts.append(pir.combine(a, b))
            told(shape[0] * shape[1])
        return np.concatenate(parts, axis=1)

    def _open(
        self, index: Index, keys: Mapping[bytes, Mapping[bytes, bytes]], row: int, record: np.ndarray
    ) -> bytes | None:  # fmt: skip
        """Plaintext of the record of a row; None if it does not open."""
        owner, batch, number = index.place_of_original(row)
        pack, place, moved = batch, number, self._moved[owner][1].get(batch)
        if moved is not None:
            pack, place = moved["pack"][number].tobytes(), int(moved["place"][number])
        album, prefix = record[:ALBUM_BYTES].tobytes(), record[:PREFIX_BYTES].tobytes()
        key = keys[owner].get(album)
        # another row's record, or an earlier one, does not count as this one's: a cloud could put it there
        if key is None or prefix != record_prefix(album, pack, place):
            return None
        try:
            return open_record(key, record[PREFIX_BYTES:], record_data(self.config.id, owner, pack, place))
        except AuthenticationError:
            return None

    def _ask_origins(self, index: Index, servers: tuple[int, ...]) -> None:
        """Know where records are, of owners whose rows are not all in the order of their batches.

        A server lists them, and all servers have told the hash.
        """
        for o in index.owners:
            if self._moved.get(o.owner, (None,))[0] == o.moved:
                continue
            found: dict[bytes, np.ndarray] = {}
            if o.moved:
                cloud = self._pair(servers)[0]
                got = self.ask({cloud: m.FetchOrigins(o.owner)})[cloud]
                found = _unpacked(got, o.moved, index.told_rows.get(o.owner, 0))
            self._moved[o.owner] = o.moved, found

    def _album_keys(self, index: Index, servers: tuple[int, ...]) -> dict[bytes, dict[bytes, bytes]]:
        """Keys of the albums of all owners of an index, by owner and album; asked for where an owner changed."""
        changed = [o.owner for o in index.owners if self._albums.get(o.owner, (b"",))[0] != o.view]
        if changed:
            centre, (cloud, *_) = self.config.params.key_centres[0], self._pair(servers)
            parts: dict[int, dict[bytes, bytes]] = {cloud: {}, centre: {}}
            for start in range(0, len(changed), ALBUM_OWNERS):
                asked = m.FetchAlbums(changed[start : start + ALBUM_OWNERS])
                for server, reply in self.ask_all(asked, (cloud, centre), spare=self.spare).items():
                    parts[server] |= self._album_parts(reply, server)
            found: dict[bytes, dict[bytes, bytes]] = {owner: {} for owner in changed}
            wrong = set[bytes]()
            if parts[cloud].keys() != parts[centre].keys():
                raise StaleSnapshotError("the albums changed since the snapshot")
            for name in parts[cloud]:
                owner, album = name[:16], name[16:]
                key = album_key(parts[centre][name], parts[cloud][name], self.config.id, owner, album[:16])
                if owner in found and album_check(key) == album[16:]:
                    found[owner][album] = key
                else:  # of a server or of the owner; rows of others are fetched as if nothing were wrong
                    wrong.add(owner)
            views = {o.owner: o.view for o in index.owners}
            # those that are wrong are asked for again next time
            self._albums |= {owner: (b"" if owner in wrong else views[owner], keys) for owner, keys in found.items()}
            self._keyless = {*self._keyless - set(changed), *wrong}
        return {o.owner: self._albums[o.owner][1] for o in index.owners}

    def _album_parts(self, reply: m.Albums, server: int) -> dict[bytes, bytes]:
        """A server's parts of album keys, by owner and album together."""
        if reply.ids.ndim != 2 or reply.ids.shape[1] != 16 + ALBUM_BYTES:
            raise MessageError("a server's reply does not name owners and albums")
        ids = [one.tobytes() for one in reply.ids]
        raw = box.open_sealed(self._box_key, reply.sealed, album_seal_info(self.config.id, self.id, server, ids))
        if len(raw) != 32 * len(ids):
            raise MessageError("a server sent the wrong number of album keys")
        return {name: raw[32 * i : 32 * i + 32] for i, name in enumerate(ids)}


def _filled(at: Sequence[int], count: int, any_row: Callable[[], int]) -> list[int]:
    """Rows to fetch: those of ``at``, and in place of ones that are not there, and to fill up, some of them again.

    Not any rows: an owner can store what does not open, and whoever does not want it must not meet it.
    """
    there = [row for row in at if row >= 0] or [any_row()]
    filled = [row if row >= 0 else there[n % len(there)] for n, row in enumerate(at)]
    return filled + [there[n % len(there)] for n in range(count - len(filled))]


def _any_row(index: Index) -> int:
    return index.live_original(secrets.randbelow(index.total))


def _unpacked(got: m.Origins, moved: bytes, most_rows: int) -> dict[bytes, np.ndarray]:
    """Origins of the rows of batches, with the hash ``moved``; MessageError for what does not fit together.

    A small reply may claim to become large. So nothing is inflated for more rows than the snapshot lists, and nothing
    is kept before it has the hash.
    """
    rows = got.rows.tolist()
    if got.batches.shape != (len(rows), 16) or min(rows, default=1) < 1:
        raise MessageError("a server told places of records that do not fit together")
    sizes = [count * ORIGIN.itemsize for count in rows]
    reader = _Inflating(got.packed)
    if sum(rows) > most_rows or moved != moved_hash(
        (batch.tobytes(), size, reader.pieces(size)) for batch, size in zip(got.batches, sizes, strict=True)
    ):
        raise StaleSnapshotError("the index changed since the snapshot")
    reader = _Inflating(got.packed)
    return {
        batch.tobytes(): np.frombuffer(b"".join(reader.pieces(size)), ORIGIN)
        for batch, size in zip(got.batches, sizes, strict=True)
    }


class _Inflating:
    """Bytes that zlib packed, a piece at a time."""

    def __init__(self, packed: np.ndarray) -> None:
        self._packed, self._reader, self._waiting, self._at = packed, zlib.decompressobj(), b"", 0

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes; MessageError if there are not so many."""
        while size:
            piece = self._next(min(size, _PIECE))
            size -= len(piece)
            yield piece

    def _next(self, most: int) -> bytes:
        while True:
            try:
                piece = self._reader.decompress(self._waiting, most)
            except zlib.error:
                piece, self._at = b"", len(self._packed)
            self._waiting = self._reader.unconsumed_tail
            if piece:
                return piece
            if self._reader.eof or self._at >= len(self._packed):
                raise MessageError("a server told places of records that do not fit together")
            self._waiting = self._packed[self._at : self._at + _PIECE].tobytes()
            self._at += _PIECE
