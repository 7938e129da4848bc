"""Records of an owner's rows: made and sealed before an upload, read back, changed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..crypto import records as sealing
from ..crypto import schedule
from ..errors import (
    AuthenticationError,
    ConflictError,
    ImageError,
    IntegrityError,
    MessageError,
    NotFoundError,
    ParameterError,
)
from ..rpc import messages as m
from ..rpc.associated_data import record_data
from ..rpc.chain import Content
from ..rpc.limits import FETCH_IMAGES
from ..rpc.records import (
    ALBUM_BYTES,
    PREFIX_BYTES,
    pack_places,
    record_hashes,
    record_pack_hash,
    record_prefix,
    records_facts,
)
from .albums import album_of
from .image_file import Image
from .image_ids import image_rows, rows_by_batch
from .records import ORIGINAL_BYTES, Original, Record, fits, pack_record, parse_record, record_room, thumbnail
from .retry import retry_conflicts
from .rows import RowOwner, SealedRecords

__all__ = ["RecordOwner"]

#: bytes of records that one annotation writes, about
_ANNOTATED_BYTES = 1 << 26


class RecordOwner(RowOwner):
    """The part of :class:`~mipp.client.owner.ImageOwner` that makes, reads and changes records of rows.

    Its parameters are those of :class:`~mipp.client.owner.ImageOwner`.
    """

    def annotate(self, metadata: Mapping[Any, Mapping[str, Any] | None]) -> int:
        """Replace the metadata of rows in their records; the path stays, and the thumbnail, smaller if it must be.

        Servers learn which rows are annotated, and when. Each record is encrypted anew; a row keeps its id. Records of
        64 MiB at a time are changed, each time on all servers or on none.

        Parameters
        ----------
        metadata : mapping
            By id of the row (a pair, text ``batchhex:row``, or a hit) its new metadata, a mapping of text to values
            that JSON can hold, or None for none. Secret.

        Returns
        -------
        int
            Number of rows that were annotated.

        Raises
        ------
        ParameterError
            This deployment keeps no records; no ids, or malformed ones; metadata that JSON cannot hold, or that does
            not fit into a record: the text names its largest field.
        NotFoundError
            A row that is not there, or was deleted.
        StoreError
            A server could not keep the change.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4), preview_size=512) as deployment:
        ...         anna = deployment.create_owner("anna")
        ...         ids = anna.add_vectors(np.eye(4), metadata=[{"caption": "a"}, None, None, None])
        ...         changed = anna.annotate({ids[1]: {"caption": "b"}})
        ...         found = [record.metadata for record in anna.records(ids)]
        >>> changed, found
        (1, [{'caption': 'a'}, {'caption': 'b'}, None, None])
        """
        if not isinstance(metadata, Mapping):
            raise ParameterError(f"annotations are a mapping by image id, not {type(metadata).__name__}")
        if not self.config.record_bytes:
            raise ParameterError(_NO_RECORDS)
        new = dict(zip(image_rows(metadata.keys()), metadata.values(), strict=True))
        if not new or len(new) != len(metadata):
            raise ParameterError("annotations name one or more rows, each once")
        for (batch, row), fields in new.items():  # before anything is sent
            try:
                self.plain_record("", fields, None)
            except ParameterError as error:
                raise ParameterError(f"{batch.hex()}:{row}: {error}") from None
        step = max(1, _ANNOTATED_BYTES // self.config.record_bytes)
        given = list(new)
        if len(set(self.places_now(given))) < len(given):
            raise ParameterError("two of these ids name one row")
        for first in range(0, len(given), step):
            some = {place: new[place] for place in given[first : first + step]}
            with self.turn:
                retry_conflicts(functools.partial(self._annotate, some))
        return len(new)

    def _annotate(self, new: Mapping[tuple[bytes, int], Mapping[str, Any] | None]) -> None:
        new = dict(zip(self.places_now(new), new.values(), strict=True))
        by_batch = rows_by_batch(new)
        order = [(batch, row) for batch, rows in by_batch.items() for row in rows]
        plains = []
        for place, plain in zip(order, self._plain_records(order), strict=True):
            old = Record("", None, b"") if plain is None else parse_record(plain[:-ORIGINAL_BYTES])
            fields = new[place]
            left = fits(fields, old.path, record_room(self.config.record_bytes))
            small = old.thumbnail if len(old.thumbnail) <= left else _smaller(old.thumbnail, left)
            record = dataclasses.replace(old, metadata=None if fields is None else dict(fields), thumbnail=small)
            plains.append(self._packed(record, b"" if plain is None else plain[-ORIGINAL_BYTES:]))
        op = schedule.random_bytes(16)
        sealed = self.seal_records(op, plains)
        none, clouds = np.empty((0, 0), np.uint8), self.config.params.clouds
        rows = np.array([row for _, row in order], "<i8")
        msgs = {
            server: m.AnnotateOp(
                op, list(by_batch), [len(rows) for rows in by_batch.values()], sealed.hash, sealed.album,
                rows, sealed.records if server in clouds else none,
            )
            for server in sorted(self.config.servers)
        }  # fmt: skip
        facts = records_facts(sealed.album, sealed.hash, pack_places(by_batch))
        self._changes.make("annotate", op, msgs, Content(records=facts))

    def records(self, ids: Any) -> list[Record | None]:
        """Read records of this owner's rows back from a cloud, and decrypt them.

        Where each record is, the key centre and a cloud must say alike, so that neither can pass off another row's
        record or an earlier version.

        Parameters
        ----------
        ids : sequence of (bytes, int), str or Hit
            Ids of rows, one or several.

        Returns
        -------
        list of Record or None
            In the order of ``ids``; None for a row that came without a record. Secret.

        Raises
        ------
        NotFoundError
            A row that is not there.
        IntegrityError
            A record that a cloud gives back is not the one that was uploaded.
        """
        given = image_rows(ids)
        places = self.places_now(given)
        try:
            plains = self._plain_records(places)
        except NotFoundError:  # merged at this moment, or not there
            moved = self.places_now(given)
            if moved == places:
                raise
            plains = self._plain_records(moved)
        return [None if plain is None else parse_record(plain[:-ORIGINAL_BYTES]) for plain in plains]

    def _plain_records(self, places: Sequence[tuple[bytes, int]]) -> list[bytes | None]:
        """Plaintexts of records; None for a row that came without one."""
        found: dict[tuple[bytes, int], bytes | None] = {}
        witness = self.config.params.key_centres[-1]
        for batch, rows in rows_by_batch(dict.fromkeys(places)).items():
            for first in range(0, len(rows), FETCH_IMAGES):
                some = rows[first : first + FETCH_IMAGES]
                told = self._places_told(batch, np.array(some, "<i8"), witness)
                found |= dict(zip([(batch, row) for row in some], self._opened(told), strict=True))
        return [found[place] for place in places]

    def _places_told(self, batch: bytes, rows: np.ndarray, witness: int) -> m.RecordPlaces:
        """Where the records of rows are, as the key centre and a cloud say alike: neither alone is believed."""
        cloud = self.clouds_in_turn()[0]
        replies = self.ask_all(m.RecordPlacesRequest(batch, rows), (cloud, witness))
        shapes = (len(rows), 16), (len(rows),), (len(rows), ALBUM_BYTES)
        parts = {server: (told.packs, told.places, told.albums) for server, told in replies.items()}
        for some in parts.values():
            if any(part.shape != shape for part, shape in zip(some, shapes, strict=True)):
                raise MessageError("a server told places of other rows than was asked for")
        if any(not np.array_equal(a, b) for a, b in zip(parts[cloud], parts[witness], strict=True)):
            raise ConflictError(f"servers {cloud} and {witness} tell different places of records; one may be behind")
        told: m.RecordPlaces = replies[witness]
        return told

    def _opened(self, told: m.RecordPlaces) -> list[bytes | None]:
        """The records at these places, from the first cloud that has them."""
        has = np.flatnonzero(told.packs.any(axis=1))
        out: list[bytes | None] = [None] * len(told.places)
        if not len(has):
            return out
        asked = m.FetchOwnRecords(np.ascontiguousarray(told.packs[has]), np.ascontiguousarray(told.places[has]))
        got = self._from_cloud(asked)
        keys = {album: self.album_key(album[:16]) for album in {told.albums[row].tobytes() for row in has}}
        for row, sealed in zip(has, got, strict=True):
            pack, place = told.packs[row].tobytes(), int(told.places[row])
            album = told.albums[row].tobytes()
            if sealed[:PREFIX_BYTES].tobytes() != record_prefix(album, pack, place):
                raise IntegrityError(f"a cloud gave back another record than {pack.hex()}:{place}")
            try:
                associated = record_data(self.config.id, self.id, pack, place)
                out[row] = sealing.open_record(keys[album], sealed[PREFIX_BYTES:].tobytes(), associated)
            except AuthenticationError:
                raise IntegrityError(f"record {pack.hex()}:{place} is not the one that was uploaded") from None
        return out

    def _from_cloud(self, asked: m.FetchOwnRecords) -> np.ndarray:
        """Records from the first cloud that has them; the last one's error if none has."""
        shape = len(asked.places), self.config.record_bytes
        *others, last = self.clouds_in_turn()
        for cloud in others:
            with contextlib.suppress(NotFoundError, IntegrityError):  # lost there; it fetches them from another one
                return self._records_of(cloud, asked, shape)
        return self._records_of(last, asked, shape)

    def _records_of(self, cloud: int, asked: m.FetchOwnRecords, shape: tuple[int, int]) -> np.ndarray:
        records: np.ndarray = self.ask({cloud: asked})[cloud].records
        if records.shape != shape:
            raise MessageError(f"server {cloud} sent records of another size")
        return records

    # --- making -------------------------------------------------------------------------------------------------

    def album_key(self, album: bytes) -> bytes:
        """Derive the key of one of this owner's albums.

        Parameters
        ----------
        album : bytes
            Id of the album, 16 bytes.

        Returns
        -------
        bytes
            32 bytes. Secret.
        """
        key_centre, cloud = (sealing.album_part(part, album) for part in self.image_parts())
        return sealing.album_key(key_centre, cloud, self.config.id, self.id, album)

    def plain_record(
        self, path: str, metadata: Mapping[str, Any] | None, content: bytes | None, preview_bytes: int | None = None
    ) -> bytes:
        """Make the plaintext of a row's record.

        Parameters
        ----------
        path : str
            Path of the file inside what was added; empty without one. Secret.
        metadata : mapping or None
            What the owner chose. Secret.
        content : bytes or None
            The image file, for a thumbnail as large as fits. Secret.
        preview_bytes : int, optional
            Most bytes of the thumbnail.

        Returns
        -------
        bytes
            Padded to the deployment's size. Secret.

        Raises
        ------
        ParameterError
            Metadata that JSON cannot hold, or that does not fit; the text names the largest field.
        """
        room = fits(metadata, path, record_room(self.config.record_bytes))
        record = Record(path, None if metadata is None else dict(metadata), b"")
        if preview_bytes is not None:
            room = min(room, preview_bytes)
        if content and room > 0:
            with contextlib.suppress(ImageError):  # a file that is no image has none
                record = dataclasses.replace(record, thumbnail=thumbnail(content, room, window=self.config.window))
        return self._packed(record)

    def with_originals(self, batch: bytes, plains: Sequence[bytes], offsets: np.ndarray) -> list[bytes]:
        """Put into plaintexts of a batch's records what opens its image files.

        Parameters
        ----------
        batch : bytes
            Id of the batch, 16 bytes.
        plains : sequence of bytes
            From :meth:`records_for`. Secret.
        offsets : ndarray of int64, (rows + 1,)
            Where each row's encrypted file begins.

        Returns
        -------
        list of bytes
            Plaintexts of the same length. Secret.
        """
        if not len(offsets) or not offsets[-1]:
            return list(plains)
        key_centre, cloud = self.image_parts()
        out = []
        for row, plain in enumerate(plains):
            size = int(offsets[row + 1] - offsets[row])
            if size:
                image = batch + row.to_bytes(8, "big")
                parts = schedule.image_part(key_centre, image), schedule.image_part(cloud, image)
                plain = plain[:-ORIGINAL_BYTES] + Original(image, size, *parts).packed()
            out.append(plain)
        return out

    def _packed(self, record: Record, original: bytes = b"") -> bytes:
        """Plaintext of a record, with what opens the row's image, or zeros for that."""
        return pack_record(record, record_room(self.config.record_bytes)) + original.ljust(ORIGINAL_BYTES, b"\0")

    def records_for(
        self, images: Sequence[Image | None] | None, metadata: Sequence[Mapping[str, Any] | None] | None, rows: int
    ) -> list[bytes] | None:
        """Make plaintexts of a batch's records.

        Parameters
        ----------
        images, metadata : sequence, optional
            As of :meth:`add_vectors`. Secret.
        rows : int
            Number of rows.

        Returns
        -------
        list of bytes, or None
            One for each row, of one length; None where the deployment keeps no records. Secret.

        Raises
        ------
        ParameterError
            Metadata of another number of rows, that JSON cannot hold, or that does not fit.
        """
        if metadata is not None and not self.config.record_bytes:
            raise ParameterError(_NO_RECORDS)
        if not self.config.record_bytes:
            return None
        if metadata is not None and (isinstance(metadata, (str, bytes, Mapping)) or len(metadata) != rows):
            raise ParameterError(f"{rows} rows need as many entries of metadata, each a mapping or None")
        plains = []
        for row in range(rows):
            name, content, *rest = (images[row] if images is not None else None) or ("", b"")
            fields = metadata[row] if metadata is not None else None
            plains.append(
                self.plain_record(name, fields if fields is not None else (rest or [None])[0], bytes(content))
            )
        return plains

    def seal_records(self, pack: bytes, plains: Sequence[bytes]) -> SealedRecords:
        """Seal plaintexts of records under the key of the owner's album of now.

        Parameters
        ----------
        pack : bytes
            Id of the change that writes them, 16 bytes.
        plains : sequence of bytes
            From :meth:`records_for`. Secret.

        Returns
        -------
        SealedRecords
            Public.
        """
        epoch, grants = self._grants()
        revoked = [g.user + g.version.to_bytes(8, "big") for g in grants if g.revoked]
        since = b""
        if epoch:  # all servers were restored from backups, and may have forgotten a revocation
            since = epoch.to_bytes(8, "big")
            revoked.append(b"")
        name = album_of(self.id, [hashlib.sha256(one + since).digest()[:16] for one in revoked])
        key = self.album_key(name)
        album = name + sealing.album_check(key)
        associated = [record_data(self.config.id, self.id, pack, place) for place in range(len(plains))]
        out = np.empty((len(plains), self.config.record_bytes), np.uint8)
        for place in range(len(plains)):
            out[place, :PREFIX_BYTES] = np.frombuffer(record_prefix(album, pack, place), np.uint8)
        out[:, PREFIX_BYTES:] = sealing.seal_records(key, plains, associated)
        return SealedRecords(album, record_pack_hash(record_hashes(out), self.config.record_bytes), out)


def _smaller(picture: bytes, room: int) -> bytes:
    """A thumbnail made smaller; empty if it cannot be."""
    with contextlib.suppress(ImageError):
        return thumbnail(picture, room) if room > 0 else b""
    return b""


_NO_RECORDS = "this deployment keeps no records of rows; make one with a preview size (mipp init --preview-size)"
