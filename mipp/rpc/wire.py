"""Encoding of messages: dataclasses of ints, strings, bytes, lists of those, and arrays.

A message is a list of frames. Frame 0 is ``b"MIPP"``, a format version byte, then msgpack of ``[kind, fields]``; each
array is replaced there by its dtype, shape and frame number, and its little-endian C-order bytes are a frame of their
own, so that large arrays travel without a copy. Decoding checks every field's type, length and the arrays' sizes; what
does not fit is a MessageError.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgpack
import numpy as np

from ..errors import MessageError

__all__ = [
    "Frames",
    "HashedFrames",
    "added",
    "array",
    "decode",
    "encode",
    "frame_hashes",
    "frames_hash",
    "frames_size",
    "joined_hash",
    "kind_of",
    "message",
    "pack_frames",
    "sizes_hash",
    "unpack_frames",
]

Frames = list[bytes | memoryview]
_MAGIC = b"MIPP"
_VERSION = 1
_ARRAY = 1  # msgpack extension code
#: most items of a list in a message; servers list operations and owners in them, requests far fewer
_MAX_LIST = 1 << 20
_DTYPES = {np.dtype(c).str: np.dtype(c) for c in ("<u2", "<u4", "<u8", "<i8", "|u1")}

#: bytes of the length after the first byte of msgpack's arrays and byte strings
_ARRAYS: Mapping[int, int] = {0xDC: 2, 0xDD: 4}
_BINARIES: Mapping[int, int] = {0xC4: 1, 0xC5: 2, 0xC6: 4}

_KINDS: dict[str, type] = {}
T = TypeVar("T")


def array(
    *dtypes: str, ndim: int = 1, default_factory: Any = dataclasses.MISSING, added: bool = False
) -> Any:  # fmt: skip
    """Field of an array with one of these dtypes and this rank; ``added``: as of :func:`added`."""
    metadata: dict[str, Any] = {"dtypes": tuple(np.dtype(d).str for d in dtypes), "ndim": ndim}
    if added:
        metadata["added"] = True
    return dataclasses.field(metadata=metadata, default_factory=default_factory)


def added(*, default: Any = dataclasses.MISSING, default_factory: Any = dataclasses.MISSING) -> Any:
    """Last field of a message that earlier versions sent without it: then it has this value. It is always sent."""
    return dataclasses.field(default=default, default_factory=default_factory, metadata={"added": True})


@typing.dataclass_transform(frozen_default=True, field_specifiers=(array, added, dataclasses.field))
def message(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass that travels. Its repr shows the kind only: fields may be secret."""
    made = dataclasses.dataclass(frozen=True, repr=False, eq=False)(cls)
    made.__repr__ = lambda self: f"<message {type(self).__name__}>"  # type: ignore[method-assign]
    _KINDS[made.__name__] = made
    return made


@functools.cache
def _specs(cls: type) -> tuple[tuple[str, Any, Mapping[str, Any]], ...]:
    """Name, type and metadata of a message's fields: kept, since a search sends dozens of messages."""
    hints = typing.get_type_hints(cls)
    return tuple((f.name, hints[f.name], f.metadata) for f in dataclasses.fields(cls))


