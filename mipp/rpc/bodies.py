"""Messages as bodies of HTTP requests and replies.

A body is the number of frames (u32), the length of each (u64), both little-endian, and the frames, each beginning at a
multiple of 64 bytes, so that words in them are aligned. A request that is too large for one body is announced first:
its first frame, the kind of its content, and length and SHA-256 of each frame of the content. The signature of the
request covers all of these, so it is checked before any of the data is taken. The data are a body, too.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Sequence
from typing import Any

import msgpack

from ..errors import LimitError, MessageError
from .limits import MAX_ENVELOPE_BYTES
from .wire import Frames, HashedFrames, frame_hashes, kind_of

__all__ = [
    "ADDRESSES_HEADER",
    "ADDRESSES_PATH",
    "BLOCK_BYTES",
    "BODY_BYTES",
    "DESCRIPTION_PATH",
    "FINISH_PATH",
    "MAX_FRAMES",
    "REQUEST_PATH",
    "TIME_HEADER",
    "UPLOAD_PATH",
    "Announcement",
    "BodyHashes",
    "announce",
    "announcement",
    "body_head",
    "body_parts",
    "body_size",
    "frames_of",
    "places",
]

#: largest body of a request that was not announced, and of one block of an announced one
BODY_BYTES, BLOCK_BYTES = 1 << 20, 4 << 20
#: frames of a message
MAX_FRAMES = 64

REQUEST_PATH, UPLOAD_PATH, FINISH_PATH = "/v1/request", "/v1/upload", "/v1/finish"
DESCRIPTION_PATH, ADDRESSES_PATH = "/v1/description", "/v1/addresses"
#: header of replies: Unix milliseconds by the server's clock
TIME_HEADER = "mipp-time"
#: header of replies: the version of each server's address that the server knows, as ``1.0.2``
ADDRESSES_HEADER = "mipp-addresses"

_ALIGNED = 64
#: bytes of an announcement: an envelope, the kind, and for each frame its length and hash
_ANNOUNCEMENT = MAX_ENVELOPE_BYTES + 256 + 48 * MAX_FRAMES
_COUNT, _SIZE = struct.Struct("<I"), struct.Struct("<Q")


def places(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where frames of these sizes begin in a body, and where the last one ends."""
    end, begins = _COUNT.size + len(sizes) * _SIZE.size, []
    for size in sizes:
        begins.append(-(-end // _ALIGNED) * _ALIGNED)
        end = begins[-1] + size
    return begins, end


def body_parts(frames: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """The parts of a body, in order; frames are not copied."""
    sizes = [memoryview(f).nbytes for f in frames]
    begins, _ = places(sizes)
    parts: list[bytes | memoryview] = [body_head(sizes)]
    end = len(parts[0])
    for begin, size, frame in zip(begins, sizes, frames, strict=True):
        parts += [bytes(begin - end), frame]
        end = begin + size
    return parts


def body_head(sizes: Sequence[int]) -> bytes:
    """What a body with frames of these sizes begins with."""
    return _COUNT.pack(len(sizes)) + b"".join(_SIZE.pack(s) for s in sizes)


def body_size(sizes: Sequence[int]) -> int:
    """Bytes of a body with frames of these sizes."""
    return places(sizes)[1]


def frames_of(body: memoryview) -> Frames:
    """The frames in a body, as views of it; MessageError unless they fill it exactly."""
    if body.nbytes < _COUNT.size:
        raise MessageError("a body without frames")
    (count,) = _COUNT.unpack_from(body)
    if not 1 <= count <= MAX_FRAMES or body.nbytes < _COUNT.size + count * _SIZE.size:
        raise MessageError(f"a body has 1 to {MAX_FRAMES} frames")
    sizes = [_SIZE.unpack_from(body, _COUNT.size + i * _SIZE.size)[0] for i in range(count)]
    begins, end = places(sizes)
    if end != body.nbytes:
        raise MessageError("the frames of a body do not fill it")
    return [body[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)]


class Announcement:
    """What is known of a request before its data come.

    Parameters
    ----------
    head : bytes
        First frame of the signed envelope.
    kind : str
        Kind of the content.
    sizes, hashes : list
        Length and SHA-256 of each frame of the content.
    """

    def __init__(self, head: bytes, kind: str, sizes: list[int], hashes: list[bytes]) -> None:
        self.head, self.kind, self.sizes, self.hashes = head, kind, sizes, hashes

    @property
    def nbytes(self) -> int:
        """Bytes of the body that will come."""
        return body_size(self.sizes)


class BodyHashes:
    """SHA-256 of each frame of a body whose bytes come one after the other.

    Parameters
    ----------
    sizes : sequence of int
        Length of each frame.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        begins, _ = places(sizes)
        self._frames = [(begin, begin + size, hashlib.sha256()) for begin, size in zip(begins, sizes, strict=True)]
        self._done, self._lock = 0, threading.Lock()

    def take(self, frames: Sequence[bytes | memoryview], end: int) -> list[bytes]:
        """Hash what is not hashed yet of the body's first ``end`` bytes; hashes of the frames, as far as known.

        Parameters
        ----------
        frames : sequence of memoryview
            Where the frames are, or will be.
        end : int
            Bytes of the body that have come.
        """
        with self._lock:
            for frame, (begin, stop, digest) in zip(frames, self._frames, strict=True):
                start = max(begin, self._done)
                if start < min(stop, end):
                    digest.update(frame[start - begin : min(stop, end) - begin])
            self._done = max(self._done, end)
            return [digest.digest() for _, _, digest in self._frames]


def announce(frames: Sequence[bytes | memoryview]) -> bytes:
    """Body that announces the signed request ``frames``."""
    content = frames[1:]
    hashes = frames.hashes if isinstance(frames, HashedFrames) else frame_hashes(content)
    values = [bytes(frames[0]), kind_of(content), [memoryview(f).nbytes for f in content], hashes]
    packed: bytes = msgpack.packb(values)
    return packed


def announcement(body: memoryview, most: int) -> Announcement:
    """Read an announcement; MessageError for anything else, LimitError for more than ``most`` bytes of data."""
    try:
        if body.nbytes > _ANNOUNCEMENT:  # strangers send it, and objects are larger than their bytes
            raise ValueError
        values: Any = msgpack.unpackb(body, max_array_len=MAX_FRAMES, max_map_len=0, max_ext_len=0)
        head, kind, sizes, hashes = values
        ok = (
            type(head) is bytes
            and type(kind) is str
            and type(sizes) is list
            and type(hashes) is list
            and 1 <= len(sizes) == len(hashes) < MAX_FRAMES
            and all(type(s) is int and 0 <= s < 1 << 48 for s in sizes)
            and all(type(h) is bytes and len(h) == 32 for h in hashes)
        )
    except Exception:
        ok = False
    if not ok:
        raise MessageError("malformed announcement of a request")
    if body_size(sizes) > most:
        raise LimitError(f"a request has at most {most} bytes, not {body_size(sizes)}")
    return Announcement(head, kind, sizes, hashes)
