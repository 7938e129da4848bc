"""Data of one announced request, in two files without a name: its largest frame, and all else of the body.

The largest frame of an upload are a cloud's words of the rows. Their file has room for a header before them, so that it
becomes the batch's share file as it is: nothing is written twice.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import MessageError
from ..io.durable import nameless_file
from ..rpc.bodies import BodyHashes, body_head, places
from ..rpc.wire import Frames
from ..store.files import HEADER_BYTES

__all__ = ["Arrived", "UploadData"]


@dataclass(frozen=True, repr=False)
class Arrived:
    """An announced request that is here, to be closed when it was answered.

    Parameters
    ----------
    frames : list of bytes
        The signed request; views of its files.
    hashes : list of bytes
        SHA-256 of each frame of its content, of what has come.
    apart : int
        Number of the largest of those frames.
    file : int
        Descriptor of the file that holds it, after ``HEADER_BYTES`` of room, and nothing else.
    close : callable
        Closes the files; views stay valid.
    """

    frames: Frames
    hashes: list[bytes]
    apart: int
    file: int
    close: Callable[[], None]

    def file_of(self, frame: int) -> int | None:
        """The file of one frame of the content, if it has one of its own."""
        return self.file if frame == self.apart else None


class UploadData:
    """The files of a body that comes block by block.

    Parameters
    ----------
    folder : Path
        Where they lie.
    sizes : sequence of int
        Length of each frame.

    Raises
    ------
    OSError
        They cannot be made.
    """

    def __init__(self, folder: Path, sizes: Sequence[int]) -> None:
        begins, self.nbytes = places(sizes)
        self._head, self._apart = body_head(sizes), max(range(len(sizes)), key=sizes.__getitem__)
        self._begin, self._size = begins[self._apart], sizes[self._apart]
        self._hashes = BodyHashes(sizes)
        self._hashing: threading.Thread | None = None
        self._files: list[IO[bytes]] = []
        try:
            for size in (self.nbytes - self._size, HEADER_BYTES + self._size):
                self._files.append(os.fdopen(nameless_file(folder), "r+b", buffering=0))
                self._files[-1].truncate(size)
            self._maps = [memoryview(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)) for f in self._files]
        except BaseException:
            self.close()
            raise
        self._frames: Frames = []
        for begin, size in zip(begins, sizes, strict=True):
            # one of no bytes may lie where the largest begins or ends
            pieces = [self._maps[file][at : at + n] for file, at, n in self._places(begin, size)]
            self._frames.append(pieces[0] if pieces else b"")

    def close(self) -> None:
        """Close the files; what has no name is gone with its last view."""
        for file in self._files:
            file.close()

    def _places(self, at: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Where bytes of the body lie: which file, the place in it, how many."""
        begin, end, stop = self._begin, self._begin + self._size, at + size
        if at < begin:
            yield 0, at, min(stop, begin) - at
        if max(at, begin) < min(stop, end):
            yield 1, HEADER_BYTES + max(at, begin) - begin, min(stop, end) - max(at, begin)
        if stop > end and size:
            yield 0, max(at, end) - self._size, stop - max(at, end)

    def allocate(self, at: int, size: int) -> None:
        """Take the disk for a block; OSError if it is full."""
        for file, place, count in self._places(at, size):
            os.posix_fallocate(self._files[file].fileno(), place, count)

    def write(self, at: int, block: memoryview) -> None:
        """Write a block; OSError."""
        for file, place, count in self._places(at, block.nbytes):
            done = 0
            while done < count:
                done += os.pwrite(self._files[file].fileno(), block[done:count], place + done)
            block = block[count:]

    def hash(self, end: int) -> None:
        """Begin to hash what has come, the first ``end`` bytes, unless an earlier part is still being hashed."""
        if self._hashing is not None and self._hashing.is_alive():
            return
        thread = threading.Thread(target=self._hashes.take, args=(self._frames, end), name="mipp upload", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread left: it is hashed in the end
            thread.start()
            self._hashing = thread

    def arrived(self, head: bytes) -> Arrived:
        """Hand over all, after the request's first frame; MessageError if it is not what was announced."""
        if bytes(self._maps[0][: len(self._head)]) != self._head:
            raise MessageError("the data are not those that were announced")
        hashes = self._hashes.take(self._frames, self.nbytes)
        return Arrived([head, *self._frames], hashes, self._apart, self._files[1].fileno(), self.close)
