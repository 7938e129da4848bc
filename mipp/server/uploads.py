"""Data of announced requests on their way: files filled block by block, handed over once.

Nothing is taken before the announcement's signature was checked. What has come is hashed while more comes. Files have
no name (``upload_data.py``), so that nothing is left when the server stops. A connection that breaks loses one block;
the same announcement, sent again, tells where to go on. Disk is taken block by block, before a block is written; what
is announced and does not come takes none from others.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..crypto.schedule import random_bytes
from ..errors import BusyError, LimitError, NotFoundError, ParameterError, StoreError
from ..rpc.bodies import Announcement
from .upload_data import Arrived, UploadData

__all__ = ["UploadLimits", "Uploads"]

#: seconds without a block after which data give way when there are too many
GIVE_WAY = 60.0


@dataclass(frozen=True)
class UploadLimits:
    """Limits of announced requests.

    Parameters
    ----------
    request_bytes, party_bytes, bytes_in_all : of one request; of all requests of one party, which may have a single
        larger one; of the data of all parties that have come
    per_party, in_all : requests under way
    free_bytes : that stay free on the disk
    idle_seconds : without a block after which data are dropped
    """

    request_bytes: int = 8 << 30
    party_bytes: int = 16 << 30
    bytes_in_all: int = 64 << 30
    per_party: int = 8
    in_all: int = 256
    free_bytes: int = 256 << 20
    idle_seconds: float = 900.0

    @property
    def largest(self) -> int:
        """Bytes of the largest request that can ever be taken in."""
        return min(self.request_bytes, self.bytes_in_all)


@dataclass(eq=False, repr=False)
class _Upload:
    token: bytes
    party: bytes
    told: Announcement
    data: UploadData
    used: float
    received: int = 0
    writing: bool = False


class Uploads:
    """The announced requests of one server.

    Parameters
    ----------
    folder : Path
        Where the files lie.
    clock : callable
        Seconds, monotonic.
    limits : UploadLimits
        Of requests and their bytes.
    """

    def __init__(
        self, folder: Path, clock: Callable[[], float] = time.monotonic, limits: UploadLimits | None = None
    ) -> None:
        self._folder, self._clock = folder, clock
        self.limits = UploadLimits() if limits is None else limits
        self._lock = threading.Lock()
        self._open: dict[bytes, _Upload] = {}

    def begin(self, party: bytes, told: Announcement) -> tuple[bytes, int]:
        """Take in an announcement whose signature was checked.

        Parameters
        ----------
        party : bytes
            Id of the signer, 16 bytes.
        told : Announcement
            What it announced.

        Returns
        -------
        token : bytes
            Names the data from now on, 16 bytes. Secret between the signer and this server.
        received : int
            Bytes that are here already.

        Raises
        ------
        LimitError
            More than one request may have.
        BusyError
            Too many requests are under way.
        StoreError
            The disk is full.
        """
        size, limits = told.nbytes, self.limits
        if size > limits.largest:
            raise LimitError(f"a request has at most {limits.largest} bytes, not {size}")
        with self._lock:
            self._sweep()
            mine = [u for u in self._open.values() if u.party == party]
            for upload in mine:
                if upload.told.head == told.head:
                    upload.used = self._clock()
                    return upload.token, upload.received
            announced = sum(u.told.nbytes for u in mine)
            if len(mine) >= limits.per_party or (mine and announced + size > limits.party_bytes):
                raise BusyError("this party has too many requests under way; try again later")
            full = len(self._open) >= limits.in_all and not self._gave_way()
            if full or self._received() + size > limits.bytes_in_all:
                raise BusyError("the server has too many requests under way; try again later")
            if self._free() < sum(u.told.nbytes - u.received for u in mine) + size:
                raise StoreError("the server's disk is full")
            token = random_bytes(16)
            self._open[token] = _Upload(token, party, told, self._data(told), self._clock())
            return token, 0

    def _data(self, told: Announcement) -> UploadData:
        try:
            return UploadData(self._folder, told.sizes)
        except OSError as error:
            raise StoreError(f"the server cannot take in data: {error.strerror}") from None

    def _received(self) -> int:
        """Bytes of all requests that have come."""
        return sum(u.received for u in self._open.values())

    def _free(self) -> int:
        """Bytes of the disk that data may take."""
        return shutil.disk_usage(self._folder).free - self.limits.free_bytes

    def _gave_way(self) -> bool:
        """Drop the data that waited longest, if they waited long."""
        idle = [u for u in self._open.values() if not u.writing and self._clock() - u.used > GIVE_WAY]
        if idle:
            self._forget(min(idle, key=lambda u: u.used))
        return bool(idle)

    def block(self, token: bytes, at: int, size: int) -> memoryview:
        """Memory for the next block; :meth:`written` or :meth:`broken` must follow.

        The block is written to the file when it is whole: filling a map of the file costs a page fault for each page.

        Raises
        ------
        NotFoundError
            No such request: never announced, or given up.
        ParameterError
            Not the next bytes, or beyond the announced length.
        BusyError
            The server has too much under way.
        StoreError
            The disk is full.
        """
        with self._lock:
            upload = self._find(token)
            if upload.writing or at != upload.received or not size or at + size > upload.told.nbytes:
                raise ParameterError(f"the next byte of this request is {upload.received} of {upload.told.nbytes}")
            if self._received() + size > self.limits.bytes_in_all:
                raise BusyError("the server has too many requests under way; try again later")
            upload.writing, upload.used = True, self._clock()
        try:
            if self._free() < size:
                raise OSError
            upload.data.allocate(at, size)
        except OSError:
            self.broken(token)
            raise StoreError("the server's disk is full") from None
        return np.empty(size, np.uint8).data

    def written(self, token: bytes, block: memoryview) -> int:
        """A block is there, in the memory that :meth:`block` gave; bytes that have come so far.

        Raises
        ------
        StoreError
            The disk cannot be written to.
        """
        with self._lock:
            upload = self._find(token)
            at, end = upload.received, upload.received + block.nbytes
        try:
            upload.data.write(at, block)
        except OSError as error:
            self.broken(token)
            raise StoreError(f"the server cannot take in data: {error.strerror}") from None
        with self._lock:
            upload.received, upload.writing, upload.used = end, False, self._clock()
        upload.data.hash(end)
        return end

    def broken(self, token: bytes) -> None:
        """A block did not come whole; it may be sent again."""
        with self._lock:
            if token in self._open:
                self._open[token].writing = False

    def finish(self, token: bytes) -> Arrived:
        """Hand over a request whose data have all come, once. Whoever gets it closes it.

        Raises
        ------
        NotFoundError, ParameterError, MessageError
            No such request; data are missing, or others than were announced.
        """
        with self._lock:
            upload = self._find(token)
            if upload.writing or upload.received != upload.told.nbytes:
                raise ParameterError(
                    f"{upload.received} of {upload.told.nbytes} bytes of this request have come so far"
                )
            del self._open[token]
        try:
            return upload.data.arrived(upload.told.head)
        except BaseException:
            upload.data.close()
            raise

    def _find(self, token: bytes) -> _Upload:
        upload = self._open.get(token)
        if upload is None:
            raise NotFoundError("no such request is on its way here: never announced, finished, or given up")
        return upload

    def _forget(self, upload: _Upload) -> None:
        upload.data.close()
        del self._open[upload.token]

    def _sweep(self) -> None:
        for upload in list(self._open.values()):
            if not upload.writing and self._clock() - upload.used > self.limits.idle_seconds:
                self._forget(upload)
