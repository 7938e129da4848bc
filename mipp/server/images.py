"""The server's side of a fetch: each image that was asked for gets a file or an error of its own."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..crypto import box, schedule
from ..errors import AccessDeniedError, IntegrityError, MippError, NotFoundError, ShapeError, StoreError
from ..rpc import messages as m
from ..rpc.associated_data import image_seal_info
from ..rpc.failures import error_to_wire
from ..rpc.limits import FETCH_BYTES, FETCH_IMAGES, IMAGE_BYTES, MAX_ROW
from ..store.store import ServerStore
from .base import Handlers, Request, ServerBase

__all__ = ["HANDLERS", "Located", "image_files", "images_reply", "locate_images", "requested_images"]

_NO_FILE = np.empty(0, np.uint8)
#: rows of a batch, deleted ones in order, and the ids that the rows' images were encrypted under
_Held = tuple[int, np.ndarray, np.ndarray, np.ndarray]
T = TypeVar("T")
_log = logging.getLogger("mipp.server")


@dataclass(frozen=True)
class Located:
    """Where an image is: its owner, and the batch and row that it was encrypted under."""

    owner: bytes
    batch: bytes
    row: int

    @property
    def id(self) -> bytes:
        return self.batch + self.row.to_bytes(8, "big")


def requested_images(msg: m.FetchImages) -> list[tuple[bytes, bytes, int]]:
    """Owner, batch and row of each image of a request; ShapeError unless there are 1 to 1024, each once."""
    if not len(msg.rows) or {msg.batches.shape, msg.owners.shape} != {(len(msg.rows), 16)}:
        raise ShapeError("a fetch names one owner and one batch per row, and at least one")
    if len(msg.rows) > FETCH_IMAGES:
        raise ShapeError(f"a fetch names at most {FETCH_IMAGES} images, not {len(msg.rows)}")
    places = [
        (owner.tobytes(), batch.tobytes(), int(row))
        for owner, batch, row in zip(msg.owners, msg.batches, msg.rows, strict=True)
    ]
    if len(set(places)) != len(places):
        raise ShapeError("a fetch names each image once")
    return places


def locate_images(
    store: ServerStore, owners: Collection[bytes], places: Sequence[tuple[bytes, bytes, int]], ended: str
) -> list[Located | MippError]:
    """Where each image is, or why this user does not get it. Opens no file.

    A batch that was merged since is still known by its id: its rows' images are encrypted under it.

    Parameters
    ----------
    store : of this server
    owners : ids of the owners that grant the user something now
    places : owner, batch and row of each image
    ended : appended to a refusal: which grants expired, may be empty
    """
    found: dict[tuple[bytes, bytes], _Held | None] = {}
    merged: dict[tuple[bytes, bytes], set[int]] = {}
    return [_locate(store, owners, *place, found, merged, ended) for place in places]


def _locate(
    store: ServerStore,
    owners: Collection[bytes],
    owner: bytes,
    batch: bytes,
    row: int,
    found: dict[tuple[bytes, bytes], _Held | None],
    merged: dict[tuple[bytes, bytes], set[int]],
    ended: str,
) -> Located | MippError:
    if owner not in owners:
        return AccessDeniedError(
            f"an image that was asked for belongs to no owner that grants this user anything{ended}"
        )
    gone = NotFoundError(f"row {row} of batch {batch.hex()} is not there or was deleted")
    if (owner, batch) not in found:  # read once for all images of a batch
        held = store.batch(owner, batch)
        try:
            found[owner, batch] = None if held is None else (*held, *store.packs.origins(owner, batch))
        except MippError:  # merged or forgotten at this moment
            found[owner, batch] = None
    known = found[owner, batch]
    if known is None:
        if (owner, batch) not in merged:
            merged[owner, batch] = set(store.packs.merged(owner, batch).tolist())
        return Located(owner, batch, row) if row in merged[owner, batch] else gone
    if not 0 <= row < known[0]:
        return gone
    _, dead, batches, rows = known
    at = int(np.searchsorted(dead, row))
    if (at < len(dead) and dead[at] == row) or row >= len(rows):
        return gone
    number = int(rows[row])
    if not 0 <= number < MAX_ROW:
        return NotFoundError(f"row {row} of batch {batch.hex()} names no image")
    return Located(owner, batches[row].tobytes(), number)


def image_files(
    store: ServerStore, images: Sequence[Located | MippError], room: Callable[[int], None]
) -> list[np.ndarray | MippError]:
    """The encrypted file of each image, or why there is none.

    Sizes are added up from the offsets of the packs before any file is read.

    Parameters
    ----------
    store : of this server
    images : of :func:`locate_images`
    room : takes room for so many bytes, or refuses

    Raises
    ------
    ShapeError
        The files of several images are larger than a reply may be; ask for fewer.
    """
    sizes = [_guarded(store.packs.image_size, image) for image in images]
    known = [size for size in sizes if not isinstance(size, MippError)]
    if len(known) > 1 and sum(known) > FETCH_BYTES:
        raise ShapeError(f"these images have {sum(known)} bytes, a reply has at most {FETCH_BYTES}; ask for fewer")
    room(sum(size for size in known if size <= IMAGE_BYTES))
    out: list[np.ndarray | MippError] = []
    for image, size in zip(images, sizes, strict=True):
        if isinstance(size, MippError):
            out.append(size)
        elif size > IMAGE_BYTES:
            out.append(ShapeError(f"the image has {size} bytes; the largest that is delivered has {IMAGE_BYTES}"))
        else:
            out.append(_guarded(store.packs.image, image))
    return out


def _guarded(read: Callable[[bytes, bytes, int], T], image: Located | MippError) -> T | MippError:
    """Result of ``read`` for an image; its typed error, without the paths of this server, if it fails."""
    if isinstance(image, MippError):
        return image
    try:
        return read(image.owner, image.batch, image.row)
    except (IntegrityError, StoreError) as error:
        _log.error("cannot read an image: %s", error)
        kind = "damaged" if isinstance(error, IntegrityError) else "not readable"
        return type(error)(f"the stored images of batch {image.batch.hex()} are {kind}")
    except MippError as error:
        return error


def images_reply(
    images: Sequence[Located | MippError],
    files: Sequence[np.ndarray | MippError],
    owner_part: Callable[[bytes], bytes],
    seal: Callable[[bytes, list[bytes]], bytes],
) -> m.Images:
    """The reply to a fetch.

    Parameters
    ----------
    images : of :func:`locate_images`
    files : of :func:`image_files`; empty at a key centre, which has none
    owner_part : this server's part of an owner's image keys, by owner id
    seal : seals key parts to the user, given the image ids that they are for
    """
    owners, ids, keys, kept = [], [], [], []
    errors: list[tuple[str, str]] = []
    for number, image in enumerate(images):
        found: Located | MippError = image
        file = files[number] if files else _NO_FILE
        if isinstance(file, MippError):
            found = file
        owner, image_id, key = bytes(16), bytes(24), bytes(32)
        if isinstance(found, Located):
            try:
                key = schedule.image_part(owner_part(found.owner), found.id)
                owner, image_id = found.owner, found.id
            except MippError as error:  # forgotten meanwhile
                found = error
        owners.append(owner)
        ids.append(image_id)
        keys.append(key)
        kept.append(file if isinstance(found, Located) and isinstance(file, np.ndarray) else _NO_FILE)
        errors.append(("", "") if isinstance(found, Located) else error_to_wire(found))
    offsets = np.concatenate([[0], np.cumsum([len(f) for f in kept], dtype=np.int64)]).astype("<i8")
    return m.Images(
        seal(b"".join(keys), ids),
        np.frombuffer(b"".join(owners), np.uint8).reshape(-1, 16),
        np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 24),
        np.concatenate(kept),
        offsets,
        [name for name, _ in errors],
        [text for _, text in errors],
    )


def fetch_images(server: ServerBase, request: Request[m.FetchImages]) -> m.Images:
    signer, msg = request.signer, request.content
    places = requested_images(msg)
    granted = {g.owner for g in server.granted(signer).values()}
    images = locate_images(server.store, granted, places, server.ended(signer))
    room = functools.partial(server.room_for, signer)
    files = image_files(server.store, images, room) if server.has_shares else []
    box_key = server.store.user(signer)[2]

    def seal(parts: bytes, ids: list[bytes]) -> bytes:
        return box.seal(box_key, parts, image_seal_info(server.config.id, signer, server.index, ids))

    return images_reply(images, files, server.image_part, seal)


HANDLERS: Handlers = {m.FetchImages: fetch_images}
