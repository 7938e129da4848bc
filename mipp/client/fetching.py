"""The user's side of a fetch: requests of a size that servers take, and one result or error per image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..crypto import box
from ..errors import AuthenticationError, MessageError, MippError, ShapeError, error_from_wire
from ..rpc import messages as m
from ..rpc.associated_data import image_seal_info
from ..rpc.limits import FETCH_IMAGES, HEAD_BYTES
from ..rpc.names import safe_name
from .results import FetchedImage

__all__ = ["failed_image", "fetch_images", "parse_image"]

#: owner, batch and row
Place = tuple[bytes, bytes, int]


def parse_image(plain: bytes) -> tuple[str, bytes]:
    """Name, made safe, and content of a decrypted image file.

    The owner wrote it, and owners may be hostile: a length of 4 bytes, that many bytes of a JSON object with the name,
    then the content. MessageError for anything else.
    """
    size = int.from_bytes(plain[:4], "big")
    if len(plain) < 4 or size > HEAD_BYTES or 4 + size > len(plain):
        raise MessageError("the header of the image has a wrong length")
    try:
        head: Any = json.loads(plain[4 : 4 + size].decode("utf-8"))
    except (ValueError, RecursionError):
        raise MessageError("the header of the image is no JSON") from None
    name = head.get("name", "") if isinstance(head, dict) else None
    if not isinstance(name, str):
        raise MessageError("the header of the image holds no name")
    return safe_name(name), plain[4 + size :]


class _Opener:
    """Decrypts the images of replies for one user."""

    def __init__(self, deployment: bytes, user: bytes, box_key: bytes, cloud: int, key_centre: int) -> None:
        self._deployment, self._user, self._box_key = deployment, user, box_key
        self._cloud, self._key_centre = cloud, key_centre

    def images(self, pairs: Sequence[Place], replies: dict[int, Any]) -> list[FetchedImage]:
        """One result per image; an error for all of them is raised."""
        parts = {s: self._parts(replies[s], s, len(pairs)) for s in (self._cloud, self._key_centre)}
        offsets, files = replies[self._cloud].offsets, replies[self._cloud].files
        if (
            len(offsets) != len(pairs) + 1
            or offsets[0] != 0
            or offsets[-1] != len(files)
            or (offsets[1:] < offsets[:-1]).any()
        ):
            raise MessageError("a server's reply does not hold one file per image")
        out = []
        for i, pair in enumerate(pairs):
            try:
                plain = self._open(i, pair, parts, replies)
                out.append(FetchedImage(*pair[1:], *parse_image(plain)))
            except MippError as error:
                out.append(failed_image(pair, error))
        return out

    def _open(self, i: int, place: Place, parts: dict[int, list[bytes]], replies: dict[int, Any]) -> bytes:
        cloud, key_centre = replies[self._cloud], replies[self._key_centre]
        for reply in (cloud, key_centre):
            if reply.error_names[i]:
                raise error_from_wire(reply.error_names[i], reply.error_texts[i])
        owner, image = cloud.owners[i].tobytes(), cloud.image_ids[i].tobytes()
        if (owner, image) != (key_centre.owners[i].tobytes(), key_centre.image_ids[i].tobytes()):
            raise AuthenticationError("the servers disagree on which image this is")
        if owner != place[0]:
            raise AuthenticationError("a server sent another owner's image")
        blob = cloud.files[int(cloud.offsets[i]) : int(cloud.offsets[i + 1])].tobytes()
        key_parts = parts[self._key_centre][i], parts[self._cloud][i]
        return box.open_image(*key_parts, self._deployment, owner, image, blob)

    def _parts(self, reply: Any, server: int, count: int) -> list[bytes]:
        """A server's parts of the image keys."""
        if (
            not isinstance(reply, m.Images)
            or reply.owners.shape != (count, 16)
            or reply.image_ids.shape != (count, 24)
            or len(reply.error_names) != count
            or len(reply.error_texts) != count
        ):
            raise MessageError("a server's reply does not fit the images that were asked for")
        ids = [i.tobytes() for i in reply.image_ids]
        raw = box.open_sealed(self._box_key, reply.sealed, image_seal_info(self._deployment, self._user, server, ids))
        if len(raw) != 32 * count:
            raise MessageError("a server sent the wrong number of image keys")
        return [raw[i : i + 32] for i in range(0, len(raw), 32)]


def fetch_images(
    pairs: Sequence[Place],
    ask: Callable[[m.FetchImages], dict[int, Any]],
    *,
    deployment: bytes,
    user: bytes,
    box_key: bytes,
    cloud: int,
    key_centre: int,
) -> dict[Place, FetchedImage]:
    """Fetch and decrypt images, each on its own: what fails is that image's ``error``.

    Parameters
    ----------
    pairs : owner, batch and row of each image, distinct, in the order in which they are asked for
    ask : sends one request to cloud and key centre
    deployment, user : ids
    box_key : the user's X25519 key, 32 secret bytes
    cloud, key_centre : numbers of the two servers

    Raises
    ------
    MippError
        Servers refused every image for one reason, such as a user whom nobody grants anything.
    """
    opener = _Opener(deployment, user, box_key, cloud, key_centre)
    out: dict[Place, FetchedImage] = {}
    refusals: list[MippError] = []
    refused = 0

    def fetch(some: Sequence[Place]) -> None:
        nonlocal refused
        owners = np.frombuffer(b"".join(p[0] for p in some), np.uint8).reshape(-1, 16)
        batches = np.frombuffer(b"".join(p[1] for p in some), np.uint8).reshape(-1, 16)
        try:
            replies = ask(m.FetchImages(owners, batches, np.array([p[2] for p in some], "<i8")))
            images = opener.images(some, replies)
        except ShapeError as error:
            if len(some) > 1:  # the reply would be too large
                fetch(some[: len(some) // 2])
                fetch(some[len(some) // 2 :])
                return
            images = [failed_image(some[0], error)]
        except MippError as error:
            refusals.append(error)
            refused += len(some)
            images = [failed_image(pair, error) for pair in some]
        out.update(zip(some, images, strict=True))

    for start in range(0, len(pairs), FETCH_IMAGES):
        fetch(pairs[start : start + FETCH_IMAGES])
    if refusals and refused == len(pairs):
        raise refusals[0]
    return out


def failed_image(pair: Place, error: MippError) -> FetchedImage:
    """The result for an image that could not be fetched; its name is made from its id."""
    return FetchedImage(*pair[1:], f"image-{pair[1].hex()[:8]}-{pair[2]}", b"", error)
