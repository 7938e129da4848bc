"""Plaintext of an encrypted image file: the file name, metadata and bytes. Users parse it as hostile input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from ..errors import MessageError, ParameterError
from ..rpc.limits import HEAD_BYTES, IMAGE_BYTES
from ..rpc.names import safe_name
from .image_metadata import metadata_text, too_deep

__all__ = ["IMAGE_FILE_BYTES", "Image", "check_image", "pack_image", "parse_image"]

#: room for the name, the length of the header and the tag of an encrypted image file
_OVERHEAD = 4096
#: most bytes of an image file, its metadata included, and of the metadata
IMAGE_FILE_BYTES = IMAGE_BYTES - _OVERHEAD
METADATA_BYTES = HEAD_BYTES - _OVERHEAD
#: a file's name and bytes, and metadata if there is any
Image: TypeAlias = tuple[str, bytes] | tuple[str, bytes, Mapping[str, Any] | None]


def check_image(image: Any) -> None:
    """Check an image: a file name, bytes and optional metadata that JSON can hold; else ParameterError."""
    if not isinstance(image, (tuple, list)) or len(image) not in (2, 3):
        raise ParameterError("an image is a tuple of its file name, its bytes and, optionally, its metadata")
    name, content, *rest = image
    if not isinstance(name, str) or not isinstance(content, (bytes, bytearray, memoryview)):
        raise ParameterError("an image is a tuple of its file name, its bytes and, optionally, its metadata")
    size = len(content) + sum(len(metadata_text(metadata, METADATA_BYTES)) for metadata in rest)
    if size > IMAGE_BYTES - _OVERHEAD:
        raise ParameterError(f"an image has at most {IMAGE_BYTES - _OVERHEAD} bytes, its metadata included")


def pack_image(image: Image) -> bytes:
    """The plaintext of an encrypted image file: length of the JSON header (4 bytes, big endian), header, content."""
    name, content, *rest = image
    head: dict[str, Any] = {"name": safe_name(name)}
    if rest and rest[0] is not None:
        head["metadata"] = json.loads(metadata_text(rest[0], METADATA_BYTES))
    raw = json.dumps(head).encode()
    return len(raw).to_bytes(4, "big") + raw + bytes(content)


def parse_image(plain: bytes) -> tuple[str, dict[str, Any] | None, bytes]:
    """Parse a decrypted image file; owners may be hostile.

    Returns
    -------
    name : str
        File name, made safe.
    metadata : dict or None
        Its texts are as the owner wrote them: make them safe before you show them.
    content : bytes
        The file's bytes.

    Raises
    ------
    MessageError
        Anything but the format of :func:`pack_image`.
    """
    size = int.from_bytes(plain[:4], "big")
    if len(plain) < 4 or size > HEAD_BYTES or 4 + size > len(plain):
        raise MessageError("the header of the image has a wrong length")
    try:
        head: Any = json.loads(plain[4 : 4 + size].decode("utf-8"))
    except (ValueError, RecursionError):
        raise MessageError("the header of the image is not JSON") from None
    name = head.get("name", "") if isinstance(head, dict) else None
    if not isinstance(name, str):
        raise MessageError("the header of the image has no name")
    metadata = head.get("metadata")
    if metadata is not None and (not isinstance(metadata, dict) or too_deep(metadata)):
        raise MessageError("the metadata of the image is not a JSON object")
    return safe_name(name), metadata, plain[4 + size :]