@functools.cache
def _item(hint: Any) -> Any:
    """Type of a list's items; None if the type is no list."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is list else None


def encode(msg: Any) -> Frames:
    """Frames of a message; arrays are not copied."""
    frames: Frames = [b""]

    def pack_array(value: Any) -> msgpack.ExtType:
        if not isinstance(value, np.ndarray) or value.dtype.str not in _DTYPES:
            raise MessageError(f"{type(msg).__name__}: value of type {type(value).__name__} does not travel")
        value = np.ascontiguousarray(value)
        frames.append(memoryview(value.reshape(-1)).cast("B").toreadonly() if value.size else b"")
        return msgpack.ExtType(_ARRAY, msgpack.packb([value.dtype.str, list(value.shape), len(frames) - 1]))

    fields = [getattr(msg, name) for name, _, _ in _specs(msg.__class__)]
    try:
        head = msgpack.packb([type(msg).__name__, fields], default=pack_array)
    except (OverflowError, ValueError, UnicodeError) as error:
        if isinstance(error, MessageError):
            raise
        raise MessageError(f"{type(msg).__name__}: a number, text or list of a message is too large") from None
    frames[0] = _MAGIC + bytes([_VERSION]) + head
    return frames


def kind_of(frames: Sequence[bytes | memoryview]) -> str:
    """Kind of a message, from its first bytes alone; MessageError if it is none."""
    try:
        head = bytes(memoryview(frames[0])[:96])
        reader = msgpack.Unpacker(max_buffer_size=128)
        reader.feed(head[5:])
        kind = reader.unpack() if head[:5] == _MAGIC + bytes([_VERSION]) and reader.read_array_header() == 2 else None
    except Exception:
        kind = None
    if type(kind) is not str or kind not in _KINDS:  # a list is no key, and an error of another type
        raise MessageError("malformed message, or of an unknown kind")
    return kind


def decode(frames: Sequence[bytes | memoryview], expected: type[T] | None = None) -> T:
    """The message in ``frames``; arrays are read-only views of them. MessageError unless everything fits."""
    try:
        head = bytes(frames[0])
    except (IndexError, TypeError):
        raise MessageError("empty message") from None
    if head[:4] != _MAGIC or head[4:5] != bytes([_VERSION]):
        raise MessageError("not a mipp message of this format version")
    used = []

    def unpack_array(code: int, data: bytes) -> np.ndarray:
        if code != _ARRAY:
            raise MessageError("unknown extension in a message")
        name, shape, index = msgpack.unpackb(data, max_array_len=3, max_map_len=0, max_ext_len=0)
        dtype = _DTYPES.get(name) if isinstance(name, str) else None
        ok = (
            dtype is not None
            and isinstance(shape, list)
            and 1 <= len(shape) <= 3
            and all(type(s) is int and 0 <= s < 1 << 48 for s in shape)
            and type(index) is int
            and 0 < index < len(frames)
        )
        if not ok or dtype is None:
            raise MessageError("malformed array in a message")
        raw = memoryview(frames[index])
        if raw.nbytes != math.prod(shape) * dtype.itemsize:
            raise MessageError("an array's size does not match its shape")
        used.append(index)
        out = np.frombuffer(raw, dtype).reshape(shape)
        out.flags.writeable = False
        return out

    # read one by one, each as its type: msgpack makes 64 bytes of each byte that is an empty list, and lists in lists
    size = max(len(head) - 5, 1)
    reader = msgpack.Unpacker(max_buffer_size=size, max_array_len=0, max_map_len=0, ext_hook=unpack_array)
    try:
        reader.feed(head[5:])
        pair, kind = reader.read_array_header(), reader.unpack()
        cls, count = _KINDS[kind], reader.read_array_header()
    except MessageError:
        raise
    except Exception:
        raise MessageError("malformed message") from None
    if pair != 2:
        raise MessageError("malformed message")
    if expected is not None and cls is not expected:
        raise MessageError(f"expected a message {expected.__name__}, got {kind}")
    specs = _specs(cls)
    least = len(specs) - sum("added" in metadata for _, _, metadata in specs)
    fields, fitting = [], least <= count <= len(specs)
    for name, hint, metadata in specs[: count if fitting else 0]:
        try:
            fields.append(_field(reader, hint, metadata))
        except MessageError:
            raise
        except Exception:
            raise MessageError(f"{kind}.{name}: wrong type or size") from None
    # in order: hashes of a request's frames are those of the arrays in its envelope, one by one
    if not fitting or used != list(range(1, len(frames))):
        raise MessageError(f"{kind}: wrong number of fields or frames")
    if reader.tell() != len(head) - 5:
        raise MessageError("malformed message")
    return typing.cast(T, cls(*fields))


def _field(reader: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    """Read a field of this type; ValueError or an error of msgpack for another one."""
    item = _item(hint)
    if item is None:
        return _fitting(reader.unpack(), hint, metadata)
    count = reader.read_array_header()
    if count > _MAX_LIST:
        raise ValueError
    return [_fitting(reader.unpack(), item, metadata) for _ in range(count)]


def _fitting(value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    if not _fits(value, hint, metadata):
        raise ValueError
    return value


def _fits(value: Any, hint: Any, metadata: Mapping[str, Any]) -> bool:
    if hint is np.ndarray:
        return (
            isinstance(value, np.ndarray) and value.dtype.str in metadata["dtypes"] and value.ndim == metadata["ndim"]
        )
    if hint is int:
        # what SQLite and numpy's int64 hold; True is no number
        return type(value) is int and -(1 << 63) <= value < 1 << 63
    return type(value) is hint


def frames_size(frames: Sequence[bytes | memoryview]) -> int:
    """Bytes that the frames take on a wire, each with an 8-byte length."""
    return sum(memoryview(f).nbytes + 8 for f in frames)


class HashedFrames(list[bytes | memoryview]):
    """Frames of a signed request; ``hashes`` are those of all but the first, which were made to be signed."""

    def __init__(self, frames: Frames, hashes: list[bytes]) -> None:
        super().__init__(frames)
        self.hashes = hashes


def frame_hashes(frames: Sequence[bytes | memoryview], known: Mapping[int, bytes] | None = None) -> list[bytes]:
    """SHA-256 of each frame; ``known``: by number, those that were made before."""
    made = known or {}
    return [made[i] if i in made else hashlib.sha256(frame).digest() for i, frame in enumerate(frames)]


def frames_hash(frames: Sequence[bytes | memoryview]) -> bytes:
    """Hash of a message: SHA-256 over its frames' lengths and hashes; what signatures cover."""
    return joined_hash(frames, frame_hashes(frames))


