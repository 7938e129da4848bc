"""Rows of an owner: encrypted under its own keys, uploaded, deleted, merged, read back."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..crypto import box, schedule, signing
from ..encoding.numbers import matrix
from ..errors import (
    ConflictError,
    OutOfRangeError,
    ParameterError,
    RegistrationError,
    ShapeError,
    StaleKeysError,
)
from ..io.memory import SpareArrays
from ..io.streams import in_blocks
from ..rpc import messages as m
from ..rpc.associated_data import owner_seal_info, owner_secret_commitment
from ..rpc.chain import Content, pack_dead
from ..rpc.channel import Channel
from ..rpc.description import DeploymentConfig
from ..rpc.records import image_files_hash, records_facts
from ..rpc.wire import frame_hashes
from ..sharing import OwnerKeys
from .changes import ChangeMaker
from .encrypting import EncryptedRows, encrypt_rows
from .image_file import Image, check_image, pack_image
from .image_ids import image_rows, rows_by_batch
from .journal import Journal
from .journal_places import Copied, Moving
from .placing import PlacingOwner
from .retry import retry_conflicts
from .row_checks import OwnerTags
from .row_ids import RowIds, batch_rows, stored_places

__all__ = ["RowOwner", "SealedRecords"]

#: times that an owner registers while servers change their keys
_REGISTRATIONS = 3
_NO_OFFSETS = np.empty(0, "<i8")
_NO_IDS = np.empty((0, 16), np.uint8)


class SealedRecords(NamedTuple):
    """Records of a pack: id of their album, hash of the pack, and the records (n, record_bytes), encrypted."""

    album: bytes
    hash: bytes
    records: np.ndarray


_NO_RECORDS = SealedRecords(b"", b"", np.empty((0, 0), np.uint8))


class RowOwner(PlacingOwner):
    """The part of :class:`~mipp.client.owner.ImageOwner` that stores rows: adds, deletes, merges, reads them back.

    Its parameters are those of :class:`~mipp.client.owner.ImageOwner`.
    """

    def __init__(
        self,
        name: str,
        config: DeploymentConfig,
        channel: Channel,
        root: bytes,
        sign_seed: bytes,
        registration: bytes,
        *,
        invitation: bytes = b"",
        threads: int | None = None,
        journal: Journal | None = None,
        tags: OwnerTags | None = None,
        turn: AbstractContextManager[Any] | None = None,
        adding: AbstractContextManager[Any] | None = None,
    ) -> None:
        super().__init__(name, config, channel, sign_seed)
        self.journal, self.tags, self._invitation = journal, tags, invitation
        self.id = signing.party_id(signing.sign_public(sign_seed), registration)
        self._root, self.threads = root, threads
        self.keys = OwnerKeys(root, config.id, registration, config.params)
        self._changes = ChangeMaker(self, turn)
        #: held while files of this owner are added, from the first to the last, so that one process adds them
        self.adding: AbstractContextManager[Any] = adding if adding is not None else threading.RLock()
        #: seconds spent so far in this process, by stage
        self.seconds = {"encrypt": 0.0, "upload": 0.0}

    # --- registration -------------------------------------------------------------------------------------------

    def register(self) -> None:
        """Register with all servers: hand each its parts of this owner's keys, sealed. Repeating it is harmless.

        A key centre gets 64 bytes (the keystream's key and its part of the image keys), a cloud 32 bytes (its part of
        the image keys). Of several registrations the last one counts: so an owner seals its secrets anew for a server
        that lost its keys, and consents that a cloud which joined later stores its rows.

        Raises
        ------
        MippError
            A server cannot be reached or refuses.
        """
        public = signing.sign_public(self._seed)
        key_part, cloud_part = self.image_parts()
        self.away.leave_out(())
        for attempts in reversed(range(_REGISTRATIONS)):
            sealed, commitments, key_set = [], [], self.key_set()
            for server, keys in sorted(key_set.servers.items()):
                is_key = server in self.config.params.key_centres
                secret = self.keys.server_key(server) + key_part if is_key else cloud_part
                sealed.append(box.seal(keys.box, secret, owner_seal_info(self.config.id, self.id, server)))
                commitments.append(owner_secret_commitment(self.config.id, self.id, server, secret))
            registration = self.keys.registration
            msg = m.RegisterOwner(self.name, public, registration, sealed, self._invitation, commitments)
            try:
                return self.register_with_all(msg)
            except (StaleKeysError, RegistrationError):
                # a server told of its new keys when it refused
                if self.key_set().id == key_set.id or not attempts:
                    raise
        return None

    def image_parts(self) -> tuple[bytes, bytes]:
        """Derive the two parts of this owner's image keys.

        Returns
        -------
        key_centre, clouds : bytes
            The part of the key centre and that of the clouds, 32 bytes each. Secret.
        """
        inputs = self._root, self.config.id, self.keys.registration
        return schedule.key_centre_image_part(*inputs), schedule.cloud_image_part(*inputs)

    @property
    def checking(self) -> Callable[[int, int], None] | None:
        """Callable that is told the progress while servers check the range of uploaded rows: rows checked, all rows."""
        return self._changes.checking

    @checking.setter
    def checking(self, told: Callable[[int, int], None] | None) -> None:
        self._changes.checking = told

    @property
    def turn(self) -> AbstractContextManager[Any]:
        """Lock that is held while a change of this owner is made, by one of its threads and processes; re-entrant."""
        return self._changes.turn

    # --- adding -------------------------------------------------------------------------------------------------

    def add_vectors(
        self,
        vectors: np.ndarray | Iterator[np.ndarray],
        images: Sequence[Image | None] | None = None,
        *,
        labels: Sequence[str] = (),
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        acknowledged: Callable[[RowIds], None] | None = None,
    ) -> RowIds:
        """Encode, encrypt and upload one batch; returns when every server has it for good.

        An iterator of arrays becomes batches of about 64 MiB for each cloud, one after the other, in the memory of one
        batch. Each is checked before it is sent. If the iterator or a batch fails, the batches before it stay; calling
        again adds them a second time (:meth:`mipp.client.owner.ImageOwner.add_stream` does not).

        If another process of this owner made a change meanwhile, the rows are encrypted under fresh keystream and sent
        again, a few times. Each cloud gets one masked word per encoded feature and learns the number of rows and the
        sizes of the encrypted files.

        Parameters
        ----------
        vectors : array of numbers, (N, dim), or iterator of such arrays
            Features, one row an image, as the index's encoding takes them (:meth:`mipp.Encoding.encode_rows`). An
            iterator comes without images, labels and metadata. Secret.
        images : sequence of tuple or None, optional
            For each row its image file or None: a name, the bytes and, optionally, metadata (a mapping of text to
            values that JSON can hold, at most 60 KiB). Stored encrypted. Names are made safe
            (:func:`mipp.rpc.names.safe_name`), so any name can be added. Secret.
        labels : sequence of str
            Labels of the rows in the journal: one for each row, or one for the whole batch.
        metadata : sequence of mapping or None, optional
            For each row what its record holds: a mapping of text to values that JSON can hold, or None; default that of
            its image. Where the deployment keeps records (``preview_size``), every row of a batch with images or
            metadata has one; the record of an image holds its name and a thumbnail, too. Secret.
        acknowledged : callable, optional
            Called with the ids of each batch once every server has it for good.

        Returns
        -------
        RowIds
            The id of each row: a sequence of pairs, the batch's id (16 bytes) and the row in the batch, in the memory
            of one pair a batch. Public.

        Raises
        ------
        DTypeError, ShapeError, EncodingError, ScoreRangeError
            Bad features; nothing was sent, or of an iterator the batches before.
        OutOfRangeError
            The servers found rows out of the encoding's range. The client checks this before, so only a program that
            bypasses :meth:`mipp.Encoding.encode_rows` meets it. The message names the rows.
        StoreError
            A server could not keep the batch (disk full), or this owner's folder its tags; then no server has it.
        LimitError
            The owner already stores as much as the servers allow one owner.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
        ...         anna = deployment.create_owner("anna")
        ...         ids = anna.add_vectors(np.eye(4), [("a.png", b"...", {"taken": 2020}), None, None, None])
        ...         numbers, features = anna.rows_of(ids[0][0])
        >>> [row for batch, row in ids], numbers.tolist(), features[1].tolist()
        ([0, 1, 2, 3], [0, 1, 2, 3], [0.0, 1.0, 0.0, 0.0])
        """
        if isinstance(vectors, Iterator):
            if images is not None or labels or metadata is not None:
                raise ParameterError("an iterator of arrays comes without images, labels and metadata")
            return self._add_arrays(vectors, acknowledged)
        rows = self.config.encoding.encode_rows(vectors)
        if not len(rows):
            raise ShapeError("there are no rows to add")
        images = None if images is None else list(images)
        labels = [labels] if isinstance(labels, str) else list(labels)
        if images is not None and len(images) != len(rows):
            raise ShapeError(f"{len(rows)} rows need as many images, not {len(images)}")
        if images is not None:
            for image in images:
                if image is not None:
                    check_image(image)
        if labels and len(labels) not in (1, len(rows)):
            raise ShapeError(f"{len(rows)} rows need as many labels, or one, not {len(labels)}")
        records = self.records_for(images, metadata, len(rows))
        order = self.stored_order(rows)
        if order is not None:
            rows = rows[order]
            images, records = (None if some is None else [some[i] for i in order] for some in (images, records))
            labels = [labels[i] for i in order] if len(labels) == len(order) else labels
        ids = self.store_rows(rows, images, labels, records)
        if order is not None:
            ids = RowIds([(*ids.runs[0][:3], stored_places(order))])
        if acknowledged is not None:
            acknowledged(ids)
        return ids

    def _add_arrays(self, arrays: Iterator[np.ndarray], acknowledged: Callable[[RowIds], None] | None) -> RowIds:
        ids = RowIds()
        checked = (matrix(array, self.config.encoding.dim, "rows") for array in arrays)
        for part in in_blocks(checked, batch_rows(self.config)):
            some = self.add_vectors(part, acknowledged=acknowledged)
            ids = ids + some
        if not ids:
            raise ShapeError("there are no rows to add")
        return ids

    def stored_order(self, rows: np.ndarray) -> np.ndarray | None:
        """Order in which a batch of encoded rows is to be stored: by clusters, where the index has them.

        Parameters
        ----------
        rows : ndarray of int, (N, encoded_dim)
            Encoded rows. Secret.

        Returns
        -------
        ndarray of int64, (N,), or None
            Number of the row that comes first, second and so on; None for the order that they have. Secret.
        """
        clusters = self.config.clusters
        return None if clusters is None else clusters.order(self.config.encoding, rows)

    def store_rows(
        self, rows: np.ndarray, images: Sequence[Image | None] | None, labels: Sequence[str],
        records: Sequence[bytes] | None, copied: Copied | None = None, file: Path | None = None,
        encrypted: EncryptedRows | None = None,
    ) -> RowIds:  # fmt: skip
        """Encrypt and upload one batch of what was checked, as it is: :meth:`add_vectors` without checks and order.

        Parameters
        ----------
        rows : ndarray of int, (N, encoded_dim)
            Encoded rows. Secret.
        images : sequence of tuple or None, optional
            As of :meth:`add_vectors`.
        labels : sequence of str
            As of :meth:`add_vectors`.
        records : sequence of bytes, optional
            Plaintext of each row's record, where the deployment keeps records. Secret.
        copied : Copied, optional
            Rows of another index that these are made from, for the journal.
        file : Path, optional
            File that holds the rows, for the journal.
        encrypted : EncryptedRows, optional
            The rows encrypted before (:meth:`encrypt`), for the first attempt; a second one needs fresh keystream.

        Returns
        -------
        RowIds
            The id of each row.
        """
        ready = [encrypted] if encrypted is not None else []
        ids = retry_conflicts(
            lambda: self._upload(
                rows, images=images, labels=labels, records=records, copied=copied, file=file,
                encrypted=ready.pop() if ready else None,
            )
        )  # fmt: skip
        if copied is not None and self.journal is not None:
            self.journal.copies_done(ids[0][0])
        return ids

    def encrypt(self, rows: np.ndarray, digest: bytes | None = None, spare: SpareArrays | None = None) -> EncryptedRows:
        """Encrypt one batch of encoded rows, for one :meth:`store_rows`; any thread may.

        Parameters
        ----------
        rows : ndarray of int, (N, encoded_dim)
            Encoded rows. Secret.
        digest : bytes, optional
            SHA-256 of their bytes, if it is known.
        spare : SpareArrays, optional
            Memory for the shares.

        Returns
        -------
        EncryptedRows
            The batch.
        """
        return encrypt_rows(
            rows, self.keys, self.config.encoding.hash,
            tags=self.tags, digest=digest, threads=self.threads, spare=spare,
        )  # fmt: skip

    @abstractmethod
    def records_for(
        self, images: Sequence[Image | None] | None, metadata: Sequence[Mapping[str, Any] | None] | None, rows: int
    ) -> list[bytes] | None:
        """Make plaintexts of a batch's records; parameters as of :meth:`add_vectors`."""

    @abstractmethod
    def with_originals(self, batch: bytes, plains: Sequence[bytes], offsets: np.ndarray) -> list[bytes]:
        """Put into plaintexts of a batch's records what opens its image files."""

    @abstractmethod
    def seal_records(self, pack: bytes, plains: Sequence[bytes]) -> SealedRecords:
        """Seal plaintexts of records under the key of the owner's album of now."""

    def _upload(
        self,
        rows: np.ndarray,
        *,
        images: Sequence[Image | None] | None = None,
        replaces: Sequence[bytes] = (),
        parent: m.Head | None = None,
        origin: tuple[np.ndarray, np.ndarray] | None = None,
        labels: Sequence[str] = (),
        moving: Moving | None = None,
        records: Sequence[bytes] | None = None,
        copied: Copied | None = None,
        file: Path | None = None,
        encrypted: EncryptedRows | None = None,
    ) -> RowIds:
        p, began = self.config.params, time.perf_counter()
        shared, tags, hashes = self.encrypt(rows) if encrypted is None else encrypted
        files, offsets = self._seal_images(shared.nonce, images, len(rows))
        sealed = _NO_RECORDS
        if records is not None:
            sealed = self.seal_records(shared.nonce, self.with_originals(shared.nonce, records, offsets))
        # the clouds must have the same files, which one may be asked for without knowing which
        image_hash = b""
        if records is not None and len(files):
            image_hash = image_files_hash(*frame_hashes([files.data, offsets.data]))
        order, moved = {batch: n for n, batch in enumerate(sorted(replaces))}, np.empty((0, 2), "<i8")
        if moving is not None and self.config.record_bytes:
            numbers = np.array([order[batch] for batch in moving.batches], "<i8")
            moved = np.stack([numbers[moving.which], moving.rows], axis=1).astype("<i8")
        ready = time.perf_counter()
        none = np.zeros(len(rows) + 1, "<i8")
        batch_ids, row_ids = origin if origin is not None else (_NO_IDS, _NO_OFFSETS)
        msgs = {}
        for server in sorted(self.config.servers):
            cloud = server in p.clouds
            msgs[server] = m.UploadOp(
                shared.nonce,
                len(rows),
                self.config.encoding.encoded_dim,
                self.config.encoding.hash,
                sorted(replaces),
                shared.shares[server] if cloud else np.empty((0, 0), p.dtype),
                files if cloud else np.empty(0, np.uint8),
                offsets if cloud else none,
                batch_ids,
                row_ids,
                sealed.hash,
                sealed.album,
                sealed.records if cloud else _NO_RECORDS.records,
                moved,
                image_hash,
            )
        content = Content(
            rows=len(rows), dim=self.config.encoding.encoded_dim, replaces=tuple(sorted(replaces)),
            records=records_facts(sealed.album, sealed.hash, moved.tobytes(), image_hash),
        )  # fmt: skip
        with self.turn:
            if self.tags is not None:  # before the change: what was acknowledged has its tags, whenever a process dies
                self.tags.keep(shared.nonce, tags, origin)
            if self.journal is not None and not replaces:
                self.journal.begin(shared.nonce, labels, len(rows), copied, file)
            if self.journal is not None and moving is not None and origin is not None:
                # before the change: a process that dies leaves both places
                self.journal.merging(shared.nonce, *origin, moving)
            try:
                kind = "merge" if replaces else "upload"
                self._changes.make(kind, shared.nonce, msgs, content, parent, hashes)
            except (ConflictError, OutOfRangeError):  # nobody has it
                if self.tags is not None:
                    self.tags.store.remove(shared.nonce)
                raise
            if self.tags is not None:
                for batch in replaces:
                    self.tags.store.remove(batch)
        self.seconds["encrypt"] += ready - began
        self.seconds["upload"] += time.perf_counter() - ready
        return RowIds([(shared.nonce, 0, len(rows))])

    def _seal_images(
        self, batch: bytes, images: Sequence[Image | None] | None, rows: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encrypted files of a batch, one after the other, and where each row's begins; each under its own key."""
        offsets = np.zeros(rows + 1, "<i8")
        if images is None:
            return np.empty(0, np.uint8), offsets
        key_part, cloud_part = self.image_parts()
        blobs = []
        for row, image in enumerate(images):
            if image is not None:
                image_id = batch + row.to_bytes(8, "big")
                parts = schedule.image_part(key_part, image_id), schedule.image_part(cloud_part, image_id)
                blobs.append(box.seal_image(*parts, self.config.id, self.id, image_id, pack_image(image)))
            offsets[row + 1] = offsets[row] + (len(blobs[-1]) if image is not None else 0)
        return np.frombuffer(b"".join(blobs), np.uint8), offsets

    # --- removing -----------------------------------------------------------------------------------------------

    def delete(self, ids: Sequence[tuple[bytes, int] | str]) -> int:
        """Delete images; no later query covers them. :meth:`compact` frees their storage.

        Parameters
        ----------
        ids : sequence of (bytes, int), str or Hit
            Ids of images as pairs or text (``batchhex:row``), or hits of a search; one or several. Ids from before
            :meth:`compact` merged batches name the same images.

        Returns
        -------
        int
            How many were deleted now; images that were deleted before do not count.

        Raises
        ------
        NotFoundError
            An image never existed, or is not known any more; none is deleted.
        ParameterError
            No ids, or malformed ones.
        """
        pairs = list(dict.fromkeys(image_rows(ids)))
        if not pairs:
            raise ParameterError("no image ids to delete")
        places: list[tuple[bytes, int]] = []

        def attempt() -> None:
            nonlocal places
            places = list(dict.fromkeys(self.places_now(pairs)))  # two ids may name one image
            batches = np.frombuffer(b"".join(b for b, _ in places), np.uint8).reshape(-1, 16)
            rows = np.array([r for _, r in places], "<i8")
            dead = rows_by_batch(places)
            op = schedule.random_bytes(16)
            msgs = dict.fromkeys(self.config.servers, m.DeleteOp(op, batches, rows))
            self._changes.make("delete", op, msgs, Content(dead=pack_dead(dead)))

        with self.turn:  # live rows are counted before and after, without another process's change between
            before = sum(b.live for b in self.batches())
            retry_conflicts(attempt)
            if self.journal is not None:
                self.journal.deleted(places)
            # by one server's word: never more than were named
            return min(max(before - sum(b.live for b in self.batches()), 0), len(places))

    def forget(self) -> None:
        """Delete this owner's keys, shares and image files on all servers; later queries do not cover them.

        The features are gone for good once the owner's root, its keys and their backups are destroyed **and** the share
        files of at most t servers survive anywhere. A forgotten owner cannot be restored; create a new one.

        Raises
        ------
        MippError
            A server cannot be reached or refuses; call it again.
        """
        self.ask_present(m.ForgetOwner(self.id, self.keys.registration))
        if self.tags is not None:
            self.tags.store.clear()
