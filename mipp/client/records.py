"""Plaintext of a record: path, metadata and thumbnail of an image in one fixed size. Users parse it as hostile input.

The layout is: length of the JSON head (4 bytes, big endian) | head | thumbnail | zeros. All of it is encrypted, so all
records of a deployment look alike.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..crypto.records import RECORD_OVERHEAD
from ..errors import MessageError, ParameterError
from ..io.strict import strict_loads
from ..rpc.names import safe_name
from ..rpc.records import PREFIX_BYTES, check_record_bytes
from .image_metadata import largest_field, metadata_text, too_deep

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ORIGINAL_BYTES",
    "Original",
    "Record",
    "encodable",
    "fits",
    "pack_record",
    "parse_record",
    "record_room",
    "safe_path",
    "thumbnail",
]

_LENGTH_BYTES = 4
#: halves of surrogate pairs
_HALF = re.compile("[\ud800-\udfff]")
#: behind the content of each record: the image's id, the size of its encrypted file, and both parts of its key; zeros
#: for a row without an image
_ORIGINAL = struct.Struct(">24sQ32s32s")
ORIGINAL_BYTES = _ORIGINAL.size
#: most bytes of metadata as JSON, which no record holds: the error then names the room
_MOST_TEXT = 1 << 20
#: components of a path that are kept: with names of at most 200 bytes, every system takes such a path
_PATH_PARTS = 16
#: longest and shortest side of a thumbnail in pixels; a shorter one shows nothing
_MOST_SIDE, _ROOMY_SIDE, _LEAST_SIDE = 1024, 256, 16
#: quality of WebP; the higher one is for small images that leave much of the room empty
_QUALITY, _HIGH_QUALITY = 78, 92
#: bytes a pixel of a photo at that quality: the first guess
_PIXEL_BYTES = 0.13
#: a thumbnail that fills this part of the room is large enough
_FULL = 0.88
#: guesses by size; then the side is halved until the image fits
_GUESSES = 4


@dataclass(frozen=True, repr=False)
class Record:
    """A record's content. Secret.

    Parameters
    ----------
    path : str
        Path of the image below its owner's folder, with ``/`` between components.
    metadata : dict or None
        What the owner wrote about the image. Texts of a parsed record are as the owner wrote them: make them safe
        before you show them.
    thumbnail : bytes
        A small WebP image, or nothing. Of a parsed record it may be anything: open it as a stranger's file
        (:func:`mipp.io.images.load_image`).

    Examples
    --------
    >>> from mipp.client.records import Record
    >>> Record("cats/a.png", {"caption": "a cat"}, b"")
    Record(...)
    """

    path: str
    metadata: dict[str, Any] | None
    thumbnail: bytes

    def __repr__(self) -> str:
        """No content: it is secret."""
        return "Record(...)"


def record_room(record_bytes: int) -> int:
    """Bytes of plaintext that a sealed record holds.

    Parameters
    ----------
    record_bytes : int
        Bytes of a sealed record: 256 to 65,536.

    Returns
    -------
    int

    Raises
    ------
    ParameterError
        Beyond these limits, or not an integer.

    Examples
    --------
    >>> from mipp.client.records import record_room
    >>> record_room(8192)
    8008
    """
    if not (size := check_record_bytes(record_bytes)):
        raise ParameterError("this deployment keeps no records of rows")
    return size - RECORD_OVERHEAD - PREFIX_BYTES - ORIGINAL_BYTES


@dataclass(frozen=True, repr=False)
class Original:
    """What opens the encrypted file of a row's image. Secret, but for id and size.

    Parameters
    ----------
    image : bytes
        Id of the image, 24 bytes.
    size : int
        Bytes of the encrypted file.
    key_centre, cloud : bytes
        Both parts of the image's key, 32 bytes each.

    Examples
    --------
    >>> from mipp.client.records import Original
    >>> found = Original.parse(Original(bytes(24), 1000, bytes(32), bytes(32)).packed())
    >>> found, found.size, Original.parse(bytes(96))
    (Original(...), 1000, None)
    """

    image: bytes
    size: int
    key_centre: bytes
    cloud: bytes

    def __repr__(self) -> str:
        """No content: it is secret."""
        return "Original(...)"

    def packed(self) -> bytes:
        """Pack for the end of a record's plaintext.

        Returns
        -------
        bytes
            96 bytes. Secret.
        """
        return _ORIGINAL.pack(self.image, self.size, self.key_centre, self.cloud)

    @classmethod
    def parse(cls, plain: bytes) -> Original | None:
        """Read from the end of a record's plaintext.

        Parameters
        ----------
        plain : bytes
            The plaintext. Secret.

        Returns
        -------
        Original or None
            None for a row without an image.
        """
        found = cls(*_ORIGINAL.unpack(plain[-ORIGINAL_BYTES:]))
        return found if found.size else None


def safe_path(path: str) -> str:
    """Make a relative path of any text; each component is a :func:`mipp.rpc.names.safe_name`.

    Parameters
    ----------
    path : str
        Any text; ``/`` and backslashes separate components.

    Returns
    -------
    str
        At most the last 16 components, joined by ``/``: no ``..``, no root, no drive. ``safe_path`` of it changes
        nothing.

    Examples
    --------
    >>> from mipp.client.records import safe_path
    >>> safe_path("/home/../../etc/a?.png")
    'home/etc/a_.png'
    """
    parts = [safe_name(part) for part in path.replace("\\", "/").split("/") if part.strip(". ")]
    return "/".join(parts[-_PATH_PARTS:]) or safe_name("")


def _head(path: str, metadata: Any, thumbnail_bytes: int) -> bytes:
    """JSON head of a record; ParameterError for metadata that JSON does not hold."""
    head: dict[str, Any] = {"path": safe_path(path) if path else "", "thumbnail": thumbnail_bytes}
    if metadata is not None:
        head["metadata"] = json.loads(metadata_text(metadata, _MOST_TEXT))
    try:
        return json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # half of a surrogate pair has no UTF-8
        return json.dumps(head, separators=(",", ":")).encode()


def fits(metadata: Mapping[str, Any] | None, path: str, room: int) -> int:
    """Check that path and metadata of an image fit into a record, before anything is sent.

    Parameters
    ----------
    metadata : mapping or None
        Metadata of the image. Secret.
    path : str
        Path of the image. Secret.
    room : int
        Bytes of plaintext (:func:`record_room`).

    Returns
    -------
    int
        Bytes that are left for a thumbnail.

    Raises
    ------
    ParameterError
        They do not fit, and which field is the largest; metadata that JSON cannot hold.

    Examples
    --------
    >>> from mipp.client.records import fits
    >>> fits({"caption": "a cat"}, "a.png", 8160)
    8092
    """
    if not isinstance(path, str):
        raise ParameterError(f"the path of an image is text, not {type(path).__name__}")
    # the length of the thumbnail has at most as many digits as the room
    left = room - _LENGTH_BYTES - len(_head(path, metadata, room))
    if left < 0:
        raise ParameterError(
            f"path and metadata of an image have {room - left} bytes in a record, {room} fit; the largest field is "
            f"{largest_field({**(metadata or {}), 'path': path})!r}"
        )
    return left


def encodable(value: Any) -> Any:
    """Make what an owner wrote fit for UTF-8: halves of surrogate pairs become the replacement character.

    JSON can hold them, as escapes. Text with one can be compared and shown, but neither written nor sent.

    Parameters
    ----------
    value : object
        Values as JSON has them; of the depth that :func:`parse_record` admits.

    Returns
    -------
    object
        The same, with such characters replaced in all texts, names of fields too.

    Examples
    --------
    >>> from mipp.client.records import encodable
    >>> encodable({"caption": "a" + chr(0xD800), "year": 1999})
    {'caption': 'a�', 'year': 1999}
    """
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, dict):
        return {encodable(name): encodable(one) for name, one in value.items()}
    return [encodable(one) for one in value] if isinstance(value, list) else value


def pack_record(record: Record, room: int) -> bytes:
    """The plaintext of a record, of exactly ``room`` bytes.

    Parameters
    ----------
    record : Record
        The content; its path is made safe. Secret.
    room : int
        Bytes of plaintext (:func:`record_room`).

    Returns
    -------
    bytes
        Secret.

    Raises
    ------
    ParameterError
        It does not fit: how many bytes there are, and which field is the largest; metadata that JSON cannot hold.

    Examples
    --------
    >>> from mipp.client.records import Record, pack_record, parse_record
    >>> plain = pack_record(Record("cats/a.png", {"caption": "a cat"}, b""), 200)
    >>> len(plain), parse_record(plain).metadata
    (200, {'caption': 'a cat'})
    """
    left = fits(record.metadata, record.path, room)
    if len(record.thumbnail) > left:
        raise ParameterError(f"the thumbnail of a record has {len(record.thumbnail)} bytes, {left} are left for it")
    head = _head(record.path, record.metadata, len(record.thumbnail))
    return (len(head).to_bytes(_LENGTH_BYTES, "big") + head + record.thumbnail).ljust(room, b"\0")


def parse_record(plain: bytes) -> Record:
    """Parse an opened record; owners may be hostile.

    Parameters
    ----------
    plain : bytes
        The plaintext. Secret.

    Returns
    -------
    Record
        Its path is made safe. Secret.

    Raises
    ------
    MessageError
        Anything but the format of :func:`pack_record`.

    Examples
    --------
    >>> from mipp.client.records import Record, pack_record, parse_record
    >>> parse_record(pack_record(Record("../cats/a.png", None, b""), 200)).path
    'cats/a.png'
    """
    size = int.from_bytes(plain[:_LENGTH_BYTES], "big")
    start = _LENGTH_BYTES + size
    if len(plain) < _LENGTH_BYTES or start > len(plain):
        raise MessageError("the head of the record has a wrong length")
    try:
        head = strict_loads(plain[_LENGTH_BYTES:start])
    except ValueError:
        raise MessageError("the head of the record is not JSON") from None
    if not isinstance(head, dict) or head.keys() - {"metadata"} != {"path", "thumbnail"}:
        raise MessageError("the head of the record has other fields")
    path, length, metadata = head["path"], head["thumbnail"], head.get("metadata")
    if not isinstance(path, str):
        raise MessageError("the path of the record is not text")
    if metadata is not None and (not isinstance(metadata, dict) or too_deep(metadata)):
        raise MessageError("the metadata of the record is not a JSON object")
    if type(length) is not int or not 0 <= length <= len(plain) - start:
        raise MessageError("the thumbnail of the record has a wrong length")
    if plain[start + length :].strip(b"\0"):
        raise MessageError("the padding of the record is not zero")
    return Record(safe_path(path) if path else "", metadata, bytes(plain[start : start + length]))


def thumbnail(content: bytes | npt.NDArray[np.uint8], room: int, *, window: tuple[float, float] | None = None) -> bytes:
    """Make a thumbnail of an image, as large as fits.

    The image is opened as for features (:func:`mipp.io.images.load_image`): upright, 8-bit RGB. The result is a WebP
    of its pixels alone, without any metadata of the source. The side is chosen rather than the quality: below quality
    75 or so, artefacts cost more than pixels gain.

    Parameters
    ----------
    content : bytes or ndarray
        An image file, or its pixels (H, W, 3) from :func:`mipp.io.images.load_image` where they were read already.
        Secret.
    room : int
        Most bytes of the thumbnail (:func:`fits`).
    window : tuple of float, optional
        As for :func:`mipp.io.images.load_image`.

    Returns
    -------
    bytes
        The same for the same content, room and version of Pillow. Nothing if not even 16 pixels at the longest side
        fit, or the whole image if it is smaller. Secret.

    Raises
    ------
    ImageError, MissingExtraError, ParameterError
        As :func:`mipp.io.images.load_image`.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> from mipp.client.records import thumbnail
    >>> content = io.BytesIO()
    >>> Image.new("RGB", (3000, 2000), "red").save(content, "PNG")
    >>> small = thumbnail(content.getvalue(), 8000)
    >>> len(small) <= 8000, Image.open(io.BytesIO(small)).size
    (True, (505, 337))
    """
    # Pillow is slow to load, and users of other indexes do without it
    from PIL import Image

    from ..io.images import load_image

    room = max(room, 0)
    image = Image.fromarray(content if isinstance(content, np.ndarray) else load_image(content, window=window))
    longest = max(image.size)
    most = min(longest, _MOST_SIDE, max(_ROOMY_SIDE, math.isqrt(32 * room)))
    if most < longest:
        # one quick reduction; every try starts from it
        image = image.resize(_sides(image, most), Image.Resampling.HAMMING, reducing_gap=2.0)
    least = min(_LEAST_SIDE, longest)
    side = math.isqrt(int(room / _PIXEL_BYTES * most / min(image.size)))
    best, fitting, failing, tries = b"", least - 1, most + 1, 0
    while failing - fitting > 1 and tries < _GUESSES + (0 if best else most.bit_length()):
        side = max(fitting + 1, min(failing - 1, side))
        made = _webp(image, side, _QUALITY)
        if len(made) <= room:
            best, fitting = made, side
            if len(made) >= _FULL * room:
                break
        else:
            failing = side
        tries += 1
        side = int(side * math.sqrt(0.96 * room / len(made))) if tries < _GUESSES else side // 2
    if fitting == most and len(best) < room // 2:
        made = _webp(image, most, _HIGH_QUALITY)
        best = made if len(made) <= room else best
    return best


def _sides(image: Image.Image, longest: int) -> tuple[int, int]:
    """Width and height of an image scaled to its longest side."""
    width, height = (max(1, round(side * longest / max(image.size))) for side in image.size)
    return width, height


def _webp(image: Image.Image, side: int, quality: int) -> bytes:
    """A WebP of an image scaled to its longest side; method 2 has most of the compression in half of the time."""
    out = io.BytesIO()
    small = image if side == max(image.size) else image.resize(_sides(image, side))
    small.save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()