def joined_hash(frames: Sequence[bytes | memoryview], hashes: Sequence[bytes]) -> bytes:
    """:func:`frames_hash`, from the frames and their hashes."""
    return sizes_hash([memoryview(frame).nbytes for frame in frames], hashes)


def sizes_hash(sizes: Sequence[int], hashes: Sequence[bytes]) -> bytes:
    """:func:`frames_hash`, from the frames' lengths and their hashes."""
    digest = hashlib.sha256()
    for size, part in zip(sizes, hashes, strict=True):
        digest.update(size.to_bytes(8, "big") + part)
    return digest.digest()


def pack_frames(frames: Sequence[bytes | memoryview]) -> bytes:
    """Frames as one byte string, to keep a small signed message in a catalog."""
    return msgpack.packb([bytes(f) for f in frames])


def unpack_frames(data: bytes) -> Frames:
    """Inverse of :func:`pack_frames`."""
    # read by hand: msgpack would make any objects of what a peer sends, far larger than the bytes
    count, at = _header(data, 0, _ARRAYS)
    if count > len(data) or count > _MAX_LIST:
        raise MessageError("malformed frames")
    frames: Frames = []
    for _ in range(count):
        size, at = _header(data, at, _BINARIES)
        if size > len(data) - at:
            raise MessageError("malformed frames")
        frames.append(data[at : at + size])
        at += size
    if at != len(data):
        raise MessageError("malformed frames")
    return frames


def _header(data: bytes, at: int, kinds: Mapping[int, int]) -> tuple[int, int]:
    """Length in a header of msgpack at a place, and where the header ends."""
    first = data[at] if at < len(data) else 0
    if kinds is _ARRAYS and first & 0xF0 == 0x90:
        return first & 0x0F, at + 1
    width = kinds.get(first, 0)
    end = at + 1 + width
    if not width or end > len(data):
        raise MessageError("malformed frames")
    return int.from_bytes(data[at + 1 : end], "big"), end
